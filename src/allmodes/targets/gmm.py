"""The field's named Gaussian mixtures: the same names stand for different densities, so each states
its convention.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

from allmodes.target import Target
from allmodes.targets.mixture import gaussian_mixture


def gmm_torch(modes: int = 40) -> Target:
    """Torch family (FAB, iDEM, BNEM, DiKL), 2-D: equal weights, means `(u - 0.5) * 80`.

    The standard deviation is `softplus(1) = 1.31326`. u is torch's
    `manual_seed(0); rand(modes, 2)`: the low 24 bits of the Mersenne twister's 32-bit numbers, over
    2^24.
    """
    bits = np.random.RandomState(0).randint(0, 2**32, size=(modes, 2), dtype=np.uint32)
    u = (bits & 0xFFFFFF) / 2**24
    std = math.log1p(math.e)
    return dataclasses.replace(gaussian_mixture((u - 0.5) * 80, std**2), name=f"gmm{modes}")


def gmm_jax(modes: int = 40, dim: int = 2, std: float = 1.0) -> Target:
    """JAX family (Beyond ELBOs, SCLD): equal weights, means uniform in `[-40, 40]^dim`, standard
    deviation 1.

    The means are `jax.random.uniform(PRNGKey(0), (modes, dim), minval=-1, maxval=1) * 40` as JAX
    gave them when those papers were written; since JAX 0.5 the same call gives other numbers
    (`jax_threefry_partitionable`).
    """
    bits = threefry_2x32(jnp.zeros(2, jnp.uint32), jnp.arange(modes * dim, dtype=jnp.uint32))
    u = ((np.asarray(bits) >> 9) | 0x3F800000).astype(np.uint32).view(np.float32) - np.float32(1)
    means = (u * np.float32(2) - np.float32(1)) * np.float32(40)
    return dataclasses.replace(gaussian_mixture(means.reshape(modes, dim), std**2), name=f"gmm{modes}-jax")


def two_modes(dim: int = 8, a: float = 1.0) -> Target:
    """`2/3 N(-a 1, 0.05 I) + 1/3 N(a 1, 0.05 I)`: the error of the mode weight over dimension and
    separation.
    """
    means = np.array([[-a], [a]]) * np.ones(dim)
    return dataclasses.replace(gaussian_mixture(means, 0.05, [2 / 3, 1 / 3]), name=f"two-modes-{dim}d-a{a:g}")
