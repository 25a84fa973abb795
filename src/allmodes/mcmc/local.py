"""Metropolis-adjusted Langevin moves of a whole population (Roberts and Tweedie 1996).

Our own forty lines, because training must run where only the core dependencies are, and because the moves keep the
gradients in the buffer's own layout. Chains that stand alone go through BlackJAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.buffer import Buffer, choose
from allmodes.target import Evaluation

TARGET_ACCEPTANCE = 0.57  # optimal for MALA in high dimension (Roberts and Rosenthal 1998)


class Moved(NamedTuple):
    """The population after the moves, the step size adapted to it, and what the moves met."""

    points: Buffer
    step_size: Float[Array, "*n"]
    acceptance: Scalar
    nan: Int[Array, ""]
    zero: Int[Array, ""]  # proposals at -inf: a hard edge of the support is near


def first_steps(points: Buffer) -> Float[Array, " size"]:
    """Steps to begin with: the squared width of each point's surroundings, shrunk with dimension."""
    dim = points.z.shape[1]
    tau2 = dim / jnp.maximum(jnp.sum(points.grad**2, axis=-1), 1e-30)
    return 0.5 * jnp.minimum(tau2, 10.0 * jnp.median(tau2)) * dim ** (-1.0 / 3.0)


def mala(
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    points: Buffer,
    step_size: Float[Array, "*n"],
    key: Array,
    steps: int,
) -> Moved:
    """`steps` moves of every point: `n * steps` evaluations.

    Each proposal is `z + h grad + sqrt(2 h) xi`. Step sizes are drawn log-uniformly from [step_size / 10, step_size]
    for each point and move, independently of its state (so that the target stays invariant): narrow and wide modes
    each get steps that fit. A single `step_size` follows the acceptance rate of the whole population; with one for
    each point, each follows its own, which explores widths of many orders but is exactly invariant only without
    adaptation: for searches.
    """
    n, dim = points.z.shape

    def step(carry, key):
        points, step_size, nan, zero, accepted = carry
        k_size, k_noise, k_accept = jax.random.split(key, 3)
        h = step_size * 10.0 ** -jax.random.uniform(k_size, (n,))
        noise = jax.random.normal(k_noise, (n, dim))
        z = points.z + h[:, None] * points.grad + jnp.sqrt(2.0 * h)[:, None] * noise
        e = evaluate(z)
        proposal = Buffer.of(z, e)

        def log_q(to, start):
            return -jnp.sum((to.z - start.z - h[:, None] * start.grad) ** 2, axis=-1) / (4.0 * h)

        log_ratio = proposal.log_prob - points.log_prob + log_q(points, proposal) - log_q(proposal, points)
        accept = jnp.log(jax.random.uniform(k_accept, (n,))) < log_ratio  # False where the ratio is NaN
        rate = jnp.mean(accept)
        followed = accept if step_size.ndim else rate
        step_size = step_size * jnp.exp(0.2 * (followed - TARGET_ACCEPTANCE))
        carry = choose(accept, proposal, points), step_size, nan + e.nan, zero + e.zero, accepted + rate / steps
        return carry, None

    none = jnp.zeros((), jnp.int32)
    (points, step_size, nan, zero, rate), _ = jax.lax.scan(
        step, (points, step_size, none, none, jnp.zeros(())), jax.random.split(key, steps)
    )
    return Moved(points, step_size, rate, nan, zero)
