"""What few evaluations buy: mixtures by `IWSM()`, or any registered method.

    python -m benchmarks.evaluations --targets gmm40 random-16 --out docs/results/evaluations.json
    python -m benchmarks.evaluations --targets sensors --out docs/results/posteriors-default.json

For each run, in a fresh process: evaluations with those of 10,000 draws, seconds from the start of
the process to the draws (imports and compilation included), with `--warm` those of a second process
that finds all programs compiled, steps of training, the effective share, log Z less the truth,
total variation of the modes' weights over that of exact draws (raw and weighted), and modes with
less than half of their share; where there are exact draws, the gap EUBO - ELBO, and of wells the
worst error of a coordinate's share in its right one, by raw draws. Of a posterior with a reference:
log Z less that of the reference, and the largest difference of a mean or a deviation in standard
errors, of how many, and how many are beyond 3, for weighted draws and for corrected ones.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import jax
import numpy as np

import allmodes as am
from allmodes.methods import METHODS
from allmodes.metrics import elbo, eubo
from allmodes.metrics.quantities import quantities
from allmodes.targets import random_mixture, reference, warped_mixture
from allmodes.targets.manywell import right_share
from benchmarks.rows import into_page

DRAWS = 10_000
CORRECTED = 4000  # of a posterior


COLUMNS = {  # of a row: what a page calls it, and how it is written
    "evaluations": ("evaluations", ","), "seconds": ("seconds", ".0f"), "warm": ("warm", ".0f"), "steps": ("steps", ""),
    "share": ("effective share", ".2f"), "raw": ("raw", ".2f"), "weighted": ("weighted", ".2f"), "low": ("low", ""),
    "log_z": ("log Z less the truth", "+.3f"), "gap": ("gap", ".3f"), "wells": ("wells", ".3f"),
    "by_weights": ("worst, by weights", ""),
    "corrected": ("worst, corrected", ""), "verdict": ("verdict", ""),
}  # fmt: skip


def target_of(name):
    """A registered density; `random-DIM`, 40 unequal modes in so many dimensions; or `warped-DIM`,
    40 that are skewed, heavy in the tails and bent."""
    kind, _, dim = name.partition("-")
    if kind == "random":
        return random_mixture(7, 40, int(dim))
    if kind == "warped" and dim.isdigit():
        return warped_mixture(900 + int(dim), 40, int(dim))
    return am.find_target(name)


def measure(name, method, seed, begin):
    target = target_of(name)
    sampler = am.fit(target, METHODS[method], key=jax.random.key(seed), progress=False)
    draws = jax.block_until_ready(sampler.sample(DRAWS, key=jax.random.key(1000 + seed)))
    seconds, (log_z, std_error) = time.time() - begin, draws.log_z
    spent = sampler.evaluations["log_prob"] + draws.evaluations
    known = reference.load(target, target.reference) if target.reference else None
    log_z_true, error_of_it = (known.log_z, known.log_z_error) if known else (target.log_z, 0.0)
    row = {
        "target": name, "method": method, "seed": seed, "evaluations": spent,
        "seconds": round(seconds, 1), "steps": int(sampler.state.step), "share": round(draws.ess / DRAWS, 3),
        "log_z": round(log_z - log_z_true, 4), "std_error": round(float(np.hypot(std_error, error_of_it)), 4),
        "verdict": draws.verdict().word, "reasons": draws.verdict().reasons, "spent": sampler.spent,
    }  # fmt: skip
    if known:
        return row | beside_reference(known, sampler, draws, seed)
    row |= bounds_of(target, sampler, draws, seed) | wells_of(target, draws)
    return row | (weights_of(target, draws) if target.modes is not None else {})


def bounds_of(target, sampler, draws, seed):
    """EUBO - ELBO, by as many exact draws as there are raw ones."""
    if target.sample is None:
        return {}
    exact = sampler.log_weights(target.sample(jax.random.key(3000 + seed), DRAWS), key=jax.random.key(4000 + seed))
    return {"gap": round(eubo(exact).value - elbo(draws.log_weight).value, 4)}


def wells_of(target, draws):
    """The worst error of the share of draws on the right, over coordinates that have two wells."""
    kind = target.name.rpartition("-")[0]
    wells = {"manywell": (slice(0, None, 2), right_share()), "five-wells": (slice(0, 5), 0.5)}
    if kind not in wells:
        return {}
    which, true = wells[kind]
    return {"wells": round(float(np.max(np.abs(np.mean(np.asarray(draws.x)[:, which] > 0.0, axis=0) - true))), 4)}


def beside_reference(known, sampler, draws, seed):
    """The worst mean or deviation of weighted draws, and of corrected ones with their cost."""
    corrected = sampler.corrected(CORRECTED, key=jax.random.key(2000 + seed))
    found = {
        "by_weights": quantities(draws.x, known.x, draws.log_weight),
        "corrected": quantities(corrected.x, known.x, independent=min(1.0, corrected.ess / CORRECTED)),
    }
    said = {name: f"{q['value']:.2f} ({q['off']} of {q['of']})" for name, q in found.items()}
    word = corrected.verdict().word
    return said | {"corrected_verdict": word, "correction": corrected.evaluations}


def weights_of(target, draws):
    """Total variation of the modes' weights, over the mean of 20 sets of exact draws."""
    true, mode = np.asarray(target.modes.weights), np.asarray(target.modes.assign(np.asarray(draws.x)))
    weight = np.exp(np.asarray(draws.log_weight, float) - float(np.max(draws.log_weight)))

    def shares(w):
        return np.bincount(mode[mode >= 0], w[mode >= 0], minlength=len(true)) / w.sum()

    def off(shares):
        return 0.5 * np.abs(shares - true).sum()

    floor = np.mean([off(np.random.default_rng(i).multinomial(DRAWS, true) / DRAWS) for i in range(20)])
    raw = shares(np.ones(DRAWS))
    return {
        "raw": round(off(raw) / floor, 2), "weighted": round(off(shares(weight)) / floor, 2),
        "low": int(np.sum(raw < 0.5 * true)),
    }  # fmt: skip


