"""How often 95 % intervals of log Z cover the truth, for samplers that are trained already.

    python -m benchmarks.coverage runs/compare/dw4-iwsm-few-particles-* --out
    docs/results/coverage-dw4.json

As `python -m studies free-energy`, which trains its own: independent sets of 10,000 weighted draws
of each run, all of one target. Where log Z is known by a reference only, forty populations of
tempered SMC stand for it; their error counts.
"""

import argparse
import json
from pathlib import Path

import jax

import allmodes as am
from allmodes.jobs.machine import machine
from studies.free_energy import DRAWS, SETS, judged, summary, truth_of


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--sets", type=int, default=SETS, help="sets of draws of each run")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for number, path in enumerate(args.runs):
        sampler = am.load(path)
        for i in range(args.sets):
            key = jax.random.fold_in(jax.random.key(20_000 + number), i)
            rows.append({"run": path.name, **judged(sampler.target, sampler.sample(DRAWS, key=key))})
            print(rows[-1], flush=True)
    target = sampler.target
    found = summary(rows, truth_of(target.name) if target.log_z is None else None)
    print({name: value for name, value in found.items() if name != "rows"})
    result = {
        "command": f"python -m benchmarks.coverage {' '.join(path.name for path in args.runs)} --sets {args.sets}",
        "machine": machine(),
        "target": target.name, "draws": DRAWS, **found,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
