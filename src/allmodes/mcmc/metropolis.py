"""Independence Metropolis on whole paths of a sampler: exact whatever its network has learned."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from allmodes.points.buffer import Buffer, choose


def choose_by_weight(
    key: Array, points: Buffer, log_w: Float[Array, " n"], fresh: Buffer, log_w_fresh: Float[Array, " n"]
) -> tuple[Buffer, Bool[Array, " n"]]:
    """Replace each point by the fresh one with probability `min(1, w_fresh / w)`; a point of no
    mass always.
    """
    log_ratio = jnp.where(log_w > -jnp.inf, log_w_fresh - log_w, jnp.inf)
    accept = jnp.log(jax.random.uniform(key, log_ratio.shape)) < log_ratio
    return choose(accept, fresh, points), accept
