"""The affine map between the user's coordinates x and the unit-scale coordinates z that the sampler
works in.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from allmodes.devices.precision import double, halves, traced_halves, whole
from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Evaluation, Target

FAR_BELOW = 1e4  # nats below the best of a batch


def beneath(e: Evaluation) -> Evaluation:
    """The same with no mass where a density is flat far below any that counts: what -1e10 in place
    of -inf stands for.

    Taken as it is, it would be a support without an edge, and the target-score identity fails at
    edges.
    """
    cliff = jnp.max(e.log_prob) - (FAR_BELOW + 100.0 * e.grad.shape[1])
    flat = (e.log_prob > -jnp.inf) & (e.log_prob < cliff) & jnp.all(e.grad == 0.0, axis=1)
    return e._replace(log_prob=jnp.where(flat, -jnp.inf, e.log_prob), zero=e.zero + jnp.sum(flat, dtype=jnp.int32))


class Frame(eqx.Module):
    """`x = location + scale z`, per coordinate, so that the target has about zero mean and unit
    spread in z.

    The target in z keeps its integral: `log_prob_z(z) = log_prob(x) + sum log scale`. With a
    symmetry, z are coordinates of the mean-free subspace, `location` is zero and all of `scale`
    equal.

    For a target in float64 (`Target.double`) the map and the density are in float64, and z, values
    in z and their gradients in float32 all the same: `rest` is what float32 leaves of the location,
    and values in z are less by `offset`, two float32 whose sum is near the best log-density, so
    that a constant of 1e9 takes no digit from them.
    """

    location: Float[Array, " free"]
    scale: Float[Array, " free"]
    symmetry: ParticleSymmetry | None = eqx.field(static=True, default=None)
    rest: Float[Array, " free"] | None = None
    offset: Float[Array, " 2"] | None = None

    @classmethod
    def of(cls, target: Target, location: ArrayLike, scale: ArrayLike, offset: float = 0.0) -> "Frame":
        """A frame of numbers in float64, to the precision of the target."""
        high, rest = halves(location)
        location, scale = jnp.asarray(high), jnp.asarray(scale, jnp.float32)
        if not target.double:
            return cls(location, scale, target.symmetry)
        return cls(location, scale, target.symmetry, jnp.asarray(rest), jnp.asarray(np.array(halves(offset))))

    @property
    def double(self) -> bool:
        """Whether the density is in float64."""
        return self.rest is not None

    def moved(self, mean: Float[Array, " free"], spread: Float[Array, " free"]) -> "Frame":
        """The frame whose origin is at `mean` and whose unit is `spread` of this one."""
        if not self.double:
            return Frame(self.location + self.scale * mean, self.scale * spread, self.symmetry)
        with double():
            place = whole(self.location, self.rest) + self.scale.astype(jnp.float64) * mean.astype(jnp.float64)
            high, rest = traced_halves(place)
        return Frame(high, self.scale * spread, self.symmetry, rest, self.offset)

    def shift(self, old: "Frame") -> Float[Array, " free"]:
        """How far the location is from that of another frame."""
        far = self.location - old.location
        return far if self.rest is None else far + (self.rest - old.rest)

    def to_x(self, z: Float[Array, "*n free"]) -> Float[Array, "*n dim"]:
        """From unit scale to the user's coordinates, in the precision of the target."""
        if not self.double:
            x = self.location + self.scale * z
            return x if self.symmetry is None else self.symmetry.embed(x)
        with double():
            x = whole(self.location, self.rest) + self.scale.astype(jnp.float64) * z.astype(jnp.float64)
            return x if self.symmetry is None else self.symmetry.embed(x)

    def to_z(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n free"]:
        """From the user's coordinates to unit scale."""
        if not self.double:
            x = x if self.symmetry is None else self.symmetry.project(x)
            return (x - self.location) / self.scale
        with double():
            x = jnp.asarray(x, jnp.float64)
            x = x if self.symmetry is None else self.symmetry.project(x)
            return ((x - whole(self.location, self.rest)) / self.scale.astype(jnp.float64)).astype(jnp.float32)

    def from_frame(self, other: "Frame", z: Float[Array, "*n free"]) -> Float[Array, "*n free"]:
        """Points of another frame in this one, without passing through x, whose grid is coarse far
        from the origin.
        """
        return (z * other.scale - self.shift(other)) / self.scale

    @property
    def log_det(self) -> Float[Array, ""]:
        """Log |dx/dz|."""
        return jnp.sum(jnp.log(self.scale))

    def value(self, target: Target, z: Float[Array, " free"]) -> Float[Array, ""]:
        """Log-density of one z."""
        return self._less(target.value(self.to_x(z))) + self.log_det

    def values(self, target: Target, z: Float[Array, "n free"]) -> Float[Array, " n"]:
        """Log-density of z at each point."""
        return self._less(target.values(self.to_x(z))) + self.log_det

    def evaluate(self, target: Target, z: Float[Array, "n free"]) -> Evaluation:
        """Log-density of z and its gradient at each point."""
        e = target.evaluate(self.to_x(z))
        with double(self.double):
            grad = e.grad if self.symmetry is None else self.symmetry.project(e.grad)
            grad = (grad * self.scale.astype(grad.dtype)).astype(jnp.float32)
        e = e._replace(log_prob=self._less(e.log_prob) + self.log_det, grad=grad)
        return beneath(e) if target.differentiable else e

    def _less(self, log_prob: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Values of the density without the offset: the difference is taken in float64."""
        if self.offset is None:
            return log_prob
        with double():
            return (log_prob - whole(*self.offset)).astype(jnp.float32)

    def total(self, log_prob: Float[Array, "*n"] | float) -> Float[Array, "*n"] | float:
        """Log weights, or values of log Z, of the density in z with the offset that they are
        without.
        """
        if self.offset is None:
            return log_prob
        with double():
            return jnp.asarray(log_prob).astype(jnp.float64) + whole(*self.offset)

    def log_prob(self, log_prob: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The user's log-density where the density in z is this."""
        return self.total(log_prob - self.log_det)

    @property
    def constant(self) -> float:
        """The offset, as a number."""
        return 0.0 if self.offset is None else float(np.sum(np.asarray(self.offset, np.float64)))

    def average_over_symmetry(self, v: Float[Array, "*n free"]) -> Float[Array, "*n free"]:
        """A figure of each coordinate, such as a variance, averaged over those that a symmetry
        makes alike.
        """
        return v if self.symmetry is None else jnp.broadcast_to(jnp.mean(v, axis=-1, keepdims=True), v.shape)
