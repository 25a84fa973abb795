"""Averages over a short chain on each posterior, which moves the buffer as well."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from allmodes.mcmc.mala import TARGET_ACCEPTANCE, posterior_chain
from allmodes.methods.iwsm.batch import LEVELS, Batch, Targets
from allmodes.methods.iwsm.estimators.estimator import Estimator
from allmodes.methods.iwsm.estimators.neighbours import unweighted
from allmodes.settings import check
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class Chain(Estimator):
    """Moves on the posterior of x_0 given x_t, started at x_0 and averaged over.

    Each costs an evaluation; the chain's end is written back to the buffer, and its step follows
    acceptance.
    """

    moves: int = 8
    """How many."""

    def __post_init__(self):
        check(self)

    def __call__(self, target: Target, state: Any, key: Array, batch: Batch) -> Targets:
        """Average over the chain of each point."""
        n = len(batch.sigma)
        h = jnp.repeat(state.chain_step, n // LEVELS)
        evaluate = lambda z: state.frame.evaluate(target, z)  # noqa: E731
        chain = posterior_chain(evaluate, batch.origin, batch.z, batch.sigma, h, key, self.moves)
        rate = jnp.mean(chain.acceptance.reshape(LEVELS, -1), axis=1)
        state = dataclasses.replace(
            state,
            buffer=state.buffer.put(batch.index, chain.points),
            chain_step=state.chain_step * jnp.exp(0.1 * (rate - TARGET_ACCEPTANCE)),
            evaluations=state.evaluations.add_points(n * self.moves, chain.nan, chain.zero),
        )
        tsi = batch.z + batch.sigma[:, None] ** 2 * chain.mean_grad
        return Targets(chain.mean, tsi, *unweighted(n), state)
