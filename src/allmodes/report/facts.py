"""The figures of a `result.json` as rows of text, ready for the page; what is missing drops out."""

from collections.abc import Mapping
from typing import Any

from allmodes.draws.verdict import MAX_KHAT, NEARLY_ALL, is_bounded
from allmodes.progress.numbers import count, duration, finite, number, percent, with_error
from allmodes.report.folder import is_number
from allmodes.report.tables import metric_cells
from allmodes.report.words import METRICS


def tiles(result: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Collect the key figures: a label, a value and a line under it; those without a value drop
    out.
    """
    log_z = result.get("log_z") or {}
    truth, error = finite(log_z.get("truth")), finite(log_z.get("error"))
    known = f"known value {number(truth)}" if truth is not None else ""
    known += f", error {number(error, 2)}" if known and error is not None else ""
    ess, draws = _value(metrics, "reverse_ess"), finite(result.get("draws"))
    phases = {key: finite(part) for key, part in (result.get("seconds") or {}).items()}
    phases = {key: part for key, part in phases.items() if part is not None}
    gradients, memory = count(result.get("gradient_evaluations")), finite(result.get("peak_memory_mb"))
    evaluations = count(result.get("log_prob_evaluations"))
    purposes = [part for part in (f"gradient at {gradients}" if gradients else "", _spent(result)) if part]
    khat = _value(metrics, "khat")
    tiles = [
        ("log Z", with_error(log_z.get("value"), log_z.get("std_error")), known),
        ("Effective sample size", percent(ess), f"{ess * draws:,.0f} of {draws:,.0f} draws" if ess and draws else ""),
        ("Pareto k\u0302", number(khat, 2), "" if khat is None else _tail(khat, ess, metrics["khat"])),
        ("Density evaluations", evaluations, " · ".join(purposes)),
        (
            "Time",
            duration(sum(phases.values())) if phases else "",
            " · ".join(f"{key} {duration(part)}".replace(" ", "\u00a0") for key, part in phases.items()),
        ),
        ("Peak memory", f"{memory:,.0f} MB" if memory else "", ""),
    ]
    return [{"label": label, "value": value, "note": note} for label, value, note in tiles if value]


def _tail(khat: float, share: float | None, entry: Mapping[str, Any]) -> str:
    """What the verdict makes of the weights' tail, where so large a share of draws is effective."""
    if khat <= MAX_KHAT:
        return f"weights reliable: at most {MAX_KHAT}"
    if share is not None and share >= NEARLY_ALL:
        return f"weights reliable: above {MAX_KHAT}, but next to nothing of their sum is in the tail"
    beyond, n = finite(entry.get("beyond")), finite(entry.get("n"))
    if beyond is not None and n is not None and is_bounded(khat, beyond, int(n)):
        return f"above {MAX_KHAT}, but {beyond:.1%} of the weights' sum lies beyond the largest"
    return f"weights unreliable: above {MAX_KHAT}"


def _value(metrics: Mapping[str, Any], key: str) -> float | None:
    entry = metrics.get(key)
    return finite(entry.get("value")) if isinstance(entry, Mapping) else None


def _spent(result: Mapping[str, Any]) -> str:
    """What evaluations were for, those of the draws included."""
    parts = result.get("train_evaluations_for")
    if not isinstance(parts, Mapping):
        return ""
    parts = {**parts, "draws": (result.get("evaluations") or {}).get("sample")}
    return " · ".join(f"{purpose} {count(n)}".replace(" ", "\u00a0") for purpose, n in parts.items() if count(n))


def _label(key: str) -> str:
    return METRICS[key].label if key in METRICS else key.replace("_", " ")


def _keys(*groups: Mapping[str, Any]) -> list[str]:
    """List the metrics' names, known ones first, in the order of `METRICS`."""
    there = {key: None for group in groups for key, entry in group.items() if isinstance(entry, Mapping)}
    return [key for key in METRICS if key in there] + [key for key in there if key not in METRICS]


def metric_rows(metrics: Mapping[str, Any], corrected: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Collect the metrics that compare draws with exact ones: value, floor and ratio, raw and
    corrected.
    """
    rows = []
    for key in _keys(metrics, corrected):
        entries = [group.get(key) if isinstance(group.get(key), Mapping) else {} for group in (metrics, corrected)]
        if not any("floor" in entry or "of" in entry for entry in entries):
            continue
        raw, fair = metric_cells(entries[0]), metric_cells(entries[1])
        if raw[0] or fair[0]:
            rows.append({"key": key, "label": _label(key), "raw": raw, "corrected": fair})
    return rows


def evidence_rows(metrics: Mapping[str, Any], corrected: Mapping[str, Any]) -> list[dict[str, str]]:
    """Collect the figures that are one number: bounds, ESS, k^."""
    rows = []
    for key in _keys(metrics):
        entry = metrics[key]
        if "floor" in entry or "of" in entry or "floor" in (corrected.get(key) or {}):
            continue
        value = entry.get("value")
        text = percent(value) if key.endswith("_ess") else with_error(value, entry.get("std_error"))
        expected = finite(entry.get("expected"))
        if text and expected is not None:
            text += f" (exact draws: {number(expected)})"
        if text:
            rows.append({"key": key, "label": _label(key), "value": text})
    return rows


def nonfinite(result: Mapping[str, Any]) -> list[str]:
    """Say at how many points the density was not finite, when not at none."""
    counts = result.get("nonfinite")
    counts = counts if isinstance(counts, Mapping) else {}
    nan, zero = (int(finite(counts.get(key)) or 0) for key in ("nan", "zero"))
    lines = []
    if nan:
        lines.append(f"At {nan:,} points the log-density or its gradient was undefined (not a number, or +∞).")
    if zero:
        lines.append(f"At {zero:,} points the density was zero (log-density -∞).")
    return lines


def run_rows(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Collect what was run, and where."""
    rows = [(key.capitalize(), f"{result[key]:,}") for key in ("steps", "draws") if is_number(result.get(key))]
    rows += [("Machine", str(result["machine"]))] if result.get("machine") else []
    versions = result.get("versions") or {}
    return rows + (
        [("Versions", " · ".join(f"{name} {version}" for name, version in versions.items()))] if versions else []
    )


def flat(config: Mapping[str, Any], prefix: str = "") -> Any:
    """Yield the settings as (dotted name, text); what is not set is left out."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield f"{prefix}{key}", ", ".join(str(item) for item in value if item is not None)
        elif isinstance(value, bool):
            yield f"{prefix}{key}", "yes" if value else "no"
        elif value is not None and value == value:
            yield f"{prefix}{key}", str(value)
