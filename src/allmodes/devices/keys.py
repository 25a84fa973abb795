"""Whole numbers in the place of JAX's keys."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from allmodes.errors import ConfigError

Key = Array | int  # a JAX key, or a seed of one


def key_of(key: Any) -> Array:
    """A key, of a seed or as it is.

    **Raises** `ConfigError` for anything else.
    """
    if isinstance(key, jax.Array):
        return key
    if isinstance(key, bool) or not isinstance(key, int | np.integer) or not -(2**63) <= key < 2**63:
        raise ConfigError(f"key must be a JAX key, as jax.random.key(0), or a whole number, got {key!r}")
    return jax.random.key(int(key))


def keyed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let the argument `key`, given by its name, be a seed."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if kwargs.get("key") is not None:
            kwargs["key"] = key_of(kwargs["key"])
        return function(*args, **kwargs)

    return wrapped
