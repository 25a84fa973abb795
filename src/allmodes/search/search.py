"""Find where a density has its mass, from the density alone: location, scale and the regions around
its modes.

Nothing here needs right weights: points that a search finds stand in the proportion of the basins'
widths, and training re-weights them. So it can be greedy, which is what finds modes that tempering
loses.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.mcmc.mala import Moved, mala
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult, normalise
from allmodes.points.frame import Frame
from allmodes.progress.stages import stage
from allmodes.search.complete import Basins
from allmodes.search.crossover import FEWEST_DIM, crossed
from allmodes.search.effort import THOROUGH, WAVE, Search
from allmodes.search.mass import REACH, near_the_mass, shortfall
from allmodes.search.moves import ascend_from, fewer, has_arrived, may_carry_mass, move_locally, refill
from allmodes.search.product import seems_independent
from allmodes.search.resolution import warn_if_coarse
from allmodes.search.ridges import some_along_ridges, still_rising
from allmodes.search.scout import scout
from allmodes.search.slopes import evaluator, price
from allmodes.search.told import where_told
from allmodes.search.turns import in_turns
from allmodes.target import Target

# Where most points are in basins of next to no mass: rounds of more moves for all, then such in
# which a share of those that fall short stays, and the others are chosen anew by a power of the
# estimate of mass, low because it is rough.
_MORE, _ROUNDS, _KEPT, _POWER = 2, 2, 0.25, 0.25
WAVES_OF_PRODUCT = 2  # of starts, from which on they may tell that no coordinate minds the others
# Climbs have ended on their way where more points come higher by moves: four of five in
# `radial-velocity`, `sensors` and `mixture-labels`, less than .7 in a funnel.
RISING = 0.75
ON_RIDGES = (2048, 8), (512, 32)  # how many points go on then, and by how many local moves after it
WIDER, WIDENED = 1.2, 2  # of an extent, along any coordinate, that asks for starts all over it; how often


class _Task(NamedTuple):
    """What is searched, with how many points, by how long climbs and how many moves."""

    target: Target
    size: int
    climb_limit: int
    local_steps: int
    keep: int


class _Extent(NamedTuple):
    """What starts are spread over, in the box: all of it, and as far as points have been found."""

    low: Float[Array, " dim"]
    high: Float[Array, " dim"]

    @property
    def middle(self) -> Float[Array, " dim"]:
        return 0.5 * (self.low + self.high)

    @property
    def half(self) -> Float[Array, " dim"]:
        return 0.5 * (self.high - self.low)

    def with_points(self, points: Buffer, which: Bool[Array, " n"]) -> "_Extent":
        """As wide as some of the points as well."""
        low = jnp.min(jnp.where(which[:, None], points.z, jnp.inf), axis=0)
        high = jnp.max(jnp.where(which[:, None], points.z, -jnp.inf), axis=0)
        return _Extent(jnp.minimum(self.low, low), jnp.maximum(self.high, high))


def search(target: Target, key: Array, size: int, spent: Search = THOROUGH) -> SearchResult:
    """Fill the scouts' box with at most `size` starts, climb each into the typical set that it can
    reach, then move it locally.

    Where most of them end in basins of next to no mass, points with more of it take the place of
    most that have less; not where points are kept for a mixture, which tells masses by itself.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    task = _Task(target, min(size, spent.starts), spent.climb, spent.moves, min(spent.keep, spent.moves))
    k_scout, k_box = jax.random.split(key)
    stage("searching: scouts")
    box, evaluations = scout(target, k_scout, spent)
    evaluations = evaluations.book("scouts")
    moved, more, starts = _fill_in_waves(task, k_box, box, spent.unseen)
    task = task._replace(size=moved.points.size)
    evaluations = jax.tree.map(jnp.add, evaluations, more)
    if task.keep:
        has_mass = _may_have_mass(shortfall(moved), target.free_dim)
        if not seems_independent(moved.points):  # a product has its lines
            moved, gone_on, more = _gone_on(task, k_box, box, moved)
            evaluations = jax.tree.map(jnp.add, evaluations, more)
            if gone_on:
                has_mass = near_the_mass(shortfall(moved), target.free_dim)
        moved, wide = _of_mass(moved, np.flatnonzero(has_mass)), None
    else:
        moved, more, wide = _nearer_the_mass(task, k_box, box, moved)
        evaluations = jax.tree.map(jnp.add, evaluations, more).book("moves")
    found = program(_found, task)(box, moved, evaluations)
    if any(target.periods):
        found = program(_in_all_turns, target.periods)(found, jax.random.fold_in(k_box, 2))
    found = normalise(found, among=wide)
    warn_if_coarse(target, found.frame, found.points.z)
    return found._replace(starts=starts)


