"""References of the posteriors beside an independent method: do their means agree?

    python benchmarks/posteriors_reference.py sensors phi4 .. --out
    docs/results/posteriors-reference.json

Of each target the reference is made if it is not kept yet, and then at least as many draws by
parallel tempering (NUTS for those with one mode), which share with the reference the density and
the search that they start from. Compared are the mean and the standard deviation of every
coordinate in combined standard errors, each method's by its own effective draws (the bulk ESS of
the chains, coordinate by coordinate), log Z, and the masses of modes where they are known. Rows of
targets that are not named stay in the file as they are.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np

import allmodes as am
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import machine
from allmodes.targets import reference

BEYOND = 3.0
TEMPERING = am.Tempering(steps=40, sweeps=10, systems=32, temperatures=16, thin=8)
NUTS = am.NUTS(chains=16)
AT_LEAST = 8000  # draws of the other method: chains so long that their effective draws can be told
METHODS = {"breast-cancer": NUTS, "cox": NUTS, "mixture-labels": am.Tempering(steps=40, systems=32, thin=4)}


def against(name, seed):
    """One row: the reference, the other method, and how far they are apart."""
    target, method = am.find_target(name), METHODS.get(name, TEMPERING)
    n = target.reference
    made = reference.load(target, n, progress=lambda text: print(text, flush=True))
    about = Run(reference.folder() / f"{name}-{n}").read_json("reference.json")
    k_fit, k_draw = jax.random.split(jax.random.key(seed))
    begin = time.monotonic()
    sampler = am.fit(target, method, key=k_fit)
    draws = sampler.sample(max(n, AT_LEAST), key=k_draw)
    x = np.asarray(draws.x, np.float64)
    seconds = time.monotonic() - begin
    off = apart(x, np.asarray(made.x, np.float64), draws)
    row = {
        "target": name, "dim": target.dim, "draws": {"reference": n, "method": len(draws)},
        "reference": {
            "log_z": made.log_z, "log_z_error": made.log_z_error, "passed": made.passed, "seconds": about["seconds"],
            "evaluations": made.evaluations, "checks": {check.name: round(check.off, 2) for check in made.checks},
        },
        "method": dataclasses.asdict(method), "seed": seed, "seconds": round(seconds, 1),
        "evaluations": sampler.evaluations["log_prob"] + draws.evaluations,
        "effective": round(draws.ess, 1), "rhat": draws.rhat,
        "means": {"largest": float(off[0].max()), "of": target.dim, "off": int(np.sum(off[0] > BEYOND))},
        "deviations": {"largest": float(off[1].max()), "of": target.dim, "off": int(np.sum(off[1] > BEYOND))},
    }  # fmt: skip
    if np.isfinite(draws.log_z.value):
        row["log_z"], row["log_z_error"] = draws.log_z
    if target.modes is not None:
        masses = {"true": target.modes.weights, "reference": shares(target, made.x), "method": shares(target, x)}
        row["masses"] = {who: [round(float(share), 4) for share in values] for who, values in masses.items()}
    return row


def apart(x, y, draws):
    """Differences of means and standard deviations of each coordinate, (2, dim), in combined
    standard errors."""
    off = []
    for a, b in zip(x.T, y.T, strict=True):
        deviations = a.std(), b.std()
        squares = [((v - v.mean()) ** 2 - s**2) / (2 * s) for v, s in zip((a, b), deviations, strict=True)]
        error = np.hypot(deviations[0] / np.sqrt(draws.ess_of(a)), deviations[1] / np.sqrt(len(b)))
        error_of = np.hypot(squares[0].std() / np.sqrt(draws.ess_of(squares[0])), squares[1].std() / np.sqrt(len(b)))
        off.append((abs(a.mean() - b.mean()) / error, abs(deviations[0] - deviations[1]) / error_of))
    return np.array(off).T


def shares(target, x):
    """Of each mode; draws that are in none are left out."""
    index = target.modes.assign(np.asarray(x))
    return np.bincount(index[index >= 0], minlength=len(target.modes.weights)) / len(x)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/posteriors-reference.json"))
    args = parser.parse_args()
    rows = {row["target"]: row for row in json.loads(args.out.read_text())["rows"]} if args.out.exists() else {}
    for name in args.targets:
        rows[name] = against(name, args.seed)
        print(json.dumps(rows[name]), flush=True)
        command = f"python benchmarks/posteriors_reference.py {' '.join(rows)}"
        table = {"command": command, "machine": machine(), "rows": list(rows.values())}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
