"""Trajectory balance, off-policy, with a buffer of ends and local search (Sendera et al. 2024,
arXiv 2402.05098: "TB + LS"); or the log-variance in its place (Richter and Berner 2024, arXiv
2307.01198).
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.networks import Network, Perceptron
from allmodes.diffusion.paths import noising, reverse
from allmodes.errors import ConfigError
from allmodes.mcmc.mala import mala
from allmodes.mcmc.metropolis import choose_by_weight
from allmodes.method import Figure, Figures
from allmodes.methods.paths.losses import LogVariance, TrajectoryBalance, with_mass
from allmodes.methods.paths.method import POINTS, PathMethod
from allmodes.methods.paths.state import Model, State
from allmodes.points.buffer import Buffer
from allmodes.points.found import SearchResult
from allmodes.target import Target


class Replay(eqx.Module):
    """What is carried beside the buffer."""

    step_size: Scalar  # of local moves
    log_z: Scalar  # of the loss, where it is learned


class Seen(NamedTuple):
    """What a batch of paths has met."""

    own: Buffer  # ends of the sampler's own paths
    log_weight: Float[Array, " own"]
    log_weight_replayed: Float[Array, " replayed"]
    nan: Array
    zero: Array


@dataclasses.dataclass(frozen=True)
class TB(PathMethod):
    """Train on paths of two origins at once: the sampler's own, and such as noise points of a
    buffer.

    The buffer begins with the points of the search, which is what the paper has exploration for.
    The end of an own path takes the place of a point of the buffer with probability
    `min(1, w_own / w_point)` of their path weights, which costs nothing and leads the buffer to the
    target (the paper's choice by rank does not); every `search_every` steps all points make
    `moves` moves by MALA.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "loss": Figure("loss", in_progress="loss", caption="the loss of own and replayed paths"),
        "elbo": Figure("ELBO", in_progress="ELBO", caption="the ELBO of own paths, before averaging, in the frame"),
        "entered": Figure("taken into the buffer", is_share=True),
    }

    name: str = "tb"
    path_steps: int = 32
    network: Network = Perceptron(64, 2)
    loss: LogVariance | TrajectoryBalance = TrajectoryBalance()
    """What is made small over paths of both origins."""
    replayed: float = 0.5
    """Share of a batch that noises points of the buffer; 0 trains on own paths alone."""
    search_every: int = 100
    """Steps from one local search to the next."""
    moves: int = 10
    """MALA moves of each point of the buffer in a local search: 2,048 evaluations each; 0 for
    none."""

    may_be_zero: ClassVar[tuple[str, ...]] = ("cooldown", "replayed", "moves")

    def __post_init__(self):
        super().__post_init__()
        if not self.replayed < 1.0:
            raise ConfigError(f"replayed must lie in [0, 1), got {self.replayed}")
        if self.noised > POINTS:
            raise ConfigError(f"a batch may replay {POINTS} paths at most, got {self.noised}")

    @property
    def noised(self) -> int:
        """Paths of a batch that noise points of the buffer."""
        return min(round(self.replayed * self.batch), self.batch - 1)

    @property
    def searches(self) -> bool:
        """Whether points of the buffer are moved: only such as are replayed."""
        return self.moves > 0 and self.noised > 0

    @property
    def period(self) -> int:
        """Steps from one local search to the next."""
        return self.search_every if self.searches else 1

    @property
    def period_evaluations(self) -> int:
        """What a local search takes."""
        return POINTS * self.moves if self.searches else 0

    def more(self, found: SearchResult) -> Replay:
        """Give the step size of local moves, as the search left it, and a log Z of zero."""
        return Replay(found.step_size, jnp.zeros(()))

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Follow the gradient of the loss, and let ends of own paths into the buffer."""
        k_search, k_index, k_batch, k_enter = jax.random.split(key, 4)
        state = self._searched(target, state, k_search)
        index = jax.random.permutation(k_index, state.buffer.size)[: self.noised]

        def loss_of(model, log_z):
            seen = self._walk(target, state, model, index, k_batch)
            return self.loss(jnp.concatenate([seen.log_weight, seen.log_weight_replayed]), log_z), seen

        both = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)
        (loss, seen), (gradient, slope) = both(state.model, state.more.log_z)
        rate = self.loss.rate if isinstance(self.loss, TrajectoryBalance) else 0.0
        buffer, entered = _entered(k_enter, state.buffer, index, seen)
        cost = len(seen.log_weight) + self.batch * self.path_steps * state.model[0].evaluations
        state = self.follow(
            state,
            gradient,
            buffer=buffer,
            more=Replay(state.more.step_size, state.more.log_z - rate * slope),
            evaluations=state.evaluations.add_points(cost, seen.nan, seen.zero),
        )
        return state, {"loss": loss, "elbo": jnp.mean(seen.log_weight), "entered": entered}

    def _walk(self, target: Target, state: State, model: Model, index: Array, key: Array) -> Seen:
        """Own paths and noising ones from points of the buffer, with their weights."""
        k_own, k_noise = jax.random.split(key)
        process = self.process_of(target, state, model)
        path = reverse(process, k_own, self.batch - self.noised, self.path_steps, detached=True)
        e = state.frame.evaluate(target, path.z)
        own = Buffer.of(path.z, e)
        points = state.buffer.take(index)
        noised = noising(process, k_noise, points.z, self.path_steps).log_ratio
        log_weight = path.log_ratio + with_mass(e.log_prob)
        return Seen(own, log_weight, noised + with_mass(points.log_prob), e.nan, e.zero)

    def _searched(self, target: Target, state: State, key: Array) -> State:
        """The state with its buffer moved, where that is due."""
        if not self.searches:
            return state

        def moved(state: State) -> State:
            seen = mala(
                lambda z, _: state.frame.evaluate(target, z), state.buffer, state.more.step_size, key, self.moves
            )
            spent = state.evaluations.add_points(state.buffer.size * self.moves, seen.nan, seen.zero)
            more = Replay(seen.step_size, state.more.log_z)
            return dataclasses.replace(state, buffer=seen.points, more=more, evaluations=spent)

        return jax.lax.cond(state.step % self.search_every == 0, moved, lambda state: state, state)


def _entered(key: Array, buffer: Buffer, index: Array, seen: Seen) -> tuple[Buffer, Scalar]:
    """The buffer after exchanges of replayed points for own ends, pair by pair, and the share that
    took place: independence Metropolis on points with their paths (`diffusion/path_exchange.py`).
    """
    pairs = min(len(index), len(seen.log_weight))
    if not pairs:
        return buffer, jnp.zeros(())
    own, index = seen.own.take(jnp.arange(pairs)), index[:pairs]
    points, taken = choose_by_weight(
        key, buffer.take(index), seen.log_weight_replayed[:pairs], own, seen.log_weight[:pairs]
    )
    return buffer.put(index, points), jnp.mean(taken)
