"""A user's function at many points: one after another, in batches, or by processes.

Imports nothing of JAX: worker processes import this file, and begin in a moment.
"""

import contextlib
import dataclasses
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from allmodes.devices.modules import files_named_in, import_file
from allmodes.errors import ConfigError, JobError

MOST = 4096  # points of a batch where no number is given
PARTS = 16  # of the points of a call, for each worker: some points take longer than others
UNKNOWN = 256  # parts for a pool that does not tell how large it is
BATCHES, LEAST = 64, 16  # of a function of many points, so many at most with so many points at least
_HOW = (
    "put it at the top level of a file that can be imported, with what it needs, or install cloudpickle for lambdas, "
    "functions within functions and notebooks"
)
_GUARD = "A script that starts workers must do its work below `if __name__ == '__main__':`, as each of them imports it"


class Answer(NamedTuple):
    """What functions gave at n points: for each an array whose first axis is n, NaN where one
    raised an error; at how many points that was, and the first error.
    """

    values: tuple[np.ndarray, ...]
    failed: int
    error: Exception | None


@dataclasses.dataclass(frozen=True)
class Task:
    """Functions of a point `(dim,)`, or `batched` of some `(n, dim)`, to values of given shapes a
    point.
    """

    functions: tuple[Callable[[np.ndarray], Any], ...]
    shapes: tuple[tuple[int, ...], ...]
    batched: bool
    name: str = "the function"

    def __call__(self, points: np.ndarray) -> Answer:
        """Evaluate them at all points `(n, dim)`."""
        one = _of_batch if self.batched else _of_each
        with np.errstate(all="ignore"):  # what is not finite carries no mass
            found = [one(f, points, shape) for f, shape in zip(self.functions, self.shapes, strict=True)]
        errors = [error for answer in found if (error := answer.error) is not None]
        values = tuple(answer.values[0] for answer in found)
        return Answer(values, max(answer.failed for answer in found), errors[0] if errors else None)


def _of_each(function: Callable, points: np.ndarray, shape: tuple[int, ...]) -> Answer:
    values, failed, first = np.full((len(points), *shape), np.nan), 0, None
    for i, point in enumerate(points):
        try:
            values[i] = np.asarray(function(point), np.float64).reshape(shape)
        except Exception as error:
            failed, first = failed + 1, first or error
    return Answer((values,), failed, first)


def _of_batch(function: Callable, points: np.ndarray, shape: tuple[int, ...]) -> Answer:
    """The same of many points at once; where it raises an error, halves of them, down to the point
    that it is.
    """
    try:
        return Answer((np.asarray(function(points), np.float64).reshape(len(points), *shape),), 0, None)
    except Exception as error:
        if len(points) == 1:
            return Answer((np.full((1, *shape), np.nan),), 1, error)
    half = len(points) // 2
    return joined([_of_batch(function, part, shape) for part in (points[:half], points[half:])])


def joined(answers: Iterable[Answer]) -> Answer:
    """The answers of parts as that of the whole."""
    answers = list(answers)
    errors = [answer.error for answer in answers if answer.error is not None]
    values = tuple(np.concatenate(parts) for parts in zip(*(answer.values for answer in answers), strict=True))
    return Answer(values, sum(answer.failed for answer in answers), errors[0] if errors else None)


class Here:
    """In this process: all points, or `most` at a time where the functions take many."""

    def __init__(self, tasks: Sequence[Task], most: int = MOST):
        self._tasks, self._most = tasks, most

    def __call__(self, which: int, points: np.ndarray) -> Answer:
        """Evaluate one of the tasks at points."""
        task = self._tasks[which]
        size = self._most if task.batched else max(1, len(points))
        return joined([task(points[i : i + size]) for i in range(0, max(1, len(points)), size)])


class Pool:
    """By a pool of the user's: anything with a `map` of a function and a list."""

    def __init__(self, pool: Any, tasks: Sequence[Task], most: int = MOST):
        if not callable(getattr(pool, "map", None)):
            raise ConfigError(f"pool must have a method map(function, list), got a {type(pool).__name__}")
        self._pool, self._tasks, self._most = pool, tasks, most

    def __call__(self, which: int, points: np.ndarray) -> Answer:
        """Evaluate one of the tasks at points.

        **Raises** `ConfigError` where the pool cannot send it, `JobError` where its processes have
        ended.
        """
        task = self._tasks[which]
        try:
            return joined(self._pool.map(task, _parts(points, task.batched, UNKNOWN, self._most)))
        except BrokenProcessPool as error:
            raise JobError(f"the processes of the pool ended while they evaluated {task.name} ({error})") from error
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if "pickle" not in str(error):
                raise
            raise ConfigError(f"the pool cannot send {task.name} to its processes ({error}): {_HOW}") from error


