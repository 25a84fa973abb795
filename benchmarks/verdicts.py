"""Whether a verdict is better than the draws: densities with exact answers, on some of which
methods go wrong.

    python -m benchmarks.verdicts --methods smc --seeds 3 --out docs/results/verdicts-smc.json
    python -m benchmarks.verdicts --methods iwsm-thorough --cases schools --seeds 3 --out
    docs/results/verdicts-iwsm.json

A row is `wrong` by `benchmarks.cases`: log Z is off by more than .1 and 4 of its errors, the share
of a region by more than a fifth and 5 of its errors, or an average by more than a tenth of a
deviation and 5 errors. Silently wrong: wrong, and the word is better than `do not use`.
`benchmarks.silent` does the same for all of the densities, with a process for each row.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import numpy as np

import allmodes as am
from allmodes.jobs.machine import machine
from benchmarks.cases import CASES, judged

METHODS = {
    "iwsm": None, "iwsm-thorough": am.IWSM.thorough(), "smc": am.SMC(), "tempering": am.Tempering(), "nuts": am.NUTS(),
}  # fmt: skip
FEW = "schools", "slivers", "funnel-10", "far", "gmm40", "mixture-8d", "manywell-8", "dw4"


def first_region(case, draws):
    """The share of the first region, and the true one, where there are regions."""
    if case.regions is None:
        return {}
    w = np.exp(np.asarray(draws.log_weight, float) - float(np.max(draws.log_weight)))
    there = np.asarray(case.regions.assign(np.asarray(draws.x, float))) == 0
    return {"share": float(w @ there / w.sum()), "true_share": float(case.regions.shares[0])}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["smc"], choices=METHODS)
    parser.add_argument("--cases", nargs="+", default=list(FEW), choices=CASES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    command = f"python -m benchmarks.verdicts --methods {' '.join(args.methods)} --cases {' '.join(args.cases)}"
    result = {"command": f"{command} --seeds {args.seeds}", "machine": machine(), "rows": []}
    for name in args.cases:
        case = CASES[name]()
        for method in args.methods:
            for seed in range(args.seeds):
                begin = time.monotonic()
                sampler = am.fit(case.target, METHODS[method], key=jax.random.key(seed), progress=False)
                sets = {"raw": sampler.sample(10_000, key=jax.random.key(1000 + seed))}
                sets["corrected"] = sampler.corrected(4000, key=jax.random.key(2000 + seed))
                for kind, draws in sets.items():
                    if draws is None:
                        continue
                    row = {"case": name, "method": method, "seed": seed, "draws": kind}
                    row |= judged(case, draws) | first_region(case, draws)
                    row |= {"evaluations": sampler.evaluations["log_prob"] + draws.evaluations}
                    row |= {"seconds": round(time.monotonic() - begin, 1)}
                    result["rows"].append(row)
                    print({k: v for k, v in row.items() if k != "reasons"}, flush=True)
                if args.out is not None:
                    args.out.write_text(json.dumps(result, indent=1) + "\n")
    silent = [row for row in result["rows"] if row["wrong"] and row["word"] != "do not use"]
    print(f"{len(result['rows'])} rows, {len(silent)} silently wrong")


if __name__ == "__main__":
    main()
