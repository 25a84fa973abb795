"""Whether a verdict is better than the draws: densities with exact answers, on some of which
methods go wrong.

    python -m benchmarks.verdicts --methods smc --seeds 3 --out docs/results/verdicts-smc.json
    python -m benchmarks.verdicts --methods iwsm-thorough --cases schools --seeds 3 --out
    docs/results/verdicts-iwsm.json

A row is `wrong` by `benchmarks.cases`: log Z is off by more than .1 and 4 of its errors, the share
of a region by more than a fifth and 5 of its errors, or an average by more than a tenth of a
deviation and 5 errors. Silently wrong: wrong, and the word is better than `do not use`. Where a
page stands beside the file with its name, a table of each density's rows goes between its two
marks. Rows that the file has are not made again. `benchmarks.silent` does the same for all of the
densities, with a process for each row.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path
from statistics import median

import jax
import numpy as np

import allmodes as am
from allmodes.draws.verdict import ORDER
from allmodes.jobs.machine import machine
from benchmarks.cases import CASES, judged
from benchmarks.cases.case import INTERVAL
from benchmarks.rows import into_page

METHODS = {
    "iwsm": None, "iwsm-thorough": am.IWSM.thorough(), "smc": am.SMC(), "tempering": am.Tempering(), "nuts": am.NUTS(),
}  # fmt: skip
DRAWS = {"raw": 10_000, "corrected": 4000}
GRAIN = 1e-4  # what float32 leaves of log Z
FEW = "schools", "slivers", "funnel-10", "far", "gmm40", "mixture-8d", "manywell-8", "dw4"


def first_region(case, draws):
    """The share of the first region, and the true one, where there are regions."""
    if case.regions is None:
        return {}
    w = np.exp(np.asarray(draws.log_weight, float) - float(np.max(draws.log_weight)))
    there = np.asarray(case.regions.assign(np.asarray(draws.x, float))) == 0
    return {"share": float(w @ there / w.sum()), "true_share": float(case.regions.shares[0])}


def table(rows):
    """A line for each density and kind of draws: how often wrong, what was claimed, and in how many
    of the runs the 95 % interval of log Z has the truth, to the grain of float32; of all shares of
    regions, and of all averages, how many intervals have it.
    """
    head = "wrong", *reversed(ORDER), "log Z", "shares", "averages", "least effective share", "evaluations"
    lines = ["| density | draws | runs | " + " | ".join(head) + " |", "|---" * (3 + len(head)) + "|"]
    for case, kind in dict.fromkeys((row["case"], row["draws"]) for row in rows):
        of = [row for row in rows if (row["case"], row["draws"]) == (case, kind)]
        said = Counter(row["word"] for row in of)
        off = [(abs(row["log_z_off"]), row["log_z_std_error"]) for row in of if row["log_z_off"] is not None]
        covered = [f"{sum(a <= INTERVAL * b + GRAIN for a, b in off)} of {len(off)}" if off else "-"]
        for figure in ("shares", "averages"):
            held, n = np.sum([row["covered"][figure] for row in of if "covered" in row] or [(0, 0)], axis=0)
            covered.append(f"{held / n:.0%} of {n:,}" if n else "-")
        words = [said[word] for word in reversed(ORDER)]
        share, spent = min(row["ess"] for row in of) / DRAWS[kind], median(row["evaluations"] for row in of)
        wrong = sum(bool(row["wrong"]) for row in of)
        cells = case, kind, len(of), wrong, *words, *covered, f"{share:.2f}", f"{spent:,.0f}"
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["smc"], choices=METHODS)
    parser.add_argument("--cases", nargs="+", default=list(FEW), choices=CASES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    command = f"python -m benchmarks.verdicts --methods {' '.join(args.methods)} --cases {' '.join(args.cases)}"
    result = {"command": f"{command} --seeds {args.seeds}", "machine": machine(), "rows": []}
    if args.out is not None and args.out.exists():
        result["rows"] = json.loads(args.out.read_text())["rows"]
    there = {(row["case"], row["method"], row["seed"]) for row in result["rows"]}
    for name in args.cases:
        case = CASES[name]()
        for method in args.methods:
            for seed in [seed for seed in range(args.seeds) if (name, method, seed) not in there]:
                begin = time.monotonic()
                sampler = am.fit(case.target, METHODS[method], key=jax.random.key(seed), progress=False)
                sets = {"raw": sampler.sample(DRAWS["raw"], key=jax.random.key(1000 + seed))}
                sets["corrected"] = sampler.corrected(DRAWS["corrected"], key=jax.random.key(2000 + seed))
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
                    into_page(args.out.with_suffix(".md"), table(result["rows"]))
    silent = [row for row in result["rows"] if row["wrong"] and row["word"] != "do not use"]
    print(f"{len(result['rows'])} rows, {len(silent)} silently wrong")


if __name__ == "__main__":
    main()
