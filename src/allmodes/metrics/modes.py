"""How the draws share themselves among the known modes."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float

from allmodes.points.weighted import normalised
from allmodes.target import Modes

SURE = 4.0  # standard errors of exact draws, beyond which a mode lacks mass by more than chance


class ModeReport(NamedTuple):
    """Mode weights of a set of draws, p^ below, against the true ones, p."""

    weights: Float[np.ndarray, " modes"]  # p^, which sums to one less `off`
    total_variation: float  # 0.5 sum |p^ - p| + 0.5 off: the share of the mass that would have to move
    worst: float  # max |p^ / p - 1| over the modes with p > 0
    found: int  # modes with at least half of their share, p^ >= p / 2
    missed: tuple[int, ...]  # indices of the others
    off: float  # mass off every mode: draws that lie where exact draws practically never lie
    emc: float  # entropic mode coverage, -sum p^ log_M p^ over the mass on modes: 1 even, 0 all in one


def from_weights(estimated: Float[np.ndarray, " modes"], true: Float[np.ndarray, " modes"]) -> ModeReport:
    """Report on estimated mode weights; what they lack to one is off every mode."""
    estimated, true = np.asarray(estimated, np.float64), np.asarray(true, np.float64)
    on = estimated.sum()
    off = min(max(1.0 - on, 0.0), 1.0)
    off = off if off > 1e-9 else 0.0  # rounding of the sum
    real = true > 0
    worst = np.max(np.abs(estimated[real] / true[real] - 1.0))
    missed = np.flatnonzero(estimated < 0.5 * true * (1.0 - 1e-9))
    share = estimated[estimated > 0] / on if on > 0 else np.ones(1)
    entropy = -np.sum(share * np.log(share))
    # Entropy to the base of the number of modes; a single mode is covered by any mass on it.
    emc = entropy / np.log(len(true)) if len(true) > 1 else float(on > 0)
    tv = 0.5 * np.abs(estimated - true).sum() + 0.5 * off
    return ModeReport(
        weights=estimated,
        total_variation=float(tv),
        worst=float(worst),
        found=len(true) - len(missed),
        missed=tuple(int(i) for i in missed),
        off=float(off),
        emc=float(min(max(emc, 0.0), 1.0)),
    )


def low_beyond_chance(
    estimated: Float[np.ndarray, " modes"], true: Float[np.ndarray, " modes"], n: int | float
) -> Bool[np.ndarray, " modes"]:
    """Which modes have less than half of their share, by more than `SURE` standard errors of n
    independent draws: of a mode that is to have 24 of these, one set in a thousand has ten.
    """
    lacking = true - estimated
    return (lacking > 0.5 * true) & (lacking > SURE * np.sqrt(true * (1.0 - true) / n))


def mode_report(
    modes: Modes, x: Float[Array | np.ndarray, "n dim"], log_weight: Float[Array | np.ndarray, " n"] | None = None
) -> ModeReport:
    """Mode weights of draws, equally weighted or with log-weights, against the truth.

    Total variation, the worst mode and the mass off every mode hold for unequal weights too;
    entropic mode coverage (Blessing et al. 2024, "Beyond ELBOs", section 4) is right only where the
    true weights are equal. A draw with a coordinate that is not finite is off every mode; so is all
    mass where no draw has any.
    """
    x = np.asarray(x)
    n, count = len(x), len(modes.weights)
    weights = np.full(n, 1.0 / n) if log_weight is None else normalised(log_weight)
    index = np.full(n, -1)
    finite = np.isfinite(x).all(axis=1)
    if finite.any():
        index[finite] = np.asarray(modes.assign(x[finite]))
    on = index >= 0
    estimated = np.bincount(index[on], weights=weights[on], minlength=count).astype(float)  # ints where none is on
    return from_weights(estimated, np.asarray(modes.weights, np.float64))
