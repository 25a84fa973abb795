"""The affine map between the user's coordinates x and the unit-scale coordinates z that the sampler works in."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Evaluation, Target


class Frame(eqx.Module):
    """`x = location + scale z`, per coordinate, so that the target has about zero mean and unit spread in z.

    The target in z keeps its integral: `log_prob_z(z) = log_prob(x) + sum log scale`. With a symmetry, z are
    coordinates of the mean-free subspace, `location` is zero and all of `scale` equal.
    """

    location: Float[Array, " free"]
    scale: Float[Array, " free"]
    symmetry: ParticleSymmetry | None = eqx.field(static=True, default=None)

    def to_x(self, z: Float[Array, "*n free"]) -> Float[Array, "*n dim"]:
        """From unit scale to the user's coordinates."""
        x = self.location + self.scale * z
        return x if self.symmetry is None else self.symmetry.embed(x)

    def to_z(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n free"]:
        """From the user's coordinates to unit scale."""
        x = x if self.symmetry is None else self.symmetry.project(x)
        return (x - self.location) / self.scale

    def from_frame(self, other: "Frame", z: Float[Array, "*n free"]) -> Float[Array, "*n free"]:
        """Points of another frame in this one, without passing through x, whose grid is coarse far from the origin."""
        return (z * other.scale + (other.location - self.location)) / self.scale

    @property
    def log_det(self) -> Float[Array, ""]:
        """Log |dx/dz|."""
        return jnp.sum(jnp.log(self.scale))

    def value(self, target: Target, z: Float[Array, " free"]) -> Float[Array, ""]:
        """Log-density of one z."""
        return target.value(self.to_x(z)) + self.log_det

    def values(self, target: Target, z: Float[Array, "n free"]) -> Float[Array, " n"]:
        """Log-density of z at each point."""
        return target.values(self.to_x(z)) + self.log_det

    def evaluate(self, target: Target, z: Float[Array, "n free"]) -> Evaluation:
        """Log-density of z and its gradient at each point."""
        e = target.evaluate(self.to_x(z))
        grad = e.grad if self.symmetry is None else self.symmetry.project(e.grad)
        return e._replace(log_prob=e.log_prob + self.log_det, grad=grad * self.scale)

    def even(self, v: Float[Array, "*n free"]) -> Float[Array, "*n free"]:
        """A figure of each coordinate, such as a variance, averaged over those that a symmetry makes alike."""
        return v if self.symmetry is None else jnp.broadcast_to(jnp.mean(v, axis=-1, keepdims=True), v.shape)
