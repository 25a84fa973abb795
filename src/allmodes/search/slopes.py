"""Values with gradients for a search: by differences where the density has no gradient.

A gradient tells a search `dim` numbers where a value tells one, and all that follows from gradients
(climbs of few steps, shapes of modes, their masses) then holds without them, at `dim + 1`
evaluations a point. Differences are taken over a part of the distance that is of interest, so that
dents which are smaller lead nowhere (implicit filtering, Kelley 2011).
"""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.points.frame import Frame
from allmodes.target import Evaluation, Target

Evaluate: TypeAlias = Callable[[Float[Array, "n dim"], Float[Array, " n"]], Evaluation]

PART = 0.02  # of a distance, over which differences are taken: over a tenth, climbs end in flanks
LEAST = 3e-5  # in unit scale: over less, values in float32 differ by what rounding makes of them


def price(target: Target) -> int:
    """Evaluations of a value with a gradient."""
    return 1 if target.differentiable else target.free_dim + 1


def evaluator(target: Target, frame: Frame) -> Evaluate:
    """A function of points in a frame, and of the distances around them that are of interest."""
    if target.differentiable:
        return lambda z, _: frame.evaluate(target, z)
    return lambda z, distance: by_differences(lambda z, _: frame.evaluate(target, z), z, distance)


def by_differences(
    values: Callable[[Float[Array, "m dim"], Int[Array, " m"]], Evaluation],
    z: Float[Array, "n dim"],
    distance: Float[Array, " n"],
) -> Evaluation:
    """Values at n points, with slopes along each coordinate; `values` is asked at these, and at
    neighbours of the points with the numbers that it is given.
    """
    n, dim = z.shape
    e, step = values(z, jnp.arange(n)), jnp.maximum(PART * distance, LEAST)[:, None]
    neighbours = z[:, None, :] + step[:, :, None] * jnp.eye(dim)
    beside = values(neighbours.reshape(n * dim, dim), jnp.repeat(jnp.arange(n), dim))
    slope = (beside.log_prob.reshape(n, dim) - e.log_prob[:, None]) / step
    slope = jnp.where(jnp.isfinite(slope), slope, 0.0)  # of a wall
    return Evaluation(e.log_prob, slope, e.nan + beside.nan, e.zero + beside.zero)
