"""Importance sampling from fresh draws around each x_t, as iDEM and the paper have it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.diffusion import posterior
from allmodes.errors import ConfigError
from allmodes.methods.iwsm.batch import Batch, Targets
from allmodes.methods.iwsm.estimators.estimator import Estimator
from allmodes.methods.iwsm.estimators.neighbours import unweighted
from allmodes.points import weights
from allmodes.points.buffer import Buffer, choose
from allmodes.settings import check
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class MixtureRatio:
    """Weights `p_t / p_B,t` in the loss: the noised density, as the draws estimate it, over that of
    the noised buffer (the paper's).
    """

    strata: int = 16
    """Strata of t within which they are normalised and truncated; 1 is the paper's SNIS."""
    truncate: bool = True
    """Cap them at sqrt(n) times their mean."""

    def __post_init__(self):
        check(self)

    def weigh(self, log_density: Float[Array, " n"], centres: Float[Array, "m dim"], batch: Batch) -> tuple:
        """Give weights of mean one, and the effective share that they leave."""
        log_w = log_density - weights.log_mixture(batch.z, batch.origin.z, centres, batch.sigma, member=True)
        log_w = log_w.reshape(self.strata, -1)
        if self.truncate:
            log_w = weights.truncate(log_w)
        return weights.normalise(log_w).ravel(), jnp.mean(weights.ess_fraction(log_w))


@dataclasses.dataclass(frozen=True)
class FreshDraws(Estimator):
    """K draws of `N(x_t, sigma^2)` around each x_t, an evaluation each."""

    count: int = 500
    """K, at least 2."""
    weights: MixtureRatio | None = None
    """Weights in the loss, which make it follow the density whatever the buffer holds; none where
    the buffer itself is brought there."""
    move_buffer: bool = False
    """Resample x_0 among itself and the draws, and write it back."""

    def __post_init__(self):
        check(self)
        if self.count < 2:
            raise ConfigError(f"fresh draws must be at least 2, got {self.count}")

    def __call__(self, target: Target, state: Any, key: Array, batch: Batch) -> Targets:
        """Average over fresh draws of each point."""
        k_noise, k_move = jax.random.split(key)
        n, dim = batch.z.shape
        z = batch.z[:, None] + batch.sigma[:, None, None] * jax.random.normal(k_noise, (n, self.count, dim))
        e = state.frame.evaluate(target, z.reshape(-1, dim))
        drawn = Buffer(z, e.log_prob.reshape(n, self.count), e.grad.reshape(z.shape))
        estimate = jax.vmap(posterior.from_draws)(batch.z, batch.sigma, drawn.z, drawn.log_prob, drawn.grad)
        weighted = unweighted(n)
        if self.weights is not None:  # by the buffer as x_t was drawn from it: before any move
            weighted = self.weights.weigh(estimate.log_density, state.buffer.z, batch)
        buffer = self._moved(state.buffer, k_move, drawn, batch) if self.move_buffer else state.buffer
        state = dataclasses.replace(state, buffer=buffer, evaluations=state.evaluations.add(e))
        return Targets(estimate.dsi, estimate.tsi, *weighted, state)

    def _moved(self, buffer: Buffer, key: Array, drawn: Buffer, batch: Batch) -> Buffer:
        """Choose among K - 1 of the draws and the origin: K candidates, one of which was there."""
        keys, row = jax.random.split(key, len(batch.sigma)), jnp.arange(len(batch.sigma))
        chosen = jax.vmap(posterior.move)(keys, drawn.log_prob[:, 1:], batch.origin.log_prob)
        picked = jax.tree.map(lambda a: a[row, jnp.minimum(chosen + 1, self.count - 1)], drawn)
        return buffer.put(batch.index, choose(chosen < self.count - 1, picked, batch.origin))
