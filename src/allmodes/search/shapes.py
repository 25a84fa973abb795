"""Components fitted to points of a density and their gradients.

A covariance that is fitted to n points in d dimensions errs by about d^2 / 4n nats. Gradients,
which a search has paid for, make a Gaussian mode exact from n > d points on: there the gradients
are `-C^-1 (x - m)`, and C is the geometric mean of `Cov(x)` and `Cov(g)^-1`,
`A # B = A^1/2 (A^-1/2 B A^-1/2)^1/2 A^1/2` (which nutpie adapts its mass matrix by), m is
`E x + C E g`, and the mass around m is what `log p - log N` is at any of the points.
"""

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.points.buffer import Buffer
from allmodes.points.mixture import GaussianMixture

Matrix = Float[np.ndarray, "d d"]

ROUNDS, ITERATIONS = 4, 6  # of splitting what is not explained, and of each fit
LEAST = 3  # points of a component
LOW = 0.1  # quantile of `log p - log N` over a component's points that is taken for its mass
WILD = 8.0  # nats between the lowest and the highest tenth of `log p - log N`, beyond which it tells nothing
LEEWAY = 4.0  # nats that such a mass may differ from what the number of points says
FEW = 1.3  # points for each dimension, below which a shape is drawn towards round
FARTHEST = 3.0  # spreads between the mean of a component's points and its own
TELLS, BETTER = 1.0, 0.7  # nats that a component explains its points worse than, to be cut; what two must bring
CHANGED = 1e-2  # share of the points that change between components, below which a fit has ended
UNEXPLAINED, BORN = 12.0, 16  # nats that mark a point of a mode that is missing; new components of a round
AT_A_TIME = 1024  # points whose densities are computed together
BELOW = 14.0  # nats below the largest: components of less mass are left out


