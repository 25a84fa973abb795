"""Points that have some coordinates of one point of a search and the others of another one.

Where a density is made of parts (waves, components, sources) a climb finds one of them easily, and
all at once hardly ever: of points with one each their exchange makes one with both. It is the
crossover of genetic algorithms (Holland 1975).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from allmodes.devices.compiled import program
from allmodes.mcmc.mala import Moved
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.search.mass import REACH, shortfall
from allmodes.search.moves import fewer
from allmodes.search.ridges import Way, along_ridges, settled
from allmodes.search.slopes import evaluator, price
from allmodes.target import Target

CHILDREN, CLIMBERS, STEPS = 1024, 64, 32  # made at a time; how many of the highest climb, so many steps
PARENTS = 4  # one in so many climbers is a point that is there, the highest of which may be on their way still
ROUNDS = 6  # at most: while any brings a point that stands out
# Nats that the end of a climb is above the lowest of them, to stand out: a peak is above draws, and
# a point that is alone with its height counts as well.
LEAP, LEAP_PER_DIM = 4.0, 0.5
FEWEST_DIM = 3  # fewer have no parts


def crossed(
    target: Target, box: Frame, moved: Moved, moves: int, keep: int, key: Array
) -> tuple[Moved, int, Evaluations]:
    """The points, of which such that stand out have taken the place of those with least mass around
    them, how many rounds brought any, and what all that has cost.
    """
    total = Evaluations.none(target.differentiable)
    for i in range(ROUNDS):
        k_climb, k_move = jax.random.split(jax.random.fold_in(key, i))
        way, stand_out = program(_climbed, target)(box, moved.points, k_climb)
        total = jax.tree.map(jnp.add, total, way.evaluations.book("climbs"))
        if not stand_out.any():
            return moved, i, total
        move = program(_moved, target, max(moves, keep), keep)
        moved, spent = move(box, moved, way, stand_out, k_move)
        total = jax.tree.map(jnp.add, total, spent)
    return moved, ROUNDS, total


def _climbed(target: Target, box: Frame, points: Buffer, key: Array) -> tuple[Way, Bool[Array, " n"]]:
    """Climbs from the highest points and their highest children, and which stand out."""
    k_parents, k_parts = jax.random.split(key)
    evaluate, dim, size = evaluator(target, box), points.z.shape[1], fewer(target, CHILDREN)
    highest = jnp.argsort(-points.log_prob)[: min(size, points.size)]
    first, second = points.z[highest[jax.random.randint(k_parents, (2, size), 0, len(highest))]]
    z = jnp.where(_parts(k_parts, size, dim), first, second)
    e = box.evaluate(target, z)
    spent = Evaluations.none(target.differentiable).add(e)
    climbers = fewer(target, CLIMBERS)
    own = points.take(highest[: climbers // PARENTS])
    children = Buffer.of(z, e).take(jnp.argsort(-e.log_prob)[: climbers - own.size])
    if not target.differentiable:
        e = evaluate(children.z, jnp.full((children.size,), REACH))
        children, spent = Buffer.of(children.z, e), spent.add(e, price(target))
    start = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), own, children)
    way = along_ridges(evaluate, start, STEPS, spent, price(target))
    return way, way.points.log_prob > own.log_prob[-1] + LEAP + LEAP_PER_DIM * dim


def _parts(key: Array, size: int, dim: int) -> Bool[Array, "size dim"]:
    """Which coordinates come of the second point: in turn those that follow each other, from any to
    any, and each by chance.
    """
    k_first, k_length, k_each = jax.random.split(key, 3)
    first = jax.random.randint(k_first, (size, 1), 0, dim)
    length = jax.random.randint(k_length, (size, 1), 1, max(dim, 2))
    in_a_row = jnp.mod(jnp.arange(dim) - first, dim) < length
    return jnp.where(jnp.arange(size)[:, None] % 2 == 0, in_a_row, jax.random.bernoulli(k_each, 0.5, (size, dim)))


def _moved(
    target: Target, moves: int, keep: int, box: Frame, moved: Moved, way: Way, which: Bool[Array, " n"], key: Array
) -> tuple[Moved, Evaluations]:
    """The points with those that stand out, over and over, moved locally, in the place of some."""
    size = way.points.size
    again = jnp.argsort(~which)[jnp.arange(size) % jnp.sum(which)]
    new, spent = settled(target, box, way.points.take(again), way.narrow[again], moves, keep, key)
    return moved.put(jnp.argsort(-shortfall(moved))[:size], new), spent
