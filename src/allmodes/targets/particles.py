"""Particle systems: `log_prob = -E` at temperature one, on the mean-free subspace."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.errors import TargetError
from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Target

# Below this distance, where a pair's energy is above 10^6 and no mass is left, it goes on as a
# straight line in the squared distance: finite, with a finite gradient that still pushes apart.
_CORE = 0.3


def _squared_distances(x: Float[Array, " dim"], n: int, d: int) -> tuple[Float[Array, "k n"], Float[Array, "k 1"]]:
    """Squared distance of each particle to the one k places on, k = 1 .. n/2, and how often that
    row counts.

    Each pair is met once, in the last row of an even n twice. Rolls of whole coordinates need no
    gather, whose gradient is a scatter: four times as quick on a processor.
    """
    rows = x.reshape(n, d).T
    squared = jnp.stack([jnp.sum((rows - jnp.roll(rows, -k, axis=1)) ** 2, axis=0) for k in range(1, n // 2 + 1)])
    share = np.ones((n // 2, 1), np.float32)
    if n % 2 == 0:
        share[-1] = 0.5
    return squared, jnp.asarray(share, x.dtype)


def double_well(n: int = 4, d: int = 2, a: float = 0.9, b: float = -4.0, offset: float = 4.0) -> Target:
    """`E = sum_{i<j} a (r_ij - offset)^4 + b (r_ij - offset)^2`; by default DW-4 (Köhler et al.
    2020, as in iDEM).

    The gradient of a pair at r = 0, where r has a kink, is taken as zero.
    """
    symmetry = ParticleSymmetry(n, d)

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        squared, share = _squared_distances(x, n, d)
        apart = squared > 0.0
        r = jnp.where(apart, jnp.sqrt(jnp.where(apart, squared, 1.0)), 0.0) - offset
        return -jnp.sum(share * (a * r**4 + b * r**2))

    return Target(log_prob, n * d, f"dw{n}", symmetry=symmetry)


def lennard_jones(n: int = 13, d: int = 3, factor: float = 2.0, oscillator: float = 0.5) -> Target:
    """`E = factor sum_{i<j} (r^-12 - 2 r^-6) + oscillator sum_i |x_i - mean|^2`.

    Factor 2 counts every ordered pair, as iDEM's code and all published LJ-13 and LJ-55 draws do;
    with factor 1 it is another density.
    """
    if not oscillator > 0:
        raise TargetError(f"oscillator must be positive, or the particles drift apart for ever, got {oscillator}")
    symmetry = ParticleSymmetry(n, d)
    core = _CORE**2
    at_core, slope = core**-6 - 2.0 * core**-3, -6.0 * core**-7 + 6.0 * core**-4

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        squared, share = _squared_distances(x, n, d)
        safe = jnp.maximum(squared, core)
        inverse = safe**-3
        energy = inverse**2 - 2.0 * inverse
        energy = jnp.where(squared < core, at_core + slope * (squared - core), energy)
        particles = x.reshape(n, d)
        spread = jnp.sum((particles - jnp.mean(particles, axis=0)) ** 2)
        return -(factor * jnp.sum(share * energy) + oscillator * spread)

    return Target(log_prob, n * d, f"lj{n}", symmetry=symmetry)
