"""Functions on the host as compiled code calls them: points in batches of any nesting, exact
counts, and what was evaluated before found again.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allmodes.devices.callbacks import failed
from allmodes.devices.workers import MOST, Answer, Here, Pool, Task, Workers, is_worker, joined
from allmodes.errors import ConfigError, TargetError
from allmodes.files.evaluations import Rows
from allmodes.progress.stages import evaluated

FEW = 256  # points that are evaluated before they are kept, where they are
QUICK, SOME = 1e-4, 1000  # seconds of a point below which none is kept, and from how many points on that is known
PROBES = 9  # points that are tried before a function counts as failing everywhere


class Host:
    """A log-density, and its gradient where there is one, on arrays `(.., dim)` of any batch; and
    what their calls have taken.
    """

    def __init__(
        self,
        log_prob: Callable,
        grad: Callable | None,
        dim: int,
        batched: bool | int = False,
        workers: int | None = None,
        pool: Any = None,
    ):
        if workers is not None and pool is not None:
            raise ConfigError("workers and pool are two ways to do one thing: give one of them")
        if not isinstance(batched, bool) and batched < 1:
            raise ConfigError(f"batched must be True, False, or at least 1 point at a time, got {batched}")
        self.name = getattr(log_prob, "__name__", "log_prob")
        functions = (log_prob,) if grad is None else (log_prob, grad)
        shapes = ((), (dim,))
        self._tasks = tuple(
            Task(functions[:count], shapes[:count], bool(batched), self.name) for count in range(1, len(functions) + 1)
        )
        most = MOST if isinstance(batched, bool) else int(batched)
        self._evaluate = _evaluator(self._tasks, most, workers, pool)
        self._is_here = isinstance(self._evaluate, Here)
        self._dim, self._rows = dim, None
        self.calls, self.points, self.seconds = 0, 0, 0.0
        self.found = 0  # points that were evaluated by an earlier process, and found in the run folder
        self.failed: int = 0  # at how many points
        self.error: Exception | None = None  # the first one

    def values(self, x: Any, dtype: Any = np.float32) -> np.ndarray:
        """The log-density."""
        return self._called(0, x, dtype)[0]

    def both(self, x: Any, dtype: Any = np.float32) -> tuple[np.ndarray, ...]:
        """The log-density and its gradient."""
        return self._called(1, x, dtype)

    def each(self) -> float:
        """Seconds that a point has taken so far, on average."""
        return self.seconds / max(1, self.points)

    def _called(self, which: int, x: Any, dtype: Any) -> tuple[np.ndarray, ...]:
        begin, x = time.perf_counter(), np.asarray(x, np.float64)
        points = x.reshape(-1, x.shape[-1])
        answer = self._answer(which, points) if self._rows is None else self._kept(self._rows, which, points)
        self.calls += 1
        self.seconds += time.perf_counter() - begin
        with np.errstate(over="ignore"):  # beyond float32 a value is infinite
            return tuple(v.reshape(*x.shape[:-1], *v.shape[1:]).astype(dtype) for v in answer.values)

    @contextlib.contextmanager
    def keeping(self, path: Path) -> Iterator[None]:
        """Within it, evaluations are kept in a file, and those that are there are not made again;
        not of a function that takes less than .1 ms a point.

        **Raises** `RunError` where the file cannot be written, or is of another function.
        """
        if self._rows is not None:  # by whoever called this one
            yield
            return
        widths = tuple(math.prod(shape) for shape in self._tasks[-1].shapes)
        self._rows = Rows(path, self._dim, widths)
        try:
            yield
        finally:
            self._rows.close()
            self._rows = None

    def _kept(self, rows: Rows, which: int, points: np.ndarray) -> Answer:
        """The answer a few points at a time, which are on the disk before the next are begun."""
        return joined([self._kept_few(rows, which, points[i : i + FEW]) for i in range(0, max(1, len(points)), FEW)])

    def _kept_few(self, rows: Rows, which: int, points: np.ndarray) -> Answer:
        if self.points >= SOME and self.each() < QUICK:  # a file of millions of rows would save seconds
            return self._answer(which, points)
        shapes = self._tasks[which].shapes
        known, values = rows.find(points, len(shapes))
        self.found += int(known.sum())
        failed, error = 0, None
        if not known.all():
            fresh, failed, error = self._answer(which, points[~known])
            flat = [value.reshape(len(value), -1) for value in fresh]
            rows.add(points[~known], flat)
            for value, new in zip(values, flat, strict=True):
                value[~known] = new
        found = tuple(value.reshape(len(points), *shape) for value, shape in zip(values, shapes, strict=True))
        return Answer(found, failed, error)

    def _answer(self, which: int, points: np.ndarray) -> Answer:
        answer = self._evaluate(which, points)
        self.points += len(points)
        evaluated(len(points))
        if answer.error is not None:
            self.error = self.error or answer.error
            self.failed += answer.failed
            failed(self.name, answer.failed, answer.error)
        return answer

    def check(self, places: np.ndarray, where: str, hint: str) -> None:
        """Call the functions at the first of some places at which they do not fail, and look at
        what they return.

        **Raises** `TargetError` where they fail at all of them, or return another shape;
        `ConfigError` and `JobError` where processes cannot evaluate them.
        """
        first: Exception | None = None
        for place in places:
            try:
                self._check_shapes(place)
            except TargetError:
                raise
            except Exception as error:
                first = first or error
                continue
            if not self._is_here and not is_worker():  # which finds the same words in the user's file
                self._evaluate(0, place[None])
            return
        words = f"{type(first).__name__}: {first}"
        more = f" and at {len(places) - 1} other points" if len(places) > 1 else ""
        raise TargetError(f"{self.name} fails {where}{more}: {words}{hint}") from first

    def _check_shapes(self, place: np.ndarray) -> None:
        task, dim = self._tasks[-1], len(place)
        for what, function, shape in zip(("log_prob", "grad"), task.functions, task.shapes, strict=False):
            given = np.stack([place, place]) if task.batched else place
            wanted = (2, *shape) if task.batched else shape
            with np.errstate(all="ignore"):
                got = np.asarray(function(given.copy()), np.float64).shape
            if got != wanted:
                points = f"(2, {dim})" if task.batched else f"({dim},)"
                raise TargetError(f"{what} of points {points} must have shape {wanted}, but has {got}")


def _evaluator(tasks: Sequence[Task], most: int, workers: int | None, pool: Any) -> Here | Pool | Workers:
    if pool is not None:
        return Pool(pool, tasks, most)
    return Here(tasks, most) if workers is None else Workers(workers, tasks, most)
