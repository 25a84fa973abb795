"""A mixture made better by weighted draws of the density: least squares of `log p - log q`, with
components cut in two where two explain their draws better.

The shapes that points of a search have are blind to two modes that overlap: one component as wide
as both is off by less than a nat. Maximum likelihood by n draws of a component errs by 1 / 2n nats
for each of its numbers; log-densities make a Gaussian mode exact from as many draws on as it has
numbers.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from allmodes.search.parts import Parts, log_sum
from allmodes.search.pool import Drawn, Logs

MOST_DRAWS = 12_288  # that a mixture is made better by: the last ones
SWEEPS = 5  # over all components
STEADY = 0.95  # of the mean square of `log p - log q`, above which a sweep has brought too little for another
RIGHT = 0.01  # nats that `log p - log q` of a component's draws is off by, below which it is left as it is
CLIPPED = 3.0  # nats that `log p - log q` counts as, at most
USUAL = 0.3  # change of each number of a shape, in its own spreads, that is expected before the draws are seen
WIDER, FARTHER, HEAVIER = 2.0, 1.0, 0.7  # changes at once: of a variance, of a mean in spreads, of a log-mass
OFF = 0.1  # standard deviation of `log p - log q` over a component's draws, from which on it may be two
APART = 0.8  # spreads that two begin from the middle of one
HALVES = 30  # steps of expectation maximisation of the two
AXES = 4  # along which a component is tried to be cut, at most
PER_NUMBER = 2.5  # nats that each number of a new component must bring, about those of Schwarz' criterion
NOTHING = -1e300  # log of no mass
NEGLIGIBLE = 1e-4  # of the draw that a component has most of: others that have so little are not its own


class _Own(NamedTuple):
    """Draws of a component, and which part of each is its own, by weight."""

    z: Float[np.ndarray, "n d"]
    part: Logs

    @property
    def count(self) -> float:
        """How many draws of one weight tell as much."""
        part = self._beside_the_most
        return float(part.sum() ** 2 / np.sum(part**2))

    @property
    def weight(self) -> Logs:
        """Of a sum that says how many there are."""
        part = self._beside_the_most
        return part * (self.count / part.sum())

    @property
    def _beside_the_most(self) -> Logs:
        """Weights over the largest: of those that are tiny the squares are nothing, and over their
        sum a number is too large for one.
        """
        return self.part / self.part.max()


def polished(parts: Parts, drawn: Drawn, most: int) -> Parts:
    """The mixture, or what the draws make of it, with at most so many components: whichever has the
    largest effective share on half of the draws when it is fitted to the other half.
    """
    drawn = drawn.at(slice(-MOST_DRAWS, None))
    half, other = drawn.at(slice(0, None, 2)), drawn.at(slice(1, None, 2))
    if not (half.weight.any() and other.weight.any()):
        return parts
    whole = _matched(parts, half)
    ways = parts, whole, _matched(_divided(whole, half, most), half)
    shares = [other.share(way) for way in ways]
    if max(shares) == shares[0]:
        return parts
    whole = _matched(parts, drawn)
    return _matched(_divided(whole, drawn, most), drawn) if shares[2] >= shares[1] else whole


def _matched(parts: Parts, drawn: Drawn) -> Parts:
    """Least squares of `log p - log q` over weighted draws, a component at a time: each as the
    others are by then, as two that overlap would mend the same twice.
    """
    weight, log_p = drawn.weight, drawn.log_prob - drawn.log_z
    joint, old = parts.log_joint(drawn.z), [parts.keep(np.array([k])) for k in range(len(parts.log_mass))]
    log_q, was = log_sum(joint), np.inf
    for _ in range(SWEEPS):
        for k, one in enumerate(old):
            part = np.exp(joint[:, k] - log_q)
            there = np.flatnonzero(part * weight > NEGLIGIBLE * np.max(part * weight))
            if not len(there):
                continue
            own, excess = _Own(drawn.z[there], (part * weight)[there]), log_p[there] - log_q[there]
            if own.weight @ excess**2 < RIGHT**2 * own.count:
                continue
            old[k] = _regressed(one, own, part[there], np.clip(excess, -CLIPPED, CLIPPED))
            joint[there, k] = old[k].log_joint(own.z)[:, 0]
            log_q[there] = log_sum(joint[there])
        parts = Parts.joined(old)
        joint = parts.log_joint(drawn.z)
        log_q = log_sum(joint)
        off = weight @ np.clip(log_p - log_q, -CLIPPED, CLIPPED) ** 2
        if off > STEADY * was:
            break
        was = off
    return parts._replace(log_mass=parts.log_mass - np.logaddexp.reduce(parts.log_mass))


def _regressed(one: Parts, own: _Own, part: Logs, excess: Logs) -> Parts:
    """A component whose log-density is changed by the quadratic function that explains the excess
    best: ridge regression, in coordinates in which the component is round.
    """
    dim = own.z.shape[1]
    y = np.linalg.solve(one.chol[0], (own.z - one.mean[0]).T).T
    noise = own.weight @ excess**2 / own.count / USUAL**2 + 1e-8
    height, slope, square = _quadratic(y, part * np.sqrt(own.weight), excess * np.sqrt(own.weight), noise)
    # log N + height + slope y + y' square y has the precision 1 - 2 square.
    precision, axes = np.linalg.eigh(np.eye(dim) - 2.0 * square)
    precision = np.clip(precision, 1.0 / WIDER, WIDER)
    shift = axes @ (axes.T @ slope / precision)
    shift *= min(1.0, FARTHER / max(float(np.linalg.norm(shift)), 1e-9))
    mass = height + 0.5 * slope @ shift - 0.5 * np.log(precision).sum()
    root = one.chol[0] @ axes / np.sqrt(precision)
    return Parts(
        one.mean + one.chol[0] @ shift,
        np.linalg.cholesky(root @ root.T)[None],
        one.log_mass + np.clip(mass, -HEAVIER, HEAVIER),
    )


def _quadratic(
    y: Float[np.ndarray, "n d"], scale: Logs, excess: Logs, ridge: float
) -> tuple[float, Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Height, slope and bend of the quadratic function that is `excess` when multiplied by `scale`,
    by ridge regression. Where there are fewer draws than numbers the equations are those of the
    draws, for the same function: in 64 dimensions of 300 in the place of 2,145.
    """
    dim = y.shape[1]
    i, j = np.triu_indices(dim)
    if len(y) < 1 + dim + len(i):
        inner, squares = y @ y.T, y**2
        kernel = np.outer(scale, scale) * (1.0 + inner + 0.5 * (inner**2 + squares @ squares.T))
        by_draw = scale * np.linalg.solve(kernel + ridge * np.eye(len(y)), excess)
        square = (y.T * by_draw) @ y
        return float(by_draw.sum()), by_draw @ y, 0.5 * (square + np.diag(np.diagonal(square)))
    numbers = scale[:, None] * np.concatenate([np.ones((len(y), 1)), y, y[:, i] * y[:, j]], axis=1)
    normal = numbers.T @ numbers + ridge * np.eye(numbers.shape[1])
    height, slope, bend = np.split(np.linalg.solve(normal, numbers.T @ excess), [1, 1 + dim])
    square = np.zeros((dim, dim))
    square[i, j] += 0.5 * bend
    square[j, i] += 0.5 * bend
    return float(height[0]), slope, square


