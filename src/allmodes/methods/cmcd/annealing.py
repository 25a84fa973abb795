"""Densities on the way from the unit normal to the target, and the kernels that follow them: those
of Langevin, with a control that is learned (Vargas et al. 2024, arXiv 2307.01050).

The k-th of `steps + 1` densities is `log pi_k = (1 - b_k) log N(0, 1) + b_k log pi`, with the score
`g_k`. The sampler's kernel up and the one down that its paths are weighed by are

    F(z_{k+1} | z_k) = N(z_k + h_k (g_k + u_k)(z_k), 2 h_k)
    B(z_k | z_{k+1}) = N(z_{k+1} + h_k (g_{k+1} - u_{k+1})(z_{k+1}), 2 h_k)

with h in the place of the paper's `sigma^2 dt`. Without a control u this is unadjusted Langevin
annealing; with the one that carries each density to the next all weights are Z, but for what steps
of finite length leave.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.points.normal import log_normal

FIRST_STEP = 0.1  # h over the square of the width, before it is learned
STEEPEST = 100.0  # largest norm of the target's part of a score, over the width


class Learned(eqx.Module):
    """What training changes: the control, the schedule b and the lengths of steps."""

    network: Any
    log_rises: Float[Array, " steps"]  # of b, but for what makes them sum to one
    lengths: Float[Array, " steps"]  # logits of h over the square of the width

    @staticmethod
    def start(network: Any, narrowest: Float[Array, " dim"], steps: int) -> "Learned":
        """Begin with the control that the network is now, and a schedule along which the width of
        the narrowest coordinate falls by equal factors.
        """
        fall = jnp.maximum(-2.0 * jnp.log(jnp.min(narrowest)), 1e-3)
        t = jnp.arange(steps + 1) / steps
        rises = jnp.diff(jnp.expm1(fall * t) / jnp.expm1(fall))
        length = jnp.log(FIRST_STEP / (1.0 - FIRST_STEP))
        return Learned(network, jnp.log(rises), jnp.broadcast_to(length, (steps,)))


class Point(NamedTuple):
    """Points of paths after the same number of steps, and what the kernels there are made of."""

    z: Float[Array, "n dim"]
    score: Float[Array, "n dim"]  # of the annealed density
    control: Float[Array, "n dim"]


class Annealing(eqx.Module):
    """All that a path needs: of each density its share of the target and its width, of each step
    its length.
    """

    network: Any
    share: Float[Array, " levels"]  # b, from 0 to 1
    width: Float[Array, "levels dim"]
    length: Float[Array, "steps dim"]  # h

    @staticmethod
    def of(learned: Learned, narrowest: Float[Array, " dim"]) -> "Annealing":
        """Make one of what was learned. `narrowest` are the target's narrowest scales; steps and
        control are in units of those of the annealed density.
        """
        inner = jnp.cumsum(jax.nn.softmax(learned.log_rises))[:-1]
        share = jnp.concatenate([jnp.zeros(1), inner, jnp.ones(1)])
        width = 1.0 / jnp.sqrt((1.0 - share)[:, None] + share[:, None] / narrowest**2)
        length = jax.nn.sigmoid(learned.lengths)[:, None] * width[1:] ** 2
        return Annealing(learned.network, share, width, length)

    @property
    def steps(self) -> int:
        """Steps of a path."""
        return self.length.shape[0]

    @property
    def dim(self) -> int:
        """Dimension of the points."""
        return self.length.shape[1]

    def at(self, k: Int[Array, ""] | int, z: Float[Array, "n dim"], grad: Float[Array, "n dim"]) -> Point:
        """Give points after k steps, of the target's gradient there, which has no part where k is
        0.

        Gradients beyond `STEEPEST` widths are shortened, in both kernels alike: weights are exact
        all the same.
        """
        share, width = self.share[k], self.width[k]
        pull = share * width * grad
        size = jnp.sqrt(jnp.maximum(jnp.sum(pull**2, axis=1, keepdims=True), 1e-30))
        pull = pull * jnp.minimum(1.0, STEEPEST / size)
        log_level = -4.0 * k / self.steps  # networks know levels of noise, here from 1 down to e^-4
        control = jax.vmap(lambda one: self.network(one, jnp.asarray(log_level)))(z)
        return Point(z, pull / width - (1.0 - share) * z, control / width)

    def up(self, k: Int[Array, ""] | int, lower: Point) -> Float[Array, "n dim"]:
        """Mean of the sampler's kernel from the k-th density."""
        return lower.z + self.length[k] * (lower.score + lower.control)

    def down(self, k: Int[Array, ""] | int, upper: Point) -> Float[Array, "n dim"]:
        """Mean of the kernel back to the k-th density."""
        return upper.z + self.length[k] * (upper.score - upper.control)

    def noise(self, k: Int[Array, ""] | int, key: Array, n: int) -> Float[Array, "n dim"]:
        """What either kernel adds to its mean."""
        return jnp.sqrt(2.0 * self.length[k]) * jax.random.normal(jax.random.fold_in(key, k), (n, self.dim))

    def log_ratio(self, k: Int[Array, ""] | int, lower: Point, upper: Point) -> Float[Array, " n"]:
        """Log of the kernel down over that up, between points of one path."""
        variance = 2.0 * self.length[k]
        return log_normal(lower.z, self.down(k, upper), variance) - log_normal(upper.z, self.up(k, lower), variance)
