"""Metrics of how the draws share themselves among the known modes; floors are means over exact sets
of as many draws.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array

from allmodes.metrics.metric import Judged, Metric, has_modes
from allmodes.metrics.modes import ModeReport, from_weights, mode_report
from allmodes.progress.stages import stage
from allmodes.target import Target

ROUNDING = 1e-9  # a floor below it is none
MODE_SETS, MODE_POINTS = 50, 2_000_000  # exact sets for the floors of mode weights, and points in all of them


def sets_for(n: int) -> int:
    """How many exact sets of n draws the floors of mode weights are means over."""
    return max(10, min(MODE_SETS, MODE_POINTS // n))


def mode_floor(target: Target, n: int, key: Array) -> list[ModeReport]:
    """Mode reports of exact sets of n draws each: 50 of them, or 2e6 / n for large n, at least 10.

    Exact draws where the target has them; else multinomial counts at the true weights, none of them
    off the modes.
    """
    modes = target.modes
    sets = sets_for(n)
    if target.sample is None:
        true = np.asarray(modes.weights, np.float64)
        rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
        return [from_weights(counts / n, true) for counts in rng.multinomial(n, true / true.sum(), size=sets)]
    # Several sets a call: an eager sampler costs most of its time per call.
    per_call = max(1, min(sets, 4_000_000 // (n * target.dim)))
    reports = []
    for subkey in jax.random.split(key, -(-sets // per_call)):
        drawn = np.asarray(target.sample(subkey, per_call * n)).reshape(per_call, n, target.dim)
        reports += [mode_report(modes, x) for x in drawn]
    return reports[:sets]


def over_floors(value: float, floors: list[float]) -> dict[str, float | int]:
    """Write the entry of a figure that all n draws give at once: one value, many floors.

    Its own sampling spread is taken to be that between the exact sets, and is in the ratio's
    standard error.
    """
    floor, spread, sets = np.mean(floors), np.std(floors, ddof=1), len(floors)
    if not floor > ROUNDING:  # of one mode, whose weight is 1 whatever is drawn
        over, error = float("nan"), float("nan")
    else:
        over = value / floor
        error = spread * np.sqrt(1.0 + over**2 / sets) / floor
    return {"value": value, "floor": floor, "ratio": over, "ratio_std_error": error, "repeats": sets}


def reports(judged: Judged) -> tuple[ModeReport, list[ModeReport]]:
    """Report on all draws, with their weights, and on exact sets of as many, made for the first
    metric that asks.
    """
    return judged.once("modes", lambda: _reports(judged))


def _reports(judged: Judged) -> tuple[ModeReport, list[ModeReport]]:
    stage("evaluating: mode weights")
    target, n, key = judged.target, len(judged.x), judged.streams("modes")
    about = ("modes", np.asarray(jax.random.key_data(key)).tobytes(), n)
    report = mode_report(target.modes, judged.x, judged.log_weight)
    if about not in judged.shared:
        judged.shared[about] = mode_floor(target, n, key)
    return report, judged.shared[about]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModeMetric(Metric):
    """A figure of the `ModeReport` of all draws, weighted.

    **Attributes**

    - `figure`: which of a report.
    - `over_floor`: whether a ratio to the floor is told, with its error.
    - `counts`: whether it counts modes, so that the number of all of them goes along.
    """

    figure: Callable[[ModeReport], float | int]
    over_floor: bool = False
    counts: bool = False
    applies: Callable[[Target], bool] = has_modes
    weighs: ClassVar[bool] = True

    def entry(self, judged: Judged) -> dict[str, Any] | None:
        """`{"value", "floor"}` and what the attributes say; None where there are no draws."""
        if len(judged.x) == 0:
            return None
        report, exact = reports(judged)
        value, floors = self.figure(report), [self.figure(one) for one in exact]
        if self.over_floor:
            return over_floors(value, floors)
        of = {"of": len(report.weights)} if self.counts else {}
        return {"value": value, **of, "floor": np.mean(floors)}


MODE_TV = ModeMetric(
    name="mode_tv",
    label="Mode weights, total variation",
    meaning="The share of the draws that lie in the wrong mode.",
    figure=lambda report: report.total_variation,
    over_floor=True,
)
MODE_WORST = ModeMetric(
    name="mode_worst",
    label="Worst mode, relative error",
    meaning="The relative error of the weight that is most wrong.",
    figure=lambda report: report.worst,
    over_floor=True,
)
MODE_OFF = ModeMetric(
    name="mode_off",
    label="Mass off every mode",
    meaning="The share of draws where an exact one would practically never lie.",
    figure=lambda report: report.off,
)
MODES_FOUND = ModeMetric(
    name="modes_found",
    label="Modes found",
    meaning="How many of the known modes have at least half of their share.",
    figure=lambda report: report.found,
    counts=True,
)
EMC = ModeMetric(
    name="emc",
    label="Entropic mode coverage",
    meaning="How evenly the draws spread over the modes: 1 is even, 0 is all in one.",
    figure=lambda report: report.emc,
)
