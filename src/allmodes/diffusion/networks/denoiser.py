"""The preconditioning that lets a network see and produce unit scale at every noise level (Karras
et al. 2022).
"""

from typing import ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.devices.blocks import batched_map, block_size
from allmodes.points.product import BaseDensity


class Denoiser(eqx.Module):
    """`D(z, sigma) = c_skip z + c_out F(c_in z, log sigma)`, an estimate of `E[z_0 | z_t = z]`.

    With unit spread of the data: `c_skip = c_in^2 = 1/(sigma^2 + 1)`, `c_out = sigma c_in` (EDM,
    table 1). A network that returns zero gives the exact denoiser of a standard Gaussian.

    With `predicts_score` the network is the score itself, of the raw point, as the papers have it:
    `D = z + sigma^2 F(z, log sigma)`.
    """

    evaluations: ClassVar[int] = 0  # of the density, for each point that is denoised

    network: eqx.Module
    predicts_score: bool = eqx.field(static=True, default=False)

    @property
    def base(self) -> BaseDensity | None:
        """The density that the network corrects the denoiser of, where there is one."""
        return getattr(self.network, "base", None)

    def __call__(self, z: Float[Array, " dim"], sigma: Scalar) -> Float[Array, " dim"]:
        """Denoised point for one noisy point."""
        if self.predicts_score:
            return z + sigma**2 * self.network(z, jnp.log(sigma))
        c_in = 1.0 / jnp.sqrt(sigma**2 + 1.0)
        return c_in**2 * z + sigma * c_in * self.network(c_in * z, jnp.log(sigma))

    def many(self, z: Float[Array, "n dim"], sigma: Scalar) -> Float[Array, "n dim"]:
        """Denoised points for many noisy ones at one level."""
        return batched_map(lambda one: self(one, sigma), z, self.block(len(z)))

    def block(self, n: int) -> int:
        """How many of n points to take at a time."""
        return block_size(n, getattr(self.network, "point_bytes", None))

    def loss_weight(self, sigma: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """`1 / c_out^2 = (sigma^2 + 1) / sigma^2`: errors of D weigh as errors of the network's own
        output.
        """
        return 1.0 / sigma**4 if self.predicts_score else (sigma**2 + 1.0) / sigma**2
