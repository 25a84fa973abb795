"""A table of the field as Markdown, and as a plot."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from allmodes.jobs.tables.rows import COLUMNS
from allmodes.pictures.style import NARROW, new_figure, png, style
from allmodes.progress.numbers import count, duration, finite, number, percent, with_error

WIDTH = 100  # of prose
SHARES = ("reverse_ess", "forward_ess")
PLOTTED = {"gap": "EUBO less ELBO, nats", "mode_tv": "mode weights: total variation"}
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#3f4650", "#e69f00", "#56b4e9", "#8c564b", "#7f7f00", "#17becf")
MARKERS = "os^v"  # the next one where all colours are taken
PER_LINE, LINE = 6, 0.2  # methods of a line of the legend, and its inches
PUBLISHED = "#8a919b"
HEADINGS = {name: column.heading for name, column in COLUMNS.items()} | {
    "evaluations": "evaluations", "seconds": "time",
}  # fmt: skip


def markdown(table: Mapping[str, Any]) -> str:
    """The whole page."""
    seeds = "one seed" if table["seeds"] == 1 else f"{table['seeds']} seeds: medians, least to most in brackets"
    about = (
        f"Measured on {table['machine']}, {seeds}. `raw` rows judge a sampler's own draws, `corrected` rows what its "
        "correction by chains or weights makes of them, and count its evaluations and time. Bounds, log Z and ESS are "
        "of the raw draws' weights; a sampler that knows no density of its draws has none. The row `exact draws` "
        "is the floor: the figure between two exact sets (for particles, sets of the reference) of the same size. "
        "Rows in italics were **published by others, and not measured here**: their sources are below, and their sets "
        "differ in size from ours. Evaluations of a published row are of training."
    )
    lines = [f"# {table['title']}", "", *textwrap.wrap(about, WIDTH, break_on_hyphens=False), ""]
    lines += ["```sh", table["command"], "```", ""] if table["command"] else []
    if any(map(_plotted, table["targets"].values())):
        lines += [f"![Gap and mode weights against evaluations](tables-{table['table']}.png)", ""]
    for target, of in table["targets"].items():
        lines += [f"## {target}", "", *_rows(of), "", *_reasons(of["rows"])]
    lines += ["## Sources of what was published", ""] if table["sources"] else []
    for name, text in table["sources"].items():
        lines += textwrap.wrap(f"- {name}: {text}.", WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    return "\n".join(lines).rstrip() + "\n"


def _rows(of: Mapping[str, Any]) -> list[str]:
    """The table of a target; columns without a figure are left out."""
    known = [row["figures"] for row in (*of["rows"], *of["published"])]
    names = [name for name in HEADINGS if any(name in figures for figures in known)]
    floors = {name: _floor(of["rows"], name) for name in names}
    titles = ["method", "draws", *(HEADINGS[name] for name in names), "verdicts"]
    cells = [titles, ["---"] * len(titles)]
    if any(floors.values()):
        cells.append(["exact draws", "floor", *floors.values(), ""])
    cells += [_measured(row, names) for row in of["rows"]]
    cells += [_published(row, names) for row in of["published"]]
    return [f"| {' | '.join(row)} |" for row in cells]


def _floor(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The floor of a figure: that of the first row which has one."""
    floors = [row["figures"][name]["floor"] for row in rows if "floor" in row["figures"].get(name, {})]
    return "" if not floors else f"{floors[0]:g}" if name == "modes_found" else number(floors[0])


