"""Posteriors are used for averages: means and standard deviations, against those of a reference."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics.metric import Judged, Metric, has_reference
from allmodes.points.weighted import normalised
from allmodes.target import Target

BEYOND = 3.0  # standard errors


def quantities(
    x: Float[Array | np.ndarray, "n dim"],
    reference: Float[Array | np.ndarray, "m dim"],
    log_weight: Float[Array | np.ndarray, " n"] | None = None,
    independent: float = 1.0,
) -> dict[str, float | int]:
    """Compare the mean and standard deviation of every coordinate: `{"value", "of", "off"}`.

    `value` is the largest difference in standard errors, both sides' errors combined, `of` how many
    figures were compared, and `off` how many are beyond 3. Of exact draws `value` is like the
    largest of `of` normal variables. Errors are the delta method's: of n equal draws `sd / sqrt(n)`
    for a mean, and weights, which cost effective draws, raise them. The reference's draws count as
    independent. Draws that are not finite make `value` NaN.

    - `independent`: the share of draws that count as independent, where they are those of chains.
    """
    ours, error = _moments(np.asarray(x, np.float64), log_weight)
    theirs, reference_error = _moments(np.asarray(reference, np.float64), None)
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(ours - theirs) / np.hypot(error / np.sqrt(independent), reference_error)
    return {"value": float(np.max(off)), "of": off.size, "off": int(np.sum(~(off <= BEYOND)))}


def _moments(x: np.ndarray, log_weight: Array | np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations, (2, dim), and the standard errors of both."""
    w = normalised(np.zeros(len(x)) if log_weight is None else log_weight)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.sum(w * x, axis=0)
        squares = (x - mean) ** 2
        deviation = np.sqrt(np.sum(w * squares, axis=0))
        influence = np.stack([x - mean, (squares - deviation**2) / (2 * deviation)])
        return np.stack([mean, deviation]), np.sqrt(np.sum((w * influence) ** 2, axis=1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Quantities(Metric):
    """`quantities` of all draws, weighted, and all of the reference."""

    applies: Callable[[Target], bool] = has_reference
    weighs: ClassVar[bool] = True

    def entry(self, judged: Judged) -> dict[str, Any] | None:
        """`{"value", "of", "off"}`; None where there are no draws."""
        if len(judged.x) == 0:
            return None
        reference = judged.target.sample(judged.streams(self.name), judged.target.reference)
        return quantities(judged.x, reference, judged.log_weight, judged.independent)


QUANTITIES = _Quantities(
    name="quantities",
    label="Means and deviations, worst, in standard errors",
    meaning="Of every coordinate, against the reference's; up to 3, or a little more among many, can be chance.",
)
