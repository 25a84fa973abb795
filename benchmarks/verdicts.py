"""Whether a verdict is better than the draws: densities with exact answers, on some of which
methods go wrong.

    python benchmarks/verdicts.py --methods smc --seeds 3 --out docs/results/verdicts-smc.json
    python benchmarks/verdicts.py --methods iwsm-thorough --cases schools --seeds 3 --out
    docs/results/verdicts-iwsm.json

A row is `wrong` where log Z is off by more than .1 and 4 of its errors, or a share of the mass by
more than a fifth and 5 of its errors. Silently wrong: wrong, and the word is better than
`do not use`.
"""

import argparse
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import allmodes as am
from allmodes.jobs.machine import machine
from allmodes.targets import gaussian_mixture, get
from allmodes.targets.funnel import funnel
from allmodes.targets.mixture import random_mixture

METHODS = {
    "iwsm": None, "iwsm-thorough": am.IWSM.thorough(), "smc": am.SMC(), "tempering": am.Tempering(), "nuts": am.NUTS(),
}  # fmt: skip
EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools():
    """Eight schools (Rubin 1981), centred, `mu ~ N(0, 5^2)`, `tau ~ half-Cauchy(5)` as `log tau`:
    10-D, a funnel."""

    def normal(x, mean, sd):
        return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * np.log(2 * np.pi)

    def log_prob(x):
        mu, log_tau, theta = x[0], x[1], x[2:]
        tau = jnp.exp(log_tau)
        prior = normal(mu, 0.0, 5.0) + jnp.log(2 / (5 * np.pi)) - jnp.log1p((tau / 5) ** 2) + log_tau
        return prior + jnp.sum(normal(theta, mu, tau) + normal(EFFECT, theta, ERROR))

    # The schools integrate out; two dimensions are left for a grid.
    mu, log_tau = np.meshgrid(np.linspace(-40, 40, 2001), np.linspace(-20, 8, 4001), indexing="ij")
    tau = np.exp(log_tau)
    value = -0.5 * (mu / 5) ** 2 - np.log(5 * np.sqrt(2 * np.pi))
    value += np.log(2 / (5 * np.pi)) - np.log1p((tau / 5) ** 2) + log_tau
    for y, s in zip(EFFECT, ERROR, strict=True):
        variance = tau**2 + s**2
        value += -0.5 * (y - mu) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    top = value.max()
    weight = np.exp(value - top)
    cell = (mu[1, 0] - mu[0, 0]) * (log_tau[0, 1] - log_tau[0, 0])
    share = float(weight[tau < 1.0].sum() / weight.sum())
    target = am.Target(log_prob, 10, name="schools", log_z=float(top + np.log(weight.sum() * cell)))
    return target, (lambda x: x[:, 1] < 0.0), share


def slivers():
    """Two parallel slivers, 1,000 times as long as wide, turned, 12 of their lengths apart."""
    turn, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((4, 4)))
    sd = np.logspace(0, -3, 4)
    means, white = jnp.asarray([0 * turn[:, 0], 12 * turn[:, 0]], jnp.float32), jnp.asarray((turn / sd).T, jnp.float32)
    const = jnp.asarray(np.log([0.7, 0.3]) - np.log(sd).sum() - 2 * np.log(2 * np.pi), jnp.float32)

    def log_prob(x):
        return logsumexp(const - 0.5 * jnp.sum(jnp.matmul(x - means, white.T, precision="highest") ** 2, axis=1))

    return am.Target(log_prob, 4, name="slivers", log_z=0.0), (lambda x: x @ turn[:, 0] > 6.0), 0.3


def far():
    """A narrow mode of a twentieth of the mass, 60 away from a wide one."""
    target = gaussian_mixture(np.array([[0.0, 0.0], [60.0, 0.0]]), np.array([1.0, 0.2]), [0.95, 0.05])
    return target, (lambda x: x[:, 0] > 30.0), 0.05


def known(target):
    """A mixture, by its first mode."""
    return target, (lambda x: target.modes.assign(x) == 0), float(target.modes.weights[0])


CASES = {
    "schools": schools,
    "slivers": slivers,
    "funnel-10": lambda: (funnel(10), lambda x: x[:, 0] < 0.0, 0.5),
    "far": far,
    "gmm40": lambda: known(get("gmm40")),
    "mixture-8d": lambda: known(random_mixture(7, 8, 8)),
    "manywell-8": lambda: (get("manywell-8"), lambda x: x[:, 0] > 0.0, None),
    "dw4": lambda: (get("dw4"), lambda x: x[:, 0] > 0.0, None),
}


def judged(target, inside, share, draws):
    """What is off, and what is claimed."""
    w = np.exp(np.asarray(draws.log_weight, float) - float(jnp.max(draws.log_weight)))
    w /= w.sum()
    z, verdict, why = draws.log_z, draws.verdict(), []
    row = {"log_z": z.value, "log_z_std_error": z.std_error, "ess": draws.ess, "word": verdict.word}
    if target.log_z is not None and np.isfinite(z.value):
        row["log_z_off"] = z.value - target.log_z
        if abs(row["log_z_off"]) > max(0.1, 4 * z.std_error):
            why.append("log Z")
    if share is not None:
        there = np.asarray(inside(np.asarray(draws.x)), float)
        row["share"], row["true_share"] = float(w @ there), share
        error = np.sqrt(row["share"] * (1 - row["share"]) / max(draws.ess, 1.0))
        if abs(row["share"] - share) > max(0.2 * share, 5 * error):
            why.append("share")
    known = target.log_z is not None or share is not None
    return row | {"wrong": why if known else None, "reasons": verdict.reasons}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["smc"], choices=METHODS)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    command = f"python benchmarks/verdicts.py --methods {' '.join(args.methods)} --cases {' '.join(args.cases)}"
    result = {"command": f"{command} --seeds {args.seeds}", "machine": machine(), "rows": []}
    for case in args.cases:
        target, inside, share = CASES[case]()
        for name in args.methods:
            for seed in range(args.seeds):
                begin = time.monotonic()
                sampler = am.fit(target, METHODS[name], key=jax.random.key(seed), progress=False)
                sets = {"raw": sampler.sample(10_000, key=jax.random.key(1000 + seed))}
                sets["corrected"] = sampler.corrected(4000, key=jax.random.key(2000 + seed))
                for kind, draws in sets.items():
                    if draws is None:
                        continue
                    row = {"case": case, "method": name, "seed": seed, "draws": kind}
                    row |= judged(target, inside, share, draws)
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
