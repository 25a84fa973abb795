"""The affine map between the user's coordinates x and the unit-scale coordinates z that the sampler works in."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.target import Evaluation, Target


class Frame(eqx.Module):
    """`x = location + scale z`, per coordinate, so that the target has about zero mean and unit spread in z.

    The target in z keeps its integral: `log_prob_z(z) = log_prob(x) + sum log scale`.
    """

    location: Float[Array, " dim"]
    scale: Float[Array, " dim"]

    def to_x(self, z: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
        """From unit scale to the user's coordinates."""
        return self.location + self.scale * z

    def to_z(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
        """From the user's coordinates to unit scale."""
        return (x - self.location) / self.scale

    @property
    def log_det(self) -> Float[Array, ""]:
        """Log |dx/dz|."""
        return jnp.sum(jnp.log(self.scale))

    def values(self, target: Target, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density of z at each point."""
        return target.values(self.to_x(z)) + self.log_det

    def evaluate(self, target: Target, z: Float[Array, "n dim"]) -> Evaluation:
        """Log-density of z and its gradient at each point."""
        e = target.evaluate(self.to_x(z))
        return e._replace(log_prob=e.log_prob + self.log_det, grad=e.grad * self.scale)
