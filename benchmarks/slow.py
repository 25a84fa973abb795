"""A likelihood of NumPy that takes a millisecond, in five dimensions with two modes and without a
gradient: evaluations and seconds of ours beside nested samplers, and what worker processes gain.

    python -m benchmarks.slow ours --out rows.jsonl
    TOOLS/bin/python -m benchmarks.slow dynesty --out rows.jsonl  # TOOLS: see tools/run.py
    python -m benchmarks.slow ours --ms 1 --workers 2 --out rows.jsonl  # and with --workers 0
    python -m benchmarks.slow pool --out rows.jsonl
    python -m benchmarks.slow page rows.jsonl  # to docs/results/slow.json and slow.md

Runs are made with a likelihood that takes no time, as the number of its evaluations does not depend
on that: seconds are the CPU seconds of all but the likelihood, and a millisecond for each
evaluation. `--ms 1` makes each evaluation spend a millisecond of CPU time. `pool` evaluates 4,096
points of one, in this process and by workers.
"""

import argparse
import multiprocessing
import os
import platform
import resource
import textwrap
import time
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.rows import gathered, keep, tell
from benchmarks.tools.adapters import DRAWS, TOOLS, Counted, Found, kish
from benchmarks.tools.problems import Problem, mixture

RESULTS = Path(__file__).parents[1] / "docs" / "results"
NAMES = {"ours": "ours", "dynesty": "dynesty", "nautilus": "nautilus", "pocomc": "pocoMC"}
HEAD = (
    "| tool | seed | evaluations | own CPU s | total at 1 ms | log Z less the truth | stated error | effective draws "
    "| share of the narrow mode (.25) | verdict |"
)
POINTS, WORKERS = 4096, (0, 1, 2)
LOW, HIGH, STDS, WEIGHTS = -10.0, 10.0, (0.5, 1.0), (0.25, 0.75)
MEANS = np.array([[3.0] * 5, [-3.0] * 5])


def problem() -> Problem:
    """Two round modes, of standard deviations 1/2 and 1 and weights 1/4 and 3/4, prior uniform in
    `[-10, 10]^5`: log Z is -5 log 20."""
    chols = np.asarray(STDS)[:, None, None] * np.eye(5)
    return mixture("two-modes-5", MEANS, chols, np.asarray(WEIGHTS), HIGH)


def log_likelihood(x: np.ndarray) -> float:
    """The same at one point, as a user would write it."""
    scaled = [-0.5 * np.sum((x - m) ** 2) / s**2 - 5 * np.log(s) for m, s in zip(MEANS, STDS, strict=True)]
    return float(np.logaddexp(*(np.array(scaled) + np.log(WEIGHTS))) - 2.5 * np.log(2 * np.pi))