class _Parts(NamedTuple):
    """Components: means, lower Cholesky factors of the covariances, and logs of their masses."""

    mean: Float[np.ndarray, "k d"]
    chol: Float[np.ndarray, "k d d"]
    log_mass: Float[np.ndarray, " k"]

    def log_normal(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Log-density of each component at each point."""
        k, dim = self.mean.shape
        whiten = np.linalg.inv(self.chol)
        shift = np.einsum("kij,kj->ki", whiten, self.mean).ravel()
        log_det = np.sum(np.log(np.diagonal(self.chol, axis1=1, axis2=2)), axis=1)
        rows, out = whiten.reshape(-1, dim).T, np.empty((len(z), k))
        for i in range(0, len(z), AT_A_TIME):
            y = (z[i : i + AT_A_TIME] @ rows - shift).reshape(-1, k, dim)
            out[i : i + AT_A_TIME] = -0.5 * np.einsum("nki,nki->nk", y, y) - log_det
        return out - 0.5 * dim * np.log(2.0 * np.pi)

    def keep(self, which: Bool[np.ndarray, " k"]) -> "_Parts":
        """Some of them."""
        return _Parts(*(a[which] for a in self))


def fit_mixture(points: Buffer, most: int, key: Array, first: GaussianMixture | None = None) -> GaussianMixture:
    """Fit at most so many components to evaluated points: exactly `most` of them, some of no share.

    Points of one cluster make a component; those that no component explains (`log p - log q` is far
    off) begin new ones. Where there are no gradients the points' own covariances have to do.
    `first`: the components to begin with, instead of clusters.
    """
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    z, log_prob, grad = (np.asarray(a, float) for a in (points.z, points.log_prob, points.grad))
    good = np.isfinite(log_prob) & np.isfinite(grad).all(axis=1)
    z, log_prob, grad = z[good], log_prob[good], grad[good]
    label = _clusters(z, most, rng) if first is None else _parts_of(first).log_normal(z).argmax(axis=1)
    parts, label = _fit(z, log_prob, grad, label, most)
    for _ in range(ROUNDS):
        divided = _divided(z, log_prob, grad, label, parts, most, rng)
        divided = _with_unexplained(z, log_prob, divided, parts, most, rng)
        if np.array_equal(divided, label):
            break
        parts, label = _fit(z, log_prob, grad, divided, most)
    return _mixture(parts, most)


def with_unexplained(mixture: GaussianMixture, points: Buffer, key: Array) -> GaussianMixture:
    """The mixture with components where it has far too little, as far as some have no share."""
    free = np.flatnonzero(~(np.asarray(mixture.log_share) > -BELOW))
    z, log_prob, grad = (np.asarray(a, float) for a in (points.z, points.log_prob, points.grad))
    excess = log_prob - np.asarray(mixture.log_density(points.z), float)
    bad = excess > np.median(excess) + UNEXPLAINED + 0.25 * z.shape[1]
    more = min(len(free), BORN, -(-bad.sum() // LEAST))
    if not more:
        return mixture
    label = _clusters(z[bad], more, np.random.default_rng(np.asarray(jax.random.key_data(key))))
    shapes = _shapes(z[bad], log_prob[bad], grad[bad], label)
    where = free[: len(shapes)]
    variance, axes = np.linalg.eigh(np.array([chol @ chol.T for _, chol in shapes]))
    log_share = np.array(mixture.log_share, float)
    log_share[free] = -np.inf
    log_share[where] = np.log(bad.sum() / len(z) / len(shapes))
    log_share -= np.log(np.sum(np.exp(log_share)))
    new = [np.array(a, float) for a in (mixture.mean, mixture.axes, mixture.variance)]
    for old, fresh in zip(new, (np.array([mean for mean, _ in shapes]), axes, variance), strict=True):
        old[where] = fresh
    return GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (log_share, *new)))


def _divided(
    z: np.ndarray, log_prob: np.ndarray, grad: np.ndarray, label: np.ndarray, parts: _Parts, most: int,
    rng: np.random.Generator,
) -> Int[np.ndarray, " n"]:  # fmt: skip
    """Clusters cut in two whose component explains them badly, where two explain them better."""
    label, left, least = label.copy(), most - len(parts.mean), z.shape[1] + LEAST  # fewer explain themselves
    spreads = [(_spread(part, z[own], log_prob[own]), k, own) for k, own, part in _each(label, parts)]
    for spread, _, own in sorted(spreads, key=lambda s: -s[0] * s[2].sum()):
        if left < 1:
            break
        if spread < TELLS or own.sum() < 2 * least:
            continue
        half = _clusters(z[own], 2, rng)
        if min(np.bincount(half, minlength=2)) < least:
            continue
        inside = np.flatnonzero(own)
        better = 0.0
        for side in (0, 1):
            one = inside[half == side]
            shape = _better_of_two(z[one], log_prob[one], grad[one])
            better += _spread(shape, z[one], log_prob[one]) * len(one) / len(inside)
        if better < BETTER * spread:
            label[inside[half == 1]] = label.max() + 1
            left -= 1
    return label


def _each(label: np.ndarray, parts: _Parts) -> list[tuple[int, np.ndarray, tuple[np.ndarray, np.ndarray]]]:
    owned = [(k, label == k, (parts.mean[k], parts.chol[k])) for k in range(len(parts.mean))]
    return [one for one in owned if one[1].any()]


def _spread(part: tuple[np.ndarray, np.ndarray], z: np.ndarray, log_prob: np.ndarray) -> float:
    """How much `log p - log N` varies over points: from the lowest tenth to the highest."""
    mean, chol = part
    excess = log_prob - _Parts(mean[None], chol[None], np.zeros(1)).log_normal(z)[:, 0]
    return float(np.subtract(*np.quantile(excess, [0.9, 0.1])))


def _with_unexplained(
    z: np.ndarray, log_prob: np.ndarray, label: np.ndarray, parts: _Parts, most: int, rng: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Clusters, and new ones of points that matter and that the mixture has far too much or too
    little of.
    """
    from scipy.special import logsumexp

    dim = z.shape[1]
    off = np.abs(log_prob - logsumexp(parts.log_normal(z) + parts.log_mass, axis=1))
    bad = (off > 3.0 + 0.25 * dim) & (log_prob > log_prob.max() - 20.0 - 5.0 * dim)
    more = min(most - label.max() - 1, bad.sum() // 2)
    if bad.sum() < LEAST or more < 1:
        return label
    label = label.copy()
    label[bad] = label.max() + 1 + _clusters(z[bad], more, rng)
    return label


def _fit(
    z: Float[np.ndarray, "n d"], log_prob: Float[np.ndarray, " n"], grad: Float[np.ndarray, "n d"],
    label: Int[np.ndarray, " n"], most: int,
) -> tuple[_Parts, Int[np.ndarray, " n"]]:  # fmt: skip
    """Hard EM: shapes from the points of each component, then each point to the one that explains
    it best.
    """
    for i in range(ITERATIONS):
        parts = _Parts(*map(np.array, zip(*_shapes(z, log_prob, grad, label), strict=True)), np.zeros(0))
        log_normal = parts.log_normal(z)
        own = log_normal.argmax(axis=1)
        excess = log_prob[:, None] - log_normal
        parts = parts._replace(log_mass=_masses(excess, own, z.shape[1]))
        there = parts.log_mass > parts.log_mass.max() - 40.0
        order = np.flatnonzero(there)
        parts, log_normal = parts.keep(there), log_normal[:, order]
        apart = ~_twins(parts)
        parts, log_normal = parts.keep(apart), log_normal[:, apart]
        top = np.sort(np.argsort(-parts.log_mass)[:most])
        parts, log_normal = _Parts(*(a[top] for a in parts)), log_normal[:, top]
        new = log_normal.argmax(axis=1)
        settled = len(parts.mean) == label.max() + 1 and np.mean(new != label) < CHANGED
        label = new
        if settled:
            break
    return parts, label


def _masses(excess: Float[np.ndarray, "n k"], own: Int[np.ndarray, " n"], dim: int) -> Float[np.ndarray, " k"]:
    """Logs of the masses of components, by `log p - log N` at their own points; by how many points
    they have, beside the others, where few points tell or where that varies wildly: it would make
    most of next to nothing.
    """
    count = np.bincount(own, minlength=excess.shape[1])
    low, high = np.full((2, len(count)), -np.inf)
    for k in np.flatnonzero(count):
        low[k], high[k] = np.quantile(excess[own == k, k], [LOW, 1.0 - LOW])
    tells = (count >= dim + LEAST) & (high < low + WILD)
    by_count = np.log(np.maximum(count, 1e-9))
    usual = np.median((low - by_count)[tells]) if tells.any() else 0.0
    doubtful = by_count + usual
    if tells.any():
        doubtful = np.clip(low, doubtful - LEEWAY, doubtful + LEEWAY)
    return np.where(count > 0, np.where(tells, low, doubtful), -np.inf)


def _shapes(
    z: np.ndarray, log_prob: np.ndarray, grad: np.ndarray, label: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Mean and Cholesky factor of each cluster; where there are too few points to tell, round and
    as wide as clusters usually are, about where the gradients lead to.
    """
    clusters = [label == k for k in np.unique(label)]
    many = [own for own in clusters if own.sum() >= LEAST]
    if not many:
        return [_better_of_two(z, log_prob, grad)]
    known = [_better_of_two(z[own], log_prob[own], grad[own]) for own in many]
    width = np.exp(np.median([np.mean(np.log(np.diag(chol))) for _, chol in known]))
    few = [own for own in clusters if own.sum() < LEAST]
    return known + [_round(z[own].mean(axis=0), grad[own].mean(axis=0), width) for own in few]


def _round(middle: np.ndarray, slope: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    dim = len(middle)
    far = width * np.linalg.norm(slope) / dim**0.5
    return middle + width**2 * slope * min(1.0, FARTHEST / max(far, 1e-12)), width * np.eye(dim)


def _better_of_two(z: np.ndarray, log_prob: np.ndarray, grad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The shape by gradients or that of the points alone: whichever explains the points better, in
    that `log p - log N` varies less over them. Gradients make narrow shapes of a cluster of two
    modes, which then seem to have all the mass.
    """
    plain = z.mean(axis=0), np.linalg.cholesky(_shrunk(z - z.mean(axis=0)))
    if not np.any(grad):
        return plain
    return min((shape_of(z, grad), plain), key=lambda part: _spread(part, z, log_prob))


def shape_of(z: Float[np.ndarray, "n d"], grad: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], Matrix]:
    """Mean and lower Cholesky factor of the covariance of one component, by its points and their
    gradients: exact of a Gaussian from n > d points on, wherever they lie.
    """
    n, dim = z.shape
    middle, slope = z.mean(axis=0), grad.mean(axis=0)
    away, turn = z - middle, grad - slope
    # In units in which both have about the same size.
    square, steep = np.mean(away**2, axis=0), np.mean(turn**2, axis=0)
    unit = np.maximum((square / np.maximum(steep, 1e-12)) ** 0.25, 1e-6)
    away, turn = away / unit, turn * unit
    towards = 1e-4 if n > FEW * dim else 0.3 * dim
    of_points, of_slopes = ((a.T @ a + towards * np.eye(dim)) / (n + towards) for a in (away, turn))
    covariance = _geometric_mean(of_points, np.linalg.inv(of_slopes)) * np.outer(unit, unit)
    covariance += 1e-9 * np.trace(covariance) / dim * np.eye(dim)
    jump = covariance @ slope
    far = np.sqrt(max(jump @ slope, 0.0) / dim)  # in spreads: jump' C^-1 jump = jump' slope
    return middle + jump * min(1.0, FARTHEST / max(far, 1e-12)), np.linalg.cholesky(covariance)


def _shrunk(away: Float[np.ndarray, "n d"]) -> Matrix:
    """Covariance of points, drawn towards its diagonal the more the fewer there are."""
    n, dim = away.shape
    plain, prior = away.T @ away / n, 0.5 * dim + 2.0
    diagonal = np.diag(np.maximum(np.diag(plain), 1e-6))
    return (n * plain + prior * diagonal) / (n + prior)


def _geometric_mean(a: Matrix, b: Matrix) -> Matrix:
    values, vectors = np.linalg.eigh(a)
    values = np.maximum(values, 1e-12)
    half, inverse = (vectors * values**0.5) @ vectors.T, (vectors * values**-0.5) @ vectors.T
    values, vectors = np.linalg.eigh(inverse @ b @ inverse)
    middle = half @ (vectors * np.maximum(values, 1e-12) ** 0.25)
    return middle @ middle.T


def _twins(parts: _Parts) -> Bool[np.ndarray, " k"]:
    """Which components are nearly the same as another one of more mass (Bhattacharyya distance)."""
    k, dim = parts.mean.shape
    covariance = parts.chol @ np.swapaxes(parts.chol, 1, 2)
    log_det = 2.0 * np.sum(np.log(np.diagonal(parts.chol, axis1=1, axis2=2)), axis=1)
    dropped = np.zeros(k, bool)
    order = np.argsort(-parts.log_mass)
    for i, a in enumerate(order):
        if dropped[a]:
            continue
        rest = np.array([b for b in order[i + 1 :] if not dropped[b]], int)
        if not len(rest):
            break
        apart = parts.mean[rest] - parts.mean[a]
        near = np.sum(np.linalg.solve(parts.chol[a], apart.T) ** 2, axis=0) < 30.0 * dim
        rest, apart = rest[near], apart[near]
        if not len(rest):
            continue
        middle = 0.5 * (covariance[a] + covariance[rest])
        squared = np.einsum("bi,bi->b", apart, np.linalg.solve(middle, apart[..., None])[..., 0])
        distance = squared / 8.0 + 0.5 * (np.linalg.slogdet(middle)[1] - 0.5 * (log_det[a] + log_det[rest]))
        dropped[rest[distance < 0.3 + 0.02 * dim]] = True
    return dropped


def _clusters(z: Float[np.ndarray, "n d"], most: int, rng: np.random.Generator) -> Int[np.ndarray, " n"]:
    """Clusters by k-means, from seeds far apart."""
    from scipy.cluster.vq import kmeans2

    count = min(most, len(np.unique(z, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")
        return kmeans2(z, count, minit="++", iter=15, rng=rng)[1]


def _parts_of(mixture: GaussianMixture) -> _Parts:
    log_share, mean, axes, variance = (np.asarray(a, float) for a in jax.tree.leaves(mixture))
    there = np.isfinite(log_share)
    covariance = np.einsum("kij,kj,klj->kil", axes[there], variance[there], axes[there])
    return _Parts(mean[there], np.linalg.cholesky(covariance), log_share[there])


def _mixture(parts: _Parts, most: int) -> GaussianMixture:
    """In float32, filled up to `most` components with copies of no share."""
    parts = parts.keep(parts.log_mass > parts.log_mass.max() - BELOW)
    variance, axes = np.linalg.eigh(parts.chol @ np.swapaxes(parts.chol, 1, 2))
    log_share = parts.log_mass - parts.log_mass.max()
    log_share = log_share - np.log(np.sum(np.exp(log_share)))
    which = np.arange(most) % len(log_share)
    log_share = np.where(np.arange(most) < len(log_share), log_share[which], -np.inf)
    as_jax = [jnp.asarray(a, jnp.float32) for a in (log_share, parts.mean[which], axes[which], variance[which])]
    return GaussianMixture(*as_jax)
