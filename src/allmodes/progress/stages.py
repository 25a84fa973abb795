"""Which stage of the work is under way, told by the code that does it to whoever shows it."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")
Listener = Callable[[str, int | None, int | None], None]

_counters: list[Callable[[int], None]] = []  # of all threads: compiled code calls back in any of them
_listener: contextvars.ContextVar[Listener | None] = contextvars.ContextVar("listener", default=None)


def stage(what: str, done: int | None = None, of: int | None = None) -> None:
    """Tell that `what` is under way, and how many of its equal parts are done, where it has
    parts.
    """
    listener = _listener.get()
    if listener is not None:
        listener(what, done, of)


def parts_of(parts: Sequence[T], what: str) -> Iterator[T]:
    """The parts of a stage one by one, told as it goes through them."""
    for i, part in enumerate(parts):
        stage(what, i, len(parts))
        yield part


def evaluated(points: int) -> None:
    """Tell that a function on the host was evaluated at so many points: what a stage waits for."""
    for counter in _counters:
        counter(points)


def heard() -> bool:
    """Whether anybody listens."""
    return _listener.get() is not None


@contextlib.contextmanager
def told_to(listener: Listener, counter: Callable[[int], None] | None = None) -> Iterator[None]:
    """Within it, stages are told to `listener`, `(what, done, of)`, and evaluations on the host to
    `counter`.
    """
    token = _listener.set(listener)
    counters = [] if counter is None else [counter]
    _counters.extend(counters)
    try:
        yield
    finally:
        _listener.reset(token)
        for one in counters:
            _counters.remove(one)
