"""The main job over the targets of a suite and several seeds: one table of medians."""

import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from allmodes.errors import ConfigError
from allmodes.files import interrupt
from allmodes.files.run_folder import Run
from allmodes.methods import default_for
from allmodes.metrics.floor import REPEATS
from allmodes.report.tables import print_table
from allmodes.targets import get, names

SUITES: dict[str, tuple[str, ...]] = {
    "mixtures": ("gmm40", "gmm80", "gmm120"),
    "shapes": (
        "mixture-2d", "mixture-2d-small", "mixture-2d-large", "mixture-2d-far", "ring", "manywell-8", "mixture-10d",
    ),
    "curved": ("rings", "two-moons"),
}  # fmt: skip

# Figure -> where it stands in result.json; the first of a pair of metrics groups is of raw draws.
FIGURES: dict[str, tuple[str, ...]] = {
    "train s": ("seconds", "train"),
    "compile s": ("seconds", "compile"),
    "evaluations": ("log_prob_evaluations",),
    "W2 ratio": ("metrics", "w2", "ratio"),
    "MMD ratio": ("metrics", "mmd", "ratio"),
    "TV ratio": ("metrics", "mode_tv", "ratio"),
    "modes": ("metrics", "modes_found", "value"),
    "off": ("metrics", "mode_off", "value"),
    "log Z error": ("metrics", "log_z_error", "value"),
    "ELBO": ("metrics", "elbo", "value"),
    "EUBO": ("metrics", "eubo", "value"),
    "gap": ("metrics", "gap", "value"),
    "forward ESS": ("metrics", "forward_ess", "value"),
    "reverse ESS": ("metrics", "reverse_ess", "value"),
    "log Z difference": ("metrics", "log_z_difference", "value"),  # from that of a reference
    "geometric W2": ("metrics", "w2_geometric", "value"),
    "energy W2": ("metrics", "energy_w2", "value"),
    "energy W2 floor": ("metrics", "energy_w2", "floor"),
    "distance TV": ("metrics", "distance_tv", "value"),
    "distance TV floor": ("metrics", "distance_tv", "floor"),
    "broken": ("metrics", "broken", "value"),
    "corrected W2 ratio": ("metrics_corrected", "w2", "ratio"),
    "corrected TV ratio": ("metrics_corrected", "mode_tv", "ratio"),
    "corrected geometric W2 ratio": ("metrics_corrected", "w2_geometric", "ratio"),
    "corrected energy W2 ratio": ("metrics_corrected", "energy_w2", "ratio"),
    "corrected distance TV ratio": ("metrics_corrected", "distance_tv", "ratio"),
    "worst quantity, std errors": ("metrics", "quantities", "value"),
    "corrected worst quantity, std errors": ("metrics_corrected", "quantities", "value"),
    "peak MB": ("peak_memory_mb",),
}


def benchmark(
    suite: str,
    method: str | None,
    seeds: int,
    out: Path,
    *,
    n: int = 10_000,
    judge_repeats: int = REPEATS,
    quiet: bool = False,
) -> dict[str, Any]:
    """Run what is not there yet, each job in a process of its own, and write `SUITE-METHOD.json`
    beside the runs.

    `suite` is one of `SUITES` or a registered target; with no method, each target gets its default.

    **Raises** `ConfigError` for an unknown suite or no seed.
    """
    targets = SUITES.get(suite) or ((suite,) if suite in names() else None)
    if targets is None:
        raise ConfigError(f"unknown suite {suite!r}: there are {', '.join(SUITES)}, and the registered targets")
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    table: dict[str, Any] = {}
    for target in targets:
        chosen = method or default_for(get(target))
        runs = [Run(out / f"{target}-{chosen}-{seed}") for seed in range(seeds)]
        results = [run_once(run, target, chosen, seed, n, judge_repeats, quiet) for seed, run in enumerate(runs)]
        table[target] = {name: _summary([_dig(r, path) for r in results]) for name, path in FIGURES.items()}
        table[target]["verdicts"] = [r["verdict"]["word"] for r in results]
        table["machine"], table["versions"] = results[0]["machine"], results[0]["versions"]
    chosen = f" --method {method}" if method else ""
    table |= {"command": f"allmodes benchmark {suite}{chosen} --seeds {seeds} -n {n}", "seeds": seeds}
    Run(out).write_json(f"{suite}-{method or 'default'}.json", table)
    rows = [[name, *(_cell(table[target][name]) for target in targets)] for name in FIGURES]
    rows = [row for row in rows if any(row[1:])]
    print_table(["median (least to most)", *targets], rows, title=f"{suite}, {seeds} seeds")
    return table


def run_once(
    run: Run,
    target: str,
    method: str,
    seed: int,
    n: int,
    judge_repeats: int,
    quiet: bool,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """`result.json` of a run folder, after `allmodes run` in a process of its own where it is not
    there yet.
    """
    if not (run / "result.json").exists():
        command = command_of(run, target, method, seed, n, judge_repeats, quiet, options)
        status = interrupt.call(command, stdout=subprocess.DEVNULL).returncode  # its table
        if status == 130:
            raise KeyboardInterrupt
        if status:
            raise ConfigError(f"`{' '.join(command[2:])}` ended with status {status}")
    return run.read_json("result.json")


def command_of(
    run: Run, target: str, method: str, seed: int, n: int, judge_repeats: int, quiet: bool, options: Sequence[str] = ()
) -> list[str]:
    """The command that begins a run folder, with `options`, or goes on with it."""
    where = ["--resume", str(run.path)]
    if not (run / "config.json").exists():
        where = [target, "--method", method, "--seed", str(seed), "-n", str(n), "--out", str(run.path), *options]
    more = ["--judge-repeats", str(judge_repeats), *(["--quiet"] if quiet else [])]
    return [sys.executable, "-m", "allmodes", "run", *where, *more]


def _dig(result: dict, path: tuple[str, ...]) -> float | None:
    value: Any = result
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _summary(values: list[float | None]) -> dict[str, float] | None:
    known = [v for v in values if v is not None]
    if not known:
        return None
    return {"median": statistics.median(known), "least": min(known), "most": max(known)}


def _cell(summary: dict[str, float] | None) -> str:
    if summary is None:
        return ""
    return f"{summary['median']:.4g} ({summary['least']:.3g} to {summary['most']:.3g})"
