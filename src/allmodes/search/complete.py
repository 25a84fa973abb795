"""How complete a search is, by starts that have ended where no other has."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.devices.blocks import batched_map
from allmodes.devices.compiled import program
from allmodes.points.buffer import Buffer
from allmodes.points.mixture import AT_A_TIME, GaussianMixture
from allmodes.search.fitting import fit_mixture

MOST = 256  # basins that are told apart
FITTED = 8192  # points, at most, that tell them
FAR = 8.0, 20.0  # squared spreads from a basin: so many a dimension, and more


def alone(ends: Buffer, passed: Buffer, key: Array) -> int:
    """How many starts have ended in basins of their own.

    A mixture, fitted to what starts have `passed` through, tells basins apart: a start is alone
    that lies far from all components in which at least two have ended. Where modes are no Gaussians
    it takes more for alone than are.
    """
    mixture = fit_mixture(passed.take(jnp.arange(0, passed.size, -(-passed.size // FITTED))), MOST, key)
    return int(program(_far_from_others)(mixture, ends.z))


def _far_from_others(mixture: GaussianMixture, z: Float[Array, "n dim"]) -> Int[Array, ""]:
    """How many of the points are far from all components that made two of them."""
    shared = jnp.bincount(mixture.component_of(z), length=MOST) >= 2

    def squared(one):  # from the nearest, in its own spreads
        distance = jnp.sum(mixture.along(one) ** 2 / mixture.variance, axis=1)
        return jnp.min(jnp.where(shared, distance, jnp.inf))

    return jnp.sum(batched_map(squared, z, AT_A_TIME) > FAR[0] * z.shape[1] + FAR[1])


def chance_of_new(once: int, starts: int) -> float:
    """Upper bound of the chance that the next start ends in a basin that none has ended in, by the
    number of basins that one start has: above the estimate of Good (1953) by twice the root of that
    number. Of unequal basins it holds nine times in ten. It speaks of starts, not of mass.
    """
    return (once + 2.0 * (once + 1.0) ** 0.5) / starts
