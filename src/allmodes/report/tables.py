"""Tables for the terminal."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from allmodes.progress.numbers import count, duration, finite, number, percent, with_error
from allmodes.report.words import METRICS

MODES = 10  # shown in the terminal
_STYLES = {"trusted": "bold green", "use with correction": "bold yellow", "do not use": "bold red"}


def _console(file: Any) -> Any:
    from rich.console import Console

    file = sys.stdout if file is None else file
    # Where nobody watches, a table is not squeezed into 80 columns.
    return Console(file=file, highlight=False, width=None if file.isatty() else 200)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str = "", file: Any = None) -> None:
    """Print a plain table on stdout: text to the left, numbers to the right; a missing cell stays
    empty.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    cells = [[cell if isinstance(cell, str) else number(cell) for cell in row] for row in rows]
    table = Table(
        title=Text(title, "bold") if title else None, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False
    )
    for index, column in enumerate(columns):
        entries = [row[index] for row in cells if row[index]]
        numeric = bool(entries) and all(entry.lstrip("-<+ ")[:1].isdigit() for entry in entries)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    _console(file).print(table)


def metric_cells(entry: Any) -> tuple[str, str, str]:
    """Value, floor and ratio of one entry of `metrics`, as text; what is missing is empty."""
    entry = entry if isinstance(entry, Mapping) else {}
    value, floor, of = number(entry.get("value")), finite(entry.get("floor")), finite(entry.get("of"))
    off = finite(entry.get("off"))
    if value and of is not None and off is not None:
        return f"{value} ({off:.0f} of {of:.0f} beyond 3)", "", ""
    if value and of is not None:
        return f"{float(entry['value']):.0f} of {of:.0f}", "" if floor is None else f"{floor:.4g}", ""
    ratio, error = finite(entry.get("ratio")), finite(entry.get("ratio_std_error"))
    ratio = "" if ratio is None else f"{ratio:,.2f}" + (f" \u00b1 {error:.2f}" if error else "")
    return value, number(floor), ratio


def print_result(result: Mapping[str, Any], *, file: Any = None) -> None:
    """Print the gist of a `result.json` on stdout: verdict, log Z, effective sample size, metrics
    with their ratios.
    """
    from rich.text import Text

    console = _console(file)
    metrics = result.get("metrics") or {}
    corrected = result.get("metrics_corrected") or {}
    verdict = result.get("verdict") or {}
    name = " · ".join(str(result[key]) for key in ("target", "method") if result.get(key))
    word = str(verdict.get("word") or "")
    console.print(Text.assemble((name, "bold"), ": " if word else "", (word, _STYLES.get(word, "bold"))))
    for reason in verdict.get("reasons") or ():
        console.print(Text(f"  - {reason}"))
    for remark in result.get("remarks") or ():
        console.print(Text(f"  note: {remark}"))

    def value(key: str) -> Any:
        return (metrics.get(key) or {}).get("value")

    log_z = result.get("log_z") or {}
    truth = number(finite(log_z.get("truth")))
    seconds = [finite(part) for part in (result.get("seconds") or {}).values()]
    facts = {
        "log Z": with_error(log_z.get("value"), log_z.get("std_error")) + (f" (truth {truth})" if truth else ""),
        "ESS": percent(value("reverse_ess")),
        "Pareto k^": number(value("khat")),
        "evaluations": count(result.get("log_prob_evaluations")),
        "time": duration(sum(part for part in seconds if part is not None)) if seconds else "",
    }
    line = " · ".join(f"{key} {text}" for key, text in facts.items() if text)
    if line:
        console.print(Text(line))
    rows = []
    for key, entry in metrics.items():
        if isinstance(entry, Mapping) and ("floor" in entry or "of" in entry) and metric_cells(entry)[0]:
            other, _, other_ratio = metric_cells(corrected.get(key))
            got, floor, ratio = metric_cells(entry)
            rows.append((METRICS[key].label if key in METRICS else key, floor, got, ratio, other, other_ratio))
    if rows:
        print_table(("metric", "floor", "raw", "ratio", "corrected", "ratio"), rows, file=file)
    modes = mode_rows(result, MODES)
    if modes is not None:
        print_table(modes.columns, modes.rows, title=modes.title, file=file)
        if modes.note:
            console.print(Text(modes.note))


class ModeRows(NamedTuple):
    """The table of modes: heads, cells, and what is above and below it."""

    columns: list[str]
    rows: list[list[str]]
    title: str
    note: str


def mode_rows(result: Mapping[str, Any], most: int) -> ModeRows | None:
    """The first modes of a `result.json`, and how many more there are; None where it has none that
    can be shown.
    """
    modes = result.get("modes")
    shown = modes.get("shown") if isinstance(modes, Mapping) else None
    if not isinstance(shown, Mapping):
        return None
    columns, rows = shown.get("columns"), shown.get("rows")
    if not (_is_texts(columns) and isinstance(rows, list) and rows and all(_is_texts(row, columns) for row in rows)):
        return None
    count, kept = int(finite(modes.get("count")) or len(rows)), rows[:most]
    first = (
        f"the first {len(kept)} of {count:,} modes of the raw draws" if count > len(kept) else "modes of the raw draws"
    )
    return ModeRows(columns, kept, first, str(shown.get("note") or ""))


def _is_texts(row: Any, columns: Any = None) -> bool:
    texts = isinstance(row, list) and all(isinstance(cell, str) for cell in row)
    return texts and (columns is None or len(row) == len(columns))
