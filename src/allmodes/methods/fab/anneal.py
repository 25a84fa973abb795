"""Annealed importance sampling from a flow q towards `p^2 / q`, the density that estimates the
alpha-divergence with alpha = 2 with the least variance (Midgley et al. 2023, arXiv 2208.01893).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.mcmc.mala import langevin
from allmodes.methods.fab.flow import Flow
from allmodes.methods.fab.replay import Replay
from allmodes.points.buffer import Buffer
from allmodes.target import Evaluation


class Annealed(NamedTuple):
    """Annealed draws, and what annealing met."""

    draws: Replay
    raw: Float[Array, " n"]  # log weight of the flow's own draws
    acceptance: Float[Array, " levels"]
    nan: Int[Array, ""]
    zero: Int[Array, ""]


def evaluations_of(n: int, levels: int, moves: int) -> int:
    """Points at which n annealed draws compute the density."""
    return n * (1 + levels * moves)


def anneal(
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    flow: Flow,
    key: Array,
    n: int,
    steps: Float[Array, " levels"],
    moves: int,
) -> Annealed:
    """Carry n draws of the flow over densities that are evenly spaced on the way to `p^2 / q`, with
    Langevin `moves` at each of these levels.

    `steps` are MALA's, one for each level. The i-th of L levels is `p^s q^(1 - s)` with
    `s = 2 i / (L + 1)`. Weights are exact, whatever the flow has learned and the moves do: the mean
    of `exp(log_weight)` is Z.
    """
    levels = len(steps)
    gap = 2.0 / (levels + 1)
    k_draw, k_move = jax.random.split(key)
    z, log_q = flow.sample(k_draw, n)
    # One level alone is p itself: its moves need nothing of the flow, whose slope is what is dear.
    score = flow.score if levels > 1 else lambda z: (jnp.zeros(len(z)), jnp.zeros_like(z))
    e = evaluate(z)
    start = _Points(z, e.log_prob, e.grad, log_q, score(z)[1])

    def level(carry, at):
        points, log_weight = carry
        share, step, key = at
        log_weight = log_weight + gap * _log_ratio(points.log_prob, points.log_q)
        keys = jax.random.split(key, moves)
        points, met = jax.lax.scan(lambda points, key: _move(evaluate, score, points, share, step, key), points, keys)
        return (points, log_weight), met

    each = gap * (1.0 + jnp.arange(levels)), steps, jax.random.split(k_move, levels)
    (points, log_weight), (rate, nan, zero) = jax.lax.scan(level, (start, jnp.zeros(n)), each)
    log_q = flow.log_prob(points.z)
    # The last increment is towards p^2 / q, whose weight over that towards p is p / q.
    log_weight = log_weight + (gap - 1.0) * _log_ratio(points.log_prob, log_q)
    log_weight = jnp.where(jnp.isfinite(log_weight), log_weight, -jnp.inf)
    draws = Replay(points.z, points.log_prob, log_q, log_weight)
    raw, rate = _log_ratio(start.log_prob, start.log_q), jnp.mean(rate, axis=1)
    return Annealed(draws, raw, rate, e.nan + jnp.sum(nan), e.zero + jnp.sum(zero))


class _Points(NamedTuple):
    """Points on their way, with what the target and the flow are there."""

    z: Float[Array, "n dim"]
    log_prob: Float[Array, " n"]
    grad: Float[Array, "n dim"]
    log_q: Float[Array, " n"]
    grad_q: Float[Array, "n dim"]

    def at(self, share: Scalar) -> Buffer:
        """The same as points of `p^share q^(1 - share)`."""
        log_prob = share * self.log_prob + (1.0 - share) * self.log_q
        return Buffer(self.z, log_prob, share * self.grad + (1.0 - share) * self.grad_q)


def _move(
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    score: Callable[[Float[Array, "n dim"]], tuple[Float[Array, " n"], Float[Array, "n dim"]]],
    points: _Points,
    share: Scalar,
    step: Scalar,
    key: Array,
) -> tuple[_Points, tuple[Scalar, Int[Array, ""], Int[Array, ""]]]:
    """One Langevin move of each point that leaves `p^share q^(1 - share)` invariant, and what it
    met. `mcmc.mala` would adapt its step between moves, and does not keep p and q apart.
    """
    proposal = langevin(points.at(share), step, key)
    e = evaluate(proposal.z)
    new = _Points(proposal.z, e.log_prob, e.grad, *score(proposal.z))
    accept = proposal.accepts(new.at(share))
    points = jax.tree.map(lambda a, b: jnp.where(accept[:, None] if a.ndim == 2 else accept, a, b), new, points)
    return points, (jnp.mean(accept), e.nan, e.zero)


def _log_ratio(log_prob: Float[Array, " n"], log_q: Float[Array, " n"]) -> Float[Array, " n"]:
    """Log of p over q; nothing where q is not known."""
    return jnp.where(jnp.isfinite(log_q), log_prob - log_q, -jnp.inf)
