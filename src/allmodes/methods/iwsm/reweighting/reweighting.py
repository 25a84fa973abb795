"""What all re-weightings share: when a renewal comes round, and the draws that it is made from."""

import abc
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.diffusion.paths import Process, reverse
from allmodes.methods.iwsm.state import State, process_of
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.target import Target


class Fresh(NamedTuple):
    """Draws of the sampler as it is, with their path weights."""

    points: Buffer
    log_weight: Float[Array, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reweighting(abc.ABC):
    """What brings the buffer towards the target, by draws of the sampler itself."""

    every: int = 400
    """Steps between renewals of the buffer."""
    path_steps: int = 40
    """Steps of the reverse paths of a renewal."""

    @abc.abstractmethod
    def renew(self, target: Target, state: State, key: Array) -> State:
        """Renew the buffer: `refresh_ess` of the state becomes the effective share of the draws,
        `refresh_log_z` log Z by them, `refresh_rate` how much of the renewal was taken.
        """

    @abc.abstractmethod
    def paths(self, buffer: int) -> int:
        """Tell how many paths a renewal of a buffer of so many points walks."""

    def check(self, buffer: int) -> None:  # noqa: B027, which most have no need of
        """**Raises** `ConfigError` where a renewal does not fit a buffer of so many points."""

    def turn(self, state: State, count: int) -> Int[Array, " count"]:
        """Give the places of the buffer whose turn it is, oldest first."""
        return (state.step // self.every * count + jnp.arange(count)) % state.buffer.size

    def draw(self, target: Target, state: State, key: Array, count: int) -> tuple[Fresh, State]:
        """Draw from the sampler, with path weights; the state has counted it."""
        process = process_of(state)
        path = reverse(process, key, count, self.path_steps)
        e = state.frame.evaluate(target, path.z)
        state = walked(
            dataclasses.replace(state, evaluations=state.evaluations.add(e)), process, count, self.path_steps
        )
        return Fresh(Buffer.of(path.z, e), path.log_ratio + e.log_prob), state


def walked(state: State, process: Process, count: int, steps: int) -> State:
    """The state that has counted so many paths, beside their clean ends: most processes have none
    to count.
    """
    spent = count * process.path_evaluations(steps)
    return dataclasses.replace(state, evaluations=state.evaluations.add_points(spent, 0, 0)) if spent else state


def renewed(state: State, buffer: Buffer, log_weight: Float[Array, " n"], rate: Scalar) -> State:
    """The state with a new buffer, and what the renewal showed."""
    share, log_z = weights.ess_fraction(log_weight), weights.log_mean(log_weight)
    return dataclasses.replace(state, buffer=buffer, refresh_ess=share, refresh_rate=rate, refresh_log_z=log_z)
