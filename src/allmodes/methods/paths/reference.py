"""The reference process of the Path Integral Sampler, as a noise of this library."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.noise import Noise
from allmodes.diffusion.paths import Process


@dataclasses.dataclass(frozen=True)
class PinnedBrownian:
    """Brownian motion from a point, the middle of the frame, to the unit normal at time 1 (Zhang
    and Chen 2022, arXiv 2111.15141), by steps of equal time, of fixed variance.

    Run backwards from its end it is a Brownian bridge to that point. In the coordinates
    `z = x_t / t` the bridge is Brownian itself: noise that explodes, of level
    `sigma(t)^2 = 1 / t - 1`. The first of `path_steps + 1` steps leaves the point, by a control
    that is constant and here zero, as the frame has the target's mean at its origin: it is the draw
    from the prior. A network that has learned nothing gives the reference process exactly.
    """

    def noise(self, path_steps: int) -> "PinnedNoise":
        """Levels of paths of so many steps."""
        steps = jnp.asarray(float(path_steps))
        return PinnedNoise(1.0 / jnp.sqrt(steps), jnp.sqrt(steps))


class PinnedNoise(Noise):
    """Its levels; between any two on a path passes the same time."""

    def grid(self, steps: int) -> Float[Array, " levels"]:
        """Levels of a path of `steps` steps, from sigma_max to 0."""
        first = 1.0 / (1.0 + self.sigma_max**2)
        time = jnp.linspace(first, 1.0, steps + 1)[:-1]
        return jnp.append(jnp.sqrt(1.0 / time - 1.0), 0.0)

    def along(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Noise level at a share t of the time between the levels of a path, from its end."""
        first, last = 1.0 / (1.0 + self.sigma_max**2), 1.0 / (1.0 + self.sigma_min**2)
        return jnp.sqrt(1.0 / (last + t * (first - last)) - 1.0)


class PinnedProcess(Process):
    """Paths whose kernels have the variance of the reference process, whatever was learned."""

    def error_at(self, sigma: Scalar) -> Float[Array, " dim"]:
        """Posterior variance of a unit normal at this level."""
        return jnp.broadcast_to(sigma**2 / (1.0 + sigma**2), self.mean.shape)
