"""Find where a density has its mass, from the density alone: location, scale and the regions around
its modes.

Nothing here needs right weights: points that a search finds stand in the proportion of the basins'
widths, and training re-weights them. So it can be greedy, which is what finds modes that tempering
loses.
"""

import functools
import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from allmodes.buffer import Buffer, choose
from allmodes.climb import Climb, climb, climb_by_trial
from allmodes.count import Evaluations
from allmodes.errors import TargetError
from allmodes.frame import Frame
from allmodes.mcmc.local import Moved, first_steps, mala, width_of
from allmodes.stages import stage
from allmodes.target import Target

# Starts of the first stage lie at distances between these, in units of the hint of scale (1 without
# one).
_SCALES = (1e-3, 1e4)
_SCOUTS = 1024
_ROAMING = 200  # moves of scouts among walls
_STARTS = 8192  # most starts of the second stage; a larger buffer begins with copies, which local moves part
# Where most points are in basins of next to no mass: rounds of more moves for all, then such in
# which a share of those that fall short stays, and the others are chosen anew by a power of the
# estimate of mass, low because it is rough.
_MORE, _ROUNDS, _KEPT, _POWER = 2, 2, 0.25, 0.25
_BEST = 800  # one estimate of mass in so many, and two at least, may be too large: the next is the largest that counts
LOCAL_STEPS = 40  # moves of each point after its climb
WIDER = 8.0  # first steps of a walk over those of trials, which get short near a peak
_RAYS, _FAR, _FARTHER = 64, 1e10, 1e12  # how many, and the distances between which the density must fall off
_WIDEST = 4.0  # first step of a local move, in the box: a density without a slope would have it leap out of the box
_REACH = 1.25  # the second stage's box over the extent of what the first found


class Found(NamedTuple):
    """What the search knows: a frame, points in it at local equilibrium, their step size and
    narrowest scale.
    """

    frame: Frame
    points: Buffer
    step_size: Scalar  # for MALA moves, normalised coordinates
    tau: Float[Array, " dim"]  # root of 1 / E[grad^2]: the narrowest scale along each coordinate
    edges: Scalar  # share of local proposals that met zero density
    evaluations: Evaluations


