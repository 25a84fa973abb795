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
from jaxtyping import Array, Float, Int, Scalar, Shaped

from allmodes.devices.blocks import batched_map, block_size
from allmodes.points.mixture import GaussianMixture
from allmodes.points.normal import log_normal
from allmodes.points.product import Product

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


class BaseKernel(NamedTuple):
    """That of a base, whose parts are moved by what the network adds to its denoiser; `scale`
    widens what the base knows of a clean point's variance, as far as points of the buffer were seen
    to need it at this level.
    """

    base: GaussianMixture | Product
    z: Float[Array, "n dim"]
    denoised: Float[Array, "n dim"]
    sigma: Scalar
    lower: Scalar
    scale: Scalar

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        k_which, k_normal = jax.random.split(key)

        def one(z, denoised, key, normal):
            return z + self.base.step(key, normal, *self._parts(z, denoised))

        normal = jax.random.normal(k_normal, self.z.shape)
        return self._each(one, jax.random.split(k_which, len(self.z)), normal)

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""

        def one(z, denoised, lower):
            return self.base.log_step(lower - z, *self._parts(z, denoised))

        return self._each(one, z)

    def _each(self, function: Callable[..., Array], *more: Shaped[Array, "n *_"]) -> Float[Array, "n *_"]:
        block = block_size(len(self.z), self.base.point_bytes)
        return batched_map(lambda args: function(*args), (self.z, self.denoised, *more), block)

    def _parts(self, z: Float[Array, " dim"], denoised: Float[Array, " dim"]) -> tuple[Array, Array, Array]:
        """Log shares of the parts of the less noised point, and mean, from z, and variance of
        each.
        """
        step = 1.0 - (self.lower / self.sigma) ** 2
        log_share, shift, variance = self.base.clean(z, denoised, self.sigma**2)
        return log_share, step * shift, self.lower**2 * step + step**2 * self.scale * variance


class OneOf(NamedTuple):
    """One of several kernels, whichever `which` says."""

    kernels: tuple[NormalKernel | BaseKernel, ...]
    which: Int[Array, ""]

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        return jax.lax.switch(self.which, [kernel.sample for kernel in self.kernels], key)

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""
        return jax.lax.switch(self.which, [kernel.log_prob for kernel in self.kernels], z)


Kernel = NormalKernel | OneOf
