"""The main job over the targets of a suite and several seeds: one table of medians."""

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from allmodes.errors import ConfigError
from allmodes.report.tables import print_table
from allmodes.runs import Run

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
    "forward ESS": ("metrics", "forward_ess", "value"),
    "reverse ESS": ("metrics", "reverse_ess", "value"),
    "corrected W2 ratio": ("metrics_corrected", "w2", "ratio"),
    "corrected TV ratio": ("metrics_corrected", "mode_tv", "ratio"),
    "peak MB": ("peak_memory_mb",),
}


def benchmark(
    suite: str, method: str, seeds: int, out: Path, *, judge_seconds: float = 20.0, quiet: bool = False
) -> dict[str, Any]:
    """Run what is not there yet, each job in a process of its own, and write `SUITE-METHOD.json` beside the runs.

    **Raises** `ConfigError` for an unknown suite or no seed.
    """
    if suite not in SUITES:
        raise ConfigError(f"unknown suite {suite!r}: there are {', '.join(SUITES)}")
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    table: dict[str, Any] = {}
    for target in SUITES[suite]:
        results = [_result(target, method, seed, out, judge_seconds, quiet) for seed in range(seeds)]
        table[target] = {name: _summary([_dig(r, path) for r in results]) for name, path in FIGURES.items()}
        table[target]["verdicts"] = [r["verdict"]["word"] for r in results]
        table["machine"], table["versions"] = results[0]["machine"], results[0]["versions"]
    table |= {"command": f"allmodes benchmark {suite} --method {method} --seeds {seeds}", "seeds": seeds}
    Run(out).write_json(f"{suite}-{method}.json", table)
    rows = [
        [name, *(_cell(table[target][name]) for target in SUITES[suite])] for name in FIGURES
    ]  # fmt: skip
    print_table(["median (least to most)", *SUITES[suite]], rows, title=f"{suite}, {method}, {seeds} seeds")
    return table


def _result(target: str, method: str, seed: int, out: Path, judge_seconds: float, quiet: bool) -> dict:
    run = Run(out / f"{target}-{method}-{seed}")
    if not (run / "result.json").exists():
        where = ["--resume", str(run.path)]
        if not (run / "config.json").exists():
            where = [target, "--method", method, "--seed", str(seed), "--out", str(run.path)]
        options = ["--judge-seconds", str(judge_seconds), *(["--quiet"] if quiet else [])]
        command = [sys.executable, "-m", "allmodes", "run", *where, *options]
        status = subprocess.run(command, check=False).returncode
        if status == 130:
            raise KeyboardInterrupt
        if status:
            raise ConfigError(f"`{' '.join(command[2:])}` ended with status {status}")
    return run.read_json("result.json")


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