def _gone_on(task: _Task, key: Array, box: Frame, moved: Moved) -> tuple[Moved, bool, Evaluations]:
    """The points further on their way, along ridges and by exchanges of coordinates, where any of
    these leads higher; whether one does; and what all has cost.
    """
    rounds, total = 0, Evaluations.none(task.target.differentiable)

    def along(size: int, moves: int) -> tuple[Moved, Evaluations]:
        stage("searching: along ridges")
        some = program(some_along_ridges, task.target, size, moves, task.keep)
        return some(box, moved, jax.random.fold_in(key, size))

    first, second = ON_RIDGES
    if is_rising := bool(still_rising(moved) > RISING):
        moved, total = along(*first)
    if task.target.free_dim >= FEWEST_DIM and task.target.symmetry is None:
        stage("searching: exchanges of coordinates")
        k_cross = jax.random.fold_in(key, 3)
        moved, rounds, more = crossed(task.target, box, moved, task.local_steps, task.keep, k_cross)
        total = jax.tree.map(jnp.add, total, more)
    if is_rising or rounds:
        moved, more = along(*second)
        total = jax.tree.map(jnp.add, total, more)
    return moved, is_rising or rounds > 0, total


def _fill_in_waves(
    task: _Task, key: Array, box: Frame, unseen: float | None
) -> tuple[Moved, Evaluations, Int[Array, "2"] | None]:
    """Fill the box at once, or by waves until a new basin is unlikely; the number of starts, and of
    those that are alone in their basin, where these are counted.
    """
    whole = _Extent(-jnp.ones(task.target.free_dim), jnp.ones(task.target.free_dim))
    wave_size = fewer(task.target, WAVE)
    if unseen is None or task.size <= wave_size:
        stage(f"searching: climbs from {task.size:,} starts")
        return *program(_fill_box, task)(key, box, whole)[:2], None
    unseen *= (2.0 / task.target.free_dim) ** 0.5 * WAVE / wave_size
    wave, most, waves, extent = program(_fill_box, task._replace(size=wave_size)), task.size // wave_size, [], whole
    basins = Basins(task.target, box)
    for i in range(most):
        stage(f"searching: climbs from {wave_size:,} starts", i, most)
        moved, spent, arrived = wave(jax.random.fold_in(key, i), box, extent)
        waves.append((moved, spent))
        basins.add(moved.points, arrived)
        # Not for ever: in heavy tails points stay where they begin, each wave further out.
        may_grow = task.target.symmetry is None and i < WIDENED
        seen = program(_Extent.with_points)(extent, moved.points, arrived) if may_grow else extent
        is_wider, extent = bool(jnp.any(seen.half > WIDER * extent.half)), seen
        if is_wider:
            continue
        if basins.chance_of_new < unseen:
            break
        if task.keep and i + 1 >= WAVES_OF_PRODUCT and seems_independent(_points_of(waves)):
            break  # a base will be fitted, to which modes are combinations: no need to meet them all
    moved, spent = _together(waves)
    spent = jax.tree.map(jnp.add, spent, basins.evaluations.book("completeness"))
    return moved, spent, jnp.asarray([basins.starts, basins.alone], jnp.int32)


def _points_of(waves: list[tuple[Moved, Evaluations]]) -> Buffer:
    return jax.tree.map(lambda *a: jnp.concatenate(a), *(moved.points for moved, _ in waves))


def _together(waves: list[tuple[Moved, Evaluations]]) -> tuple[Moved, Evaluations]:
    """Several populations as one, and what all have cost."""
    moved, spent = zip(*waves, strict=True)
    each = [m._replace(passed=None) for m in moved]
    all_of_them = jax.tree.map(lambda *a: jnp.concatenate(a) if a[0].ndim else sum(a), *each)
    passed = None
    if moved[0].passed is not None:
        passed = jax.tree.map(lambda *a: _beside(a, moved[0].points.size), *(m.passed for m in moved))
    together = all_of_them._replace(acceptance=all_of_them.acceptance / len(moved), passed=passed)
    return together, jax.tree.map(lambda *a: sum(a), *spent)


def _beside(passed: tuple[Array, ...], n: int) -> Array:
    """What all populations, each of n points, have passed at one time after the other."""
    times = [a.reshape(-1, n, *a.shape[1:]) for a in passed]
    return jnp.concatenate(times, axis=1).reshape(-1, *passed[0].shape[1:])


