"""The box that holds the regions of mass, found by scouts that start over seven decades."""

import dataclasses
import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from allmodes.devices.compiled import program
from allmodes.errors import TargetError
from allmodes.mcmc.mala import first_steps, mala
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.search.effort import THOROUGH, Search
from allmodes.search.moves import ascend_from, fewer, lowest_that_counts, may_carry_mass, refill
from allmodes.search.slopes import evaluator, price
from allmodes.target import Evaluation, Target

# Starts of the first stage lie at distances between these, in units of the hint of scale (1 without
# one).
_SCALES = (1e-3, 1e4)
_ROAMING = 200  # moves of scouts among walls
ON_RIDGE = 4.0  # widths by spread and slopes together, exact for a normal, that slopes alone may say at most
_RAYS, _FAR, _FARTHER = 64, 1e10, 1e12  # how many, and the distances between which the density must fall off


class _Hints(NamedTuple):
    """Where the scouts start: around a location, at distances between two `decades` of scales."""

    location: Float[np.ndarray, " dim"]
    scale: Float[np.ndarray, " dim"]
    decades: tuple[float, float]

    @classmethod
    def of(cls, target: Target) -> "_Hints":
        """Give those of the target, or guesses of 0 and 1."""
        location, scale = 0.0 if target.location is None else target.location, target.scale
        full = functools.partial(np.broadcast_to, shape=(target.free_dim,))
        decades = _SCALES if scale is None else (0.1, 10.0)
        return cls(full(np.asarray(location, float)), full(np.asarray(1.0 if scale is None else scale, float)), decades)


def _starts(
    count: int, decades: tuple[float, float], dim: int, key: Array
) -> tuple[Float[Array, " scouts"], Float[Array, "scouts dim"]]:
    """Draw distances, and starts about as far, in units of the scale."""
    k_radius, k_direction = jax.random.split(key)
    low, high = jnp.log(decades[0]), jnp.log(decades[1])
    radius = jnp.exp(low + (high - low) * jax.random.uniform(k_radius, (count,)))
    return radius, radius[:, None] * jax.random.normal(k_direction, (count, dim))


def _values_at_starts(
    target: Target, count: int, decades: tuple[float, float], rough: Frame, key: Array
) -> Float[Array, " scouts"]:
    return target.values(rough.to_x(_starts(count, decades, target.free_dim, key)[1]))


class _Explored(NamedTuple):
    """What the scouts saw: where they have come to and whether most of them must roam on, the
    middle of the box that they span and half its extent, the best log-density, what it cost, and
    along how many rays the density does not fall off.
    """

    points: Buffer
    must_roam: Bool[Array, ""]
    middle: Float[Array, " dim"]
    half: Float[Array, " dim"]
    best: Scalar
    evaluations: Evaluations
    flat: Scalar