def _divided(parts: Parts, drawn: Drawn, most: int) -> Parts:
    """The mixture with components cut in two that explain their draws badly, where two explain them
    better by more than chance.
    """
    dim, weight, cut = drawn.z.shape[1], drawn.weight, {}
    numbers = 1 + dim + dim * (dim + 1) / 2
    joint = parts.log_joint(drawn.z)
    log_q = log_sum(joint)
    for k in np.argsort(-parts.log_mass):
        if len(parts.log_mass) + len(cut) == most:
            break
        part = np.exp(joint[:, k] - log_q) * weight
        there = np.flatnonzero(part > NEGLIGIBLE * part.max())
        if len(there) < 2 * (dim + 2):
            continue
        own, off = _Own(drawn.z[there], part[there]), (drawn.log_prob - log_q)[there]
        if np.sqrt(np.cov(off, aweights=own.part)) < OFF:
            continue
        rest = log_sum(np.where(np.arange(joint.shape[1]) == k, NOTHING, joint[there]))
        tried = [_two(parts.keep(np.array([k])), own, axis) for axis in range(min(dim, AXES))]
        gains = [own.weight @ (np.logaddexp(rest, two.log_density(own.z)) - log_q[there]) for two in tried]
        if max(gains) > PER_NUMBER * numbers:
            cut[k] = tried[int(np.argmax(gains))]
    rest = parts.keep(np.array([k not in cut for k in range(len(parts.log_mass))]))
    return Parts.joined([rest, *cut.values()])


def _two(one: Parts, own: _Own, axis: int) -> Parts:
    """Two components in the place of one, cut across its widest axis, the next, ..., by expectation
    maximisation.
    """
    variance, axes = np.linalg.eigh(one.chol[0] @ one.chol[0].T)
    step = APART * np.sqrt(variance[-1 - axis]) * axes[:, -1 - axis]
    narrow = np.linalg.cholesky(one.chol[0] @ one.chol[0].T - np.outer(step, step))
    two = Parts(
        one.mean + np.array([step, -step]), np.array([narrow, narrow]), np.repeat(one.log_mass, 2) - np.log(2.0)
    )
    for _ in range(HALVES):
        joint = two.log_joint(own.z)
        part = np.exp(joint - log_sum(joint)[:, None]) * own.part[:, None]
        two = Parts.joined([_fitted(_Own(own.z, part[:, k]), two.keep(np.array([k]))) for k in (0, 1)])
        two = two._replace(log_mass=two.log_mass - np.logaddexp.reduce(two.log_mass) + one.log_mass)
    return two


def _fitted(own: _Own, old: Parts) -> Parts:
    """The component that draws have the moments of; `dim + 2` draws more have those it had."""
    total, dim = own.part.sum(), own.z.shape[1]
    if not total > 0.0:
        return old
    known = own.count / (own.count + dim + 2)
    mean = old.mean[0] + known * (own.part @ own.z / total - old.mean[0])
    away, was = own.z - mean, old.chol[0] @ old.chol[0].T
    covariance = known * (away.T * own.part) @ away / total + (1.0 - known) * was
    return Parts(mean[None], np.linalg.cholesky(covariance)[None], np.log([total]))
