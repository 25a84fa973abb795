"""What noised points say of the clean ones, `p(z_0 | z_t) ~ p(z_0) N(z_0; z_t, sigma^2)`: draws by
annealed importance sampling, then a short chain (He et al. 2025, arXiv 2410.12456).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.mcmc.mala import langevin, posterior_chain
from allmodes.points.buffer import Buffer, choose
from allmodes.target import Evaluation


class Posterior(NamedTuple):
    """The denoised points, the last states of the chains, and what was met."""

    mean: Float[Array, "n dim"]
    points: Buffer
    log_weight: Float[Array, "n draws"]  # of the annealed draws: their mean is p(z_t)
    nan: Int[Array, ""]
    zero: Int[Array, ""]


def evaluations_of(n: int, draws: int, levels: int, moves: int) -> int:
    """Points at which the posteriors of n noised points compute the density."""
    return n * (draws * (1 + levels) + moves)


def denoise(
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    z_t: Float[Array, "n dim"],
    sigma: Float[Array, " n"],
    narrowest: Scalar,
    key: Array,
    draws: int,
    levels: int,
    moves: int,
) -> Posterior:
    """Estimate `E[z_0 | z_t]` at each of n noised points.

    So many `draws` of `N(z_t, sigma^2)` for each are annealed by `p^b` over `levels` values of b up
    to 1, with a Langevin move at each; one of them, by its weight, begins a chain of `moves`. The
    mean is that of the chain's states, mixed with what the target's gradient there says (Tweedie's
    formula both ways: the mixed score identity of the paper), which is exact of either. `narrowest`
    is the target's narrowest scale, which steps go by.
    """
    n, dim = z_t.shape
    k_draw, k_anneal, k_choose, k_chain = jax.random.split(key, 4)
    centre, s = jnp.repeat(z_t, draws, axis=0), jnp.repeat(sigma, draws)
    z = centre + s[:, None] * jax.random.normal(k_draw, (n * draws, dim))
    start = Buffer.of(z, evaluate(z))

    def step_for(sigma: Array, b: Scalar | float) -> Array:
        # By the noise and the narrowest scale of the target alone: a step by the place would not
        # leave the posterior invariant.
        return 0.5 * dim ** (-1.0 / 3.0) / (1.0 / sigma**2 + b / narrowest**2)

    def tempered(points: Buffer, b: Scalar) -> Buffer:
        away = (points.z - centre) / s[:, None] ** 2
        log_prob = b * points.log_prob - 0.5 * jnp.sum(away * (points.z - centre), axis=1)
        return Buffer(points.z, log_prob, b * points.grad - away)

    def level(carry, at):
        points, log_weight = carry
        b, key = at
        log_weight = log_weight + points.log_prob / levels
        proposal = langevin(tempered(points, b), step_for(s, b), key)
        e = evaluate(proposal.z)
        new = Buffer.of(proposal.z, e)
        accept = proposal.accepts(tempered(new, b))
        return (choose(accept, new, points), log_weight), (e.nan, e.zero)

    each = (1.0 + jnp.arange(levels)) / levels, jax.random.split(k_anneal, levels)
    (points, log_weight), (nan, zero) = jax.lax.scan(level, (start, jnp.zeros(n * draws)), each)
    log_weight = log_weight.reshape(n, draws)
    index = jnp.arange(n) * draws + jax.random.categorical(k_choose, log_weight, axis=1)
    chosen = points.take(index)
    chain = posterior_chain(evaluate, chosen, z_t, sigma, step_for(sigma, 1.0), k_chain, moves)
    share = (1.0 / (1.0 + sigma**2))[:, None]  # of the gradient: all where there is no noise
    mean = (1.0 - share) * chain.mean + share * (z_t + sigma[:, None] ** 2 * chain.mean_grad)
    return Posterior(mean, chain.points, log_weight, jnp.sum(nan) + chain.nan, jnp.sum(zero) + chain.zero)
