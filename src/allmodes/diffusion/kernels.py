"""Reverse kernels q(z_lower | z_sigma) of a whole population: draws, and their log-densities.

The kernel that turns noised points of a Gaussian into less noised ones is Gaussian. Of a mixture it
is a mixture of these, in the proportion in which the components may have made the point: where the
base of a denoiser is right, so is this kernel, however long the step (`docs/concepts.md`: draws).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Scalar, Shaped

from allmodes.devices.blocks import batched_map, block_size
from allmodes.points.mixture import GaussianMixture
from allmodes.points.normal import log_normal

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


class MixtureKernel(NamedTuple):
    """That of a base, whose means are moved by what the network adds to its denoiser.

    Component k of the base would have made z of a clean point that is normal with mean
    `mean_k + U_k (L_k / v_k) y_k` and variance `U_k (L_k sigma^2 / v_k) U_k'`, where
    `y_k = U_k'(z - mean_k)` and `v_k = L_k + sigma^2`. `scale` widens that variance as far as
    points of the buffer were seen to need it at this level. They are likelier by it than by
    independent normals of the denoiser's own errors, by `better` nats; where they are not, as where
    a component covers several modes, `otherwise` is the kernel.
    """

    base: GaussianMixture
    z: Float[Array, "n dim"]
    denoised: Float[Array, "n dim"]
    sigma: Scalar
    lower: Scalar
    scale: Scalar
    better: Scalar
    otherwise: NormalKernel

    def sample(self, key: Array) -> Float[Array, "n dim"]:
        """One draw from each."""
        k_which, k_normal = jax.random.split(key)
        normal = jax.random.normal(k_normal, self.z.shape)

        def one(z, denoised, key, normal):
            log_share, shift, spread = self._parts(z, denoised)
            k = jax.random.categorical(key, log_share)
            return z + self.base.axes[k] @ (shift[k] + jnp.sqrt(spread[k]) * normal)

        return jax.lax.cond(
            self.better > -TIE,
            lambda: self._each(one, jax.random.split(k_which, len(self.z)), normal),
            lambda: self.otherwise.mean + jnp.sqrt(self.otherwise.variance) * normal,
        )

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of one draw of each."""

        def one(z, denoised, lower):
            log_share, shift, spread = self._parts(z, denoised)
            squared = jnp.sum((self.base.turned(lower - z) - shift) ** 2 / spread + jnp.log(spread), axis=1)
            return logsumexp(log_share - 0.5 * (squared + len(z) * jnp.log(2.0 * jnp.pi)))

        return jax.lax.cond(self.better > -TIE, lambda: self._each(one, z), lambda: self.otherwise.log_prob(z))

    def _each(self, function: Callable[..., Array], *more: Shaped[Array, "n *_"]) -> Float[Array, "n *_"]:
        block = block_size(len(self.z), self.base.point_bytes)
        return batched_map(lambda args: function(*args), (self.z, self.denoised, *more), block)

    def _parts(
        self, z: Float[Array, " dim"], denoised: Float[Array, " dim"]
    ) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"]]:
        """Log shares of the components, and mean and variance of each along its axes, from z."""
        step = 1.0 - (self.lower / self.sigma) ** 2
        log_share, shift, variance = clean_of_noised(self.base, z, denoised, self.sigma)
        return log_share, step * shift, self.lower**2 * step + step**2 * self.scale * variance


def clean_of_noised(
    base: GaussianMixture, z: Float[Array, " dim"], denoised: Float[Array, " dim"], sigma: Scalar
) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"]]:
    """What a base says of the clean point that z was made of, its mean moved to `denoised`: log
    shares of the components, and mean and variance of each along its axes, from z.
    """
    noise = sigma**2
    y, kept = base.along_noised(z), base.variance / (base.variance + noise)
    log_share = jax.nn.log_softmax(base.log_parts(y, noise))
    learned = denoised - base.denoised(y, jnp.exp(log_share), noise)
    return log_share, kept * y - y + base.turned(learned), kept * noise


Kernel = NormalKernel | MixtureKernel