def _effort(target: Target) -> int:
    """How many times as many steps a search without gradients takes: trials must find their
    direction among dim.
    """
    return 1 if target.differentiable else max(1, -(-target.free_dim // 2))


def _climb(target: Target, frame: Frame, z: Array, length: Array, limit: int, key: Array) -> Climb:
    def evaluate(z):
        return frame.evaluate(target, z)

    none = Evaluations.none(target.differentiable)
    if target.differentiable:
        return climb(evaluate, z, length, limit, none, key)
    return climb_by_trial(evaluate, z, length / z.shape[1] ** 0.5, limit * _effort(target), none, key)


def _settle(target: Target, frame: Frame, c: Climb, key: Array, steps: int) -> tuple[Moved, Evaluations]:
    """Local moves of the points of a climb, and what both have cost."""
    steps = steps * _effort(target)
    first = jnp.minimum(first_steps(c.points), _WIDEST) if target.differentiable else (WIDER * c.length) ** 2
    moved = mala(lambda z: frame.evaluate(target, z), c.points, first, key, steps)
    return moved, c.evaluations.add_points(len(first) * steps, moved.nan, moved.zero)


def _alive(log_prob: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Points that may carry mass: within 20 + 5 dim of the best, generous for modes of very
    different widths.
    """
    return log_prob >= _matters(jnp.max(log_prob), dim)


def _matters(best: Scalar, dim: int) -> Scalar:
    return best - (20.0 + 5.0 * dim)


def _fill(key: Array, points: Buffer, alive: Bool[Array, " n"]) -> Buffer:
    """Replace the points that are not alive by copies of random ones that are."""
    index = jax.random.choice(key, points.size, (points.size,), p=alive / jnp.sum(alive))
    return choose(alive, points, points.take(index))


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
        c = _climb(target, rough, z, 0.1 * radius, climb_limit, k_climb)
        points, width, evaluations = c.points, None, c.evaluations
        if not target.differentiable:
            # Trials end at a peak; its width is seen by moving about.
            moved, evaluations = _settle(target, rough, c, k_local, LOCAL_STEPS)
            points, width = moved.points, width_of(moved.step_size, dim)
        points, spent = _roam(target, rough, points, jax.random.fold_in(key, 3))
        evaluations = jax.tree.map(jnp.add, evaluations, spent)
        alive = _alive(points.log_prob, dim)[:, None]
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
    inside = _alive(points.log_prob, dim) & (points.log_prob > -jnp.inf)
    due = jnp.any(inside) & (jnp.mean(points.log_prob == -jnp.inf) > 0.5)

    def roam(points):
        k_fill, k_move = jax.random.split(key)
        points = _fill(k_fill, points, inside)
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
    return jnp.sum(slow & (far >= _matters(best, dim)))


def search(target: Target, key: Array, size: int, climb_limit: int = 120, local_steps: int = LOCAL_STEPS) -> Found:
    """Fill the scouts' box with starts, climb each into the typical set that it can reach, then
    move it locally.

    Where most of them end in basins of next to no mass, points with more of it take the place of
    most that have less.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    dim, wanted = target.free_dim, size
    size = min(size, _STARTS)
    k_scout, k_box = jax.random.split(key)
    stage("searching: scouts")
    box, evaluations = scout(target, k_scout, climb_limit)

    @jax.jit
    def fill_box(key, box):
        k_uniform, k_normal, k_fill, k_local = jax.random.split(key, 4)
        uniform = jax.random.uniform(k_uniform, (size - size // 2, dim), minval=-_REACH, maxval=_REACH)
        normal = 0.7 * jax.random.normal(k_normal, (size // 2, dim))
        z = jnp.concatenate([uniform, normal])
        c = _climb(target, box, z, jnp.full((size,), 0.05 * dim**0.5), climb_limit, jax.random.fold_in(key, 1))
        alive = _alive(c.points.log_prob, dim)
        points = _fill(k_fill, c.points, alive)
        length = jnp.where(alive, c.length, jnp.median(c.length))
        return _settle(target, box, c._replace(points=points, length=length), k_local, local_steps)

    @jax.jit
    def favour(key, box, moved, short, kept):
        """Copies of points with more mass in the place of most that fall short, parted by more
        moves.
        """
        k_kept, k_copy, k_local = jax.random.split(key, 3)
        beyond = jnp.maximum(short - 4.0 * dim**0.5, 0.0)  # points of one mode are alike: no single one takes over
        copied = jax.random.categorical(k_copy, -_POWER * beyond, shape=(size,))
        stays = _near(short, dim) | (jax.random.uniform(k_kept, (size,)) < kept)
        index = jnp.where(stays, jnp.arange(size), copied)
        steps, none = local_steps * _effort(target), Evaluations.none(target.differentiable)
        moved = mala(
            lambda z: box.evaluate(target, z), moved.points.take(index), moved.step_size[index], k_local, steps
        )
        return moved, none.add_points(size * steps, moved.nan, moved.zero)

    stage(f"searching: climbs from {size:,} starts")
    moved, more = fill_box(k_box, box)
    evaluations = jax.tree.map(jnp.add, evaluations, more)
    short, wide = _shortfall(moved, target.differentiable), None  # which points say how wide the frame is: None, all
    for i, k_favour in enumerate(jax.random.split(jax.random.fold_in(k_box, 1), _MORE + _ROUNDS)):
        if float(jnp.mean(_near(short, dim))) > 0.5:
            break
        stage("searching: moves to more mass", i, _MORE + _ROUNDS)
        moved, more = favour(k_favour, box, moved, short, 1.0 if i < _MORE else _KEPT)
        evaluations = jax.tree.map(jnp.add, evaluations, more)
        short = _shortfall(moved, target.differentiable)
        wide = short < 20.0 + 4.0 * dim**0.5 + 0.25 * dim
    step_size = jnp.exp(jnp.mean(jnp.log(moved.step_size)))
    edges = (moved.zero + moved.nan) / (size * _effort(target) * local_steps)
    width = width_of(moved.step_size, dim)
    tau = jnp.full(dim, 1.0 / jnp.sqrt(jnp.mean(1.0 / width**2)))
    found = normalise(Found(box, moved.points, step_size, tau, edges, evaluations), target.differentiable, wide)
    from allmodes.resolution import warn_if_coarse

    warn_if_coarse(target, found.frame, found.points.z)
    return found._replace(points=found.points.take(jnp.arange(wanted) % size))


@functools.partial(jax.jit, static_argnums=1)
def _shortfall(moved: Moved, differentiable: bool) -> Float[Array, " n"]:
    """By how much an estimate of the log of the mass around each point is below the largest ones.

    Climbs also end in wide basins far below the best, such as that of a component of a mixture
    which stands for nothing. Half of the exact draws of six posteriors in 7 to 256 dimensions are
    nearer than 3 sqrt(dim), all nearer than 8 sqrt(dim).
    """
    mass = local_mass(moved, differentiable)
    return jax.lax.top_k(mass, min(max(3, len(mass) // _BEST), len(mass)))[0][-1] - mass


def local_mass(moved: Moved, differentiable: bool) -> Float[Array, " n"]:
    """Estimate the log of the mass around each point, but for a constant, by the moves that it
    made.

    Height alone does not tell worthless basins from modes, as a wide mode is lower than a narrow
    one of the same mass: so the widths count, those of the gradients along each coordinate, or of
    the frame where it is narrower.
    """
    dim = moved.points.z.shape[1]
    if differentiable:
        width = 1.0 / jnp.sqrt(jnp.maximum(moved.mean_square_grad, 1e-30))
    else:
        width = width_of(moved.step_size, dim)
        width = jnp.broadcast_to(width[:, None] if width.ndim else width, moved.points.z.shape)
    return moved.mean_log_prob + jnp.sum(jnp.log(jnp.minimum(width, _REACH)), axis=1)


def _near(short: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Where nearly all exact draws are: of six posteriors 0.6 % at most are not."""
    return short < 10.0 + 2.0 * dim**0.5 + 0.25 * dim


def normalise(found: Found, differentiable: bool = True, among: Bool[Array, " n"] | None = None) -> Found:
    """The same points in the frame in which their mean is zero and their spread one: of all, or of
    some `among` them.

    The narrowest scale is that of their gradients; where there are none, the one that is there.
    """
    frame, points = found.frame, found.points
    some = None if among is None else jnp.broadcast_to(among[:, None], points.z.shape)
    mean = jnp.zeros(points.z.shape[1]) if frame.symmetry else jnp.mean(points.z, axis=0, where=some)
    spread = jnp.maximum(jnp.sqrt(frame.even(jnp.mean((points.z - mean) ** 2, axis=0, where=some))), 1e-6)
    new = frame.moved(mean, spread)
    # Between the two frames without passing through x, whose float32 grid is coarse far from the
    # origin.
    z = (points.z - new.shift(frame) / frame.scale) / spread
    grad = points.grad * spread
    if differentiable:
        tau2 = 1.0 / jnp.maximum(new.even(jnp.mean(grad**2, axis=0, where=some)), 1e-12)
    else:
        tau2 = (found.tau / spread) ** 2
    return found._replace(
        frame=new,
        points=Buffer(z, points.log_prob - frame.log_det + new.log_det, grad),
        step_size=found.step_size / jnp.mean(spread) ** 2,
        tau=jnp.sqrt(tau2),
    )


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


def nowhere(target: Target, size: int) -> Found:
    """A search's result with zeros in it: the shapes of one."""
    zero = jnp.zeros(())
    z = jnp.zeros((size, target.free_dim))
    points = Buffer(z, z[:, 0], z)
    fine = (z[0], jnp.zeros(2)) if target.double else (None, None)
    return Found(
        Frame(z[0], z[0], target.symmetry, *fine), points, zero, z[0], zero, Evaluations.none(target.differentiable)
    )
