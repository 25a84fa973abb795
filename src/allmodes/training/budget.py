"""What is left of seconds and of evaluations, where they are limited."""

import math
import warnings
from collections.abc import Callable
from typing import Any

from allmodes.method import Method
from allmodes.training.pace import Pace

CHUNK = 100  # most steps in one compiled call
FIRST = 5  # steps of the first call where evaluations are limited: no more is known of their pace
GROWTH = 4  # where time is, the first call is of one step, and the next of so many times those taken at most
SHARE = 20  # and it is looked at after a 20th of what training has, or sooner
MOST = 10**9  # steps that any budget lasts for: where steps cost no evaluations, before the first renewal
KEPT = 0.85  # most of what search and compilation leave that is kept for what comes after training


class Budget:
    """What is left of seconds and of evaluations, where they are limited, by the pace so far.

    Of the seconds, training has what the search, compilation and the reserve for what comes after
    leave. `evaluation` tells the seconds of one so far, of a density that is called on the host.
    """

    def __init__(
        self,
        method: Method,
        seconds: float | None,
        evaluations: int | None,
        reserve: Callable[[Pace, dict[str, float]], float] | None = None,
        evaluation: Callable[[], float] | None = None,
    ):
        self._method, self._reserve = method, reserve or (lambda pace, clock: 0.0)
        self._seconds = None if seconds is None else float(seconds)
        self._evaluations = None if evaluations is None else float(evaluations)
        self._evaluation = evaluation or (lambda: 0.0)
        self.pace = Pace(method.period)
        self.used, self.steps_left = 0.0, CHUNK
        self.seconds_left: float | None = None
        self._share = 0.0  # seconds between two looks at the clock

    def begin(self, state: Any, clock: dict) -> None:
        """Start from here: nothing of the pace is known, but for what evaluations take."""
        self.pace.dear = self._evaluation() * self._method.period_evaluations
        self._first, self._clock = self._spent(state), dict(clock)
        self._taken = 0
        self._judge(state, clock)
        self.steps_left = CHUNK if self._evaluations is None else FIRST
        if self._seconds is not None:
            self.steps_left = 1

    def update(self, state: Any, clock: dict) -> None:
        """Take note of where training stands."""
        step = int(state.step)
        self.pace.add(self._first[0] + self._taken, step - self._first[0] - self._taken, self._since(clock))
        self._taken, self._clock = step - self._first[0], dict(clock)
        self._judge(state, clock)
        fits = []
        if self._evaluations is not None:
            _, spent = self._spent(state)
            pace = (spent - self._first[1]) / max(self._taken, 1)
            fits.append(min(MOST, int((self._evaluations - spent) / max(pace, 1e-9))))
        if self._seconds is not None:
            fits.append(self.pace.steps(step, self.seconds_left, MOST))
        self.steps_left = max(1, min(fits, default=CHUNK))

    def chunk(self, state: Any) -> int:
        """How many steps to take before the clock is looked at again."""
        if self._seconds is None or not self._taken:
            return min(CHUNK, self.steps_left)
        look = self.pace.steps(int(state.step), self._share, CHUNK)
        return max(1, min(CHUNK, self.steps_left, GROWTH * self._taken, look))

    def warn(self, step: int, clock: dict) -> None:
        """Say in one line where the budget went, when it left no training."""
        if self._seconds is not None and step == 0:
            warnings.warn(
                f"nothing was trained: the search and compilation took {sum(clock.values()):.3g} s of the "
                f"{self._seconds:g} s allowed. Allow more seconds",
                stacklevel=4,
            )

    def _since(self, clock: dict) -> float:
        return clock["train"] - self._clock["train"]

    def _spent(self, state: Any) -> tuple[int, float]:
        return int(state.step), float(int(self._method.evaluations(state).log_prob))

    def _judge(self, state: Any, clock: dict) -> None:
        """How much of either is used up."""
        self.used = 0.0
        if self._evaluations is not None:
            self.used = self._spent(state)[1] / self._evaluations
        if self._seconds is not None:
            training = self._seconds - clock["start"] - clock["compile"]
            training -= min(self._reserve(self.pace, clock), KEPT * max(training, 0.0))
            self.seconds_left = training - clock["train"]
            self._share = max(training, 0.0) / SHARE
            self.used = max(self.used, clock["train"] / training if training > 0 else math.inf)
