"""A mixture fitted to points of a density and their gradients, whatever shares the points have."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.devices.compiled import program
from allmodes.points.buffer import Buffer
from allmodes.points.clusters import kmeans
from allmodes.points.mixture import GaussianMixture
from allmodes.search.moves import lowest_that_counts
from allmodes.search.parts import BELOW, Parts
from allmodes.search.refit import log_noise
from allmodes.search.shapes import LEAST, TENTH, Seen, Shape, better_shape, shapes_of

Labels = Int[np.ndarray, " n"]

ROUNDS, ITERATIONS, LLOYD = 4, 6, 15  # of splitting what is not explained, of each fit, of k-means
TELLS, BETTER = 1.0, 0.7  # nats that a component explains its points worse than, to be cut; what two must bring
WILD = 8.0  # nats between the lowest and the highest tenth of `log p - log N`, beyond which it tells nothing
LEEWAY = 4.0  # nats that a mass may be above what the number of points says, and one that is not told below it
FEW = 0.05  # of the points: components of fewer do not tell how much mass a point may stand for
UNEXPLAINED, BORN = 12.0, 16  # nats that mark a point of a mode that is missing; new components of a round
BADLY = 3.0, 0.25  # nats, and more for each dimension, that the mixture is off at a point that needs a component
NEAR, ALIKE, ALIKE_PER_DIM = 30.0, 0.3, 0.02  # squared spreads for each dimension, Bhattacharyya distances: of twins
CHANGED = 1e-2  # share of the points that change between components, below which a fit has ended


def fit_mixture(points: Buffer, most: int, key: Array, first: GaussianMixture | None = None) -> GaussianMixture:
    """Fit at most so many components to evaluated points: exactly `most` of them, some of no share.

    Points of one cluster make a component; those that no component explains (`log p - log q` is far
    off) begin new ones. Where there are no gradients the points' own covariances have to do.
    `first`: the components to begin with, instead of clusters.
    """
    seen, rng = Seen.of(points), _generator(key)
    if first is None:
        label = kmeans(seen.z, most, LLOYD, rng)[1]
    else:
        label = Parts.of_mixture(first).log_normal(seen.z).argmax(axis=1)
    parts, label = _fit(seen, label, most)
    for _ in range(ROUNDS):
        divided = _with_unexplained(seen, _divided(seen, label, parts, most, rng), parts, most, rng)
        if np.array_equal(divided, label):
            break
        parts, label = _fit(seen, divided, most)
    return parts.mixture(most)


def with_missing(mixture: GaussianMixture, points: Buffer, key: Array, share: float | None = None) -> GaussianMixture:
    """The mixture with new components where it has far too little, in the place of some of no
    share. Together they get that `share`; when not given, that of the points which are there.
    """
    free = np.flatnonzero(~(np.asarray(mixture.log_share) > -BELOW))
    is_missing = unexplained(mixture, points)
    missing = Seen.of(jax.tree.map(lambda a: np.asarray(a)[is_missing], points))  # of any number: on the host
    count = min(len(free), BORN, -(-len(missing.z) // LEAST))
    if not count:
        return mixture
    label = kmeans(missing.z, count, LLOYD, _generator(key))[1]
    parts, _ = _fit(missing, label, count, _usual_width(mixture))
    new = parts.mixture(count)
    # On the host: each number of new components would be compiled anew.
    where, share = free[:count], np.mean(is_missing) if share is None else share
    log_share, *others = (np.array(a) for a in (mixture.log_share, mixture.mean, mixture.axes, mixture.variance))
    log_share[free], log_share[where] = -np.inf, np.asarray(new.log_share) + np.log(share)
    for old, fresh in zip(others, (new.mean, new.axes, new.variance), strict=True):
        old[where] = np.asarray(fresh)
    log_share -= np.logaddexp.reduce(log_share)
    return GaussianMixture(*map(jnp.asarray, (log_share, *others)))


def unexplained(mixture: GaussianMixture, points: Buffer, at: Buffer | None = None) -> Bool[np.ndarray, " n"]:
    """Points, or others that are compared with them, at which the mixture has far too little, of a
    region that could have mass: not where that would be next to none if the region were as wide as
    all points are.
    """
    log_density = np.asarray(program(GaussianMixture.log_density)(mixture, points.z), float)
    excess = _excess(points, log_density)
    log_z = np.median(excess[log_density >= np.quantile(log_density, 1.0 - TENTH)])
    noise = program(log_noise)(points)
    if at is not None:  # on the host: of any number
        points, excess = at, _excess(at, Parts.of_mixture(mixture).log_density(at.z))
    may_matter = np.asarray(points.log_prob, float) > log_z + float(noise)
    return may_matter & (excess > log_z + UNEXPLAINED + BADLY[1] * points.z.shape[1])


def _excess(points: Buffer, log_density: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    log_prob = np.asarray(points.log_prob, float)
    return np.where(np.isfinite(log_prob), log_prob, -1e30) - log_density


def _generator(key: Array) -> np.random.Generator:
    return np.random.default_rng(np.asarray(jax.random.key_data(key)))


def _usual_width(mixture: GaussianMixture) -> float:
    """Of a component of any share."""
    there = np.asarray(mixture.log_share) > -BELOW
    return float(np.exp(0.5 * np.median(np.mean(np.log(np.asarray(mixture.variance, float)[there]), axis=1))))


def _fit(seen: Seen, label: Labels, most: int, widest: float | None = None) -> tuple[Parts, Labels]:
    """Hard EM: shapes from the points of each component (`shapes_of`), then each point to the one
    that explains it best.
    """
    for _ in range(ITERATIONS):
        parts = Parts.of(shapes_of(seen, label, widest))
        log_normal = parts.log_normal(seen.z)
        parts = parts._replace(log_mass=_masses(seen.log_prob[:, None] - log_normal, log_normal.argmax(axis=1), seen))
        kept = np.flatnonzero(np.isfinite(parts.log_mass))
        kept = kept[~_twins(parts.keep(kept))]
        kept = np.sort(kept[np.argsort(-parts.log_mass[kept])[:most]])
        parts, new = parts.keep(kept), log_normal[:, kept].argmax(axis=1)
        settled = len(kept) == label.max() + 1 and np.mean(new != label) < CHANGED
        label = new
        if settled:
            break
    return parts, label


def _masses(excess: Float[np.ndarray, "n k"], own: Labels, seen: Seen) -> Float[np.ndarray, " k"]:
    """Logs of the masses of components, by `log p - log N` at their own points; by how many points
    they have, beside the others, where few points tell or where that varies wildly: it would make
    most of next to nothing.

    None has far more mass for each of its points than all but `FEW` of the points stand for: a wide
    shape over flanks of several modes may explain its points, and would have all the mass.
    """
    count = np.bincount(own, minlength=excess.shape[1])
    low, high = np.full((2, len(count)), -np.inf)
    for k in np.flatnonzero(count):
        low[k], high[k] = np.quantile(excess[own == k, k], [TENTH, 1.0 - TENTH])
    tells = (count >= seen.z.shape[1] + LEAST) & (high < low + WILD)
    by_count = np.log(np.maximum(count, 1))
    log_mass = by_count
    if tells.any():
        each = (low - by_count)[tells]
        usual = by_count + np.median(each)
        log_mass = np.where(tells, low, np.clip(low, usual - LEEWAY, usual + LEEWAY))
        high_of_each = np.quantile(each, 1.0 - FEW, weights=count[tells], method="inverted_cdf")
        log_mass = np.minimum(log_mass, by_count + high_of_each + LEEWAY)
    return np.where(count > 0, log_mass, -np.inf)


def _divided(seen: Seen, label: Labels, parts: Parts, most: int, rng: np.random.Generator) -> Labels:
    """Clusters cut in two whose component explains them badly, where two explain them better."""
    label, least = label.copy(), seen.z.shape[1] + LEAST  # fewer points explain themselves
    owned = [(np.flatnonzero(label == k), Shape(parts.mean[k], parts.chol[k])) for k in np.unique(label)]
    spreads = [(shape.spread(seen.at(own)), own) for own, shape in owned if len(own) >= 2 * least]
    for spread, own in sorted(spreads, key=lambda s: -s[0] * len(s[1])):
        if spread < TELLS or label.max() + 1 >= most:
            continue
        half = kmeans(seen.z[own], 2, LLOYD, rng)[1]
        sides = [own[half == side] for side in (0, 1)]
        if min(map(len, sides)) < least:
            continue
        better = sum(better_shape(seen.at(side)).spread(seen.at(side)) * len(side) for side in sides) / len(own)
        if better < BETTER * spread:
            label[sides[1]] = label.max() + 1
    return label


def _with_unexplained(seen: Seen, label: Labels, parts: Parts, most: int, rng: np.random.Generator) -> Labels:
    """Clusters, and new ones of points that matter and that the mixture has far too much or too
    little of.
    """
    dim = seen.z.shape[1]
    off = np.abs(seen.log_prob - np.logaddexp.reduce(parts.log_normal(seen.z) + parts.log_mass, axis=1))
    bad = (off > BADLY[0] + BADLY[1] * dim) & (seen.log_prob > lowest_that_counts(float(seen.log_prob.max()), dim))
    more = int(min(most - label.max() - 1, bad.sum() // 2))
    if bad.sum() < LEAST or more < 1:
        return label
    label = label.copy()
    label[bad] = label.max() + 1 + kmeans(seen.z[bad], more, LLOYD, rng)[1]
    return label


def _twins(parts: Parts) -> Bool[np.ndarray, " k"]:
    """Which components are nearly the same as another one of more mass (Bhattacharyya distance)."""
    dim = parts.mean.shape[1]
    covariance = parts.chol @ np.swapaxes(parts.chol, 1, 2)
    log_det = 2.0 * np.sum(np.log(np.diagonal(parts.chol, axis1=1, axis2=2)), axis=1)
    dropped = np.zeros(len(parts.mean), bool)
    order = np.argsort(-parts.log_mass)
    for i, a in enumerate(order):
        if dropped[a]:
            continue
        rest = order[i + 1 :][~dropped[order[i + 1 :]]]
        apart = parts.mean[rest] - parts.mean[a]
        near = np.sum(np.linalg.solve(parts.chol[a], apart.T) ** 2, axis=0) < NEAR * dim
        rest, apart = rest[near], apart[near]
        middle = 0.5 * (covariance[a] + covariance[rest])
        squared = np.einsum("bi,bi->b", apart, np.linalg.solve(middle, apart[..., None])[..., 0])
        distance = squared / 8.0 + 0.5 * (np.linalg.slogdet(middle)[1] - 0.5 * (log_det[a] + log_det[rest]))
        dropped[rest[distance < ALIKE + ALIKE_PER_DIM * dim]] = True
    return dropped
