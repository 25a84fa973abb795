"""Where the energies of raw draws go wrong: exact draws noised to a level and reversed from there.

    python benchmarks/energies_by_level.py runs/dw4-iwsm-few-particles-0 --out
    docs/results/energies-dw4.json

For each level, over the spread of the target: the mean energy of the reversed draws less that of
the same draws before, with its standard error. Each line holds the errors of all levels below it;
the last is about that of raw draws.
"""

import argparse
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import allmodes as am
from allmodes.diffusion.paths import denoise
from allmodes.jobs.machine import machine

LEVELS = (0.04, 0.08, 0.12, 0.2, 0.3, 0.45, 0.7, 1.2, 2.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("-n", type=int, default=4000)
    parser.add_argument("--steps", type=int, help="of a whole path; the method's own when not given")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    sampler = am.load(args.run)
    target, (frame, process) = sampler.target, sampler.method.process(sampler.target, sampler.state)
    steps = args.steps or sampler.method.sample_steps
    sigmas = process.noise.grid(steps)
    run = jax.jit(lambda z, key, first: denoise(process, key, z, sigmas, first, steps).z)
    z = frame.to_z(jnp.asarray(target.sample(jax.random.key(0), args.n)))
    energies = jax.jit(lambda z: -target.values(frame.to_x(z)))
    before = np.asarray(energies(z), np.float64)
    rows = []
    for level in LEVELS:
        first = int(np.argmin(np.abs(np.log(np.asarray(sigmas[:-1]) / level))))
        k_noise, k_path = jax.random.split(jax.random.fold_in(jax.random.key(1), first))
        noisy = z + sigmas[first] * jax.random.normal(k_noise, z.shape)
        change = np.asarray(energies(run(noisy, k_path, first)), np.float64) - before
        error = float(change.std(ddof=1) / np.sqrt(args.n))
        rows.append({"level": float(sigmas[first]), "change": float(change.mean()), "std_error": error})
        print(f"from {sigmas[first]:.3f}: {change.mean():+.3f} +- {error:.3f}", flush=True)
    result = {
        "command": f"python benchmarks/energies_by_level.py {args.run.name} -n {args.n}",
        "machine": machine(), "target": target.name, "steps": steps, "mean_energy": float(before.mean()), "rows": rows,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
