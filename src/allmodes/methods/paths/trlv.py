"""Log-variance with a trust region (Blessing et al. 2025, arXiv 2508.12511)."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.networks import Network, Perceptron
from allmodes.errors import ConfigError
from allmodes.method import Figure, Figures
from allmodes.methods.paths.kept import log_ratio_of, walk
from allmodes.methods.paths.losses import LogVariance, with_mass
from allmodes.methods.paths.method import PathMethod
from allmodes.methods.paths.state import State
from allmodes.points.found import SearchResult
from allmodes.target import Target


class Kept(eqx.Module):
    """Paths of the sampler as it was, and how far towards the target they are weighted."""

    z: Float[Array, "levels paths dim"]
    log_prob: Float[Array, " paths"]  # of their clean ends
    log_weight: Float[Array, " paths"]  # by the sampler that has drawn them
    power: Scalar  # of these weights: 1 where the target itself lies within the trust region
    kl: Scalar


@dataclasses.dataclass(frozen=True)
class TRLV(PathMethod):
    """Train in rounds, in each of which the sampler moves by a bounded KL towards the target.

    The path measure that is nearest to the target within `KL(P_new | P_old) <= bound` is
    `P_new ~ P_old w^power`, on the geometric annealing from the sampler to the target; the power
    is the largest that keeps the bound, by the weights of paths that are kept for the round. The
    network is fitted to it by the log-variance on these paths. Of the search it takes the frame
    alone; the points of the buffer only say, at the end, what the sampler has left out.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "loss": Figure("log-variance", in_progress="loss", caption="the log-variance to the next path measure"),
        "elbo": Figure("ELBO", over="last", in_progress="ELBO", caption="the ELBO of kept paths, in the frame"),
        "power": Figure("power of weights", over="last", is_share=True, in_progress="power"),
        "kl": Figure("KL of a round", over="last"),
    }

    name: str = "trlv"
    path_steps: int = 32
    network: Network = Perceptron(64, 2)
    bound: float = 0.1
    """Nats by which the path measure may move in a round."""
    paths: int = 2048
    """Paths that are kept for a round: as many evaluations."""
    every: int = 50
    """Training steps of a round, each on `batch` of the kept paths."""

    def __post_init__(self):
        super().__post_init__()
        if self.batch > self.paths:
            raise ConfigError(f"batch must not exceed the {self.paths} paths of a round, got {self.batch}")

    @property
    def period(self) -> int:
        """Steps of a round."""
        return self.every

    @property
    def period_evaluations(self) -> int:
        """What the paths of a round take, where the network is not guided."""
        return self.paths

    def more(self, found: SearchResult) -> Kept:
        """Give room for the paths of a round."""
        dim, nothing = found.points.z.shape[1], jnp.zeros(self.paths)
        return Kept(jnp.zeros((self.path_steps + 1, self.paths, dim)), nothing, nothing, jnp.zeros(()), jnp.zeros(()))

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Fit the network to the measure of the round on some of its paths."""
        k_walk, k_index = jax.random.split(key)
        is_due = state.step % self.every == 0
        state = jax.lax.cond(is_due, lambda s: self._next_round(target, s, k_walk), lambda s: s, state)
        kept = state.more
        index = jax.random.permutation(k_index, self.paths)[: self.batch]

        def loss_of(model):
            log_ratio = log_ratio_of(self.process_of(target, state, model), kept.z[:, index])
            log_weight = log_ratio + kept.log_prob[index]
            # log (P_old w^power / P_model), with w = target / P_old.
            return LogVariance()(log_weight - (1.0 - kept.power) * kept.log_weight[index])

        loss, gradient = jax.value_and_grad(loss_of)(state.model)
        cost = self.batch * self.path_steps * state.model[0].evaluations
        figures = {"loss": loss, "elbo": jnp.mean(kept.log_weight), "power": kept.power, "kl": kept.kl}
        return self.follow(state, gradient, evaluations=state.evaluations.add_points(cost, 0, 0)), figures

    def _next_round(self, target: Target, state: State, key: Array) -> State:
        """The state with new paths, of the sampler as it is now."""
        path = walk(self.process_of(target, state, state.model), key, self.paths, self.path_steps)
        log_prob = with_mass(state.frame.values(target, path.z[-1]))
        log_weight = path.log_ratio + log_prob
        power, kl = largest_power(log_weight, self.bound)
        guidance = self.paths * self.path_steps * state.model[0].evaluations
        evaluations = state.evaluations.add_points(guidance, 0, 0).add_points(self.paths, 0, 0, gradient=False)
        kept = Kept(path.z, log_prob, log_weight, power, kl)
        return dataclasses.replace(state, more=kept, evaluations=evaluations)


def largest_power(log_weight: Float[Array, " n"], bound: float) -> tuple[Scalar, Scalar]:
    """The largest power in [0, 1] of weights by which the weighted points are at most `bound` nats
    from the unweighted ones, in the KL divergence, and what it is there.
    """
    log_weight = log_weight - jnp.max(log_weight)

    def divergence(power):
        log_share = power * log_weight - logsumexp(power * log_weight)
        return jnp.sum(jnp.exp(log_share) * log_share) + jnp.log(log_weight.shape[0])

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        fits = divergence(middle) <= bound
        return jnp.where(fits, middle, low), jnp.where(fits, high, middle)

    low, _ = jax.lax.fori_loop(0, 40, halve, (jnp.zeros(()), jnp.ones(())))
    power = jnp.where(divergence(1.0) <= bound, 1.0, low)
    return power, divergence(power)
