"""Our reference of a particle system beside draws that others published.

    python benchmarks/published_draws.py lj13 published.npy --out docs/results/published-lj13.json

The file holds an array (n, dim) or (n, particles, dim); iDEM's and DiKL's repositories have such
files for DW-4, LJ-13 and LJ-55. Both sets are judged by the metrics of the main job: the published
draws as draws, the reference as ground truth. Standard errors of mean energies take draws as
independent; rows of published files come from chains.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import allmodes as am
from allmodes.metrics import particle_metrics
from allmodes.metrics.identities import identities


def mean_energy(target, x):
    """Mean of -log_prob and its standard error."""
    energy = -np.asarray(jax.jit(target.values)(jnp.asarray(x, jnp.float32)), np.float64)
    return {"value": float(energy.mean()), "std_error": float(energy.std(ddof=1) / np.sqrt(len(x)))}


def identity(target, x):
    """The virial identity of equally weighted draws."""
    return dataclasses.asdict(identities(target, jnp.asarray(x, jnp.float32), most=len(x))[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("file", type=Path)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    target = am.find_target(args.target)
    x = np.load(args.file).astype(np.float64).reshape(-1, target.symmetry.particles, target.symmetry.dim)
    x = (x - x.mean(axis=1, keepdims=True)).reshape(len(x), -1)
    x = np.random.default_rng(0).permutation(x)
    ours = np.asarray(target.sample(jax.random.key(0), len(x)), np.float64)
    metrics = particle_metrics(target, x, jax.random.key(1))
    result = {
        "command": f"python benchmarks/published_draws.py {args.target} {args.file.name}",
        "draws": len(x),
        "published": {"energy": mean_energy(target, x), "virial": identity(target, x)},
        "reference": {"energy": mean_energy(target, ours), "virial": identity(target, ours)},
        "metrics": metrics,
    }
    print(json.dumps(result, indent=1))
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
