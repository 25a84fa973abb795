"""The table of a run's parameters, by their names, ready for the page."""

import math
from collections.abc import Mapping
from typing import Any

from allmodes.progress.numbers import finite, number
from allmodes.report.words import Word
from allmodes.target import Target

TITLES = ("mean", "sd", "5 %", "median", "95 %", "mcse", "ESS")
_KEYS = ("mean", "sd", "5%", "50%", "95%")
AT_ONCE = 20  # parameters that the page shows at first
WORDS = (
    Word("Parameters", "Averages and quantiles of each, over the corrected or weighted draws."),
    Word("mcse", "The standard error of the mean, from as many draws as are effective."),
)


def parameter_rows(result: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """Write the table of a `result.json` as text: a name, and a cell for each of `TITLES`."""
    told = result.get("parameters")
    rows = {str(name): row for name, row in told.items() if isinstance(row, Mapping)} if told else {}
    return [(name, _cells(row)) for name, row in rows.items()]


def of_draws(result: Mapping[str, Any], target: Target | None) -> str:
    """Say which draws the table is of."""
    of = {"mcmc": "corrected draws", "weights": "weighted draws"}.get(str(result.get("correction")), "draws")
    is_any_angle = target is not None and any(found.periodic for found in target.ranges.values())
    return f"Of the {of}{', angles about their mean direction' if is_any_angle else ''}."


def _cells(row: Mapping[str, Any]) -> list[str]:
    """To two digits of the standard deviation; the error of the mean to two of its own."""
    spread, effective = finite(row.get("sd")), finite(row.get("ess"))
    cells = [_to(finite(row.get(key)), spread) for key in _KEYS]
    return [*cells, number(finite(row.get("mcse")), 2), "" if effective is None else f"{effective:,.0f}"]


def _to(value: float | None, spread: float | None) -> str:
    if value is None:
        return ""
    decimals = 2 - math.floor(math.log10(spread)) if spread else 9
    return f"{value:.{max(decimals, 0)}f}" if decimals <= 8 and abs(value) < 1e9 else number(value, 4)
