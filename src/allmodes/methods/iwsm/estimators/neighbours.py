"""Averages over other points of the buffer: no evaluations."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.diffusion import posterior
from allmodes.methods.iwsm.batch import Batch, Targets
from allmodes.methods.iwsm.estimators.estimator import Estimator
from allmodes.settings import check
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class Neighbours(Estimator):
    """x_0 and other points of the buffer share in each estimate, by their distance from x_t."""

    count: int = 256
    """How many others."""

    def __post_init__(self):
        check(self, zero=("count",))

    def __call__(self, target: Target, state: Any, key: Array, batch: Batch) -> Targets:
        """Average over the same others for all points of the batch."""
        others = state.buffer.take(jax.random.randint(key, (self.count,), 0, state.buffer.size))
        shared = jax.vmap(posterior.from_neighbours, in_axes=(0, 0, 0, 0, None, None))
        origin = batch.origin
        dsi, tsi = shared(origin.z, origin.grad, batch.z, batch.sigma, others.z, others.grad)
        return Targets(dsi, tsi, *unweighted(len(batch.sigma)), state)


def unweighted(n: int) -> tuple[Array, Array]:
    """Weights of one, and the effective share that they leave: all."""
    return jnp.ones(n), jnp.ones(())