class Workers:
    """By processes of our own, each of which gets the functions once, as it begins.

    They are spawned: a fork of a process with the threads of JAX may never wake up. They end with
    this process, however it ends.
    """

    def __init__(self, count: int, tasks: Sequence[Task], most: int = MOST):
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ConfigError(f"workers must be a whole number of at least 1, got {count!r}")
        self._count, self._most, self._tasks = int(count), most, tasks
        self._payload = _pickled(tasks)
        self._executor: ProcessPoolExecutor | None = None

    def __call__(self, which: int, points: np.ndarray) -> Answer:
        """Evaluate one of the tasks at points.

        **Raises** `JobError` where processes cannot be started, or have ended; `ConfigError` where
        they cannot find the function.
        """
        task = self._tasks[which]
        parts = _parts(points, task.batched, PARTS * self._count, self._most)
        try:
            with _one_thread_each():
                self._executor = self._executor or self._started()
                answers = self._executor.map(_asked, [which] * len(parts), parts)
            return joined(answers)
        except BrokenProcessPool as error:
            was_there, self._executor = self._executor is not None, None
            if was_there:
                raise JobError(
                    f"a worker process ended while it evaluated {task.name} ({self._count} were asked for): it was "
                    "killed, ran out of memory, or the function ended it. Take fewer workers where memory is short; a "
                    "run in a folder goes on where it was"
                ) from error
            raise JobError(
                f"worker processes ended as they began: what they wrote on stderr says why. {_GUARD}"
            ) from error

    def _started(self) -> ProcessPoolExecutor:
        if is_worker():
            raise JobError(f"a worker process was asked to start workers of its own. {_GUARD}")
        given = files_named_in(self._payload), self._payload
        executor = ProcessPoolExecutor(self._count, multiprocessing.get_context("spawn"), _begin, given)
        executor.submit(_nothing).result()
        return executor


def _parts(points: np.ndarray, batched: bool, count: int, most: int) -> list[np.ndarray]:
    """Points in parts: those of a batched function are the same for pools of all sizes, since its
    values may depend on them in the last bit.
    """
    size = -(-len(points) // (BATCHES if batched else count))
    size = min(max(size, LEAST), most) if batched else max(1, size)
    return [points[i : i + size] for i in range(0, max(1, len(points)), size)]


def _pickled(tasks: Sequence[Task]) -> bytes:
    """Tasks as bytes, by cloudpickle where it is installed: it knows lambdas, closures and
    notebooks.

    **Raises** `ConfigError` where they cannot be pickled.
    """
    with contextlib.suppress(ImportError):
        import cloudpickle

        with contextlib.suppress(Exception):
            return cloudpickle.dumps(tasks)
    try:
        return pickle.dumps(tasks)
    except Exception as error:
        raise ConfigError(f"{tasks[0].name} cannot be sent to worker processes ({error}): {_HOW}") from error


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that begin within it have one thread for linear algebra, unless the user has said
    how many.
    """
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    new = [name for name in names if name not in os.environ]
    os.environ.update(dict.fromkeys(new, "1"))
    try:
        yield
    finally:
        for name in new:
            os.environ.pop(name, None)


# In a worker.

_tasks: Sequence[Task] | Exception | None = None  # what this process evaluates, where it is a worker


def is_worker() -> bool:
    """Whether this process is a worker, or is about to be one: it imports the user's script."""
    return _tasks is not None or getattr(multiprocessing.current_process(), "_inheriting", False)


def _begin(files: dict[str, str], payload: bytes) -> None:
    """Take up the tasks. The parent alone hears Ctrl-C, and a worker whose parent has gone ends."""
    global _tasks
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _tasks = ()
    try:
        for name, path in files.items():
            import_file(Path(path), name)
        _tasks = pickle.loads(payload)
    except Exception as error:
        _tasks = error


def _nothing() -> None:
    """What the first call of a worker does."""


def _asked(which: int, points: np.ndarray) -> Answer:
    if isinstance(_tasks, Exception):
        raise ConfigError(f"a worker process cannot find the function ({type(_tasks).__name__}: {_tasks}): {_HOW}")
    assert _tasks is not None
    answer = _tasks[which](points)
    return answer._replace(error=_portable(answer.error))


def _portable(error: Exception | None) -> Exception | None:
    """An error that another process can read."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
