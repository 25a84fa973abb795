"""The first mixture: fitted to what the search has seen, then brought to the density by population
Monte Carlo (Cappé et al. 2008).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from allmodes.devices.compiled import program
from allmodes.points import weights
from allmodes.points.buffer import Buffer, choose
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.progress.stages import stage
from allmodes.search.shapes import fit_mixture
from allmodes.target import Target

ROUNDS = 10  # of draws from the mixture, at most
ENOUGH = 0.95  # effective share of its draws, beyond which it is left as it is
GAIN = 0.02  # of the share, that one of the last two rounds must have brought
WORTHLESS = 5.0  # nats below the mean weight: draws of less are not fitted to
POOR = 0.1  # effective share, below which draws are too few to tell which mixture is better
FEWEST = 5.0  # draws of a component that may change its share


class Base(NamedTuple):
    """A mixture, and the effective share of its own draws."""

    mixture: GaussianMixture
    share: float


class _Draws(NamedTuple):
    """Draws of a mixture, and what it says of them itself."""

    points: Buffer
    log_proposal: Float[Array, " n"]

    @property
    def log_weight(self) -> Float[Array, " n"]:
        """Of the density over the mixture."""
        return self.points.log_prob - self.log_proposal


def fit_base(target: Target, found: SearchResult, most: int, key: Array) -> tuple[Base, SearchResult]:
    """Fit a mixture of at most so many components; what was found, with its points made right as
    far as the mixture can.

    Each round draws as many points as were found. They are proposed to the points (independence
    Metropolis, which loses no mode), tell shapes by their gradients, and shares by their weights.
    """
    stage("fitting a mixture")
    points, evaluations = found.points, found.evaluations
    mixture = fit_mixture(points, most, key)
    seen, best, waited = jax.tree.map(np.asarray, points), Base(mixture, 0.0), 0
    for i in range(ROUNDS):
        draws, points, nan, zero = program(_propose, target)(found.frame, mixture, points, jax.random.fold_in(key, i))
        evaluations = evaluations.add_points(points.size, nan, zero)
        share = float(weights.ess_fraction(draws.log_weight))
        mixture, expected = program(_with_shares)(mixture, draws)
        waited = 0 if share > best.share + GAIN else waited + 1
        best = Base(mixture, share) if share > best.share else best
        if share > ENOUGH or waited == 2:
            break
        seen = _with_known(seen, draws)
        again, better = program(_with_shares)(fit_mixture(seen, most, key, mixture), draws)
        mixture = again if better > expected or share < POOR else mixture
    return best, found._replace(points=points, evaluations=evaluations)


def _propose(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, key: Array
) -> tuple[_Draws, Buffer, Int[Array, ""], Int[Array, ""]]:
    """Draws of the mixture, and the points after these were proposed to them."""
    k_draw, k_accept = jax.random.split(key)
    z = mixture.sample(k_draw, points.size)
    e = frame.evaluate(target, z)
    draws = _Draws(Buffer.of(z, e), mixture.log_density(z))
    own = points.log_prob - mixture.log_density(points.z)
    accept = jnp.log(jax.random.uniform(k_accept, (points.size,))) < draws.log_weight - own
    return draws, choose(accept, draws.points, points), e.nan, e.zero


def _with_known(seen: Buffer, draws: _Draws) -> Buffer:
    """What was seen, and the draws that the density has: others would give components to empty
    space.
    """
    log_weight = np.asarray(draws.log_weight)
    known = np.flatnonzero(log_weight > float(logsumexp(draws.log_weight)) - np.log(len(log_weight)) - WORTHLESS)
    return jax.tree.map(lambda a, b: np.concatenate([a, np.asarray(b)[known]]), seen, draws.points)


def _with_shares(mixture: GaussianMixture, draws: _Draws) -> tuple[GaussianMixture, Float[Array, ""]]:
    """The mixture with shares as the draws have them, and the effective share that its own draws
    would have; the draws may be those of another one.

    Each component's share is changed by the mass that the density has over the mass that the
    mixture has, where the component is: if the two are alike nothing changes, however few draws
    there are.
    """
    z, log_proposal = draws.points.z, draws.log_proposal
    parts = jax.vmap(lambda one: jax.nn.log_softmax(mixture.log_parts(mixture.along(one))))(z)
    own = parts + (mixture.log_density(z) - log_proposal)[:, None]
    known = jnp.exp(2.0 * logsumexp(own, axis=0) - logsumexp(2.0 * own, axis=0)) >= FEWEST
    change = logsumexp(parts + weights.truncate(draws.log_weight)[:, None], axis=0) - logsumexp(own, axis=0)
    usual = logsumexp(jnp.where(known, change + mixture.log_share, -jnp.inf)) - logsumexp(
        jnp.where(known, mixture.log_share, -jnp.inf)
    )
    log_share = mixture.log_share + jnp.where(known, change - jnp.where(jnp.any(known), usual, 0.0), 0.0)
    mixture = dataclasses.replace(mixture, log_share=log_share - logsumexp(log_share))
    log_weight = draws.log_weight
    squares = logsumexp(log_weight + draws.points.log_prob - mixture.log_density(z))
    return mixture, jnp.exp(2.0 * logsumexp(log_weight) - squares - jnp.log(len(z)))
