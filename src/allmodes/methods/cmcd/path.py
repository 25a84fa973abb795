"""Paths between the unit normal and the target, either way, with exact weights.

With `log w = log pi(z_K) - log N(z_0) + sum log B / F` the mean of w over paths of the sampler is
Z, whatever it has learned.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.devices.mesh import spread
from allmodes.methods.cmcd.annealing import Annealing
from allmodes.points.normal import log_normal
from allmodes.target import Evaluation

Evaluate = Callable[[Float[Array, "n dim"]], Evaluation]


class Path(NamedTuple):
    """The ends of paths that the sampler has drawn, and what they met."""

    z: Float[Array, "n dim"]
    log_prob: Float[Array, " n"]  # of the target
    log_ratio: Float[Array, " n"]  # the rest of the log weight
    nan: Int[Array, ""]
    zero: Int[Array, ""]


def walk(annealing: Annealing, evaluate: Evaluate, key: Array, n: int, detached: bool = False) -> Path:
    """Draw n paths, of `steps` evaluations each: the score of the normal, where they begin, needs
    none. `detached`: a derivative is taken of the weights of the points, as if they were given.
    """
    k_prior, k_steps = jax.random.split(key)
    z = spread(jax.random.normal(k_prior, (n, annealing.dim)))
    first = annealing.at(0, z, jnp.zeros_like(z))

    def step(carry, k):
        lower, log_ratio = carry
        z = annealing.up(k, lower) + annealing.noise(k, k_steps, n)
        z = jax.lax.stop_gradient(z) if detached else z
        e = evaluate(z)
        upper = annealing.at(k + 1, z, e.grad)
        return (upper, log_ratio + annealing.log_ratio(k, lower, upper)), (e.log_prob, e.nan, e.zero)

    start = first, -_log_prior(z)
    (last, log_ratio), (log_prob, nan, zero) = jax.lax.scan(step, start, jnp.arange(annealing.steps))
    return Path(last.z, log_prob[-1], log_ratio, jnp.sum(nan), jnp.sum(zero))


def walk_back(
    annealing: Annealing, evaluate: Evaluate, key: Array, z: Float[Array, "n dim"], grad: Float[Array, "n dim"]
) -> Float[Array, " n"]:
    """Lead paths from given points, with the target's gradient there, back to the normal: their log
    ratio, for `steps - 1` evaluations each.
    """
    n, last = len(z), annealing.at(annealing.steps, z, grad)

    def lower_of(k, upper):
        return annealing.down(k, upper) + annealing.noise(k, key, n)

    def step(carry, k):
        upper, log_ratio = carry
        z = lower_of(k, upper)
        lower = annealing.at(k, z, evaluate(z).grad)
        return (lower, log_ratio + annealing.log_ratio(k, lower, upper)), None

    (upper, log_ratio), _ = jax.lax.scan(step, (last, jnp.zeros(n)), jnp.arange(annealing.steps - 1, 0, -1))
    z = lower_of(0, upper)
    first = annealing.at(0, z, jnp.zeros_like(z))
    return log_ratio + annealing.log_ratio(0, first, upper) - _log_prior(z)


def _log_prior(z: Float[Array, "n dim"]) -> Float[Array, " n"]:
    return log_normal(z, jnp.zeros_like(z), jnp.ones(z.shape[1]))
