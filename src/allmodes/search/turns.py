"""Points of a circle that is wound around a line, in turns as many as have mass.

A mode near a seam is there twice on the line, with shares that are known beforehand. A search may
well meet one of the two alone; but each point that it has met says what is in all turns.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.chart import log_turn
from allmodes.points.buffer import Buffer
from allmodes.points.frame import Frame

TURNS = 1  # before and after: in the next ones there is no mass


def in_turns(periods: tuple[float, ...], frame: Frame, points: Buffer, key: Array) -> Buffer:
    """The points, each in a turn that is drawn by the shares; without any evaluation.

    `periods`: of the free coordinates, 0 of those that are no circle.
    """
    for i, period in enumerate(periods):
        if period:
            points = _in_turns(i, period, frame, points, jax.random.fold_in(key, i))
    return points


def _in_turns(i: int, period: float, frame: Frame, points: Buffer, key: Array) -> Buffer:
    def log_share(place):
        return log_turn(place, period)

    old = frame.to_x(points.z)[:, i].astype(jnp.float32)
    turns = old[:, None] + period * jnp.arange(-TURNS, TURNS + 1)
    chosen = jax.random.categorical(key, log_share(turns))[:, None]
    new = jnp.take_along_axis(turns, chosen, axis=1)[:, 0]
    slope = jax.vmap(jax.grad(log_share))
    return Buffer(
        points.z.at[:, i].add((new - old) / frame.scale[i]),
        points.log_prob + log_share(new) - log_share(old),
        points.grad.at[:, i].add(frame.scale[i] * (slope(new) - slope(old))),
    )
