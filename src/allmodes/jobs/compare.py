"""Methods side by side on one target: quality against evaluations and seconds, and what the next
draws cost.
"""

import statistics
from pathlib import Path
from typing import Any

from allmodes.errors import ConfigError
from allmodes.files.atomic import write_atomically
from allmodes.files.run_folder import Run
from allmodes.jobs.benchmark import run_once
from allmodes.methods import default_for
from allmodes.metrics.floor import REPEATS
from allmodes.pictures.style import NARROW, new_figure, png, style
from allmodes.progress.numbers import count, duration
from allmodes.report.tables import print_table
from allmodes.targets import get, names

STEPS = 4  # between one budget and the next
MORE = 100_000

# Ratios, the first known one of which is plotted, and its label.
MERITS = {
    "mode_tv": "mode weights: total variation over its floor",
    "energy_w2": "energies: 2-Wasserstein over its floor",
    "w2": "2-Wasserstein over its floor",
}
SHOWN = ("mode_tv", "w2", "energy_w2", "distance_tv", "w2_geometric")  # as ratios to their floors
BOUNDS = ("elbo", "eubo", "gap")  # of the raw draws, as they are


def compare(
    target: str,
    methods: list[str],
    evaluations: int,
    seeds: int,
    out: Path,
    *,
    budgets: int = 3,
    n: int = 10_000,
    judge_repeats: int = REPEATS,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run every method with every budget and seed that is not there yet; write `TARGET.json`, `.md`
    and `.png`.

    Budgets are `evaluations` and `budgets - 1` smaller ones, each a quarter of the one before, for
    training and raw draws together. Each run is a folder of `allmodes run`, in a process of its
    own; a stopped comparison goes on where it was. Of a method that corrects its draws the
    corrected ones are judged, and what they cost is counted.

    **Raises** `ConfigError` for an unknown target or no method, budget or seed.
    """
    if target not in names():
        raise ConfigError(f"unknown target {target!r}: compare takes the registered ones (`allmodes targets`)")
    if min(len(methods), seeds, budgets) < 1:
        raise ConfigError(f"compare needs a method, a seed and a budget, got {methods}, {seeds} and {budgets}")
    limits = [int(evaluations / STEPS**i) for i in reversed(range(budgets))]
    if limits[0] < 2 * n:
        raise ConfigError(f"the smallest budget is {limits[0]:,}, less than 2 a draw: ask for fewer budgets or draws")
    methods = [default_for(get(target)) if method == "iwsm" else method for method in methods]
    rows = []
    for method in methods:
        for limit in limits:
            results = []
            for seed in range(seeds):
                run = Run(out / f"{target}-{method}-{limit}-{seed}")
                options = ["--evaluations", str(limit)]
                results.append(run_once(run, target, method, seed, n, judge_repeats, quiet, options))
            rows.append(_row(method, limit, results))
    merit = next((name for name in MERITS if any(name in row["metrics"] for row in rows)), "w2")
    table = {
        "target": target, "methods": methods, "budgets": limits, "seeds": seeds, "draws": n, "merit": MERITS[merit],
        "command": f"allmodes compare {target} --methods {','.join(methods)} --evaluations {evaluations:g} "
        f"--budgets {budgets} --seeds {seeds} -n {n}",
        "machine": results[0]["machine"], "versions": results[0]["versions"], "rows": rows,
    }  # fmt: skip
    Run(out).create().write_json(f"{target}.json", table)
    picture = plot(rows, merit)
    write_atomically(out / f"{target}.md", lambda file: file.write(markdown(table)))
    write_atomically(out / f"{target}.png", lambda file: file.write(picture), mode="wb")
    print_comparison(table)
    return table


def _row(method: str, limit: int, results: list[dict]) -> dict[str, Any]:
    """Medians over the seeds, with the least and the most."""
    best = [_delivered(r) for r in results]
    metrics: dict[str, Any] = {}
    for name in SHOWN:
        ratios = [m[name]["ratio"] for m in best if m.get(name) and m[name].get("ratio") is not None]
        if ratios:
            metrics[name] = _spread(ratios)
    found = [m["modes_found"]["value"] for m in best if m.get("modes_found")]
    if found:
        metrics["modes_found"] = _spread(found)
    errors = [r["metrics"]["log_z_error"]["value"] for r in results if r["metrics"].get("log_z_error")]
    if errors:
        metrics["log_z_error"] = _spread([abs(e) for e in errors])
    for name in BOUNDS:
        values = [r["metrics"][name]["value"] for r in results if r["metrics"].get(name)]
        if values and None not in values:
            metrics[name] = _spread(values)
    spent = [sum(r["evaluations"].values()) for r in results]
    seconds = [sum(r["seconds"][k] for k in ("compile", "train", "sample", "correct")) for r in results]
    return {
        "method": method, "budget": limit, "evaluations": _spread(spent), "seconds": _spread(seconds),
        "metrics": metrics, "verdicts": [r["verdict"]["word"] for r in results],
        # A trained sampler's next draws cost what the first did; so do those of SMC and of chains.
        "next_100000": {
            what: statistics.median([(r[what]["sample"] + r[what]["correct"]) * MORE / r["draws"] for r in results])
            for what in ("evaluations", "seconds")
        },
    }  # fmt: skip


def _delivered(result: dict) -> dict[str, Any]:
    """The metrics of the best draws that a run hands out: corrected ones where there are any."""
    corrected = {name: entry for name, entry in result["metrics_corrected"].items() if entry}
    return corrected or result["metrics"]


def _spread(values: list[float | int]) -> dict[str, float | int]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def cells(table: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells as text, a row for each method and budget."""
    columns = sorted({name for row in table["rows"] for name in row["metrics"]})
    rows = []
    for row in table["rows"]:
        known = [f"{row['metrics'][name]['median']:.3g}" if name in row["metrics"] else "" for name in columns]
        words = ", ".join(sorted(set(row["verdicts"])))
        later = row["next_100000"]
        rows.append([
            row["method"], count(row["evaluations"]["median"]), duration(row["seconds"]["median"]), *known, words,
            f"{count(later['evaluations'])}, {duration(later['seconds'])}",
        ])  # fmt: skip
    headings = [f"{name} ratio" if name in SHOWN else name for name in columns]
    return ["method", "evaluations", "time", *headings, "verdicts", "next 100,000 draws"], rows


def print_comparison(table: dict[str, Any]) -> None:
    """Print the table."""
    print_table(*cells(table), title=f"{table['target']}, medians of {table['seeds']} seeds")


def markdown(table: dict[str, Any]) -> str:
    """The table as a page has it."""
    titles, rows = cells(table)
    lines = [
        f"**{table['target']}**: `{table['command']}`, {table['machine']}, {table['seeds']} seed(s): medians.", "",
        *(f"| {' | '.join(row)} |" for row in (titles, ["---"] * len(titles), *rows)), "",
    ]  # fmt: skip
    return "\n".join(lines)


def plot(rows: list[dict], merit: str) -> bytes:
    """Merit against evaluations and against seconds, a line a method, bars from the least to the
    most of the seeds.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    colours = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#3f4650", "#e69f00", "#56b4e9")
    methods = list(dict.fromkeys(row["method"] for row in rows))
    with style():
        figure, axes = new_figure(3.4, 1, 2, width=2 * NARROW, sharey=True)
        for colour, method in zip(colours, methods, strict=False):
            mine = [row for row in rows if row["method"] == method and merit in row["metrics"]]
            for axis, what in zip(axes, ("evaluations", "seconds"), strict=True):
                at = [row[what]["median"] for row in mine]
                middle, least, most = ([row["metrics"][merit][k] for row in mine] for k in ("median", "least", "most"))
                axis.plot(at, middle, "o-", color=colour, label=method, ms=4)
                axis.vlines(at, least, most, color=colour, linewidth=1)
        for axis, what in zip(axes, ("density evaluations", "seconds"), strict=True):
            axis.axhline(1.0, color="#8a919b", linewidth=0.8, linestyle=(0, (4, 3)))
            axis.set(xscale="log", yscale="log", xlabel=what)
            axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.yaxis.set_minor_locator(NullLocator())
            axis.xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_title(MERITS[merit])
        axes[1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return png(figure)
