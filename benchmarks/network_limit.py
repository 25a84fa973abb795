"""What a network can learn: trained on exact draws, so that nothing else stands in its way.

    python benchmarks/network_limit.py --modes 40 --dim 32 --steps 3000 --out
    docs/results/network-limit.json

For the random mixture of `python -m studies dimension` (unequal weights and shapes), with and
without anchors: the buffer is refilled with exact draws every 500 steps, no point is ever moved,
and the loss is that of training. Then the effective shares of path weights, reverse and forward,
and the share of the loss that is the network's own: its squared distance from the exact denoiser at
noise levels from the highest to the lowest, in nats for each unit of log sigma.
"""

import argparse
import dataclasses
import json
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from allmodes import IWSM
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.jobs.machine import machine
from allmodes.methods.iwsm.training import train
from allmodes.metrics import forward_ess
from allmodes.parts import AnchoredPerceptron, Perceptron
from allmodes.points.buffer import Buffer
from allmodes.targets.mixture import random_mixture, random_parts

CHUNK, REFILL = 250, 500
DRAWS = 6000


def trained(method, target, key):
    """The state after all steps on exact draws, and seconds a step without compilation."""
    k_init, k_draw, k_train = jax.random.split(key, 3)
    state = method.init(target, k_init)

    @jax.jit
    def chunk(state, key):
        step = lambda s, k: (train(method, target, s, k)[0], None)  # noqa: E731
        return jax.lax.scan(step, state, jax.random.split(key, CHUNK))[0]

    begin = None
    for i in range(method.steps // CHUNK):
        if i % (REFILL // CHUNK) == 0:
            z = state.frame.to_z(target.sample(jax.random.fold_in(k_draw, i), method.buffer))
            state = dataclasses.replace(state, buffer=Buffer.of(z, state.frame.evaluate(target, z)))
        state = jax.block_until_ready(chunk(state, jax.random.fold_in(k_train, i)))
        begin = begin or time.monotonic()
    return state, (time.monotonic() - begin) / (method.steps - CHUNK)


def exact_denoiser(parts, frame):
    """`E[z_0 | z]` of the mixture of these means, covariances and weights, in the frame of
    training."""
    means, covariances, weights = parts
    scale, location = (np.asarray(a, float) for a in (frame.scale, frame.location))
    means = jnp.asarray((means - location) / scale, jnp.float32)
    eigen = np.linalg.eigh(covariances / np.outer(scale, scale))
    values, vectors = (jnp.asarray(a, jnp.float32) for a in eigen)
    log_weights = jnp.log(jnp.asarray(weights, jnp.float32))

    def denoise(z, sigma):
        offset = jnp.einsum("kij,ki->kj", vectors, z - means)
        variance = values + sigma**2
        share = jax.nn.softmax(log_weights - 0.5 * jnp.sum(offset**2 / variance + jnp.log(variance), axis=-1))
        return share @ means + jnp.einsum("k,kij,kj->i", share, vectors, values / variance * offset)

    return denoise


def one(parts, target, anchors, steps, seed):
    """The row of one network."""
    network = AnchoredPerceptron(anchors) if anchors else Perceptron()
    method = IWSM.thorough(steps=steps, cooldown=steps // 3, network=network, local_every=0, enough=None)
    state, seconds = trained(method, target, jax.random.key(seed))
    sampler = DiffusionSampler(target, method, state, {})
    k_draw, k_exact, k_noise, k_level = jax.random.split(jax.random.key(seed + 1000), 4)
    raw = sampler.sample(DRAWS, key=k_draw)
    x = target.sample(k_exact, 2000)
    denoise, z, levels = exact_denoiser(parts, state.frame), state.frame.to_z(x), []
    for t in np.linspace(1.0, 0.0, 13):
        sigma = state.noise.sigma(jnp.asarray(t))
        noisy = z + sigma * jax.random.normal(k_level, z.shape)
        error = state.average.many(noisy, sigma) - jax.vmap(denoise, (0, None))(noisy, sigma)
        levels.append([float(sigma), float(jnp.mean(jnp.sum(error**2, axis=-1)) / sigma**2)])
    return {
        "anchors": anchors, "seed": seed, "steps": steps, "milliseconds_a_step": 1e3 * seconds, "ess": raw.ess / DRAWS,
        "forward_ess": forward_ess(sampler.log_weights(x, key=k_noise)), "nats_by_sigma": levels,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--modes", type=int, default=40)
    parser.add_argument("--dim", type=int, default=32)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--anchors", type=int, nargs="+", default=[0, 64])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    target, parts = random_mixture(7, args.modes, args.dim), random_parts(7, args.modes, args.dim)
    rows = []
    for anchors in args.anchors:
        for seed in range(args.seeds):
            rows.append(row := one(parts, target, anchors, args.steps, seed))
            print({name: value for name, value in row.items() if name != "nats_by_sigma"}, flush=True)
    result = {
        "command": f"python benchmarks/network_limit.py --modes {args.modes} --dim {args.dim} --steps {args.steps} "
        f"--seeds {args.seeds} --anchors {' '.join(map(str, args.anchors))}",
        "machine": machine(), "target": target.name, "rows": rows,
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
