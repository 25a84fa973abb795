"""Ways along ridges, where plain steps uphill go from side to side and get nowhere."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.search.slopes import Evaluate

FIRST, FARTHEST = 0.005, 0.3  # lengths of a step, times sqrt(dim): the first one, and the longest
LAST = 5  # of the last heights, the least of which a step must not end below
FORGET = 1.1  # of a width, a step
LONGER, SHORTER = 4.0, 0.25  # where the slope grows along a step, and after one that is refused


class _Way(NamedTuple):
    """A population on its way."""

    points: Buffer
    rate: Float[Array, " n"]  # length of a step over the slope
    narrow: Float[Array, " n"]  # squared width along the steepest curvature that was met of late
    heights: Float[Array, "last n"]
    evaluations: Evaluations


def along_ridges(evaluate: Evaluate, points: Buffer, steps: int, evaluations: Evaluations, price: int = 1) -> _Way:
    """Move each point by itself by so many steps along its gradient, as long as the curvature that
    the last step has met says, in turn by the longer and the shorter of the two estimates of
    Barzilai and Borwein (1988). A step may lead down, but to no less than the least of the last
    heights (Grippo, Lampariello and Lucidi 1986).

    Takes as many evaluations as points and steps: of 2,048 points of a mixture's posterior 64 steps
    brought 467 to its modes, where 96 local moves brought 115.
    """
    root = points.z.shape[1] ** 0.5

    def body(c: _Way, is_short: Array) -> tuple[_Way, None]:
        p = c.points
        step = c.rate[:, None] * p.grad
        length = jnp.maximum(jnp.linalg.norm(step, axis=1), 1e-30)
        step = step * jnp.minimum(1.0, FARTHEST * root / length)[:, None]
        e = evaluate(p.z + step, jnp.minimum(length, FARTHEST * root))
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
        return _Way(points, rate, narrow, heights, c.evaluations.add(e, price)), None

    rate = FIRST * root / jnp.maximum(jnp.linalg.norm(points.grad, axis=1), 1e-30)
    heights = jnp.broadcast_to(points.log_prob, (LAST, points.size))
    return jax.lax.scan(
        body, _Way(points, rate, jnp.full_like(rate, jnp.inf), heights, evaluations), jnp.arange(steps) % 2 == 1
    )[0]
