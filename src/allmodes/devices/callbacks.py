"""What happens in functions that compiled code calls back: an error comes out of the call that
needed it as it was raised, and points at which a function failed are told in one warning.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax


class _Told:
    """What has happened since the outermost call of the library began."""

    def __init__(self) -> None:
        self.depth = 0
        self.fault: BaseException | None = None
        self.failed: dict[str, tuple[int, str]] = {}  # function -> points, and what the first error was


_told = _Told()


def called_back(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the error of a function that compiled code calls: XLA makes a long text of it, and of
    Ctrl-C an error like any other.
    """

    @functools.wraps(function)
    def kept(*args: Any) -> Any:
        try:
            return function(*args)
        except BaseException as error:
            _told.fault = error
            raise RuntimeError(f"{type(error).__name__}: {error}") from error

    return kept


def failed(name: str, points: int, error: BaseException) -> None:
    """Tell that a function raised an error at some points: at once, or at the end of the call of
    the library that is under way.
    """
    words = f"{type(error).__name__}: {error}"
    if _told.depth == 0:
        _warn(name, points, words)
        return
    before, first = _told.failed.get(name, (0, words))
    _told.failed[name] = before + points, first


def _warn(name: str, points: int, words: str) -> None:
    warnings.warn(
        f"{name} raised an error at {points:,} point{'s' if points > 1 else ''}, which carry no mass; the first: "
        f"{words}",
        stacklevel=3,
    )


def _is_array(part: Any) -> bool:
    return isinstance(part, jax.Array) and not isinstance(part, jax.core.Tracer)


def watched(call: Callable[..., Any]) -> Callable[..., Any]:
    """Have a call of the library raise what a function of the user raised, and warn once of the
    points at which it failed.
    """

    @functools.wraps(call)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _told.depth == 0:
            _told.fault, _told.failed = None, {}
        _told.depth += 1
        try:
            found = call(*args, **kwargs)
            jax.block_until_ready([part for part in getattr(found, "__dict__", {}).values() if _is_array(part)])
        except jax.errors.JaxRuntimeError:
            if _told.fault is None:
                raise
            raise _told.fault from None
        finally:
            _told.depth -= 1
        if _told.depth == 0:
            for name, (points, words) in _told.failed.items():
                _warn(name, points, words)
        return found

    return wrapped