def _measured(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    what = "judged" if row.get("judged") else row["draws"]
    budget = "" if row["budget"] is None else f", {count(row['budget'])}"
    words = ", ".join(sorted({word for word in row["verdicts"] if word}))
    missing = "" if row["figures"] else "empty: see below"
    cells = [_cell(name, row["figures"].get(name)) for name in names]
    return [f"{row['method']}{budget}", what, *cells, words or missing]


def _published(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    figures = row["figures"]
    cells = [count(figures.get(name)) if name == "evaluations" else _plain(figures.get(name)) for name in names]
    return [f"*{row['method']}*", f"*published: {row['source']}*", *(f"*{cell}*" if cell else "" for cell in cells), ""]


def _plain(value: float | None) -> str:
    """A published figure with the digits that it has."""
    return "" if value is None else f"{value:g}"


def _cell(name: str, summary: Mapping[str, Any] | None) -> str:
    """The median, with the error that runs state or the least and most of several seeds."""
    if summary is None:
        return ""
    if "median" not in summary:
        return "not finite"
    write = {"evaluations": count, "seconds": duration, **dict.fromkeys(SHARES, percent)}.get(name, number)
    middle = write(float(summary["median"]))
    if "of" in summary:
        middle = f"{summary['median']:g} of {summary['of']:g}"
    elif name not in SHARES and finite(summary.get("std_error")):
        middle = with_error(summary["median"], summary["std_error"])
    spread = summary["most"] > summary["least"]
    bounds = f" ({write(float(summary['least']))} to {write(float(summary['most']))})" if spread else ""
    lost = f", {summary['not_finite']} not finite" if summary.get("not_finite") else ""
    return middle + bounds + lost


def _reasons(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why cells are empty, once for the raw and corrected rows of a method."""
    told = {
        f"- {row['method']}{', ' + count(row['budget']) if row['budget'] else ''}, seed {seed}: no result: {why}": None
        for row in rows
        for seed, why in row["reasons"].items()
    }
    lines = [line for text in told for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
    return [*lines, ""] if lines else []


def plot(table: Mapping[str, Any]) -> bytes | None:
    """Gap and mode weights' error against evaluations: a row of panels for each target that has
    either; None where none has.

    A point is the median of a method's raw draws, its bar from the least to the most of the seeds;
    a hollow diamond is a published figure, of which the least has its name.
    """
    shown = [(target, of) for target, of in table["targets"].items() if _plotted(of)]
    if not shown:
        return None
    methods = list(dict.fromkeys(row["method"] for _, of in shown for row in of["rows"]))
    looks = {m: (COLOURS[i % len(COLOURS)], MARKERS[i // len(COLOURS) % len(MARKERS)]) for i, m in enumerate(methods)}
    with style():
        height = 2.9 * len(shown) + LINE * -(-len(methods) // PER_LINE)
        figure, axes = new_figure(height, len(shown), 2, width=2 * NARROW, squeeze=False)
        for line, (target, of) in zip(axes, shown, strict=True):
            for axis, name in zip(line, PLOTTED, strict=True):
                if name in _plotted(of):
                    _panel(axis, of, name, looks)
                    axis.set(title=f"{target}: {PLOTTED[name]}", xlabel="density evaluations")
                else:
                    axis.set_axis_off()
        handles = {label: h for axis in axes.flat for h, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=PER_LINE)
    return png(figure)


def _plotted(of: Mapping[str, Any]) -> list[str]:
    """The figures of a target that there is a point of."""
    return [name for name in PLOTTED if _points(of["rows"], name)]


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, list[tuple[float, Mapping[str, Any]]]]:
    """Evaluations and figure by method, of each row of raw draws that has both, for logarithmic
    scales.
    """
    found: dict[str, list[tuple[float, Mapping[str, Any]]]] = {}
    for row in rows:
        at, figure = row["figures"].get("evaluations", {}).get("median"), row["figures"].get(name, {})
        if row["draws"] == "raw" and finite(at) and (finite(figure.get("median")) or 0.0) > 0:
            found.setdefault(row["method"], []).append((float(at), figure))
    return found


def _panel(axis: Any, of: Mapping[str, Any], name: str, looks: Mapping[str, tuple[str, str]]) -> None:
    """One figure of one target: a line a method, where it has several budgets."""
    for method, points in _points(of["rows"], name).items():
        at = [x for x, _ in points]
        middle, least, most = ([figure[k] for _, figure in points] for k in ("median", "least", "most"))
        colour, marker = looks[method]
        axis.plot(at, middle, marker + "-", color=colour, label=method, ms=5)
        axis.vlines(at, least, most, color=colour, linewidth=1)
    figures = [(row["figures"].get("evaluations"), row["figures"].get(name), row["method"]) for row in of["published"]]
    published = [(at, value, method) for at, value, method in figures if at and value]
    if published:
        x, y, _ = zip(*published, strict=True)
        axis.plot(x, y, "D", color=PUBLISHED, mfc="none", ms=5, label="published")
        at, value, method = min(published, key=lambda row: row[1])  # of points that are close names would overlap
        axis.annotate(method, (at, value), xytext=(-5, -9), textcoords="offset points", fontsize=7, ha="right")
    floors = [row["figures"][name]["floor"] for row in of["rows"] if "floor" in row["figures"].get(name, {})]
    if floors:
        axis.axhline(floors[0], color=PUBLISHED, linewidth=0.8, linestyle=(0, (4, 3)), label="floor")
    axis.set(xscale="log", yscale="log")
