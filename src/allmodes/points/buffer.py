"""The replay buffer: a fixed number of points, each with its log-density and gradient, as one
pytree.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.devices.mesh import spread
from allmodes.target import Evaluation


class Buffer(eqx.Module):
    """Points in normalised coordinates, and the stored values that make single-draw score targets
    free.
    """

    z: Float[Array, "*size dim"]
    log_prob: Float[Array, "*size"]
    grad: Float[Array, "*size dim"]

    @staticmethod
    def of(z: Float[Array, "size dim"], e: Evaluation) -> "Buffer":
        """A buffer of evaluated points."""
        return Buffer(z, e.log_prob, e.grad)

    @property
    def size(self) -> int:
        """Number of points."""
        return self.z.shape[0]

    def take(self, index: Int[Array | np.ndarray, " n"]) -> "Buffer":
        """The points at `index`, in that order."""
        return jax.tree.map(lambda a: a[index], self)

    def put(self, index: Int[Array, " n"], points: "Buffer") -> "Buffer":
        """A buffer in which `points` stand at `index`."""
        return spread(jax.tree.map(lambda a, b: a.at[index].set(b), self, points))


def choose(where: Bool[Array, " n"], new: Buffer, old: Buffer) -> Buffer:
    """Point by point: `new` where the condition holds, else `old`."""
    return jax.tree.map(lambda a, b: jnp.where(where[:, None] if a.ndim == 2 else where, a, b), new, old)
