"""A function of many points: all at once, or on a processor in blocks whose intermediate values stay in its cache."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

CACHE_BYTES = 640 * 1024  # of the widest values of a block: about half of the second-level cache of a present core


def block_size(n: int, point_bytes: int | None) -> int:
    """How many of n points at a time; all of them where it is not known what one of them takes."""
    if point_bytes is None or jax.default_backend() != "cpu":
        return n
    return max(1, min(n, CACHE_BYTES // point_bytes))


def many(function: Callable[..., Any], points: Float[Array, "n *_"], size: int) -> Any:
    """`function` of every point, `size` at a time."""
    if size >= len(points):
        return jax.vmap(function)(points)
    return jax.lax.map(function, points, batch_size=size)


def value_and_grad(
    objective: Callable[..., tuple[Array, Any]], model: Any, points: tuple[Float[Array, "n *_"], ...], size: int
) -> tuple[tuple[Array, Any], Any]:
    """`((value, outputs), gradient)` of an `objective(model, *points)` that is a sum over points.

    At most `size` points at a time, in equal blocks; a block's gradient is added to the total before the next begins.
    `outputs` are one row for each point.
    """
    whole = jax.value_and_grad(objective, has_aux=True)
    n = len(points[0])
    size = next(divisor for divisor in range(size, 0, -1) if n % divisor == 0)
    if size == n:
        return whole(model, *points)

    def one(total, part):
        (value, outputs), gradient = whole(model, *part)
        return jax.tree.map(jnp.add, total, (value, gradient)), outputs

    parts = jax.tree.map(lambda a: a.reshape(n // size, size, *a.shape[1:]), points)
    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, model))
    (value, gradient), outputs = jax.lax.scan(one, nothing, parts)
    return (value, jax.tree.map(lambda a: a.reshape(n, *a.shape[2:]), outputs)), gradient
