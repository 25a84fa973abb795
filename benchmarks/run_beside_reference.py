"""The draws of a finished run beside two references of its target: the one kept, and a larger one
of another seed.

    python benchmarks/run_beside_reference.py RUN -n 32000 --seed 4242 --out
    docs/results/sensors-reference.json

A reference's draws are partly copies of each other, so that their errors are taken too small. Which
of two is off, a run or its reference, shows beside a third. Figures are those of
`metrics.quantities`: the largest difference of a mean or a standard deviation in standard errors,
of how many, and how many are beyond 3.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np

import allmodes as am
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import machine
from allmodes.metrics.quantities import quantities
from allmodes.targets import reference

PART, PARTS = 65_536, 5  # raw draws in memory at a time, and how often


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=32_000)
    parser.add_argument("--seed", type=int, default=4242)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sampler = am.load(args.run)
    target = am.find_target(Run(args.run).read_json("config.json")["target"]["origin"])
    kept = reference.load(target, target.reference)
    with np.load(args.run / "corrected.npz") as file:
        corrected = file["x"]
    parts = [sampler.sample(PART, key=jax.random.fold_in(jax.random.key(77), i)) for i in range(PARTS)]
    raw, log_weight = (np.concatenate([np.asarray(getattr(d, name)) for d in parts]) for name in ("x", "log_weight"))
    larger = reference.make(target, args.n, seed=args.seed, progress=lambda text: print(text, file=sys.stderr))
    result = {
        "command": f"python benchmarks/run_beside_reference.py RUN -n {args.n} --seed {args.seed}",
        "machine": machine(),
        "target": target.name,
        "effective_raw": sum(d.ess for d in parts),
        "log_z": {"kept": [kept.log_z, kept.log_z_error], "larger": [larger.log_z, larger.log_z_error]},
        "larger_passed": larger.passed,
        "kept_beside_larger": quantities(kept.x, larger.x),
        "corrected_beside_kept": quantities(corrected, kept.x),
        "corrected_beside_larger": quantities(corrected, larger.x),
        "weighted_beside_kept": quantities(raw, kept.x, log_weight),
        "weighted_beside_larger": quantities(raw, larger.x, log_weight),
        "corrected_beside_weighted": quantities(raw, corrected, log_weight),
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
