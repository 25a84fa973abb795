"""How long a job takes after training, so that a budget of seconds can keep time for it; measured,
not guessed.
"""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.devices.processes import broadcast
from allmodes.diffusion.corrections import Chains
from allmodes.diffusion.corrections.chain_moves import chain_evaluations
from allmodes.jobs.mode_table import EXPECTED
from allmodes.metrics import evaluate
from allmodes.metrics.mode_weights import sets_for
from allmodes.metrics.modes import mode_report
from allmodes.progress.stages import told_to
from allmodes.target import Target
from allmodes.training.pace import Pace

RAW = 5  # raw draws for each corrected one that a trained sampler needs, of those that it may take
COMPILE = 1.2  # what drawing and correcting take to compile, over what training does
REPORT = 6.0  # seconds that the imports, the report and the end of the job take
MODES = 5.0  # seconds that telling modes apart takes, for compilation and links, beside evaluations
SETS = 1.5  # of draws are judged, as one of the two needs no floors of its own
FEW = 20  # draws that are judged first, for the imports that it takes
TRIED = 256  # points whose density is timed, twice; they are not among the evaluations of the run


@dataclasses.dataclass(frozen=True)
class Afterwards:
    """What comes after training: `n` draws, drawn, corrected, judged for `judging` seconds and
    reported.

    `evaluation`: seconds that the density and its gradient take at one point, many at a time.
    """

    target: Target
    method: Any
    n: int
    judging: float
    evaluation: float

    @property
    def _chains(self) -> Chains:
        return Chains().for_target(self.target)

    def seconds(self, pace: Pace, clock: dict[str, float]) -> float:
        """All of it, by the pace of training and the seconds of its compilation so far."""
        total = self.judging + REPORT + self._telling() + COMPILE * clock["compile"]
        raw = min(RAW, self._chains.pool)
        if pace.known:
            paths = 1.5 + raw + self._chains.rounds  # those that exact draws are noised along too
            total += paths * self.method.renewals_of(self.n) * pace.renewal
        return total + self.n * self.evaluation * (1 + raw) + self._moves()

    def pool(self, left: float, drawing: float, clock: dict[str, float]) -> int:
        """How many raw draws for each corrected one fit into the seconds `left`, where n draws took
        `drawing`.
        """
        left -= (
            self.judging + REPORT + self._telling() + 0.5 * drawing + 0.75 * COMPILE * clock["compile"] + self._moves()
        )
        fits = math.floor(left / max(drawing, 1e-9)) - self._chains.rounds
        return min(max(fits, 1), self._chains.pool)

    def _telling(self) -> float:
        """Seconds that it takes to tell modes apart."""
        return 0.0 if self.target.symmetry is not None else MODES + EXPECTED * self.evaluation

    def _moves(self) -> float:
        """Seconds of the evaluations of the chains."""
        moves = chain_evaluations(self._chains.rounds, self._chains.moves)
        return self.n * moves * self.evaluation


def measured(target: Target, method: Any, n: int, repeats: int) -> Afterwards:
    """Time a little of each kind of the work: two repeats of the metrics, a report of modes, and
    the density.
    """
    with told_to(lambda *_: None):  # the stages of a rehearsal are nobody's
        return _measured(target, method, n, repeats)


def _measured(target: Target, method: Any, n: int, repeats: int) -> Afterwards:
    judging = 0.0
    if target.sample is not None:
        x = np.asarray(target.sample(jax.random.key(0), n))
        modeless = dataclasses.replace(target, modes=None)
        few = lambda: evaluate(modeless, x[:FEW], jax.random.key(1), repeats=2)  # noqa: E731
        some = lambda: evaluate(modeless, x, jax.random.key(1), repeats=2)  # noqa: E731
        judging += SETS * (repeats / 2) * _seconds(some, first=few)
    if target.modes is not None and target.sample is not None:
        report = lambda: mode_report(target.modes, np.asarray(target.sample(jax.random.key(2), n)))  # noqa: E731
        judging += sets_for(n) * _seconds(report, first=report)
    free = target.free
    location = 0.0 if free.location is None else free.location
    scale = 1.0 if free.scale is None else free.scale
    points = jnp.asarray(location) + jnp.asarray(scale) * jax.random.normal(jax.random.key(3), (TRIED, free.dim))
    evaluated = jax.jit(free.evaluate)
    density = lambda: jax.block_until_ready(evaluated(points))  # noqa: E731
    each = _seconds(density, first=density) / TRIED
    judging, each = (float(seconds) for seconds in broadcast((judging, each)))  # all processes plan alike
    return Afterwards(target, method, n, judging, each)


def _seconds(work: Callable[[], Any], first: Callable[[], Any]) -> float:
    """Of `work`, after a `first` like it that has the imports and compilation."""
    first()
    begin = time.monotonic()
    work()
    return time.monotonic() - begin
