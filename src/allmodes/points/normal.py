"""The log-density of independent normals."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def log_normal(
    z: Float[Array, "*n dim"], mean: Float[Array, "*n dim"], variance: Float[Array, "*#n #dim"] | Float[Array, " dim"]
) -> Float[Array, "*n"]:
    """Log-density of independent normals, summed over the last axis."""
    return jnp.sum(-0.5 * (z - mean) ** 2 / variance - 0.5 * jnp.log(2.0 * jnp.pi * variance), axis=-1)
