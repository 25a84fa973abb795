"""Paths that are kept whole, so that a sampler that has changed can weigh them again."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.diffusion.paths import Process
from allmodes.points.normal import log_normal


class Walk(NamedTuple):
    """All points of paths, and what `Path` has of them."""

    z: Float[Array, "levels n dim"]  # from the highest noise to the clean ends
    log_ratio: Float[Array, " n"]


def walk(process: Process, key: Array, n: int, steps: int) -> Walk:
    """Draw n whole paths of the sampler, as `reverse` does, and keep their points."""
    k_prior, key = jax.random.split(key)
    sigmas, top = process.noise.grid(steps), process.prior(k_prior, n)

    def step(z, i):
        kernel = process.reverse_kernel(z, sigmas[i], sigmas[i + 1])
        lower = kernel.sample(jax.random.fold_in(key, i))
        gap = sigmas[i] ** 2 - sigmas[i + 1] ** 2
        return lower, (lower, log_normal(z, lower, gap[None]) - kernel.log_prob(lower))

    _, (lower, log_ratio) = jax.lax.scan(step, top, jnp.arange(steps))
    return Walk(jnp.concatenate([top[None], lower]), jnp.sum(log_ratio, axis=0) - process.log_prior(top))


def log_ratio_of(process: Process, z: Float[Array, "levels n dim"]) -> Float[Array, " n"]:
    """Give the log ratio that a sampler has on paths of any origin."""
    sigmas = process.noise.grid(len(z) - 1)

    def step(total, at):
        z, lower, sigma, below = at
        gap = sigma**2 - below**2
        kernel = process.reverse_kernel(z, sigma, below)
        return total + log_normal(z, lower, gap[None]) - kernel.log_prob(lower), None

    total, _ = jax.lax.scan(step, -process.log_prior(z[0]), (z[:-1], z[1:], sigmas[:-1], sigmas[1:]))
    return total
