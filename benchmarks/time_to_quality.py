"""Seconds and density evaluations to a given quality: a trained sampler beside tempered SMC on
BlackJAX.

    python -m benchmarks.time_to_quality --out runs/time-to-quality

Each method climbs a ladder of budgets, on three targets and three seeds, each job in a process of
its own; what is in the folder already is kept. The bar: 10,000 draws in which every mode has at
least half of its share, W2 over its floor is at most 1.10 and the total variation of the mode
weights over its floor at most 1.3 (less two standard errors each). Seconds count search,
compilation and training, or compilation and tempering. The next 100,000 draws are timed once a
target and method, on the last rung. Writes `time-to-quality.json` and `time-to-quality.md`.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

import allmodes as am
from allmodes.files.atomic import write_atomically
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import machine
from allmodes.metrics import evaluate
from allmodes.search.scout import broad
from allmodes.search.settle import warm_start
from studies.jobs import measured, medians

SCRIPT = ["-m", "benchmarks.time_to_quality"]
DRAWS, MORE = 10_000, 100_000
TARGETS = ("gmm40", "gmm120", "mixture-10d")
# Rungs, cheapest first: training steps, "default" being the method's own end; particles.
STEPS, PARTICLES = [1000, 2000, "default"], [10_000, 40_000]
LADDERS = {
    "iwsm": {"gmm40": STEPS, "gmm120": STEPS, "mixture-10d": ["default"]},
    "smc": {"gmm40": PARTICLES, "gmm120": PARTICLES, "mixture-10d": [*PARTICLES, 160_000]},
}
UNIT = {"iwsm": "steps", "smc": "particles"}


def trained(target, rung, key):
    """Draws of a sampler that IWSM trained for so many steps, its cost, and a function for more
    draws."""
    k_fit, k_draw, k_more = jax.random.split(key, 3)
    method = am.IWSM.thorough() if rung == "default" else am.IWSM.thorough(steps=rung, enough=None)
    sampler = am.fit(target, method, key=k_fit)
    draws = sampler.sample(DRAWS, key=k_draw)
    return draws.x, draws.log_weight, sampler.evaluations["log_prob"], lambda: sampler.sample(MORE, key=k_more).x


def tempered(target, particles, key):
    """Particles of adaptive tempered SMC in the box that scouts find, its cost, and the same again
    for more."""

    def run(key):
        k_box, k_smc = jax.random.split(key)
        found = warm_start(target, broad(target, k_box, particles), k_smc)
        return found.frame.to_x(found.points.z), int(found.evaluations.log_prob)

    x, spent = run(key)
    chosen = jax.random.choice(jax.random.fold_in(key, 1), particles, (DRAWS,), replace=False)

    def more():
        runs = [run(jax.random.fold_in(key, 2 + i))[0] for i in range(-(-MORE // particles))]
        return jnp.concatenate(runs)[:MORE]

    return x[chosen], None, spent, more


def one(method, name, rung, seed):
    """One job: a row of figures."""
    target = am.find_target(name)
    k_run, k_judge, k_corrected = jax.random.split(jax.random.key(seed), 3)
    begin = time.monotonic()
    x, log_weight, spent, more = {"iwsm": trained, "smc": tempered}[method](target, rung, k_run)
    jax.block_until_ready(x)
    seconds = time.monotonic() - begin
    row = {"seconds": seconds, "evaluations": spent, "more_seconds": None}
    if seed == 0 and rung == LADDERS[method][name][-1]:
        begin = time.monotonic()
        jax.block_until_ready(more())
        row["more_seconds"] = time.monotonic() - begin
    row |= figures(evaluate(target, x, k_judge, repeats=10)["metrics"], "")
    if log_weight is not None:
        weighed = evaluate(target, x, k_corrected, repeats=10, log_weight=log_weight)["metrics"]
        row |= figures(weighed, "corrected_")
    return row


def figures(metrics, prefix):
    """What the bar is held against; `reached` is 1 or 0."""
    w2, tv, modes = metrics["w2"], metrics["mode_tv"], metrics["modes_found"]
    below = [m["ratio"] - 2 * m["ratio_std_error"] for m in (w2, tv)]
    row = {"w2_ratio": w2["ratio"], "tv_ratio": tv["ratio"], "modes_missed": modes["of"] - modes["value"]}
    row["reached"] = int(modes["value"] == modes["of"] and below[0] <= 1.10 and below[1] <= 1.3)
    return {prefix + key: value for key, value in row.items()}


def table(rows, targets):
    """The Markdown of all rungs."""
    heads = ["", "s", "evaluations", "modes missed", "W2 ratio", "TV ratio", "reached", "corrected TV ratio"]
    heads += ["corrected reached", "next 100,000 draws, s"]
    lines = []
    for target in targets:
        lines += [f"## {target}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        for row in (row for row in rows if row["target"] == target):
            f = {key: value and value["median"] for key, value in row["figures"].items()}
            cells = [f"{row['method']}, {row['rung']} {UNIT[row['method']]}", f"{f['seconds']:.1f}"]
            cells += [f"{f['evaluations']:.2g}", f"{f['modes_missed']:.0f}", f"{f['w2_ratio']:.2f}"]
            cells += [f"{f['tv_ratio']:.2f}", _count(row, "reached")]
            cells += [f"{f['corrected_tv_ratio']:.2f}" if "corrected_tv_ratio" in f else ""]
            cells += [_count(row, "corrected_reached"), f"{f['more_seconds']:.1f}" if f["more_seconds"] else ""]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return "\n".join(lines)


def _count(row, name):
    reached = row["figures"].get(name)
    return f"{sum(reached['all'])} of {len(reached['all'])}" if reached else ""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/time-to-quality"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    args = parser.parse_args()
    folder = Run(args.out).create()
    rows = []
    for target in args.targets:
        for method, ladders in LADDERS.items():
            for rung in ladders[target]:
                measure = []
                for seed in range(args.seeds):
                    file = folder / "jobs" / f"{target}-{method}-{rung}-{seed}.json"
                    measure.append(measured(file, SCRIPT, [method, target, rung, seed], cache=False))
                rows.append({"target": target, "method": method, "rung": rung, "figures": medians(measure)})
                print(target, method, rung, {k: v and v["median"] for k, v in rows[-1]["figures"].items()}, flush=True)
    result = {
        "command": "python -m benchmarks.time_to_quality",
        "seeds": args.seeds,
        "machine": machine(),
        "rows": rows,
    }
    folder.write_json("time-to-quality.json", result)
    text = table(rows, args.targets)
    write_atomically(folder / "time-to-quality.md", lambda file: file.write(text))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(json.dumps(one(*json.loads(sys.argv[1]))))
    else:
        main()
