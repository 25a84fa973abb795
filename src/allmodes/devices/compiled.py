"""Compiled programs that a process keeps: a second fit of the same density, by the same settings,
compiles nothing.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax

_MOST = 64  # programs: of some ten densities


@functools.lru_cache(_MOST)
def program(function: Callable[..., Any], *settings: Hashable, static: tuple[int, ...] = ()) -> Any:
    """Give the compiled `function(*settings, *args)` of args, one for each of these settings;
    `static` are places of args that are compiled in.

    A density among the settings is the object itself. JAX keeps what was compiled by the function
    that it was made of, so that one made for each call would be compiled each time.
    """
    return jax.jit(functools.partial(function, *settings), static_argnums=static)


def forget() -> None:
    """Compile all programs anew: a density is not what it was."""
    program.cache_clear()
