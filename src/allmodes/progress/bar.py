"""Progress of a job, on stderr: a bar for each stage in a terminal, sparse plain lines anywhere
else.
"""

import collections
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any, SupportsFloat, SupportsInt

from allmodes.progress.stages import told_to


def _short(value: float | int) -> str:
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.0f}"


def _clock(seconds: float | int) -> str:
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


class Progress:
    """A context manager that shows how a job goes: within it, `stages.stage` anywhere in the
    library is shown here.

    `trained` is called once a chunk of training steps.

    **Arguments**

    - `quiet`: show nothing at all.
    - `every`: seconds between the lines written where there is no terminal.
    - `stream`: the text stream to write to; stderr when not given.
    - `transient`: leave nothing on the terminal at the end.
    """

    def __init__(self, *, quiet: bool = False, every: float | int = 10.0, stream: Any = None, transient: bool = False):
        self.quiet = quiet
        self.transient = transient
        self.every = every
        self.stream = sys.stderr if stream is None else stream
        self.live = not quiet and self.stream.isatty() and os.environ.get("TERM", "") not in ("", "dumb")
        self._last_line = None
        self._unsaid = ""  # the newest line, while it waits for its time
        self._recent = collections.deque(maxlen=16)  # (step, evaluations, seconds): the window of the rates
        self._bar: Any = None
        self._task: Any = None  # the row of training
        self._stage: Any = None  # that of any other stage
        self._name = ""  # of the stage shown
        self._words = ""  # what is shown of it
        self._count = 0  # evaluations on the host
        self._counted: collections.deque = collections.deque(maxlen=256)  # (seconds, count): the window of their rate
        self._listening = contextlib.ExitStack()

    def __enter__(self) -> "Progress":
        """Start the live line, where there is one."""
        if self.live:
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            # The text comes whole from `update`, so that both outlets say the same.
            columns = (BarColumn(bar_width=12), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
            console = Console(file=self.stream, highlight=False)
            self._bar = Bar(*columns, console=console, transient=self.transient)
            self._bar.start()
        if not self.quiet:
            self._listening.enter_context(told_to(self.stage, self.evaluated))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last state on the screen."""
        self._listening.close()
        if self._bar is not None:
            self._end_stage()
            self._bar.stop()
            self._bar = None
            self._task = None
        self._say_last()

    def update(
        self,
        *,
        step: SupportsInt,
        total_steps: SupportsInt,
        figures: Mapping[str, str] = {},
        evaluations: SupportsInt = 0,
        seconds: SupportsFloat = 0.0,
        left: SupportsFloat | None = None,
        at_most: bool = False,
    ) -> None:
        """Show the state after `step` steps and `seconds` seconds; `figures` are the method's own,
        as they are to be read.

        `left`: seconds until training ends, where that can be told, or `at_most` so many; nothing
        is shown in its place.
        """
        if self.quiet:
            return
        step, total, evaluations, seconds = int(step), int(total_steps), int(evaluations), float(seconds)
        if self._recent and step < self._recent[-1][0]:
            self._recent.clear()
        self._recent.append((step, evaluations, seconds))
        text = self._describe(step, total, figures, None if left is None else float(left), at_most)
        self._end_stage()
        if self._bar is not None:
            if self._task is None:
                self._task = self._bar.add_task(text, total=total)
            self._bar.update(self._task, completed=step, total=total, description=text)
            return
        now = time.monotonic()
        if self._last_line is None or step >= total or now - self._last_line >= self.every:
            self._last_line = now
            self._unsaid = ""
            print(text, file=self.stream, flush=True)
        else:
            self._unsaid = text

    def trained(self, state: Any) -> None:
        """Show a `fit.Progress`."""
        self.update(
            step=state.step, total_steps=state.steps, figures=state.figures,
            evaluations=state.line["log_prob_evaluations"], seconds=state.seconds, left=state.left,
            at_most=state.at_most,
        )  # fmt: skip

    def stage(self, what: str, done: int | None = None, of: int | None = None) -> None:
        """Show which stage is under way: a bar of its parts, where it has any, or one that only
        moves.

        What follows a colon is a detail. Where there is no terminal, a line when a stage begins,
        and one now and then for its parts.
        """
        if self.quiet:
            return
        parts = "" if of is None or not done else f": {done:,} of {of:,}"
        whole = what.split(":")[0]
        if self._bar is not None:
            if what != self._name or self._stage is None:
                self._end_stage()
                self._stage = self._bar.add_task(what, total=of)
            self._words = what + parts
            self._bar.update(self._stage, total=of, completed=done or 0, description=self._words)
        elif whole != self._name.split(":")[0]:
            self.message(whole)
            self._last_line = time.monotonic()
        elif parts and time.monotonic() - (self._last_line or 0.0) >= self.every:
            self.message(what + parts)
            self._last_line = time.monotonic()
        self._name = what

    def evaluated(self, points: int) -> None:
        """Show evaluations on the host, and how many there are a second, beside a stage that is
        under way.
        """
        now, self._count = time.monotonic(), self._count + points
        first = self._counted[0] if self._counted else (now, self._count)
        self._counted.append((now, self._count))
        if not self._name or now <= first[0]:
            return
        rate = f"{_short(self._count)} evals ({_short((self._count - first[1]) / (now - first[0]))}/s)"
        if self._bar is not None and self._stage is not None:
            self._bar.update(self._stage, description=f"{self._words} · {rate}")
        elif self._bar is None and now - (self._last_line or now) >= self.every:
            self.message(f"{self._name} · {rate}")
            self._last_line = now

    def _end_stage(self) -> None:
        """Take the row of a stage away: it is over."""
        if self._bar is not None and self._stage is not None:
            self._bar.remove_task(self._stage)
        self._stage, self._name = None, ""

    def message(self, text: str) -> None:
        """Write one line above the live line."""
        if self.quiet:
            return
        self._say_last()
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self.stream, flush=True)

    def _say_last(self) -> None:
        if self._unsaid:
            print(self._unsaid, file=self.stream, flush=True)
            self._unsaid = ""

    def _describe(self, step: int, total: int, figures: Mapping[str, str], left: float | None, at_most: bool) -> str:
        """One line of at most some 75 characters."""
        _, evaluations, seconds = self._recent[-1]
        first = self._recent[0] if len(self._recent) > 1 else (0, 0, 0.0)
        elapsed = seconds - first[2]
        parts = [f"{step:,}/{total:,}", *(f"{name} {value}" for name, value in figures.items())]
        rate = f" ({_short((evaluations - first[1]) / elapsed)}/s)" if elapsed > 0 else ""
        parts.append(f"{_short(evaluations)} evals{rate}")
        if step >= total:
            parts.append(f"{_clock(seconds)} in all")
        elif left is not None:
            parts.append(f"{'at most ' if at_most else ''}{_clock(left)} left")
        return " · ".join(parts)
