"""Neal's funnel: one mode whose width varies over orders of magnitude."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from allmodes.errors import TargetError
from allmodes.target import Target


def funnel(dim: int = 10, scale: float = 3.0) -> Target:
    """`v = x_0 ~ N(0, scale^2)` and, given v, `x_1, ..., x_{dim-1} ~ N(0, exp(v))`; `log_z = 0`.

    Neal, "Slice sampling", Annals of Statistics 31 (2003), section 8.
    """
    if dim < 2 or not scale > 0:
        raise TargetError(f"a funnel needs dim of at least 2 and a positive scale, got {dim} and {scale}")
    const = -0.5 * dim * math.log(2 * math.pi) - math.log(scale)

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        v = x[0]
        z = x[1:] * jnp.exp(-v / 2)  # scaled before squaring: exp(-v) leaves float32 twice as early
        return const - 0.5 * (v / scale) ** 2 - 0.5 * (dim - 1) * v - 0.5 * jnp.sum(z**2)

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        z = jax.random.normal(key, (n, dim))
        v = scale * z[:, :1]
        return jnp.concatenate([v, jnp.exp(v / 2) * z[:, 1:]], axis=1)

    return Target(log_prob, dim, f"funnel-{dim}", sample=sample, log_z=0.0)
