"""One cell of a table: a run of one method on one target from one seed, within limits."""

import subprocess
from pathlib import Path
from typing import Any, NamedTuple

from allmodes.errors import RunError
from allmodes.files import interrupt
from allmodes.files.run_folder import Run
from allmodes.jobs.benchmark import command_of
from allmodes.method import Method

FAILED = "failed.json"  # why there is no result, and within which limits
GRACE = 2  # times the seconds, after which a run is ended that has not ended by itself


class Limits(NamedTuple):
    """Of one cell: evaluations of training and raw draws, seconds of the whole run, whichever ends
    first; and seconds after which it is ended and its cell stays empty.

    Methods that train nothing cannot end sooner by themselves: evaluations and the timeout bound
    them.
    """

    evaluations: int
    seconds: float | None
    timeout: float | None

    @property
    def label(self) -> str:
        """What names the run folders."""
        return f"{self.evaluations:g}" + ("" if self.seconds is None else f"-{self.seconds:g}s")


class Work(NamedTuple):
    """What a cell is of: a method has the name that it is asked for by, beside itself."""

    target: str
    asked: str
    method: Method
    seed: int
    n: int

    def folder(self, out: Path, limits: Limits) -> Run:
        """Its run folder."""
        return Run(out / f"{self.target}-{self.method.name}-{limits.label}-{self.n}-{self.seed}")


class Cell(NamedTuple):
    """What `result.json` holds, or why there is none."""

    result: dict[str, Any] | None
    reason: str


def limits_of(evaluations: int, seconds: float | None, timeout: float | None) -> Limits:
    """The limits of a cell; without a timeout of its own it is ended after twice the seconds."""
    if timeout is None and seconds is not None:
        timeout = GRACE * seconds
    return Limits(evaluations, seconds, timeout)


def fill(work: Work, out: Path, limits: Limits, repeats: int, again: bool = False) -> Cell:
    """The cell: what is there, or what a run in a process of its own gives.

    A cell that failed within these limits stays empty, unless it is to be tried `again`: from where
    it stood.
    """
    run = work.folder(out, limits)
    if (run / "result.json").exists():
        return Cell(run.read_json("result.json"), "")
    failed = _failed(run)
    if not again and failed.get("timeout") == limits.timeout and failed.get("reason"):
        return Cell(None, failed["reason"])
    reason = _run(run, work, limits, repeats)
    if reason:
        run.create().write_json(FAILED, {"reason": reason, "timeout": limits.timeout})
        return Cell(None, reason)
    (run / FAILED).unlink(missing_ok=True)
    return Cell(run.read_json("result.json"), "")


def _failed(run: Run) -> dict[str, Any]:
    try:
        return run.read_json(FAILED)
    except RunError:
        return {}


def _run(run: Run, work: Work, limits: Limits, repeats: int) -> str:
    """Why the run has no result; empty where it has."""
    options = ["--evaluations", str(limits.evaluations)]
    command = command_of(run, work.target, work.asked, work.seed, work.n, repeats, True, options)
    if limits.seconds is not None and work.method.steps:
        command += ["--seconds", f"{limits.seconds:g}"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    try:
        done = interrupt.call(command, timeout=limits.timeout, **pipes)
    except subprocess.TimeoutExpired:
        return f"ended after {limits.timeout:,g} s without a result"
    if done.returncode == interrupt.STATUS:
        raise KeyboardInterrupt
    return "" if done.returncode == 0 else _last_line(done.stderr, done.returncode)


def _last_line(err: str, status: int) -> str:
    """The last line of stderr, which says what is wrong, or the signal that ended the process."""
    if status < 0:
        return f"ended by signal {-status}"
    lines = [line.strip() for line in err.splitlines() if line.strip()]
    return lines[-1].removeprefix("allmodes: ") if lines else f"ended with status {status}"
