"""Draws of several mixtures, weighted together: they tell the shares of a mixture's components, how
good a mixture is, and which of several is the best.
"""

from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from allmodes.points.buffer import Buffer
from allmodes.search.parts import BELOW, Parts, log_sum

DRAWS = 4096  # of a mixture at a time
FEWEST = 8.0  # draws of a component that may change its share, and that each has, on average, at least
HEAVIEST = 64.0  # of a weight of 4,096 draws over their mean, by Ionides' rule
FARTHEST = 30.0  # nats that a mixture may be below the density at a point, where mixtures are compared

Logs = Float[np.ndarray, " n"]


class Drawn(NamedTuple):
    """Evaluated draws of a known density, on the host."""

    z: Float[np.ndarray, "n d"]
    log_prob: Logs
    log_proposal: Logs  # of the density that they are draws of

    @property
    def log_weight(self) -> Logs:
        """None is more than sqrt(n) times the mean (Ionides 2008)."""
        log_w = self.log_prob - self.log_proposal
        return np.minimum(log_w, np.logaddexp.reduce(log_w) - 0.5 * np.log(len(log_w)))

    @property
    def weight(self) -> Logs:
        """Of sum one; none where no draw has any."""
        total = np.logaddexp.reduce(self.log_weight)
        return np.exp(self.log_weight - total) if total > -np.inf else np.zeros(len(self.z))

    @property
    def log_z(self) -> float:
        """Of the density."""
        return float(np.logaddexp.reduce(self.log_weight) - np.log(len(self.z)))

    def at(self, which: slice) -> "Drawn":
        """Some of them."""
        return Drawn(*(a[which] for a in self))

    def share(self, parts: Parts) -> float:
        """Effective share that draws of a mixture would have, `(sum w)^2 / (n sum w p / q)`: where
        it lacks mass, that counts `HEAVIEST` times.
        """
        if not self.weight.any():
            return 0.0
        excess = np.minimum(self.log_prob - self.log_z - parts.log_density(self.z), np.log(HEAVIEST))
        return 1.0 / max(float(self.weight @ np.exp(excess)), 1.0)  # less by chance: they are draws of others

    def likelihood(self, parts: Parts) -> float:
        """Of exact draws of the density under a mixture: the mean of its log-density. By draws of
        its own alone, a mixture that lacks modes would be the best.
        """
        if not self.weight.any():
            return -np.inf
        weight, log_q = self.weight, np.maximum(parts.log_density(self.z), self.log_prob - self.log_z - FARTHEST)
        return float(weight[weight > 0.0] @ log_q[weight > 0.0])

    def with_shares(self, parts: Parts) -> Parts:
        """The mixture with shares as the draws have them.

        Each component's share is changed by the mass that the density has over the mass that the
        mixture has, where the component is: if the two are alike nothing changes, however few draws
        there are. None is lost, as a component of the wrong shape in many dimensions is where there
        is no mass, though it stands for a mode.
        """
        if not self.weight.any():
            return parts
        joint = parts.log_joint(self.z)
        own, part = joint - self.log_proposal[:, None], joint - log_sum(joint)[:, None]
        mass = np.logaddexp.reduce(part + self.log_weight[:, None], axis=0)
        has, squares = np.logaddexp.reduce(own, axis=0), np.logaddexp.reduce(2.0 * own, axis=0)
        known = 2.0 * has - squares >= np.log(FEWEST)
        log_mass = parts.log_mass.copy()
        if known.any():
            change = (mass - has)[known]
            usual = np.logaddexp.reduce(change + log_mass[known]) - np.logaddexp.reduce(log_mass[known])
            log_mass[known] += change - usual
            log_mass = np.maximum(log_mass, np.max(log_mass) - BELOW + 1.0)
        return parts._replace(log_mass=log_mass - np.logaddexp.reduce(log_mass))


class Pool(NamedTuple):
    """Draws of several proposals. Each counts as one of all of them together (the balance
    heuristic, Veach and Guibas 1995), so that no weight is large where any of them is as high as
    the density.
    """

    proposals: tuple[Parts, ...] = ()
    points: tuple[Buffer, ...] = ()  # of each of them, on the host
    log_sums: tuple[Logs, ...] = ()  # of all proposals' densities at the points of each

    def plus(self, proposal: Parts, points: Buffer) -> "Pool":
        """With draws of one more."""
        proposals, points = (*self.proposals, proposal), jax.tree.map(np.asarray, points)
        old = [np.logaddexp(q, proposal.log_density(of.z)) for q, of in zip(self.log_sums, self.points, strict=True)]
        new = np.logaddexp.reduce([p.log_density(points.z) for p in proposals])
        return Pool(proposals, (*self.points, points), (*old, new))

    @property
    def drawn(self) -> Drawn:
        """All the draws."""
        z, log_prob = (
            np.concatenate([np.asarray(getattr(p, a), float) for p in self.points]) for a in ("z", "log_prob")
        )
        return Drawn(z, log_prob, np.concatenate(self.log_sums) - np.log(len(self.proposals)))


def proposal_of(parts: Parts) -> Parts:
    """The mixture with draws of each component that has any share."""
    log_mass = np.maximum(parts.log_mass, np.log(FEWEST / DRAWS))
    return parts._replace(log_mass=log_mass - np.logaddexp.reduce(log_mass))
