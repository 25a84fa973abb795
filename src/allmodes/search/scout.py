"""The box that holds the regions of mass, found by scouts that start over seven decades."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Scalar

from allmodes.errors import TargetError
from allmodes.mcmc.mala import first_steps, mala, width_of
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import Found
from allmodes.points.frame import Frame
from allmodes.search.moves import LOCAL_STEPS, ascend_from, lowest_that_counts, may_carry_mass, move_locally, refill
from allmodes.target import Target

# Starts of the first stage lie at distances between these, in units of the hint of scale (1 without
# one).
_SCALES = (1e-3, 1e4)
_SCOUTS = 1024
_ROAMING = 200  # moves of scouts among walls
_RAYS, _FAR, _FARTHER = 64, 1e10, 1e12  # how many, and the distances between which the density must fall off


def scout(target: Target, key: Array, climb_limit: int = 120) -> tuple[Frame, Evaluations]:
    """The box that holds the regions of mass found from starts at distances spread over seven
    decades.

    Hints of location and scale in `target` replace the guesses of 0 and 1. Warns of a density with
    an infinite integral.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    dim = target.free_dim
    location = np.broadcast_to(np.asarray(0.0 if target.location is None else target.location, float), (dim,))
    scale = np.broadcast_to(np.asarray(1.0 if target.scale is None else target.scale, float), (dim,))
    decades = _SCALES if target.scale is None else (0.1, 10.0)
    rough = Frame.of(target, location, scale)

    def starts(key):
        k_radius, k_direction = jax.random.split(key)
        low, high = jnp.log(decades[0]), jnp.log(decades[1])
        radius = jnp.exp(low + (high - low) * jax.random.uniform(k_radius, (_SCOUTS,)))
        return radius, radius[:, None] * jax.random.normal(k_direction, (_SCOUTS, dim))

    looked = 0
    if target.double:
        # What is constant in the log-density is taken off before anything is rounded to float32.
        seen = np.asarray(jax.jit(lambda key: target.values(rough.to_x(starts(key)[1])))(key))
        rough = Frame.of(target, location, scale, float(max(seen[np.isfinite(seen)], default=0.0)))
        looked = len(seen)

    @jax.jit
    def explore(key):
        k_climb, k_local = jax.random.split(jax.random.fold_in(key, 1))
        radius, z = starts(key)
        c = ascend_from(target, rough, z, 0.1 * radius, climb_limit, k_climb)
        points, width, evaluations = c.points, None, c.evaluations
        if not target.differentiable:
            # Trials end at a peak; its width is seen by moving about.
            moved, evaluations = move_locally(target, rough, c, k_local, LOCAL_STEPS)
            points, width = moved.points, width_of(moved.step_size, dim)
        points, spent = _roam(target, rough, points, jax.random.fold_in(key, 3))
        evaluations = jax.tree.map(jnp.add, evaluations, spent)
        alive = may_carry_mass(points.log_prob, dim)[:, None]
        # The box must not collapse on a density with a single peak: it is at least as wide as a
        # mode.
        sharp = points.grad**2 if width is None else jnp.broadcast_to(1.0 / width[:, None] ** 2, z.shape)
        tau2 = jnp.sum(alive) / jnp.maximum(jnp.sum(jnp.where(alive, sharp, 0.0), axis=0), 1e-30)
        tau2 = jnp.where(tau2 < 1e20, tau2, 0.0)  # no slope at all says nothing of a width
        low = jnp.min(jnp.where(alive, points.z, jnp.inf), axis=0)
        high = jnp.max(jnp.where(alive, points.z, -jnp.inf), axis=0)
        half = jnp.maximum(0.5 * (high - low), jnp.sqrt(tau2))
        middle = jnp.zeros(dim) if target.symmetry else 0.5 * (low + high)
        evaluations = evaluations.add_points(2 * _RAYS, 0, 0, gradient=False)
        flat = _flat_rays(target, rough, jnp.max(points.log_prob), jax.random.fold_in(key, 2))
        return middle, rough.even(half), jnp.max(points.log_prob), evaluations, flat

    middle, half, best, evaluations, flat = explore(key)
    if looked:
        evaluations = evaluations.add_points(looked, 0, 0, gradient=False)
    if flat:
        warnings.warn(
            f"log_prob falls off too slowly along {int(flat)} of {_RAYS} rays: its integral is infinite, so that draws "
            "and log Z mean nothing. Usual causes are a missing prior or Jacobian, particles that nothing holds "
            "together, and an angle without bounds",
            stacklevel=2,
        )
    if not np.isfinite(float(best)):
        nan, zero = int(evaluations.nan), int(evaluations.zero)
        failed = getattr(getattr(target.log_prob, "host", None), "error", "")
        raise TargetError(
            f"log_prob has no finite value at any of {_SCOUTS} starting points up to {decades[1]:g} scales from "
            f"{location} ({nan} NaN or +inf, {zero} -inf). Check log_prob, or say where the mass is: "
            "am.Target(log_prob, dim, location=.., scale=..)" + (f". The first error was {failed}" if failed else "")
        )
    # Arithmetic on the location in double precision: modes may lie 10^4 scales from the origin.
    box = Frame.of(
        target,
        location + scale * np.asarray(middle, float),
        scale * np.asarray(half, float),
        rough.constant + float(best - rough.log_det),
    )
    return box, evaluations


def _roam(target: Target, frame: Frame, points: Buffer, key: Array) -> tuple[Buffer, Evaluations]:
    """Local moves of the scouts that have mass, in the place of all, where most have ended with
    none; what they cost.

    In a box with hard walls few starts lie inside, and no gradient leads from there along the
    walls: the few would take a corner for the whole. Their steps begin no wider than they are from
    where the search began.
    """
    none, dim = Evaluations.none(target.differentiable), target.free_dim
    if target.symmetry is not None:
        return points, none
    inside = may_carry_mass(points.log_prob, dim) & (points.log_prob > -jnp.inf)
    due = jnp.any(inside) & (jnp.mean(points.log_prob == -jnp.inf) > 0.5)

    def roam(points):
        k_fill, k_move = jax.random.split(key)
        points = refill(k_fill, points, inside)
        far = jnp.mean(points.z**2)  # from where the search began
        first = jnp.minimum(first_steps(points), far)
        moved = mala(lambda z: frame.evaluate(target, z), points, first, k_move, _ROAMING)
        return moved.points, none.add_points(_SCOUTS * _ROAMING, moved.nan, moved.zero)

    return jax.lax.cond(due, roam, lambda points: (points, none), points)


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
    near, far = (rough.values(target, point + distance * direction) for distance in (_FAR, _FARTHER))
    needed = jnp.repeat(jnp.array([dim, 1.0]), half) * jnp.log(_FARTHER / _FAR)
    slow = near - far < needed  # NaN, of two that are -inf, is not
    return jnp.sum(slow & (far >= lowest_that_counts(best, dim)))


def broad(target: Target, key: Array, size: int) -> Found:
    """Points spread evenly over the box that the scouts span, unmoved: a start with no MCMC at
    all.
    """
    k_scout, k_box = jax.random.split(key)
    box, evaluations = scout(target, k_scout)
    z = jax.random.uniform(k_box, (size, target.free_dim), minval=-1.0, maxval=1.0)
    e = jax.jit(lambda z: box.evaluate(target, z))(z)
    return Found(
        box, Buffer.of(z, e), jnp.asarray(1e-3), jnp.full((target.free_dim,), 1e-4), jnp.zeros(()), evaluations.add(e)
    )
