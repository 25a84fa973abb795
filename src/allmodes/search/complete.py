"""How complete a search is, by starts that have ended where no other has."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from allmodes.points.buffer import Buffer
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

    def squared(z):  # from each component, in its own spreads
        return (mixture.along(z) ** 2 / mixture.variance).sum(axis=1)

    nearest = jax.lax.map(lambda z: mixture.log_parts(mixture.along(z)).argmax(), ends.z, batch_size=FITTED)
    shared = np.bincount(np.asarray(nearest), minlength=MOST) >= 2
    distance = np.asarray(jax.lax.map(squared, ends.z, batch_size=FITTED))[:, shared]
    return int(np.sum(distance.min(axis=1, initial=np.inf) > FAR[0] * ends.z.shape[1] + FAR[1]))


def chance_of_new(once: int, starts: int) -> float:
    """Upper bound of the chance that the next start ends in a basin that none has ended in, by the
    number of basins that one start has: above the estimate of Good (1953) by twice the root of that
    number. Of unequal basins it holds nine times in ten. It speaks of starts, not of mass.
    """
    return (once + 2.0 * (once + 1.0) ** 0.5) / starts
