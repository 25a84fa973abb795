"""The rows of a table: figures of runs, over seeds, with their floors."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from allmodes.progress.numbers import finite


class Column(NamedTuple):
    """A figure of a table: its heading, and where it stands among the metrics of a result.

    `of_sampler`: told by a sampler's own weights, not by draws, so that corrected draws have none.
    """

    heading: str
    metric: str
    of_sampler: bool = False
    absolute: bool = False


COLUMNS: dict[str, Column] = {
    "w2": Column("W2", "w2"),
    "sliced_w2": Column("sliced W2", "sliced_w2"),
    "mmd": Column("MMD", "mmd"),
    "mode_tv": Column("mode weights, TV", "mode_tv"),
    "modes_found": Column("modes", "modes_found"),
    "energy_w2": Column("energy W2", "energy_w2"),
    "w2_geometric": Column("geometric W2", "w2_geometric"),
    "distance_tv": Column("distances, TV", "distance_tv"),
    "elbo": Column("ELBO", "elbo", of_sampler=True),
    "eubo": Column("EUBO", "eubo", of_sampler=True),
    "gap": Column("gap", "gap", of_sampler=True),
    "log_z_error": Column("log Z, error", "log_z_error", of_sampler=True, absolute=True),
    "log_z_difference": Column("log Z less the reference's", "log_z_difference", of_sampler=True, absolute=True),
    "reverse_ess": Column("reverse ESS", "reverse_ess", of_sampler=True),
    "forward_ess": Column("forward ESS", "forward_ess", of_sampler=True),
}
_WORK = ("compile", "train", "sample")  # seconds; judging is not counted


def rows_of(method: str, budget: int | None, results: Mapping[Any, dict], reasons: Mapping[Any, str]) -> list[dict]:
    """The row of the raw draws and, where a method corrects them, that of the corrected ones, which
    cost more; `results` and `reasons`, of what has none, by seed.
    """
    about = {"method": method, "budget": budget, "reasons": {str(seed): why for seed, why in reasons.items()}}
    rows = [about | {"draws": "raw"} | _row({seed: raw_figures(result) for seed, result in results.items()}, results)]
    if any(result.get("metrics_corrected") for result in results.values()):
        corrected = {seed: corrected_figures(result) for seed, result in results.items()}
        rows.append(about | {"draws": "corrected"} | _row(corrected, results))
    return rows


def _row(figures: Mapping[Any, dict[str, dict]], results: Mapping[Any, dict]) -> dict[str, Any]:
    """Figures of each seed, and over them."""
    names = [*COLUMNS, "evaluations", "seconds"]
    over = {name: _over_seeds([of[name] for of in figures.values() if name in of]) for name in names}
    return {
        "figures": {name: summary for name, summary in over.items() if summary},
        "seeds": {str(seed): {name: entry["value"] for name, entry in of.items()} for seed, of in figures.items()},
        "verdicts": [(result.get("verdict") or {}).get("word") for result in results.values()],
    }


def raw_figures(result: Mapping[str, Any]) -> dict[str, dict]:
    """The figures of a sampler and of its raw draws, each with what goes along with it."""
    spent, seconds = result.get("evaluations") or {}, result.get("seconds") or {}
    entries = _entries(result.get("metrics") or {}, COLUMNS)
    return entries | _cost([spent.get(part) for part in ("train", "sample")], [seconds.get(part) for part in _WORK])


def corrected_figures(result: Mapping[str, Any]) -> dict[str, dict]:
    """The figures of the corrected draws: those that need no weights."""
    spent, seconds = result.get("evaluations") or {}, result.get("seconds") or {}
    columns = {name: column for name, column in COLUMNS.items() if not column.of_sampler}
    entries = _entries(result.get("metrics_corrected") or {}, columns)
    work = [seconds.get(part) for part in (*_WORK, "correct")]
    return entries | _cost([spent.get(part) for part in ("train", "sample", "correct")], work)


def _entries(metrics: Mapping[str, Any], columns: Mapping[str, Column]) -> dict[str, dict]:
    """The entries of a result's metrics that columns are of; the value is None where it is not
    finite.
    """
    found = {}
    for name, column in columns.items():
        entry = metrics.get(column.metric)
        if isinstance(entry, Mapping) and "value" in entry:
            value = finite(entry["value"])
            value = abs(value) if column.absolute and value is not None else value
            more = {key: entry[key] for key in ("floor", "of", "std_error") if finite(entry.get(key)) is not None}
            found[name] = {"value": value, **more}
    return found


def _cost(evaluations: Sequence[Any], seconds: Sequence[Any]) -> dict[str, dict]:
    """Evaluations and seconds, where they are known."""
    sums = {"evaluations": evaluations, "seconds": seconds}
    known = {name: [part for part in parts if finite(part) is not None] for name, parts in sums.items()}
    return {name: {"value": round(sum(parts), 2)} for name, parts in known.items() if parts}


def _over_seeds(entries: Sequence[Mapping[str, float | int | None]]) -> dict[str, float | int]:
    """Median, least and most of a figure, and medians of its floor and its own standard error; of
    how many seeds it is not finite, where it is not of all.
    """
    values = [entry["value"] for entry in entries if entry["value"] is not None]
    summary: dict[str, float | int] = {}
    if values:
        summary = {"median": statistics.median(values), "least": min(values), "most": max(values)}
    if len(values) < len(entries):
        summary["not_finite"] = len(entries) - len(values)
    for key in ("floor", "of", "std_error"):
        known = [entry[key] for entry in entries if key in entry]
        summary |= {key: statistics.median(known)} if known else {}
    return summary
