"""Two precisions side by side: the density in float64 where its owner works in it, all else in
float32.

`jax_enable_x64` changes the type of every number that is made without one. So the library's own
programs run without it, whatever the user has set (`single`), and go back to it around the user's
functions alone (`double`).
"""

import contextlib
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def enabled() -> bool:
    """Whether numbers are float64 here, unless said otherwise."""
    return bool(jax.config.jax_enable_x64)


def double(on: bool = True) -> contextlib.AbstractContextManager:
    """Within it numbers are float64, inside of traced programs too; nothing where not `on`."""
    return jax.enable_x64(True) if on else contextlib.nullcontext()


def single(function: Callable[..., Any]) -> Callable[..., Any]:
    """Run a function with float32 as the type of its numbers, whatever the user has set."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if not enabled():
            return function(*args, **kwargs)
        with jax.enable_x64(False):
            return function(*args, **kwargs)

    return wrapped


def halves(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """A float64 number, or an array of them, as the sum of two float32: 48 bits.

    State and checkpoints hold float32 alone, and so does what is handed to functions on the host.
    """
    value = np.asarray(value, np.float64)
    with np.errstate(over="ignore"):  # beyond float32 it is infinite
        high = value.astype(np.float32)
    rest = np.where(np.isfinite(high), value - np.where(np.isfinite(high), high, 0.0), 0.0)
    return high, rest.astype(np.float32)


def traced_halves(value: Float[Array, "*n"]) -> tuple[Float[Array, "*n"], Float[Array, "*n"]]:
    """The same of an array of a traced program, within `double`."""
    high = value.astype(jnp.float32)
    rest = jnp.where(jnp.isfinite(high), value - high.astype(jnp.float64), 0.0)
    return high, rest.astype(jnp.float32)


def whole(high: Array, rest: Array) -> Array:
    """What `halves` took apart, in float64; within `double`."""
    return high.astype(jnp.float64) + rest.astype(jnp.float64)
