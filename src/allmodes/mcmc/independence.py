"""Independence Metropolis on whole paths of a sampler: exact whatever its network has learned."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from allmodes.buffer import Buffer, choose
from allmodes.paths import Process, noising


def exchange(
    process: Process,
    key_path: Array,
    key_accept: Array,
    points: Buffer,
    fresh: Buffer,
    log_weight: Float[Array, " n"],
    steps: int,
) -> tuple[Buffer, Bool[Array, " n"]]:
    """Replace each point by a fresh draw with probability `min(1, w_fresh / w_point)`; which were
    replaced.

    `log_weight` are the path weights of the fresh draws; each point gets a noising path of its own,
    and its weight. Point and path together are then a state of the target times the noising
    process, which the exchange leaves invariant. A point that the sampler underrates has a large
    weight and stays: no mode is lost while the sampler is poor.
    """
    noised = noising(process, key_path, points.z, steps)
    return choose_by_weight(key_accept, points, noised.log_ratio + points.log_prob, fresh, log_weight)


def choose_by_weight(
    key: Array, points: Buffer, log_w: Float[Array, " n"], fresh: Buffer, log_w_fresh: Float[Array, " n"]
) -> tuple[Buffer, Bool[Array, " n"]]:
    """Replace each point by the fresh one with probability `min(1, w_fresh / w)`; a point of no
    mass always.
    """
    log_ratio = jnp.where(log_w > -jnp.inf, log_w_fresh - log_w, jnp.inf)
    accept = jnp.log(jax.random.uniform(key, log_ratio.shape)) < log_ratio
    return choose(accept, fresh, points), accept
