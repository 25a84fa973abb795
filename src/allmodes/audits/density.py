"""How densely a sampler covers a basin, at points that the audit drew there."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from allmodes.devices.precision import double
from allmodes.sampler import Sampler
from allmodes.target import Target

POINTS = 8  # of each basin
NOISINGS = 8  # of each point


def log_ratios(
    sampler: Sampler, target: Target, log_z: float, x: Float[Array, "n dim"], *, key: Array
) -> tuple[Float[np.ndarray, " n"] | None, int]:
    """`log q(x) - log pi(x)` at each point, pi the normalised target; None where the sampler cannot
    tell.

    A path weight w of x, over noisings of x, has `E[1 / w] = q(x) / pi~(x)`: an average over a few
    of them. Where the sampler hardly reaches, that average is itself uncertain by far more than a
    unit, and low. Also the evaluations.
    """
    n = len(x)
    log_weight = sampler.log_weights(jnp.repeat(x, NOISINGS, axis=0), key=key)
    if log_weight is None:
        return None, 0
    with double(sampler.target.double):
        log_q = np.asarray(logsumexp(-log_weight.reshape(n, NOISINGS), axis=1) - jnp.log(NOISINGS))
    if target is not sampler.target:
        own, other = (np.asarray(jax.jit(t.values)(x)) for t in (sampler.target, target))
        log_q = log_q + own - other
    spent = n * NOISINGS + (2 * n if target is not sampler.target else 0)
    return np.asarray(log_q, float) + log_z, spent


def representatives(
    label: Int[np.ndarray, " n"], log_weight: Float[np.ndarray, " n"], basins: int, seed: int
) -> Int[np.ndarray, "basins points"]:
    """Draws of each basin by their weights, with replacement; -1 in rows of basins that have none.

    The largest of `log w + Gumbel noise` are draws in proportion to w.
    """
    rng = np.random.default_rng(seed)
    chosen = np.full((basins, POINTS), -1)
    for i in range(POINTS):
        noisy = log_weight + rng.gumbel(size=len(label))
        alive = np.flatnonzero(np.isfinite(noisy))
        order = alive[np.argsort(noisy[alive])]
        chosen[label[order], i] = order  # of repeated places the last one stays: the largest
    return chosen
