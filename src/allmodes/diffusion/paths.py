"""Reverse and noising paths between the target and the prior, with exact path weights
(`docs/concepts.md`: draws).

A path is z_0, z_1, .., z_N over noise levels 0 = s_0 < s_1 < .. < s_N. The noising kernel is
`N(z_{i+1}; z_i, s_{i+1}^2 - s_i^2)`; the sampler's reverse kernel q is Gaussian, with the mean of
the DDPM posterior at the denoised point and a variance that counts the denoiser's own uncertainty
(Bao et al. 2022, "Analytic-DPM"). Whatever the network is,
`w = pi(z_0) prod noising / (prior prod q)` has mean Z over paths of the sampler.

Where the denoiser is that of a base, and has learned nothing yet, no path is needed: one of no
steps is a draw of the base.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.devices.mesh import spread
from allmodes.diffusion.kernels import TIE, BaseKernel, Kernel, NormalKernel, OneOf
from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.noise import Noise
from allmodes.points.normal import log_normal


class Process(eqx.Module):
    """All that a path needs: the trained denoiser, its error at each noise level, and the prior."""

    denoiser: Denoiser
    noise: Noise
    error: Float[Array, "levels dim"]  # E[(z_0 - D)^2], at the middle of equal strata of t
    mean: Float[Array, " dim"]  # of the target, in normalised coordinates
    variance: Float[Array, " dim"]
    scale: Float[Array, " levels"] | None = None  # of the variances that a base knows, at the same levels
    better: Float[Array, " levels"] | None = None  # nats by which clean points are likelier under its kernel

    @property
    def prior_variance(self) -> Float[Array, " dim"]:
        """Variance of the Gaussian that stands for the target at the highest noise."""
        return self.variance + self.noise.sigma_max**2

    def path_evaluations(self, steps: int) -> int:
        """Count the evaluations of the density that a point costs on a path of so many steps,
        beside that of its clean end.
        """
        return steps * self.denoiser.evaluations

    def prior(self, key: Array, n: int) -> Float[Array, "n dim"]:
        """Draws at the highest noise level."""
        if self.denoiser.base is not None:
            return spread(self.denoiser.base.sample(key, n, self.noise.sigma_max**2))
        return spread(self.mean + jnp.sqrt(self.prior_variance) * jax.random.normal(key, (n, self.mean.shape[0])))

    def log_prior(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Their log-density."""
        if self.denoiser.base is not None:
            return self.denoiser.base.log_density(z, self.noise.sigma_max**2)
        return log_normal(z, jnp.broadcast_to(self.mean, z.shape), self.prior_variance)

    def error_at(self, sigma: Scalar) -> Float[Array, " dim"]:
        """Posterior variance of z_0 that the denoiser leaves at this level, interpolated in log
        sigma.
        """
        return self._at(self.error, sigma)

    def _at(self, levels: Float[Array, "levels _"], sigma: Scalar) -> Float[Array, " _"]:
        middles = (jnp.arange(len(levels)) + 0.5) / len(levels)
        t = self.noise.time(sigma)
        log = jnp.log(jnp.maximum(levels, 1e-12))
        return jnp.exp(jax.vmap(lambda column: jnp.interp(t, middles, column), in_axes=1)(log))

    def reverse_kernel(self, z: Float[Array, "n dim"], sigma: Scalar, lower: Scalar) -> Kernel:
        """The sampler's q(z_lower | z_sigma)."""
        denoised = self.denoiser.many(z, sigma)
        share = 1.0 - (lower / sigma) ** 2
        variance = lower**2 * share + share**2 * self.error_at(sigma)
        plain = NormalKernel(z + share * (denoised - z), variance)
        if self.denoiser.base is None:
            return plain
        scale, level = self._at(self.scale[:, None], sigma)[0], self.noise.time(sigma) * len(self.better)
        better = self.better[jnp.clip(level.astype(int), 0, len(self.better) - 1)]
        base, step = self.denoiser.base, (z, denoised, sigma, lower, scale)
        kernels = plain, BaseKernel(base.mixture, *step), BaseKernel(base.product, *step)
        return OneOf(kernels, jnp.where(better > -TIE, 1 + base.is_product, 0))


class Path(NamedTuple):
    """One end of each path and its log weight without the target's own log-density."""

    z: Float[Array, "n dim"]
    log_ratio: Float[Array, " n"]  # sum log noising - sum log q (- log prior, of a whole path); add log_prob(z_0)


def denoise(
    process: Process,
    key: Array,
    z: Float[Array, "n dim"],
    sigmas: Float[Array, " levels"],
    first,
    last,
    detached: bool = False,
) -> Path:
    """Walk from level `sigmas[first]` to `sigmas[last]` by the reverse kernel; bounds may be
    traced. `detached`: a derivative is taken of the log ratio of the points, as if they were given.
    """

    def step(i, path):
        z, log_ratio = path
        kernel = process.reverse_kernel(z, sigmas[i], sigmas[i + 1])
        lower = kernel.sample(jax.random.fold_in(key, i))
        lower = jax.lax.stop_gradient(lower) if detached else lower
        gap = sigmas[i] ** 2 - sigmas[i + 1] ** 2
        return Path(lower, log_ratio + log_normal(z, lower, gap[None]) - kernel.log_prob(lower))

    return jax.lax.fori_loop(first, last, step, Path(z, jnp.zeros(z.shape[0])))


def noise(process: Process, key: Array, z: Float[Array, "n dim"], sigmas: Float[Array, " levels"], first, last) -> Path:
    """Noise points at `sigmas[last]` up to `sigmas[first]`: `denoise` the other way, with the same
    log ratio.
    """

    def step(j, path):
        i = last - 1 - j
        lower, log_ratio = path
        gap = sigmas[i] ** 2 - sigmas[i + 1] ** 2
        z = lower + jnp.sqrt(gap) * jax.random.normal(jax.random.fold_in(key, i), lower.shape)
        kernel = process.reverse_kernel(z, sigmas[i], sigmas[i + 1])
        return Path(z, log_ratio + log_normal(z, lower, gap[None]) - kernel.log_prob(lower))

    return jax.lax.fori_loop(0, last - first, step, Path(z, jnp.zeros(z.shape[0])))


def reverse(process: Process, key: Array, n: int, steps: int, detached: bool = False) -> Path:
    """N whole paths of the sampler, from the prior to clean draws; their clean ends. Of no steps:
    draws of the base. `detached` as of `denoise`.
    """
    if not steps:
        z = spread(process.denoiser.base.sample(key, n))
        return Path(z, -process.denoiser.base.log_density(z))
    k_prior, key = jax.random.split(key)
    z = process.prior(k_prior, n)
    path = denoise(process, key, z, process.noise.grid(steps), 0, steps, detached)
    return Path(path.z, path.log_ratio - process.log_prior(z))


def noising(process: Process, key: Array, z_0: Float[Array, "n dim"], steps: int) -> Path:
    """The weights of whole paths that noise given points: for exact draws, draws of the weights
    under the target.
    """
    if not steps:
        return Path(z_0, -process.denoiser.base.log_density(z_0))
    path = noise(process, key, z_0, process.noise.grid(steps), 0, steps)
    return Path(z_0, path.log_ratio - process.log_prior(path.z))
