"""What a step trains on: noised points of the buffer, and what an estimator makes of them."""

from typing import Any, NamedTuple

from jaxtyping import Array, Float, Int

from allmodes.points.buffer import Buffer

LEVELS = 32  # equal strata of t in which statistics are kept


class Batch(NamedTuple):
    """Points x_t, in increasing order of t, and where they come from."""

    index: Int[Array, " batch"]  # of the origin in the buffer
    origin: Buffer
    z: Float[Array, "batch dim"]
    sigma: Float[Array, " batch"]


class Targets(NamedTuple):
    """Two estimates of the posterior mean of x_0 at each x_t, and the weight of each in the
    loss.
    """

    dsi: Float[Array, "batch dim"]  # by the denoising identity: from where the points come
    tsi: Float[Array, "batch dim"]  # by the target-score identity: from gradients
    weight: Float[Array, " batch"]  # of mean one
    weight_ess: Float[Array, ""]  # the effective share that the weights leave
    state: Any  # of training, with what was evaluated counted and moved
