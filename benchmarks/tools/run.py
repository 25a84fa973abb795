"""Our sampler beside tools for few calls of the likelihood: one run a process, one row a run.

    python benchmarks/tools/run.py TOOL PROBLEM --seed 0 --out rows.jsonl
    python benchmarks/tools/run.py --all --tools-python PYTHON --out rows.jsonl

`--all` takes this interpreter for ours and PYTHON, of an environment with `requirements.txt`, for
the others; what is in `rows.jsonl` already is not run again. Each run is a process with one thread,
which ends after `--limit` CPU seconds, and then is a row too.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from adapters import TOOLS, Counted, kish
from problems import PROBLEMS

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
FOUND = 0.1  # of its share: a mode with less counts as missed


class OutOfTime(BaseException):
    """No `Exception`, so that no tool catches it."""


def out_of_time(signum, frame):
    raise OutOfTime


def measure(tool: str, name: str, seed: int, limit: int) -> dict:
    """One run, in this process: `own` are its CPU seconds from the problem to the draws, less those
    in the likelihood; `process`, all from the start of Python, its imports included.
    """
    signal.signal(signal.SIGXCPU, out_of_time)
    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit + 60))
    problem = PROBLEMS[name]()
    likelihood, begin, found = Counted(problem), time.process_time(), None
    with contextlib.suppress(OutOfTime):
        found = TOOLS[tool](problem, likelihood, seed)
    row = {"tool": tool, "problem": name, "seed": seed, "ended": found is not None, "calls": likelihood.calls}
    process = time.process_time() - likelihood.aside
    row |= {
        "own": round(process - begin - likelihood.seconds, 1), "likelihood": round(likelihood.seconds, 2),
        "process": round(process, 1), "limit": limit, "machine": platform.machine(),
    }  # fmt: skip
    return row if found is None else row | figures(problem, found)


def figures(problem, found) -> dict:
    weight = np.exp(found.log_weight - found.log_weight.max())
    row = {
        "log_z": round(found.log_z, 4), "error": round(found.log_z - problem.log_z, 4),
        "std_error": round(found.std_error, 4), "ess": round(found.ess), "kish": round(kish(found.log_weight)),
    }  # fmt: skip
    if found.verdict:
        row["verdict"] = found.verdict
    if len(problem.weights) == 1:
        return row
    shares = problem.shares(found.u, weight)
    off = 0.5 * np.abs(shares - problem.weights).sum()
    return row | {"found": float(np.mean(shares > FOUND * problem.weights)), "total_variation": round(float(off), 4)}


def start(python: str, tool: str, name: str, seed: int, limit: int) -> dict:
    """The row of a run in a fresh process; of one that ends without a row, that it did."""
    command = [python, __file__, tool, name, "--seed", str(seed), "--limit", str(limit), "--here"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | ONE_THREAD)
    lines = [line for line in done.stdout.splitlines() if line.startswith('{"tool"')]
    if lines:
        return json.loads(lines[-1])
    return {"tool": tool, "problem": name, "seed": seed, "ended": False, "limit": limit, "status": done.returncode}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", nargs="?", choices=TOOLS)
    parser.add_argument("problem", nargs="?", choices=PROBLEMS)
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--tools", nargs="+", default=list(TOOLS), choices=TOOLS, help="of --all")
    parser.add_argument("--problems", nargs="+", default=list(PROBLEMS), choices=PROBLEMS, help="of --all")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], help="of --all")
    parser.add_argument("--tools-python", default=sys.executable, help="what runs the tools that are not ours")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=900, help="CPU seconds of a run")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--here", action="store_true", help="in this process, to its output")
    given = parser.parse_args()
    if not given.all and (given.tool is None or given.problem is None):
        parser.error("a tool and a problem, or --all")
    if given.here:
        print(json.dumps(measure(given.tool, given.problem, given.seed, given.limit)), flush=True)
        return
    runs = [(given.tool, given.problem, given.seed)]
    if given.all:
        runs = [(tool, name, seed) for seed in given.seeds for name in given.problems for tool in given.tools]
    for run in runs:
        lines = given.out.read_text().splitlines() if given.out and given.out.exists() else []
        if any((row["tool"], row["problem"], row["seed"]) == run for row in map(json.loads, lines)):
            continue
        row = start(sys.executable if run[0] == "ours" else given.tools_python, *run, given.limit)
        print(json.dumps(row), flush=True)
        if given.out:
            with given.out.open("a") as out:
                out.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
