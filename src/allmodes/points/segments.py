"""How far a density falls on the straight way between two points: whether they lie in one region or
in two.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SEGMENT = 24  # points of a segment at which the density is looked at
COST = SEGMENT + 2  # evaluations of a pair, both ends among them


def fall_between(
    values: Callable[[Float[Array, "n dim"]], Float[Array, " n"]], a: Float[Array, "n dim"], b: Float[Array, "n dim"]
) -> Float[Array, " n"]:
    """By how much the log-density falls below the lower of the two ends, between each of a and its
    partner in b.

    `values` is the log-density of many points; NaN where both ends have no mass. `n COST`
    evaluations.
    """
    share = jnp.linspace(0.0, 1.0, COST)[:, None, None]
    z = a + share * (b - a)
    value = values(z.reshape(-1, z.shape[-1])).reshape(z.shape[:2])
    return jnp.minimum(value[0], value[-1]) - jnp.min(value, axis=0)


@partial(jax.jit, static_argnames="k")
def nearest(
    points: Float[Array, "n d"], places: Float[Array, "m d"], k: int
) -> tuple[Float[Array, "n k"], Int[Array, "n k"]]:
    """Distances and indices of the k nearest places. By differences: float32 products lose small
    distances.
    """

    def one(point):
        negative, index = jax.lax.top_k(-jnp.sum((places - point) ** 2, axis=-1), k)
        return jnp.sqrt(-negative), index

    return jax.lax.map(one, points, batch_size=64)