def _fill_box(task: _Task, key: Array, box: Frame, extent: _Extent) -> tuple[Moved, Evaluations, Bool[Array, " size"]]:
    """Climb from starts all over an extent of the box and around its middle, and where the target
    says that its mass is, and move the points that may carry mass; which of these stand for a start
    of their own that has arrived.
    """
    target, size, dim = task.target, task.size, task.target.free_dim
    k_uniform, k_normal, k_fill, k_local = jax.random.split(key, 4)
    told, k_told = where_told(target, box), jax.random.fold_in(key, 2)
    rest = size if told is None else size - size // 3
    uniform = jax.random.uniform(k_uniform, (rest - rest // 2, dim), minval=-REACH, maxval=REACH)
    normal = 0.7 * jax.random.normal(k_normal, (rest // 2, dim))
    z = extent.middle + extent.half * jnp.concatenate([uniform, normal])
    if told is not None:
        z = jnp.concatenate([z, told.middle + told.spread * jax.random.normal(k_told, (size - rest, dim))])
    first = jnp.full((size,), 0.05 * dim**0.5)
    c = ascend_from(target, box, z, first, task.climb_limit, jax.random.fold_in(key, 1))
    alive = may_carry_mass(c.points.log_prob, dim)
    points = refill(k_fill, c.points, alive)
    length = jnp.where(alive, c.length, jnp.median(c.length))
    c = c._replace(points=points, length=length, evaluations=c.evaluations.book("climbs"))
    moved, spent = move_locally(target, box, c, k_local, task.local_steps, task.keep)
    return moved, spent.book("moves"), alive & has_arrived(moved.points.log_prob, dim, jnp.max(moved.points.log_prob))


def _nearer_the_mass(
    task: _Task, key: Array, box: Frame, moved: Moved
) -> tuple[Moved, Evaluations, Bool[Array, " n"] | None]:
    """Rounds of `_resample_by_mass` while most points are in basins of next to no mass; what they
    cost, and which points say how wide the frame is: None for all.
    """
    target, dim = task.target, task.target.free_dim
    favour, evaluations = program(_resample_by_mass, task), Evaluations.none(target.differentiable)
    short, wide = shortfall(moved), None
    for i, k_favour in enumerate(jax.random.split(jax.random.fold_in(key, 1), _MORE + _ROUNDS)):
        if float(jnp.mean(near_the_mass(short, dim))) > 0.5:
            break
        stage("searching: moves to more mass", i, _MORE + _ROUNDS)
        moved, more = favour(k_favour, box, moved, short, 1.0 if i < _MORE else _KEPT)
        evaluations = jax.tree.map(jnp.add, evaluations, more)
        short = shortfall(moved)
        wide = _says_how_wide(short, dim)
    return moved, evaluations, wide


def _says_how_wide(short: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Which points have mass enough to tell the scale of the density, by how far they fall short
    of the most.
    """
    return short < 20.0 + 4.0 * dim**0.5 + 0.25 * dim


def _may_have_mass(short: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Which points may have mass, by how far they fall short of the most: an estimate that errs by
    some nats for each coordinate.

    Flanks of a posterior on a box, in four dimensions, are 30 to 48 nats short; points of 40 modes
    that all have mass 49 to 106 in 32 dimensions, and up to 61 in 16.
    """
    return short < 17.0 + 3.0 * dim


def _of_mass(moved: Moved, which: Int[np.ndarray, " m"]) -> Moved:
    """Some of the points in the place of all, and of what they have passed: a mixture would have to
    explain the others, in basins of next to no mass, as well.
    """
    n = moved.points.size
    index = np.resize(which, n)
    passed = moved.passed.take((np.arange(0, moved.passed.size, n)[:, None] + index).ravel())
    return moved._replace(points=moved.points.take(index), step_size=moved.step_size[index], passed=passed)


def _resample_by_mass(
    task: _Task, key: Array, box: Frame, moved: Moved, short: Float[Array, " n"], kept: Scalar | float
) -> tuple[Moved, Evaluations]:
    """Copies of points with more mass in the place of most that fall short, parted by more
    moves.
    """
    target, size, dim = task.target, task.size, task.target.free_dim
    k_kept, k_copy, k_local = jax.random.split(key, 3)
    beyond = jnp.maximum(short - 4.0 * dim**0.5, 0.0)  # points of one mode are alike: no single one takes over
    copied = jax.random.categorical(k_copy, -_POWER * beyond, shape=(size,))
    stays = near_the_mass(short, dim) | (jax.random.uniform(k_kept, (size,)) < kept)
    index = jnp.where(stays, jnp.arange(size), copied)
    steps, none = task.local_steps, Evaluations.none(target.differentiable)
    points, first = moved.points.take(index), moved.step_size[index]
    moved = mala(evaluator(target, box), points, first, k_local, steps, task.keep)
    return moved, none.add_points(price(target) * size * steps, moved.nan, moved.zero)


def _in_all_turns(periods: tuple[float, ...], found: SearchResult, key: Array) -> SearchResult:
    k_points, k_passed = jax.random.split(key)
    passed = None if found.passed is None else in_turns(periods, found.frame, found.passed, k_passed)
    return found._replace(points=in_turns(periods, found.frame, found.points, k_points), passed=passed)


def _found(task: _Task, box: Frame, moved: Moved, evaluations: Evaluations) -> SearchResult:
    """What the moves have shown, in the box."""
    step_size = jnp.exp(jnp.mean(jnp.log(moved.step_size)))
    edges = (moved.zero + moved.nan) / (price(task.target) * task.size * task.local_steps)
    tau = jnp.ones(task.target.free_dim)  # gradients tell it
    return SearchResult(box, moved.points, step_size, tau, edges, evaluations, passed=moved.passed)
