"""Every metric that a target's ground truth allows, as the `metrics` of `result.json`."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics import streams
from allmodes.metrics.floor import REPEATS
from allmodes.metrics.metric import Judged, has_modes, has_reference, is_of_particles
from allmodes.metrics.mode_weights import reports
from allmodes.metrics.registry import METRICS
from allmodes.target import Target

SIZE = 2000  # of the sets that are compared, when not said otherwise
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


def evaluate(
    target: Target,
    x: Float[Array | np.ndarray, "n dim"],
    key: Array,
    *,
    size: int = SIZE,
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
    shared = {} if shared is None else shared
    own = streams.named(key, particles=is_of_particles(target))
    log_weight = None if log_weight is None else np.asarray(log_weight)
    if has_reference(target):  # two sets of it must not share draws, or they are no floor
        size = max(1, min(size, target.reference // 2))
    judged = Judged(target, np.asarray(x), log_weight, independent, own, size, repeats, shared)
    return plain({"metrics": _entries(judged), **_mode_weights(judged)})


def particle_metrics(
    target: Target,
    x: Float[Array | np.ndarray, "n dim"],
    key: Array,
    *,
    size: int = SIZE,
    repeats: int = REPEATS,
) -> dict[str, Any]:
    """The metrics of equally weighted draws of particles alone, without those of their modes."""
    unknown = dataclasses.replace(target, modes=None)
    return _entries(Judged(unknown, np.asarray(x), None, 1.0, streams.of_particles(key), size, repeats, {}))


def _entries(judged: Judged) -> dict[str, Any]:
    """The entries of all metrics that apply, by name, where there is something to tell."""
    found = {metric.name: metric.entry(judged) for metric in METRICS if metric.applies(judged.target)}
    return {name: entry for name, entry in found.items() if entry is not None}


def _mode_weights(judged: Judged) -> dict[str, Any]:
    """Estimated and true weights of every mode, where there are not too many to list."""
    if not has_modes(judged.target) or len(judged.x) == 0:
        return {}
    report, _ = reports(judged)
    if len(report.weights) > MODES_LISTED:
        return {}
    true = np.asarray(judged.target.modes.weights, np.float64)
    return {"mode_weights": {"estimated": report.weights, "true": true}}
