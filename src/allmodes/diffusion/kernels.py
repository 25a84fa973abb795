"""Reverse kernels q(z_lower | z_sigma) of a whole population: draws, and their log-densities.

The kernel that turns noised points of a Gaussian into less noised ones is Gaussian. Of a mixture it
is a mixture of these, in the proportion in which the components may have made the point, and of a
product a product: where the base of a denoiser is right, so is this kernel, however long the step
(`docs/concepts.md`: draws).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar, Shaped

from allmodes.devices.blocks import batched_map, block_size
from allmodes.points.mixture import GaussianMixture
from allmodes.points.normal import log_normal
from allmodes.points.product import BaseDensity, Product

TIE = 0.1  # nats by which independent normals must be better than the kernel of a base, to be taken for it


class NormalKernel(NamedTuple):
    """Independent normals of one variance for all points."""

    mean: Float[Array, "n dim"]
    variance: Float[Array, " dim"]

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        return self.mean + jnp.sqrt(self.variance) * jax.random.normal(key, self.mean.shape)

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""
        return log_normal(z, self.mean, self.variance)


class Step(NamedTuple):
    """From noised points at a level, denoised by the network, to a lower level; `scale` widens what
    a base knows of the clean point's variance, as far as points of the buffer were seen to need.
    """

    z: Float[Array, "n dim"]
    denoised: Float[Array, "n dim"]
    sigma: Scalar
    lower: Scalar
    scale: Scalar

    def of_parts(self, shift: Float[Array, "*k"], variance: Float[Array, "*k"]) -> tuple[Array, Array]:
        """Mean, from z, and variance of the less noised point, by those of the clean one."""
        step = 1.0 - (self.lower / self.sigma) ** 2
        return step * shift, self.lower**2 * step + step**2 * self.scale * variance

    def each(
        self, function: Callable[..., Array], point_bytes: int, *more: Shaped[Array, "n *_"]
    ) -> Float[Array, "n *_"]:
        """The function of each point, as noised and as denoised, and of more that belongs to it."""
        block = block_size(len(self.z), point_bytes)
        return batched_map(lambda args: function(*args), (self.z, self.denoised, *more), block)


class MixtureKernel(NamedTuple):
    """That of a mixture, whose means are moved by what the network adds to its denoiser.

    Component k of the base would have made z of a clean point that is normal with mean
    `mean_k + U_k (L_k / v_k) y_k` and variance `U_k (L_k sigma^2 / v_k) U_k'`, where
    `y_k = U_k'(z - mean_k)` and `v_k = L_k + sigma^2`.
    """

    base: GaussianMixture
    step: Step

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        k_which, k_normal = jax.random.split(key)

        def one(z, denoised, key, normal):
            log_share, shift, spread = self._parts(z, denoised)
            k = jax.random.categorical(key, log_share)
            return z + self.base.axes[k] @ (shift[k] + jnp.sqrt(spread[k]) * normal)

        normal = jax.random.normal(k_normal, self.step.z.shape)
        return self.step.each(one, self.base.point_bytes, jax.random.split(k_which, len(normal)), normal)

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""

        def one(z, denoised, lower):
            log_share, shift, spread = self._parts(z, denoised)
            squared = jnp.sum((self.base.turned(lower - z) - shift) ** 2 / spread + jnp.log(spread), axis=1)
            return logsumexp(log_share - 0.5 * (squared + len(z) * jnp.log(2.0 * jnp.pi)))

        return self.step.each(one, self.base.point_bytes, z)

    def _parts(
        self, z: Float[Array, " dim"], denoised: Float[Array, " dim"]
    ) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"]]:
        """Log shares of the components, and mean and variance of each along its axes, from z."""
        log_share, shift, variance = clean_by_mixture(self.base, z, denoised, self.step.sigma)
        return log_share, *self.step.of_parts(shift, variance)


class ProductKernel(NamedTuple):
    """That of a product: of each coordinate by itself a mixture, as `MixtureKernel` of all."""

    base: Product
    step: Step

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        k_which, k_normal = jax.random.split(key)

        def one(z, denoised, key, normal):
            log_share, shift, spread = self._parts(z, denoised)
            k = jax.random.categorical(key, log_share)
            shift, spread = (a[jnp.arange(len(z)), k] for a in (shift, spread))
            return z + shift + jnp.sqrt(spread) * normal

        normal = jax.random.normal(k_normal, self.step.z.shape)
        return self.step.each(one, self.base.point_bytes, jax.random.split(k_which, len(normal)), normal)

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""

        def one(z, denoised, lower):
            log_share, shift, spread = self._parts(z, denoised)
            squared = ((lower - z)[:, None] - shift) ** 2 / spread + jnp.log(2.0 * jnp.pi * spread)
            return jnp.sum(logsumexp(log_share - 0.5 * squared, axis=1))

        return self.step.each(one, self.base.point_bytes, z)

    def _parts(
        self, z: Float[Array, " dim"], denoised: Float[Array, " dim"]
    ) -> tuple[Float[Array, "dim k"], Float[Array, "dim k"], Float[Array, "dim k"]]:
        """Log shares of the parts of each coordinate, and mean and variance of each, from z."""
        log_share, shift, variance = clean_by_product(self.base, z, denoised, self.step.sigma)
        return log_share, *self.step.of_parts(shift, variance)


class OneOf(NamedTuple):
    """One of several kernels, whichever `which` says."""

    kernels: tuple[NormalKernel | MixtureKernel | ProductKernel, ...]
    which: Int[Array, ""]

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        return jax.lax.switch(self.which, [kernel.sample for kernel in self.kernels], key)

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""
        return jax.lax.switch(self.which, [kernel.log_prob for kernel in self.kernels], z)


def kernel_of_base(base: BaseDensity, step: Step, better: Scalar, otherwise: NormalKernel) -> OneOf:
    """The kernel of a base, by which clean points of the buffer are likelier than by independent
    normals of the denoiser's own errors, by `better` nats; where they are not, as where a component
    covers several modes, `otherwise`.
    """
    kernels = otherwise, MixtureKernel(base.mixture, step), ProductKernel(base.product, step)
    return OneOf(kernels, jnp.where(better > -TIE, 1 + base.is_product, 0))


def clean_by_mixture(
    base: GaussianMixture, z: Float[Array, " dim"], denoised: Float[Array, " dim"], sigma: Scalar
) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"]]:
    """What a mixture says of the clean point that z was made of, its mean moved to `denoised`: log
    shares of the components, and mean and variance of each along its axes, from z.
    """
    noise = sigma**2
    y, kept = base.along_noised(z), base.variance / (base.variance + noise)
    log_share = jax.nn.log_softmax(base.log_parts(y, noise))
    learned = denoised - base.denoised(y, jnp.exp(log_share), noise)
    return log_share, kept * y - y + base.turned(learned), kept * noise


def clean_by_product(
    base: Product, z: Float[Array, " dim"], denoised: Float[Array, " dim"], sigma: Scalar
) -> tuple[Float[Array, "dim k"], Float[Array, "dim k"], Float[Array, "dim k"]]:
    """What a product says of it: log shares of the parts of each coordinate, and mean, from z, and
    variance of each.
    """
    log_share, mean, variance = base.parts_of_clean(z, sigma**2)
    learned = denoised - jnp.sum(jnp.exp(log_share) * mean, axis=1)
    return log_share, mean - z[:, None] + learned[:, None], variance


Kernel = NormalKernel | OneOf