def page(rows):
    """Rows of several seeds as two tables: what was reached, and what evaluations were for."""
    names = list(dict.fromkeys(row["target"] for row in rows))
    of = {name: [row for row in rows if row["target"] == name] for name in names}

    def several(name, key, form):
        return ", ".join(format(row[key], form) if key in row else "-" for row in of[name])

    form = {key: form for key, (_, form) in COLUMNS.items() if any(key in row for row in rows)}
    reached = [f"| {name} | " + " | ".join(several(name, key, form[key]) for key in form) + " |" for name in names]
    purposes = "scouts", "climbs", "moves", "completeness", "mixture", "renewals", "opinion"
    spent = [
        f"| {name} | "
        + " | ".join(f"{median(row['spent'].get(p, 0) for row in of[name]):,.0f}" for p in purposes)
        + " |"
        for name in names
    ]
    heads = [COLUMNS[key][0] for key in form]
    return "\n".join([
        "| density | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|", *reached, "",
        "What they were for, beside the 10,000 draws (medians; `sampler.spent`, and in each report):", "",
        "| density | " + " | ".join(purposes) + " |", "|---" * (1 + len(purposes)) + "|", *spent,
    ])  # fmt: skip


def write(rows, result):
    """The rows, and the page beside them with their tables in the place of those that it has."""
    about = {"machine": f"{platform.machine()}, {jax.default_backend()}", "rows": rows}
    result.write_text(json.dumps(about, indent=1) + "\n")
    into_page(result.with_suffix(".md"), page(rows))


def in_fresh_processes(name, method, seed, is_warm):
    """A run that finds nothing compiled; `warm`: seconds of one that finds all that it has."""
    command = [sys.executable, "-m", "benchmarks.evaluations", "--targets", name, "--method", method]
    with tempfile.TemporaryDirectory() as folder:
        kept = {
            "JAX_COMPILATION_CACHE_DIR": folder, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        }  # fmt: skip
        rows = []
        for _ in range(1 + is_warm):
            this = [*command, "--seed", str(seed), "--begin", str(time.time())]
            done = subprocess.run(this, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | kept)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows[0] | ({"warm": rows[1]["seconds"]} if is_warm else {})


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", default=["gmm40"])
    parser.add_argument("--method", default="iwsm", choices=METHODS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--warm", action="store_true", help="each run a second time, with its compiled programs kept")
    parser.add_argument("--seed", type=int, help="this seed alone, in this process")
    parser.add_argument("--begin", type=float, default=time.time(), help="of --seed: when its process was started")
    parser.add_argument("--out", type=Path, help="rows of other densities that it holds are kept")
    given = parser.parse_args()
    if given.seed is not None:
        print(json.dumps(measure(given.targets[0], given.method, given.seed, given.begin)))
        return
    kept = json.loads(given.out.read_text())["rows"] if given.out and given.out.exists() else []
    rows = [row for row in kept if row["target"] not in given.targets]
    for name in given.targets:
        for seed in range(given.seeds):
            rows.append(in_fresh_processes(name, given.method, seed, given.warm))
            print(json.dumps(rows[-1]), flush=True)
            if given.out:
                write(rows, given.out)


if __name__ == "__main__":
    main()
