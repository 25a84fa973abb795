"""Reads what a report needs from a run folder; only `result.json` has to be whole."""

import json
import pathlib
import zipfile
import zlib
from typing import Any, NamedTuple

import numpy as np

from allmodes.errors import RunError


class RunFiles(NamedTuple):
    """The contents of a run folder."""

    result: dict[str, Any]
    config: dict[str, Any]  # empty when there is none
    history: dict[str, np.ndarray]  # columns of metrics.jsonl, NaN where a value is missing
    draws: dict[str, np.ndarray]  # x, log_prob, log_weight; empty when there are none
    corrected: dict[str, np.ndarray]  # x, log_prob of draws that short chains corrected; empty when there are none
    notes: list[str]  # what could not be read


def read_run(run: pathlib.Path) -> RunFiles:
    """Read the folder. **Raises** `RunError` when `result.json` is missing or damaged."""
    path = run / "result.json"
    if not run.is_dir():
        raise RunError(f"there is no run folder at {run}")
    if not path.is_file():
        raise RunError(f"{run} has no result.json: the run has not finished, or the folder is not a run")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(result, dict):
        raise RunError(f"{path} is damaged: it holds {type(result).__name__}, not an object")
    for key in (
        "metrics",
        "metrics_corrected",
        "verdict",
        "modes",
        "seconds",
        "log_z",
        "mode_weights",
        "levels",
        "versions",
    ):
        if not isinstance(result.get(key) or {}, dict):
            raise RunError(f"{path} is damaged: {key!r} holds {type(result[key]).__name__}, not an object")
    notes: list[str] = []
    draws = _draws(run / "draws.npz", ("x", "log_prob", "log_weight"), notes)
    corrected = _draws(run / "corrected.npz", ("x", "log_prob"), notes)
    return RunFiles(result, _config(run, notes), _history(run), draws, corrected, notes)


def _config(run: pathlib.Path, notes: list[str]) -> dict[str, Any]:
    path = run / "config.json"
    if not path.exists():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = None
    if isinstance(config, dict):
        return config
    notes.append("config.json could not be read, so the settings are left out.")
    return {}


def _history(run: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the numeric columns of metrics.jsonl; torn lines are skipped, and a step written twice
    counts once.
    """
    try:
        lines = (run / "metrics.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    rows: dict[float, dict[str, Any]] = {}
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and is_number(row.get("step")):
            rows[float(row["step"])] = row
    steps = sorted(rows)
    names = {name for row in rows.values() for name, value in row.items() if is_number(value)}
    return {name: floats([rows[step].get(name) for step in steps]) for name in names}


def _draws(path: pathlib.Path, names: tuple[str, ...], notes: list[str]) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            draws = {name: np.asarray(file[name], np.float32) for name in names}
        whole = draws["x"].ndim == 2 and draws["x"].size > 0
        whole = whole and all(values.shape[:1] == draws["x"].shape[:1] for values in draws.values())
        whole = whole and all(values.ndim == 1 for name, values in draws.items() if name != "x")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        whole = False
    if not whole:
        notes.append(f"{path.name} could not be read, so its figures are left out.")
        return {}
    keep = np.all(np.isfinite(draws["x"]), axis=1)
    if not keep.all():
        notes.append(f"{int((~keep).sum()):,} of the {len(keep):,} draws are not finite; no figure shows them.")
    return {name: values[keep] for name, values in draws.items()} if keep.any() else {}


def is_number(value: Any) -> bool:
    """Whether a JSON value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def floats(values: Any) -> np.ndarray:
    """Turn a JSON list into an array: NaN for whatever is not a number, empty for whatever is not a
    list.
    """
    if not isinstance(values, list):
        return np.zeros(0)
    return np.array([value if is_number(value) else np.nan for value in values], float)
