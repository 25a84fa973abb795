"""The HTML page of a run: one file, readable offline, on a desktop and on a phone."""

import datetime
import importlib.resources
import pathlib
import re
from typing import Any

from allmodes.files.atomic import write_atomically
from allmodes.report.facts import evidence_rows, flat, metric_rows, nonfinite, run_rows, tiles
from allmodes.report.figures import figures_of, ground
from allmodes.report.folder import RunFiles, is_number, read_run
from allmodes.report.tables import mode_rows
from allmodes.report.words import GENERAL, METRICS, VERDICTS
from allmodes.target import Target

MODES = 20  # shown on the page
_SAID = ("command", "machine", "versions")  # shown from result.json
_SUPERSCRIPT = str.maketrans("-0123456789", "\u207b\u2070\u00b9\u00b2\u00b3\u2074\u2075\u2076\u2077\u2078\u2079")


def write_report(run: pathlib.Path, *, target: Target | None = None) -> pathlib.Path:
    """Write `report.html` into the run folder, whole or not at all, and return its path.

    The folder is all that is read; `target`, where given, adds contours of the density and exact
    draws to the figures.

    **Raises** `RunError` when the folder or its `result.json` is missing or damaged, or the page
    cannot be written.
    """
    import jinja2

    files = read_run(run)
    template = importlib.resources.files("allmodes.report").joinpath("report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["pretty"] = pretty
    html = environment.from_string(template).render(_context(files, target))
    path = run / "report.html"
    write_atomically(path, lambda file: file.write(html.encode("utf-8", "replace")), mode="wb")
    return path


def pretty(text: str) -> str:
    """Write numbers as a book does: a true minus, powers of ten raised, k with its hat."""
    text = re.sub(
        r"(?<=\d)e([-+]?\d+)\b", lambda match: "\u00a0\u00d7\u00a010" + str(int(match[1])).translate(_SUPERSCRIPT), text
    ).replace("k^", "k\u0302")
    return re.sub(r"(?<![\w-])-(?=[\d∞])", "\u2212", text)


def _context(files: RunFiles, target: Target | None) -> dict[str, Any]:
    result = files.result
    metrics, corrected = result.get("metrics") or {}, result.get("metrics_corrected") or {}
    verdict = result.get("verdict") or {}
    word = str(verdict.get("word") or "")
    tone, meaning = VERDICTS.get(word, ("plain", ""))
    samples, evidence = metric_rows(metrics, corrected), evidence_rows(metrics, corrected)
    figures = list(figures_of(files, target))
    key_figures = tiles(result, metrics)
    shown = {tile["label"] for tile in key_figures} | {row["label"] for row in (*samples, *evidence)}
    has_corrected = any(any(row["corrected"]) for row in samples)
    shown |= {"Corrected draws"} if has_corrected else set()
    shown |= {figure.title for figure in figures} | ({"Raw draws", "Floor", "Ratio"} if samples else set())
    modes = mode_rows(result, MODES)
    shown |= set() if modes is None else {"Modes of the draws"}
    return {
        "target": str(result.get("target") or "Run"),
        "subtitle": [
            *([f"{result['dim']} dimensions" if result["dim"] != 1 else "1 dimension"] if result.get("dim") else []),
            *([str(result["method"])] if result.get("method") else []),
            *([f"seed {result['seed']}"] if is_number(result.get("seed")) else []),
        ],
        "verdict": {
            "word": word,
            "tone": tone,
            "meaning": meaning,
            "reasons": [str(reason) for reason in verdict.get("reasons") or ()],
        },
        "remarks": [str(remark) for remark in result.get("remarks") or ()],
        "modes": modes,
        "tiles": key_figures,
        "figures": figures,
        "ground": ground(result),
        "samples": samples,
        "has_corrected": has_corrected,
        "evidence": evidence,
        "nonfinite": nonfinite(result),
        "notes": files.notes,
        "run": run_rows(result),
        "config": list(flat({key: value for key, value in files.config.items() if key not in _SAID})),
        "command": str(result.get("command") or ""),
        "glossary": [word for word in (*GENERAL, *METRICS.values()) if word.label in shown],
        "date": datetime.date.today().isoformat(),
    }
