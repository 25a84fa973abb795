"""The shape of one mode, from points of it and their gradients.

A covariance that is fitted to n points in d dimensions errs by about d^2 / 4n nats. Gradients,
which a search has paid for, make a Gaussian mode exact from n > d points on: there the gradients
are `-C^-1 (x - m)`, and C is the geometric mean of `Cov(x)` and `Cov(g)^-1`,
`A # B = A^1/2 (A^-1/2 B A^-1/2)^1/2 A^1/2` (which nutpie adapts its mass matrix by), m is
`E x + C E g`, and the mass around m is what `log p - log N` is at any of the points.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

from allmodes.points.buffer import Buffer

Matrix = Float[np.ndarray, "d d"]

LEAST = 3  # points of a shape
FEW = 1.3  # points for each dimension, below which a shape is drawn towards round
FARTHEST = 3.0  # spreads between the mean of a component's points and its own
TENTH = 0.1  # quantiles between which `log p - log N` is said to vary


class Seen(NamedTuple):
    """Evaluated points, in double precision on the host."""

    z: Float[np.ndarray, "n d"]
    log_prob: Float[np.ndarray, " n"]
    grad: Float[np.ndarray, "n d"]

    @classmethod
    def of(cls, points: Buffer) -> "Seen":
        """Those at which the density and its gradient are finite. Copies, which moves leave where
        they are refused, count once: a cluster of them would be a component of no width.
        """
        seen = cls(*(np.asarray(a, float) for a in (points.z, points.log_prob, points.grad)))
        seen = seen.at(np.isfinite(seen.log_prob) & np.isfinite(seen.grad).all(axis=1))
        return seen.at(np.sort(np.unique(seen.z, axis=0, return_index=True)[1]))

    def at(self, which: Shaped[np.ndarray, " _"]) -> "Seen":
        """Some of them."""
        return Seen(*(a[which] for a in self))


class Shape(NamedTuple):
    """Mean and lower Cholesky factor of the covariance of a Gaussian."""

    mean: Float[np.ndarray, " d"]
    chol: Matrix

    def log_normal(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Its log-density."""
        y = np.linalg.solve(self.chol, (z - self.mean).T)
        constant = np.sum(np.log(np.diag(self.chol))) + 0.5 * len(self.mean) * np.log(2.0 * np.pi)
        return -0.5 * np.sum(y**2, axis=0) - constant

    def spread(self, seen: Seen) -> float:
        """How much `log p - log N` varies over points: from the lowest tenth to the highest."""
        return float(np.subtract(*np.quantile(seen.log_prob - self.log_normal(seen.z), [1.0 - TENTH, TENTH])))


def shapes_of(seen: Seen, label: Int[np.ndarray, " n"], widest: float | None = None) -> list[Shape]:
    """The shape of each cluster; where there are too few points to tell, round, about where the
    gradients lead to, and as wide as clusters usually are.

    Of modes that only few points have met, the `widest` round shape is given: a shape takes more
    points than dimensions, and if no cluster has these, each is as wide as the size of its
    gradients says, which near a peak says too much.
    """
    least = LEAST if widest is None else seen.z.shape[1] + LEAST
    clusters = [seen.at(label == k) for k in np.unique(label)]
    known = [better_shape(own) for own in clusters if len(own.z) >= least]
    few = [own for own in clusters if len(own.z) < least]
    if known:
        width = np.exp(np.median([np.mean(np.log(np.diag(shape.chol))) for shape in known]))
        return known + [_round(own, width) for own in few]
    if widest is None:
        return [better_shape(seen)]
    return [_round(own, min(widest, _width(own))) for own in few]


def better_shape(seen: Seen) -> Shape:
    """The shape by gradients or that of the points alone: whichever explains the points better, in
    that `log p - log N` varies less over them. Gradients make narrow shapes of a cluster of two
    modes, which then seem to have all the mass.
    """
    away = seen.z - seen.z.mean(axis=0)
    plain = Shape(seen.z.mean(axis=0), np.linalg.cholesky(_shrunk(away)))
    sloped = seen.at(np.any(seen.grad, axis=1))  # draws have no gradient where the density has none
    if len(sloped.z) < LEAST:
        return plain
    return min(shape_by_gradients(sloped.z, sloped.grad), plain, key=lambda shape: shape.spread(seen))


def shape_by_gradients(z: Float[np.ndarray, "n d"], grad: Float[np.ndarray, "n d"]) -> Shape:
    """Shape of one component by its points and their gradients: exact of a Gaussian from n > d
    points on, wherever they lie.
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
    return Shape(middle + jump * min(1.0, FARTHEST / max(far, 1e-12)), np.linalg.cholesky(covariance))


def _width(seen: Seen) -> float:
    """Of a round Gaussian with gradients of this size."""
    steep = np.mean(np.sum(seen.grad**2, axis=1))
    return float((seen.z.shape[1] / max(steep, 1e-30)) ** 0.5)


def _round(seen: Seen, width: float) -> Shape:
    middle, slope = seen.z.mean(axis=0), seen.grad.mean(axis=0)
    far = width * np.linalg.norm(slope) / len(middle) ** 0.5
    jump = width**2 * slope * min(1.0, FARTHEST / max(far, 1e-12))
    return Shape(middle + jump, width * np.eye(len(middle)))


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