def spend(seconds: float) -> None:
    """CPU time of this thread, however busy the machine is."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def log_likelihood_of_a_millisecond(x: np.ndarray) -> float:
    spend(1e-3)
    return log_likelihood(x)


def transform(u: np.ndarray) -> np.ndarray:
    return LOW + (HIGH - LOW) * np.asarray(u, float)


class Costly(Counted):
    """One that may take a while, as the adapters of the other tools call it."""

    def __init__(self, of: Problem, seconds: float):
        super().__init__(of)
        self._each = seconds

    def __call__(self, u: np.ndarray) -> np.ndarray:
        value, start = super().__call__(u), time.process_time()
        spend(self._each * value.size)
        self.seconds += time.process_time() - start
        return value


def ours(of: Problem, likelihood: Costly, seed: int, seconds: float, workers: int) -> Found:
    import allmodes as am

    function = log_likelihood_of_a_millisecond if seconds else log_likelihood

    def timed(x):
        start = time.thread_time()
        value = function(x)
        likelihood.seconds += time.thread_time() - start
        return value

    target = am.interop.nested.target(function if workers else timed, transform, of.dim, workers=workers or None)
    sampler = am.fit(target, key=seed, progress=False)
    draws = sampler.sample(DRAWS, key=1000 + seed)
    likelihood.calls = sampler.evaluations["log_prob"] + draws.evaluations
    u, log_weight = (np.asarray(draws.x, float) - LOW) / (HIGH - LOW), np.asarray(draws.log_weight, float)
    return Found(*map(float, draws.log_z), u, log_weight, draws.ess, draws.verdict().word)


def run(tool: str, seed: int, seconds: float, workers: int) -> dict:
    """One run, in this process. `own`: its CPU seconds less those in the likelihood."""
    of = problem()
    likelihood, begin, cpu = Costly(of, seconds), time.perf_counter(), time.process_time()
    found = ours(of, likelihood, seed, seconds, workers) if tool == "ours" else TOOLS[tool](of, likelihood, seed)
    weight = np.exp(found.log_weight - found.log_weight.max())
    own = time.process_time() - cpu - likelihood.seconds
    row = {
        "tool": tool, "seed": seed, "workers": workers, "ms": 1e3 * seconds, "calls": likelihood.calls,
        "own": round(own, 1), "wall": round(time.perf_counter() - begin, 1), "log_z": round(found.log_z, 4),
        "error": round(found.log_z - of.log_z, 4), "std_error": round(found.std_error, 4),
        "ess": round(kish(found.log_weight)), "share": round(float(of.shares(found.u, weight)[0]), 4),
    }  # fmt: skip
    return row | ({"verdict": found.verdict} if found.verdict else {}) | machine()


def machine() -> dict:
    return {"machine": platform.machine(), "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1)}


def pool(workers: int) -> dict:
    """Seconds of 4,096 evaluations of a millisecond each, in one call: on the wall, and CPU seconds
    of the process that has spent most, which is what the call would take on idle cores."""
    import allmodes as am

    u = np.random.default_rng(0).uniform(size=(POINTS, 5))
    target = am.interop.numpy.target(log_likelihood_of_a_millisecond, 5, workers=workers or None)
    evaluate = target.log_prob.host.values
    evaluate(transform(u[:64]))  # workers have begun
    begin, before = time.perf_counter(), cpu_seconds()
    values = evaluate(transform(u))
    wall, after = time.perf_counter() - begin, cpu_seconds()
    assert values.shape == (POINTS,)
    spent = {pid: after[pid] - before.get(pid, 0.0) for pid in after}
    figures = {"wall": round(wall, 2), "busiest": round(max(spent.values()), 2), "all": round(sum(spent.values()), 2)}
    return {"tool": "pool", "workers": workers, **figures} | machine()


def cpu_seconds() -> dict[int, float]:
    """Of this process and its children, by their numbers."""
    children = [child.pid for child in multiprocessing.active_children()]
    found = {}
    for pid in (os.getpid(), *children):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


def wrapped(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False)


def _against(runs: list[dict]) -> list[str]:
    """What it comes to, where ours and others were run."""
    of = {tool: [row for row in runs if row["tool"] == tool] for tool in NAMES}
    total = {tool: median(row["own"] + 1e-3 * row["calls"] for row in rows) for tool, rows in of.items() if rows}
    calls = {tool: median(row["calls"] for row in rows) for tool, rows in of.items() if rows}
    better = [tool for tool in calls if tool != "ours" and total[tool] < total.get("ours", 0.0)]
    ratios = [
        f"{NAMES[tool]} takes {calls['ours'] / calls[tool]:.1f} times fewer evaluations and "
        f"{total['ours'] / total[tool]:.1f} times less time"
        for tool in better
    ]
    words = "**Without a gradient, in few dimensions, use a nested sampler where evaluations are dear**: "
    off = {tool: median(abs(row["error"]) / row["std_error"] for row in rows) for tool, rows in of.items() if rows}
    wrong = [f" The log Z of {NAMES[tool]} is {n:.1f} of its stated errors off." for tool, n in off.items() if n > 3.0]
    share = {
        tool: max(abs(row["share"] - WEIGHTS[0]) / _share_error(row) for row in rows)
        for tool, rows in of.items()
        if rows
    }
    wrong += [
        f" The share of the narrow mode by {NAMES[tool]} is up to {n:.1f} of the errors off that so many effective "
        "draws have."
        for tool, n in share.items()
        if n > 5.0
    ]
    return [wrapped(words + "; ".join(ratios) + " (medians)." + "".join(wrong))] if ratios else []


def _share_error(row: dict) -> float:
    """Of the share of a mode, were its effective draws independent."""
    return float(np.sqrt(WEIGHTS[0] * WEIGHTS[1] / row["ess"]))


def _of_whole(rows: list[dict]) -> list[str]:
    """Runs whose likelihood took its time, in the calling process and by workers."""
    table = [
        "| whole run, evaluated by | seed | evaluations | wall s | own CPU s | log Z less the truth |",
        "|---" * 6 + "|",
    ]
    for row in sorted(rows, key=lambda row: (row["seed"], row["workers"])):
        who = f"{row['workers']} workers" if row["workers"] else "the calling one"
        seconds = f"{row['wall']:.0f} | {row['own']:.0f}"
        table.append(f"| {who} | {row['seed']} | {row['calls']:,} | {seconds} | {row['error']:+.3f} |")
    text = (
        "Whole runs of `IWSM()` with a likelihood that spends a millisecond of CPU time an evaluation, on two idle "
        "cores (x86-64): the same draws and the same number of evaluations, whoever makes them."
    )
    return [wrapped(text), "\n".join(table)] if rows else []


def page(rows: list[dict]) -> str:
    """The page, of its rows."""
    pools = [row for row in rows if row["tool"] == "pool"]
    runs, whole = (
        [row for row in rows if row["tool"] != "pool" and bool(row["ms"]) == is_slow] for is_slow in (False, True)
    )
    order = list(NAMES)
    lines = [HEAD, "|---|---|---|---|---|---|---|---|---|---|"]
    for row in sorted(runs, key=lambda row: (order.index(row["tool"]), row["seed"])):
        total = row["own"] + 1e-3 * row["calls"]
        lines.append(
            f"| {NAMES[row['tool']]} | {row['seed']} | {row['calls']:,} | {row['own']:.0f} | {total:.0f} s "
            f"| {row['error']:+.3f} | {row['std_error']:.3f} | {row['ess']:,} | {row['share']:.3f} "
            f"| {row.get('verdict', '')} |"
        )
    missing = [NAMES[tool] for tool in order if tool not in {row["tool"] for row in runs}]
    seen = ["| evaluated by | CPU s of the busiest process | CPU s of all | wall s | load |", "|---|---|---|---|---|"]
    for row in sorted(pools, key=lambda row: row["workers"]):
        who = f"{row['workers']} worker{'s' if row['workers'] > 1 else ''}" if row["workers"] else "the calling one"
        seen.append(f"| {who} | {row['busiest']:.1f} | {row['all']:.1f} | {row['wall']:.1f} | {row['load']} |")
    parts = [
        "# A slow likelihood",
        *_against(runs),
        wrapped(
            "A likelihood of NumPy that takes a millisecond, in five dimensions, with two modes (standard deviations "
            "1/2 and 1, weights 1/4 and 3/4) in a uniform prior on `[-10, 10]^5`, and no gradient. Its evidence is "
            "known: log Z is -5 log 20. Ours is `IWSM()` by `am.interop.nested.target`, nothing changed, with 10,000 "
            "draws; the others have the settings of [tools.md](tools.md)."
        ),
        "\n".join(lines),
        wrapped(
            "Evaluations are all that were made, "
            "own CPU seconds are those of the whole run but for the likelihood, compilation included, and the total "
            "adds a millisecond for each evaluation: runs were made with a likelihood that takes no time, since their "
            "number does not depend on it. "
            + (f"No result yet: {', '.join(missing)}. " if missing else "")
            + " ".join(f"{NAMES[row['tool']]}, seed {row['seed']}: {row['note']}." for row in runs if "note" in row)
        ),
        "## What workers gain",
        *_of_whole(whole),
        wrapped(
            f"{POINTS:,} evaluations that spend a millisecond of CPU time each, in one call, on a two-core machine "
            "(x86-64); the load says how many processes wanted its two cores. What the busiest process has spent is "
            "what the call takes on idle ones, and that of all processes what dividing the work costs."
        ),
        "\n".join(seen),
        "```sh\npython -m benchmarks.slow ours --out rows.jsonl\n"
        "TOOLS/bin/python -m benchmarks.slow dynesty --out rows.jsonl  # as benchmarks/tools/run.py\n"
        "python -m benchmarks.slow ours --ms 1 --workers 2 --out rows.jsonl  # and with --workers 0\n"
        "python -m benchmarks.slow pool --out rows.jsonl\npython -m benchmarks.slow page rows.jsonl\n```",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*NAMES, "pool", "page"])
    parser.add_argument("rows", nargs="*", type=Path, help="of page; those of slow.json without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ms", type=float, default=0.0, choices=[0.0, 1.0], help="CPU time of an evaluation")
    parser.add_argument("--workers", type=int, default=0, help="of ours")
    parser.add_argument("--limit", type=int, default=3600, help="CPU seconds of a run")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "page":
        rows = gathered(RESULTS / "slow.json", given.rows)
        keep(RESULTS / "slow.json", rows)
        (RESULTS / "slow.md").write_text(page(rows))
        return
    resource.setrlimit(resource.RLIMIT_CPU, (given.limit, given.limit + 60))
    if given.what == "pool":
        made = [pool(workers) for workers in WORKERS]
    else:
        made = [run(given.what, given.seed, 1e-3 * given.ms, given.workers)]
    for row in made:
        tell(row, given.out)


if __name__ == "__main__":
    main()
