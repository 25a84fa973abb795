"""A denoiser that is shown the density's gradient ("Langevin parametrisation", LP)."""

from collections.abc import Callable
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.devices.blocks import batched_map
from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.networks.mlp import LEVEL_FEATURES, level_features

STEEPEST = 100.0  # largest norm of the gradient that the network is shown, in units of the frame


class GuidedDenoiser(Denoiser):
    """A denoiser that is shown the density's gradient at the noisy point, an evaluation for each.

    `D = c_skip z + c_out (F(c_in z, log sigma) + gain(sigma) sigma grad)`: with a gain of one it
    follows the gradient where the noise is low. The gain starts at zero, and is the paper's
    `NN_2` (Zhang and Chen 2022, arXiv 2111.15141); no derivative is taken of the gradient.
    """

    evaluations: ClassVar[int] = 1

    gain: eqx.nn.Linear | None = None
    gradient: Callable[[Array], Array] | None = eqx.field(static=True, default=None)  # of many points

    @staticmethod
    def start(network: eqx.Module, is_score: bool, dim: int, key: Array) -> "GuidedDenoiser":
        """Make one that has learned nothing."""
        gain = jax.tree.map(jnp.zeros_like, eqx.nn.Linear(LEVEL_FEATURES, dim, key=key))
        return GuidedDenoiser(network, is_score, gain)

    def many(self, z: Float[Array, "n dim"], sigma: Scalar) -> Float[Array, "n dim"]:
        """Denoise many points at one level."""
        assert self.gain is not None and self.gradient is not None  # a process has set them  # noqa: PT018
        shown = jax.lax.stop_gradient(self.gradient(z))
        size = jnp.linalg.norm(shown, axis=1, keepdims=True)
        shown = shown * jnp.minimum(1.0, STEEPEST / jnp.maximum(size, 1e-30))
        pull = sigma * self.gain(level_features(jnp.log(sigma))) * shown
        plain = batched_map(lambda one: self(one, sigma), z, self.block(len(z)))
        return plain + sigma / jnp.sqrt(sigma**2 + 1.0) * pull
