"""Draws of a base proposed to points, by independence Metropolis: it brings points to the density,
and loses no mode that they have and the base lacks.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.points.buffer import Buffer, choose
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.points.product import Product
from allmodes.search.refit import log_noise
from allmodes.target import Target


def propose(
    target: Target,
    frame: Frame,
    proposal: GaussianMixture | Product,
    points: Buffer,
    turn: Int[Array, " n"],
    key: Array,
) -> tuple[Buffer, Buffer, Int[Array, ""], Int[Array, ""]]:
    """Draws of a base, and the points after those whose turn it is were proposed to them."""
    k_draw, k_accept = jax.random.split(key)
    z, old = proposal.sample(k_draw, len(turn)), points.take(turn)
    e = frame.evaluate(target, z)
    drawn, log_weight = Buffer.of(z, e), e.log_prob - proposal.log_density(z)
    own = old.log_prob - _defended(proposal.log_density(old.z), points)
    accept = jnp.log(jax.random.uniform(k_accept, (len(turn),))) < log_weight - own
    return drawn, points.put(turn, choose(accept, drawn, old)), e.nan, e.zero


def passes(
    proposal: GaussianMixture | Product,
    points: Buffer,
    drawn: Buffer,
    log_weight: Float[Array, " m"],
    turns: Int[Array, "passes n"],
    key: Array,
) -> Buffer:
    """The points after draws that are there already, and their weights, were proposed to them:
    `turns` says which in each pass.
    """
    own = points.log_prob - _defended(proposal.log_density(points.z), points)

    def one(carry, turn_and_key):
        (points, old), (turn, key) = carry, turn_and_key
        new = log_weight[turn]
        accept = jnp.log(jax.random.uniform(key, (points.size,))) < new - old
        return (choose(accept, drawn.take(turn), points), jnp.where(accept, new, old)), None

    return jax.lax.scan(one, (points, own), (turns, jax.random.split(key, len(turns))))[0][0]


def _defended(log_q: Float[Array, " n"], points: Buffer) -> Float[Array, " n"]:
    """A proposal's log-density at the points, if next to none of its draws were all over them: they
    would replace points in regions of no mass that no other proposal reaches.
    """
    return jnp.logaddexp(log_q, log_noise(points))