def scout(target: Target, key: Array, spent: Search = THOROUGH) -> tuple[Frame, Evaluations]:
    """The box that holds the regions of mass found from starts at distances spread over seven
    decades.

    Hints of location and scale in `target` replace the guesses of 0 and 1. Warns of a density with
    an infinite integral.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    hints = _Hints.of(target)
    spent = dataclasses.replace(spent, scouts=fewer(target, spent.scouts))
    rough, looked = _rough(target, hints, spent.scouts, key)
    seen = program(_explore, target, hints.decades, spent)(rough, key)
    if target.symmetry is None and seen.must_roam:
        seen = program(_roamed, target)(rough, seen, key)
    evaluations = seen.evaluations.add_points(looked, 0, 0, gradient=False) if looked else seen.evaluations
    if seen.flat:
        warnings.warn(
            f"log_prob falls off too slowly along {int(seen.flat)} of {_RAYS} rays: its integral is infinite, so that "
            "draws and log Z mean nothing. Usual causes are a missing prior or Jacobian, particles that nothing holds "
            "together, and an angle without bounds",
            stacklevel=2,
        )
    if not np.isfinite(float(seen.best)):
        error = _first_error(target)
        raise TargetError(_nothing_found(target, hints, spent.scouts, evaluations)) from error
    # Arithmetic on the location in double precision: modes may lie 10^4 scales from the origin.
    box = Frame.of(
        target,
        hints.location + hints.scale * np.asarray(seen.middle, float),
        hints.scale * np.asarray(seen.half, float),
        rough.constant + float(seen.best - rough.log_det),
    )
    return box, evaluations


def _rough(target: Target, hints: _Hints, count: int, key: Array) -> tuple[Frame, int]:
    """The frame that the scouts move in, and at how many points the density was looked at for
    it.
    """
    rough = Frame.of(target, hints.location, hints.scale)
    if not target.double:
        return rough, 0
    # What is constant in the log-density is taken off before anything is rounded to float32.
    seen = np.asarray(program(_values_at_starts, target, count, hints.decades)(rough, key))
    best = float(max(seen[np.isfinite(seen)], default=0.0))
    return Frame.of(target, hints.location, hints.scale, best), len(seen)


def _explore(target: Target, decades: tuple[float, float], spent: Search, rough: Frame, key: Array) -> _Explored:
    """Climb from the starts, and look how far the points that may carry mass are apart."""
    dim = target.free_dim
    k_climb = jax.random.fold_in(key, 1)
    radius, z = _starts(spent.scouts, decades, dim, key)
    c = ascend_from(target, rough, z, 0.1 * radius, spent.climb, k_climb)
    points = c.points
    middle, half = _extent(points)
    middle = jnp.zeros(dim) if target.symmetry else middle
    evaluations = c.evaluations.add_points(2 * _RAYS, 0, 0, gradient=False)
    best = jnp.max(points.log_prob)
    flat = _flat_rays(target, rough, best, jax.random.fold_in(key, 2))
    must_roam = jnp.any(_is_inside(points)) & (jnp.mean(points.log_prob == -jnp.inf) > 0.5)
    return _Explored(points, must_roam, middle, rough.average_over_symmetry(half), best, evaluations, flat)


def _extent(points: Buffer) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
    """The middle of the points that may carry mass, and half their extent."""
    alive = may_carry_mass(points.log_prob, points.z.shape[1])[:, None]
    # The box must not collapse on a density with a single peak: it is at least as wide as a mode.
    # In the typical set slopes tell how wide; on a ridge they are as small as points are near its
    # top, so that how far the points are apart has a say as well.
    tau2 = jnp.sum(alive) / jnp.maximum(jnp.sum(jnp.where(alive, points.grad**2, 0.0), axis=0), 1e-30)
    on_ridge = ON_RIDGE**2 * _spread(points.z, alive) / _spread(points.grad, alive)
    tau2 = jnp.where(tau2 < 1e20, jnp.fmin(tau2, on_ridge), 0.0)  # no slope at all says nothing of a width
    low = jnp.min(jnp.where(alive, points.z, jnp.inf), axis=0)
    high = jnp.max(jnp.where(alive, points.z, -jnp.inf), axis=0)
    return 0.5 * (low + high), jnp.maximum(0.5 * (high - low), jnp.sqrt(tau2))


def _spread(a: Float[Array, "n dim"], which: Bool[Array, "n 1"]) -> Float[Array, " dim"]:
    """The median distance from the median of some of the points, which a few of them, between
    modes, do not spoil.
    """
    a = jnp.where(which, a, jnp.nan)
    return jnp.nanmedian(jnp.abs(a - jnp.nanmedian(a, axis=0)), axis=0)


def _nothing_found(target: Target, hints: _Hints, count: int, evaluations: Evaluations) -> str:
    nan, zero = int(evaluations.nan), int(evaluations.zero)
    error = _first_error(target)
    failed = f". The first error was {type(error).__name__}: {error}" if error else ""
    return (
        f"log_prob has no finite value at any of {count} starting points up to {hints.decades[1]:g} scales from "
        f"{hints.location} ({nan} NaN or +inf, {zero} -inf). Check log_prob, or say where the mass is: "
        "am.Target(log_prob, dim, location=.., scale=..)" + failed
    )


def _first_error(target: Target) -> Exception | None:
    """What a function on the host raised first, where it has raised anything."""
    return getattr(getattr(target.log_prob, "host", None), "error", None)


def _is_inside(points: Buffer) -> Bool[Array, " n"]:
    """Which points may carry mass, and have some."""
    return may_carry_mass(points.log_prob, points.z.shape[1]) & (points.log_prob > -jnp.inf)


def _roamed(target: Target, frame: Frame, seen: _Explored, key: Array) -> _Explored:
    """What scouts have seen after local moves of those that have mass, in the place of all.

    In a box with hard walls few starts lie inside, and no gradient leads from there along the
    walls: the few would take a corner for the whole. Their steps begin no wider than they are from
    where the search began.
    """
    k_fill, k_move = jax.random.split(jax.random.fold_in(key, 3))
    points = refill(k_fill, seen.points, _is_inside(seen.points))
    far = jnp.mean(points.z**2)  # from where the search began
    first = jnp.minimum(first_steps(points), far)
    moved = mala(evaluator(target, frame), points, first, k_move, _ROAMING)
    spent = seen.evaluations.add_points(price(target) * points.size * _ROAMING, moved.nan, moved.zero)
    middle, half = _extent(moved.points)
    best = jnp.max(moved.points.log_prob)
    return _Explored(moved.points, seen.must_roam, middle, half, best, spent, seen.flat)


def _flat_rays(target: Target, rough: Frame, best: Scalar, key: Array) -> Scalar:
    """Along how many rays, far out, the density falls by less than an integral needs, from where it
    matters.

    Below that lie the floors that numerical care leaves, as in log(p + 1e-30), which no point stays
    on.

    Half of the directions are random, where it is the volume that grows; half are those of random
    coordinates, on lines through random points, nearly all of which have a finite integral where
    the whole has one.
    """
    dim, half = target.free_dim, _RAYS // 2
    k_direction, k_coordinate, k_sign, k_point = jax.random.split(key, 4)
    random = jax.random.normal(k_direction, (half, dim))
    random = random / jnp.linalg.norm(random, axis=1, keepdims=True)
    sign = jax.random.rademacher(k_sign, (half, 1), jnp.float32)
    single = sign * jax.nn.one_hot(jax.random.randint(k_coordinate, (half,), 0, dim), dim)
    direction = jnp.concatenate([random, single])
    point = jax.random.normal(k_point, (_RAYS, dim))
    both = jnp.concatenate([point + distance * direction for distance in (_FAR, _FARTHER)])
    near, far = jnp.split(rough.values(target, both), 2)
    needed = jnp.repeat(jnp.array([dim, 1.0]), half) * jnp.log(_FARTHER / _FAR)
    slow = near - far < needed  # NaN, of two that are -inf, is not
    return jnp.sum(slow & (far >= lowest_that_counts(best, dim)))


def _evaluate(target: Target, frame: Frame, z: Float[Array, "n free"]) -> Evaluation:
    return frame.evaluate(target, z)


def broad(target: Target, key: Array, size: int) -> SearchResult:
    """Points spread evenly over the box that the scouts span, unmoved: a start with no MCMC at
    all.
    """
    k_scout, k_box = jax.random.split(key)
    box, evaluations = scout(target, k_scout)
    z = jax.random.uniform(k_box, (size, target.free_dim), minval=-1.0, maxval=1.0)
    e = program(_evaluate, target)(box, z)
    return SearchResult(
        box,
        Buffer.of(z, e),
        jnp.asarray(1e-3),
        jnp.full((target.free_dim,), 1e-4),
        jnp.zeros(()),
        evaluations.add(e).book("scouts"),
    )
