"""Tempered SMC alone beside a trained sampler, on a particle system, given as many evaluations.

    python benchmarks/particles_smc.py runs/benchmark/dw4-iwsm-few-particles-0 .. --out
    docs/results/particles-smc.json

Each argument is a run folder of `allmodes run`. SMC gets what the run spent on training, drawing
and correcting: the pilots that find the spread of the target, then as many particles as the rest
pays for. Its draws are judged as the run's are. Then what each costs for the next 100,000 draws:
SMC anew, the sampler from the seconds of its own draws.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import allmodes as am
from allmodes.jobs.machine import machine
from allmodes.mcmc.tempered_smc import tempering
from allmodes.metrics import particle_metrics
from allmodes.search.search import search
from allmodes.search.settle import settle

MORE = 100_000
PILOT = 512


def beside(folder, judge_repeats):
    """One row: the figures of SMC with the evaluations of the run in `folder`."""
    result = json.loads((folder / "result.json").read_text())
    target, budget = am.find_target(result["target"]), sum(result["evaluations"].values())
    k_search, k_settle, k_pilot, k_run, k_judge = jax.random.split(jax.random.key(result["seed"]), 5)
    begin = time.monotonic()
    start = settle(target, search(target, k_search, PILOT), k_settle)
    spent = int(start.evaluations.log_prob)
    pilot = tempering(target, start)(k_pilot).found
    each = (int(pilot.evaluations.log_prob) - spent) / PILOT
    size = max(result["draws"], int((budget - int(pilot.evaluations.log_prob)) / each))
    points = start.points.take(jnp.arange(size) % PILOT)
    found, log_z, _ = tempering(target, start._replace(points=points))(k_run)
    x = np.asarray(found.frame.to_x(found.points.z))
    seconds = time.monotonic() - begin
    chosen = np.random.default_rng(result["seed"]).permutation(size)[: result["draws"]]
    metrics = particle_metrics(target, x[chosen], k_judge, repeats=judge_repeats)
    smc_evaluations = int(found.evaluations.log_prob) + int(pilot.evaluations.log_prob) - spent
    return {
        "target": result["target"], "seed": result["seed"], "budget": budget, "particles": size,
        "evaluations": smc_evaluations, "seconds": round(seconds, 1), "log_z": log_z,
        "metrics": metrics,
        "next_100000": {
            "smc_seconds": round(seconds * MORE / size, 1), "smc_evaluations": round(each * MORE),
            "sampler_seconds": round(result["seconds"]["sample"] * MORE / result["draws"], 1),
            "sampler_evaluations": MORE,
        },
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--judge-repeats", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/particles-smc.json"))
    args = parser.parse_args()
    rows = []
    for folder in args.runs:
        rows.append(beside(folder, args.judge_repeats))
        print(json.dumps(rows[-1]), flush=True)
        table = {"command": "python benchmarks/particles_smc.py RUNS", "machine": machine(), "rows": rows}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
