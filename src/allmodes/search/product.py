"""A product of densities of single coordinates, fitted along lines parallel to the axes.

Wells in every coordinate make more modes than a mixture has components: 2^32 of 32 wells. Where no
coordinate minds the others a line along each shows its density, barriers and all, up to a constant,
whatever the shares of the search's points are.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.points.product import Product
from allmodes.target import Target

PARTS = 12  # normals of each coordinate that are fitted, and as many that are not
LINES, STOPS = 2, 64  # along each coordinate, through points of the search; where each is evaluated, twice
STRAIGHT = 0.98  # of that variance, that a line explains, where all are normal
CORRELATED = 0.5  # coordinates that mind each other, by points whose shares are not those of the density
KNOTS = 17  # quantiles that say where points are
BEYOND = 0.25  # of the width of all points, that a line goes on on both sides
MASS, FLAT = 0.5, 0.2  # what of the later stops stand in proportion to the density to this power
FLATTER = 0.1  # power of the density, in proportion to which parts stand at first
TAILS, HEAVIER = 0.02, 0.3  # share of draws with a coordinate of those that are not; power of the density
ITERATIONS = 100  # of expectation maximisation
ALONE = 0.9  # of the variance of the slopes along a coordinate, that it explains by itself; on average, at least
NARROWEST = 0.5  # of the distance of stops that a normal is as wide as
GRAIN = 1e-6  # of the width of all points, by which stops differ
LEAST = 1e-12  # share of a normal that is none


class _Parts(NamedTuple):
    """Normals of each coordinate."""

    share: Float[np.ndarray, "dim k"]
    mean: Float[np.ndarray, "dim k"]
    variance: Float[np.ndarray, "dim k"]


def seems_independent(points: Buffer) -> bool:
    """Whether the slope along each coordinate is a function of that coordinate alone, by points
    that are neighbours along it, and no two coordinates are correlated: slopes do not tell that of
    two modes on a diagonal. Not where all slopes are straight lines: one normal is the density.
    """
    z, slopes = np.asarray(points.z, float), np.asarray(points.grad, float)
    away = (z - z.mean(axis=0)) / np.maximum(z.std(axis=0), GRAIN)
    together = np.abs(away.T @ away / len(z) - np.eye(z.shape[1]))
    explained, straight = [], []
    for x, slope in zip(away.T, slopes.T, strict=True):
        _, first = np.unique(x, return_index=True)  # in their order; a copy is not its own neighbour
        total = np.var(slope[first])
        noise = 0.5 * np.mean(np.diff(slope[first]) ** 2) if len(first) > 1 else total
        explained.append(1.0 - noise / total if total > 0.0 else 0.0)
        straight.append(np.mean(x * slope) ** 2 / max(np.var(slope), GRAIN**2))
    return bool(np.mean(explained) > ALONE and min(straight) < STRAIGHT and together.max() < CORRELATED)


def fit_product(target: Target, frame: Frame, points: Buffer, key: Array) -> tuple[Product, Evaluations]:
    """The product of what lines through some of the points show, and what they cost: `2 x 2 x 64`
    evaluations for each coordinate, without gradients. The first ones tell where the mass is, which
    points that have not moved yet may be far from, and the others what there is of it.
    """
    through = jax.random.choice(key, points.z, (LINES,), replace=False)

    def seen_at(stops: Float[np.ndarray, "dim stops"]) -> Float[np.ndarray, "dim stops"]:
        along = program(_along, target)(frame, through, jnp.asarray(stops, jnp.float32))
        return _averaged(stops, np.asarray(along, float))

    first = _stops(np.asarray(points.z, float))
    stops = _closer(first, seen_at(first))
    spent = Evaluations.none(target.differentiable).add_points(2 * LINES * stops.size, 0, 0, gradient=False)
    return _fitted(stops, seen_at(stops)), spent


def _stops(z: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, "dim stops"]:
    """Half of them where points are, as there may be narrow wells, half all over and beyond: at
    equal steps of the mean of both distributions, so that gaps change slowly, and sums are
    integrals.
    """
    quantiles, out = np.quantile(z, np.linspace(0.0, 1.0, KNOTS), axis=0).T, []
    for knots in quantiles:
        wide = max(knots[-1] - knots[0], GRAIN)
        knots = knots + GRAIN * wide * np.arange(KNOTS)
        low, high = knots[0] - BEYOND * wide, knots[-1] + BEYOND * wide
        x = np.concatenate([[low], knots, [high]])
        points = np.concatenate([[0.0], np.linspace(0.0, 1.0, KNOTS), [1.0]])
        below = 0.5 * (points + (x - low) / (high - low))
        out.append(np.interp(np.linspace(0.0, 1.0, STOPS), below, x))
    return np.array(out)


def _closer(x: Float[np.ndarray, "dim stops"], mass: Float[np.ndarray, "dim stops"]) -> Float[np.ndarray, "dim stops"]:
    """Stops of which half stand where mass was seen, and the others where they stood, or evenly."""
    edges = np.concatenate([x[:, :1], 0.5 * (x[:, 1:] + x[:, :-1]), x[:, -1:]], axis=1)
    below = np.pad(np.cumsum(_to_power(x, mass, FLAT), axis=1), ((0, 0), (1, 0)))
    evenly = (edges - edges[:, :1]) / (edges[:, -1:] - edges[:, :1])
    below = MASS * below + 0.5 * (1.0 - MASS) * (np.linspace(0.0, 1.0, edges.shape[1]) + evenly)
    return np.stack([np.interp(np.linspace(0.0, 1.0, STOPS), *one) for one in zip(below, edges, strict=True)])


def _along(
    target: Target, frame: Frame, through: Float[Array, "lines dim"], stops: Float[Array, "dim stops"]
) -> Float[Array, "lines dim stops"]:
    """Log-densities at the stops of lines through each of the points along each coordinate."""
    dim = through.shape[1]
    is_own = jnp.eye(dim, dtype=bool)[:, None, :]
    z = jnp.where(is_own, stops[:, :, None], through[:, None, None, :])
    return frame.values(target, z.reshape(-1, dim)).reshape(z.shape[:-1])


def _averaged(
    stops: Float[np.ndarray, "dim stops"], log_prob: Float[np.ndarray, "lines dim stops"]
) -> Float[np.ndarray, "dim stops"]:
    """Mass at each stop: the mean of what the lines show of it, each of them of mass one, which is
    the density of that coordinate if they go through draws.
    """
    highest = np.max(log_prob, axis=2, keepdims=True, initial=-1e30)  # of a line that meets no mass as well
    mass = np.exp(log_prob - highest) * np.gradient(stops, axis=1)
    total = mass.sum(axis=2, keepdims=True)
    return np.mean(np.divide(mass, total, out=np.full_like(mass, 1.0 / STOPS), where=total > 0.0), axis=0)


def _fitted(x: Float[np.ndarray, "dim stops"], mass: Float[np.ndarray, "dim stops"]) -> Product:
    """Expectation maximisation of a mixture for each coordinate, from parts some of which stand in
    barriers and in tails; and these parts as they were, with a little of the mass of the density to
    a power: what is fitted where the mass is may be far too low elsewhere, where weights would be
    large.
    """
    first = _spread(x, mass)
    share, mean, variance = _maximised(x, mass, first)
    little = TAILS / len(x)
    own = np.argmin(np.abs(x[:, :, None] - first.mean[:, None]), axis=2)
    of_first = np.stack(
        [np.bincount(*one, minlength=PARTS) for one in zip(own, _to_power(x, mass, HEAVIER), strict=True)]
    )
    both = (
        np.log(np.concatenate([(1.0 - little) * share, little * of_first], axis=1) + LEAST),
        np.concatenate([mean, first.mean], axis=1),
        np.concatenate([variance, first.variance], axis=1),
    )
    return Product(*(jnp.asarray(a, jnp.float32) for a in both))


def _spread(x: Float[np.ndarray, "dim stops"], mass: Float[np.ndarray, "dim stops"]) -> _Parts:
    """Parts at equal steps of the density to a low power, each as wide as they are apart."""
    below = np.cumsum(_to_power(x, mass, FLATTER), axis=1)
    middles = (np.arange(PARTS) + 0.5) / PARTS
    mean = np.stack([np.interp(middles, *one) for one in zip(below, x, strict=True)])
    return _Parts(np.full(mean.shape, 1.0 / PARTS), mean, np.gradient(mean, axis=1) ** 2 + GRAIN**2)


def _to_power(
    x: Float[np.ndarray, "dim stops"], mass: Float[np.ndarray, "dim stops"], power: float
) -> Float[np.ndarray, "dim stops"]:
    """The mass of the density to a power."""
    gap = np.gradient(x, axis=1)
    flat = (mass / gap) ** power * gap
    return flat / flat.sum(axis=1, keepdims=True)


def _maximised(x: Float[np.ndarray, "dim stops"], mass: Float[np.ndarray, "dim stops"], first: _Parts) -> _Parts:
    """Parts that expectation maximisation makes of these."""
    gap, (share, mean, variance) = np.gradient(x, axis=1), first
    for _ in range(ITERATIONS):
        away2 = (x[:, :, None] - mean[:, None]) ** 2
        log_joint = np.log(share)[:, None] - 0.5 * (away2 / variance[:, None] + np.log(variance)[:, None])
        part = np.exp(log_joint - log_joint.max(axis=2, keepdims=True))
        part *= (mass / part.sum(axis=2))[:, :, None]
        own = part.sum(axis=1) + LEAST
        share, mean = own / own.sum(axis=1, keepdims=True), np.sum(part * x[:, :, None], axis=1) / own
        width = np.sum(part * gap[:, :, None], axis=1) / own
        away2 = (x[:, :, None] - mean[:, None]) ** 2
        variance = np.maximum(np.sum(part * away2, axis=1) / own, (NARROWEST * width) ** 2 + GRAIN**2)
    return _Parts(share, mean, variance)
