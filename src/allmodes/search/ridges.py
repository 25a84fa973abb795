"""Climbs that have ended on ridges, where plain steps uphill go from side to side and get nowhere:
how to tell them, and ways along.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.mcmc.mala import Moved, mala, step_for
from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.search.mass import REACH, shortfall
from allmodes.search.moves import fewer
from allmodes.search.slopes import Evaluate, evaluator, price
from allmodes.target import Target

STEPS = 64  # of a point along its ridge
FIRST, FARTHEST = 0.005, 0.3  # lengths of a step, times sqrt(dim): the first one, and the longest
LAST = 5  # of the last heights, the least of which a step must not end below
FORGET = 1.1  # of a width, a step
LONGER, SHORTER = 4.0, 0.25  # where the slope grows along a step, and after one that is refused


def still_rising(moved: Moved) -> Scalar:
    """The share of points that are higher on the last moves than on the first of those that are
    kept: half, or less, where climbs have ended in the typical set of a mode.
    """
    height = moved.passed.log_prob.reshape(-1, moved.points.size)
    few = -(-len(height) // 4)
    return jnp.mean(jnp.mean(height[-few:], axis=0) > jnp.mean(height[:few], axis=0))


def some_along_ridges(
    target: Target, size: int, moves: int, keep: int, box: Frame, moved: Moved, key: Array
) -> tuple[Moved, Evaluations]:
    """The points with those that have most mass, so many of them, further on their way and moved
    locally, and what that has cost; `keep` as for all of them.
    """
    size, moves = min(fewer(target, size), moved.points.size), max(moves, keep)
    which = jnp.argsort(shortfall(moved))[:size]
    none = Evaluations.none(target.differentiable)
    way = along_ridges(evaluator(target, box), moved.points.take(which), STEPS, none, price(target))
    new, spent = settled(target, box, way.points, way.narrow, moves, keep, key)
    return moved.put(which, new), jax.tree.map(jnp.add, way.evaluations.book("climbs"), spent)


def settled(
    target: Target, box: Frame, points: Buffer, narrow: Float[Array, " n"], moves: int, keep: int, key: Array
) -> tuple[Moved, Evaluations]:
    """The ends of ways after local moves, the first ones as `narrow` says, and what these cost."""
    first = jnp.minimum(step_for(narrow, target.free_dim), REACH)
    new = mala(evaluator(target, box), points, first, key, moves, keep)
    spent = Evaluations.none(target.differentiable)
    return new, spent.add_points(price(target) * points.size * moves, new.nan, new.zero).book("moves")


class Way(NamedTuple):
    """A population on its way along ridges."""

    points: Buffer
    rate: Float[Array, " n"]  # length of a step over the slope
    narrow: Float[Array, " n"]  # squared width along the steepest curvature that was met of late
    heights: Float[Array, "last n"]
    evaluations: Evaluations


def along_ridges(evaluate: Evaluate, points: Buffer, steps: int, evaluations: Evaluations, price: int = 1) -> Way:
    """Move each point by itself by so many steps along its gradient, as long as the curvature that
    the last step has met says, in turn by the longer and the shorter of the two estimates of
    Barzilai and Borwein (1988). A step may lead down, but to no less than the least of the last
    heights (Grippo, Lampariello and Lucidi 1986).

    Takes as many evaluations as points and steps. `evaluations` are those before, and `price` those
    of a value with a gradient.
    """
    root = points.z.shape[1] ** 0.5

    def body(c: Way, is_short: Array) -> tuple[Way, None]:
        p, step = c.points, c.rate[:, None] * c.points.grad
        length = jnp.maximum(jnp.linalg.norm(step, axis=1), 1e-30)
        far = jnp.minimum(length, FARTHEST * root)
        step = step * (far / length)[:, None]
        e = evaluate(p.z + step, far)
        goes = e.log_prob >= jnp.min(c.heights, axis=0)
        turn = p.grad - e.grad
        both = jnp.sum(step * turn, axis=1)
        long = jnp.sum(step**2, axis=1) / jnp.maximum(both, 1e-30)
        short = both / jnp.maximum(jnp.sum(turn**2, axis=1), 1e-30)
        rate = jnp.where(both > 0.0, jnp.where(is_short, short, long), LONGER * c.rate)
        rate = jnp.where(goes, jnp.clip(rate, 1e-8, 1e8), SHORTER * c.rate)
        narrow = jnp.minimum(jnp.where(both > 0.0, short, jnp.inf), FORGET * c.narrow)
        points = choose(goes, Buffer.of(p.z + step, e), p)
        heights = jnp.concatenate([c.heights[1:], points.log_prob[None]])
        return Way(points, rate, narrow, heights, c.evaluations.add(e, price)), None

    rate = FIRST * root / jnp.maximum(jnp.linalg.norm(points.grad, axis=1), 1e-30)
    heights = jnp.broadcast_to(points.log_prob, (LAST, points.size))
    start = Way(points, rate, jnp.full_like(rate, jnp.inf), heights, evaluations)
    return jax.lax.scan(body, start, jnp.arange(steps) % 2 == 1)[0]
