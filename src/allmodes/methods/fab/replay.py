"""The prioritised buffer: annealed draws, taken by their weight towards `p^2 / q` as q is now."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.points import weights


class Replay(eqx.Module):
    """Annealed draws in normalised coordinates, each with what its priority is made of.

    The weight towards the density p is that of the annealing, and stays. That towards `p^2 / q` is
    `p / q` times as large, of the q that was last seen at the point: to correct it as q learns is
    to see q there anew (the prioritised buffer of Midgley et al. 2023, arXiv 2208.01893).
    """

    z: Float[Array, "size dim"]
    log_prob: Float[Array, " size"]  # of the target
    log_q: Float[Array, " size"]  # of the flow that was last seen here
    log_weight: Float[Array, " size"]  # towards the target: -inf of a place that is empty

    @staticmethod
    def empty(size: int, dim: int) -> "Replay":
        """Hold nothing."""
        nothing = jnp.zeros(size)
        return Replay(jnp.zeros((size, dim)), nothing, nothing, nothing - jnp.inf)

    @property
    def size(self) -> int:
        """Number of places."""
        return self.z.shape[0]

    @property
    def log_priority(self) -> Float[Array, " size"]:
        """Log weight towards `p^2 / q`; -inf where there is none, or no mass."""
        priority = self.log_weight + self.log_prob - self.log_q
        return jnp.where((self.log_weight > -jnp.inf) & jnp.isfinite(priority), priority, -jnp.inf)

    def put(self, first: Int[Array, ""], new: "Replay") -> "Replay":
        """Write new draws from a place on, over the oldest ones."""
        index = (first + jnp.arange(new.size)) % self.size
        return jax.tree.map(lambda old, values: old.at[index].set(values), self, new)

    def choose(self, key: Array, n: int) -> Int[Array, " n"]:
        """Choose n places by priority, with replacement and in random order."""
        k_choose, k_order = jax.random.split(key)
        index = weights.systematic(k_choose, weights.normalise(self.log_priority), n)
        return jax.random.permutation(k_order, index)

    def seen(self, index: Int[Array, " n"], log_q: Float[Array, " n"]) -> "Replay":
        """Correct the priorities of n places by what q is there now."""
        return eqx.tree_at(lambda replay: replay.log_q, self, self.log_q.at[index].set(log_q))

    def of_target(self, key: Array, n: int) -> Int[Array, " n"]:
        """Choose n places by their weight towards the target."""
        return weights.systematic(key, weights.normalise(self.log_weight), n)
