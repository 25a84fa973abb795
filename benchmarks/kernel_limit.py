"""What the reverse kernel costs when the denoiser is exact: one Gaussian for a whole posterior, or
a mixture of one for each component of the base.

    python -m benchmarks.kernel_limit --out docs/results/kernel-limit.json

For Gaussian mixtures: their own denoiser in closed form, no network, no training; the effective
share of 4,096 paths, for each kernel and number of steps. Components are those of 400,000 exact
draws, by mode.
"""

import argparse
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import allmodes as am
from allmodes.diffusion.networks import Corrected, Denoiser
from allmodes.diffusion.noise import NoiseRange, noise_for, stratified_times
from allmodes.diffusion.paths import Process, reverse
from allmodes.jobs.machine import machine
from allmodes.methods.iwsm.batch import LEVELS
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.points.weights import ess_fraction

DRAWS, SEEN, PATHS = 400_000, 16_384, 4096


class WithoutBase(eqx.Module):
    """The same denoiser, of which a process does not know that it has a base."""

    network: Corrected

    def __call__(self, z, log_sigma):
        return self.network(z, log_sigma)


def mixture_of(target, frame):
    """The components of a target in a frame."""
    z = np.asarray(frame.to_z(target.sample(jax.random.key(1), DRAWS)), float)
    mode = target.modes.assign(np.asarray(frame.to_x(jnp.asarray(z, jnp.float32))))
    each = [z[mode == k] for k in range(len(target.modes.weights))]
    variance, axes = np.linalg.eigh(np.array([np.cov(own.T) for own in each]))
    parts = np.log(target.modes.weights), np.array([own.mean(axis=0) for own in each]), axes, variance
    return GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in parts))


def process_of(target, frame, mixture, with_base):
    """A process whose denoiser is exact, with its errors at each level."""
    z = frame.to_z(target.sample(jax.random.key(0), SEEN))
    network = Corrected(mixture, 8, 0, 0, 1, key=jax.random.key(0))
    denoiser = Denoiser(network if with_base else WithoutBase(network))
    tau = 1.0 / jnp.sqrt(jnp.mean(frame.evaluate(target, z).grad ** 2, axis=0))
    noise = noise_for(NoiseRange(), z, tau, False)
    sigma = noise.sigma(stratified_times(jax.random.key(2), SEEN))
    noisy = z + sigma[:, None] * jax.random.normal(jax.random.key(3), z.shape)
    error = jnp.mean(((z - jax.vmap(denoiser)(noisy, sigma)) ** 2).reshape(LEVELS, -1, z.shape[1]), axis=1)
    return Process(denoiser, noise, error, jnp.mean(z, axis=0), jnp.var(z, axis=0), jnp.ones(LEVELS), jnp.ones(LEVELS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--targets", nargs="+", default=["gmm40", "mixture-10d"])
    parser.add_argument("--steps", nargs="+", type=int, default=[5, 50, 200])
    parser.add_argument("--out", type=Path)
    given, rows = parser.parse_args(), []
    for name in given.targets:
        target = am.find_target(name)
        x = np.asarray(target.sample(jax.random.key(0), SEEN))
        frame = Frame.of(target, x.mean(axis=0), x.std(axis=0))
        mixture = mixture_of(target, frame)
        for with_base in (False, True):
            process = process_of(target, frame, mixture, with_base)
            for steps in given.steps:
                path = jax.jit(reverse, static_argnums=(2, 3))(process, jax.random.key(5), PATHS, steps)
                share = float(ess_fraction(path.log_ratio + frame.values(target, path.z)))
                kernel = "mixture" if with_base else "Gaussian"
                rows.append({"target": name, "kernel": kernel, "steps": steps, "share": round(share, 3)})
                print(rows[-1], flush=True)
    if given.out:
        about = {"command": "python -m benchmarks.kernel_limit", "machine": machine(), "rows": rows}
        given.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
