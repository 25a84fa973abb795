"""Many wells: products of double wells and normals, whose modes are the sides of the wells."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from allmodes.errors import TargetError
from allmodes.target import Target
from allmodes.targets.well import Well, sign_patterns

TILTED = Well(-1.0, 6.0, 0.5)  # FAB's, after Noé et al.
EVEN = Well(-1.0, 8.0, 0.0, -16.0)  # -(x^2 - 4)^2
MODES_UP_TO_DIM = 12


def many_well(dim: int = 32) -> Target:
    """`log_prob(x) = sum over pairs of -x1^4 + 6 x1^2 + x1 / 2 - x2^2 / 2`, `x1 = x[0::2]`, `x2 =
    x[1::2]`.

    `log_z` per pair is `log 11784.50927 + log(2 pi) / 2`. Draws are exact, by rejection from an
    envelope that is constant on short intervals. Up to 12 dimensions the modes are listed: in mode
    k, pair i is in its right well if bit i of k is set. Midgley et al. 2023 (FAB), after Noé et al.
    2019.
    """
    if dim < 2 or dim % 2:
        raise TargetError(f"many_well is made of pairs: dim must be even and at least 2, got {dim}")
    pairs = dim // 2

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(TILTED.log_density(x[0::2])) - 0.5 * jnp.sum(x[1::2] ** 2)

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        key_well, key_gauss = jax.random.split(key)
        x1 = TILTED.sample(key_well, n * pairs).reshape(n, pairs)
        x2 = jax.random.normal(key_gauss, (n, pairs))
        return jnp.stack([x1, x2], axis=2).reshape(n, dim)

    log_z = pairs * (TILTED.log_z() + 0.5 * math.log(2 * math.pi))
    modes = sign_patterns(TILTED, dim, np.arange(0, dim, 2)) if dim <= MODES_UP_TO_DIM else None
    return Target(log_prob, dim, f"manywell-{dim}", sample=sample, log_z=log_z, modes=modes)


def five_wells(dim: int = 50) -> Target:
    """`log_prob(x) = -sum over the first five of (x_i^2 - 4)^2 - sum over the others of x_i^2 / 2`:
    32 equal modes in any dimension from 5 on.

    The Many Well of arXiv 2508.12511 (TR-LV), with five wells. That its wells are those of
    `(x^2 - 4)^2` is inferred: the log Z that the paper gives for a sampler with one mode alone is
    3.44 off, and `log 32` is 3.47, so all modes weigh the same and lie far apart.

    **Raises** `TargetError` in less than five dimensions.
    """
    wells = 5
    if dim < wells:
        raise TargetError(f"five_wells has five wells: dim must be at least 5, got {dim}")

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(EVEN.log_density(x[:wells])) - 0.5 * jnp.sum(x[wells:] ** 2)

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        key_well, key_gauss = jax.random.split(key)
        x1 = EVEN.sample(key_well, n * wells).reshape(n, wells)
        return jnp.concatenate([x1, jax.random.normal(key_gauss, (n, dim - wells))], axis=1)

    log_z = wells * EVEN.log_z() + 0.5 * (dim - wells) * math.log(2 * math.pi)
    modes = sign_patterns(EVEN, dim, np.arange(wells))
    return Target(log_prob, dim, f"five-wells-{dim}", sample=sample, log_z=log_z, modes=modes)


def right_share() -> float:
    """Mass of the right well of each pair of `many_well`."""
    return TILTED.right_share()
