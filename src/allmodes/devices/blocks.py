"""A function of many points: all at once, or on a processor in blocks whose intermediate values
stay in its cache.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.mesh import spread, traced_count

CACHE_BYTES = 640 * 1024  # of the widest values of a block: about half of the second-level cache of a present core


def block_size(n: int, point_bytes: int | None) -> int:
    """How many of n points at a time; all of them where it is not known what one of them takes."""
    if point_bytes is None or jax.default_backend() != "cpu":
        return n
    return max(1, min(n, CACHE_BYTES // point_bytes))


def batched_map(function: Callable[..., Any], points: Any, size: int) -> Any:
    """`function` of every point, on each device `size` at a time; `points` may be a tree of arrays
    of rows.
    """
    points, n = spread(points), len(jax.tree.leaves(points)[0])
    devices = traced_count()
    if size >= n // devices:
        return spread(jax.vmap(function)(points))
    if devices == 1:
        return jax.lax.map(function, points, batch_size=size)
    split, join = _rounds(n, size)
    return join(jax.lax.map(jax.vmap(function), split(points)))


def _rounds(n: int, size: int) -> tuple[Callable, Callable]:
    """To rounds of equal blocks, of at most `size` points on each device, and back: `(n, ..)` to
    `(rounds, block, ..)`.

    A device keeps the points that it has: rounds go over what is its own.
    """
    devices = traced_count()
    devices = devices if n % devices == 0 else 1
    own = n // devices
    size = next(divisor for divisor in range(min(size, own), 0, -1) if own % divisor == 0)
    rounds = own // size

    def split(tree):
        order = lambda a: a.reshape(devices, rounds, size, *a.shape[1:]).swapaxes(0, 1)  # noqa: E731
        return spread(jax.tree.map(lambda a: order(a).reshape(rounds, devices * size, *a.shape[1:]), tree), axis=1)

    def join(tree):
        order = lambda a: a.reshape(rounds, devices, size, *a.shape[2:]).swapaxes(0, 1)  # noqa: E731
        return spread(jax.tree.map(lambda a: order(a).reshape(n, *a.shape[2:]), tree))

    return split, join


def value_and_grad(
    objective: Callable[..., tuple[Array, Any]], model: Any, points: tuple[Float[Array, "n *_"], ...], size: int
) -> tuple[tuple[Array, Any], Any]:
    """`((value, outputs), gradient)` of an `objective(model, *points)` that is a sum over points.

    At most `size` points at a time on each device, in equal blocks; a block's gradient is added to
    the total before the next begins. `outputs` are one row for each point.
    """
    whole = jax.value_and_grad(objective, has_aux=True)
    points, n = spread(points), len(points[0])
    if size >= n // traced_count():
        return whole(model, *points)
    split, join = _rounds(n, size)

    def one(total, part):
        (value, outputs), gradient = whole(model, *part)
        return jax.tree.map(jnp.add, total, (value, gradient)), outputs

    nothing = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, model))
    (value, gradient), outputs = jax.lax.scan(one, nothing, split(points))
    return (value, join(outputs)), gradient
