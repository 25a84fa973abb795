"""Every metric that a target's ground truth allows, as the `metrics` of `result.json`."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics._mmd import mmd
from allmodes.metrics.floor import REPEATS, ratio
from allmodes.metrics.modes import ModeReport, from_weights, mode_report, normalised
from allmodes.metrics.particles import particle_metrics
from allmodes.metrics.quantities import quantities
from allmodes.metrics.transport import w2
from allmodes.progress.stages import stage
from allmodes.target import Target

ROUNDING = 1e-9  # a floor below it is none
MODE_SETS, MODE_POINTS = 50, 2_000_000  # exact sets for the floors of mode weights, and points in all of them
MODES_LISTED = 1000  # more are not listed one by one in a result


def plain(value: Any) -> Any:
    """Convert to plain Python for JSON: floats, ints, lists and dicts; None for NaN and
    infinity.
    """
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, np.ndarray | jax.Array):
        return plain(np.asarray(value).tolist())
    if value is None or isinstance(value, str | bool | np.bool_):
        return bool(value) if isinstance(value, np.bool_) else value
    if isinstance(value, int | np.integer):
        return int(value)
    return float(value) if np.isfinite(value) else None


def _equal(x: np.ndarray, log_weight: np.ndarray | None, rng: np.random.Generator) -> np.ndarray:
    """As many draws of equal weight, by systematic resampling; none where no draw has any mass."""
    if log_weight is None:
        return x
    cumulative = np.cumsum(normalised(log_weight))
    if cumulative.size == 0 or cumulative[-1] == 0.0:
        return x[:0]
    positions = (np.arange(len(x)) + rng.uniform()) / len(x) * cumulative[-1]
    return x[np.minimum(np.searchsorted(cumulative, positions, side="right"), len(x) - 1)]


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


def _against(value: float, floors: list[float]) -> dict[str, float | int]:
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


def evaluate(
    target: Target,
    x: Float[Array | np.ndarray, "n dim"],
    key: Array,
    *,
    size: int = 2000,
    repeats: int = REPEATS,
    log_weight: Float[Array | np.ndarray, " n"] | None = None,
    independent: float = 1.0,
    shared: dict | None = None,
) -> dict[str, Any]:
    """Judge draws against what is known of the target: `{"metrics": {...}, "mode_weights": {...}}`,
    ready for JSON.

    None stands for a figure that is not finite. `metrics` holds, with exact draws
    (`target.sample`), `w2` (plain, exact) and `mmd` (median bandwidth) between sets of `size`, as
    `{"value", "floor", "ratio", "ratio_std_error", "repeats", "size"}`; see `floor.ratio` for what
    the error leaves out. With `target.modes`, from all n draws, floors being means over 50 exact
    sets of n (fewer beyond 40,000 draws, see `mode_floor`):

    - `mode_tv`, `mode_worst`: `{"value", "floor", "ratio", "ratio_std_error", "repeats"}`;
    - `mode_off`, `emc`: `{"value", "floor"}`;
    - `modes_found`: `{"value", "of", "floor"}`, modes with at least half of their share.

    Where a reference stands in for exact draws (`target.reference`; not of particles),
    `quantities`, `{"value", "of", "off"}`, from all n draws and all of the reference: see
    `metrics.quantities`.

    `mode_weights`, `{"estimated": [...], "true": [...]}`, stands apart because it is not of
    scalars; it is left out without modes or with more than 1,000.

    `log_weight`: the modes are weighed with it; `w2` and `mmd` judge as many draws resampled to
    equal weights (systematic), which is what a user of corrected draws gets. `repeats`: of each
    figure that compares sets, at least 2; no clock is looked at, so that the same key gives the
    same figures. `independent`: the share of draws that count as independent, beside what their
    weights cost, for the errors of `quantities`; draws that short chains corrected count in full.
    `shared`: keeps what is of exact draws alone, for the next call with the same key and as many
    draws. Draws that are not finite make `w2` None, and count as off every mode.
    """
    x = np.asarray(x)
    log_weight = None if log_weight is None else np.asarray(log_weight)
    key_resample, key_mmd, key_w2, key_modes = jax.random.split(key, 4)
    metrics: dict[str, Any] = {}
    result: dict[str, Any] = {"metrics": metrics}
    if target.sample is not None and target.symmetry is not None:
        fair = _equal(x, log_weight, np.random.default_rng(np.asarray(jax.random.bits(key_resample, (4,)))))
        if len(fair):
            metrics |= particle_metrics(target, fair, key_w2, size=size, repeats=repeats, shared=shared)
    elif target.sample is not None:
        if target.reference is not None:  # two sets of it must not share draws, or they are no floor
            size = max(1, min(size, target.reference // 2))
        seed = np.asarray(jax.random.bits(key_resample, (4,)))
        fair = _equal(x, log_weight, np.random.default_rng(seed))
        for name, metric, subkey in (("w2", w2, key_w2), ("mmd", mmd, key_mmd)):
            if len(fair) == 0:
                metrics[name] = dict.fromkeys(("value", "floor", "ratio", "ratio_std_error"))
                continue
            found = ratio(metric, fair, target.sample, subkey, size=size, repeats=repeats, name=name, shared=shared)
            metrics[name] = found.to_dict()
        if target.reference is not None and len(x) > 0:
            metrics["quantities"] = quantities(x, target.sample(key_w2, target.reference), log_weight, independent)
    if target.modes is not None and len(x) > 0:
        stage("evaluating: mode weights")
        report = mode_report(target.modes, x, log_weight)
        about = ("modes", np.asarray(jax.random.key_data(key_modes)).tobytes(), len(x))
        shared = {} if shared is None else shared
        if about not in shared:
            shared[about] = mode_floor(target, len(x), key_modes)
        floors = shared[about]
        metrics["mode_tv"] = _against(report.total_variation, [floor.total_variation for floor in floors])
        metrics["mode_worst"] = _against(report.worst, [floor.worst for floor in floors])
        metrics["mode_off"] = {"value": report.off, "floor": np.mean([floor.off for floor in floors])}
        found_floor = np.mean([floor.found for floor in floors])
        metrics["modes_found"] = {"value": report.found, "of": len(report.weights), "floor": found_floor}
        metrics["emc"] = {"value": report.emc, "floor": np.mean([floor.emc for floor in floors])}
        if len(report.weights) <= MODES_LISTED:
            result["mode_weights"] = {"estimated": report.weights, "true": np.asarray(target.modes.weights, np.float64)}
    return plain(result)
