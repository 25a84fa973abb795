"""Independence Metropolis on whole paths: exact whatever the network is, and no mode is lost."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.diffusion.path_exchange import exchange
from allmodes.errors import ConfigError
from allmodes.methods.iwsm.reweighting.reweighting import Reweighting, renewed, walked
from allmodes.methods.iwsm.state import State, process_of
from allmodes.settings import check
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class PathMoves(Reweighting):
    """Each point is replaced by a draw with a probability that its path weights give."""

    points: int = 0
    """Points that a renewal is for, in turn; 0 for all."""

    def __post_init__(self):
        check(self, zero=("points",))

    def renew(self, target: Target, state: State, key: Array) -> State:
        """Propose a draw to each point whose turn it is."""
        k_path, k_noising, k_choose, _ = jax.random.split(key, 4)
        count = self.points or state.buffer.size
        index = self.turn(state, count)
        fresh, state = self.draw(target, state, k_path, count)
        points = state.buffer.take(index)
        process = process_of(state)
        points, accept = exchange(process, k_noising, k_choose, points, fresh.points, fresh.log_weight, self.path_steps)
        state = walked(state, process, count, self.path_steps)
        return renewed(state, state.buffer.put(index, points), fresh.log_weight, jnp.mean(accept))

    def paths(self, buffer: int) -> int:
        """Down for the draws, and up again for the points."""
        return 2 * (self.points or buffer)

    def check(self, buffer: int) -> None:
        """**Raises** `ConfigError` where there are fewer points in the buffer."""
        if self.points > buffer:
            raise ConfigError(f"points of a renewal must not exceed the buffer ({buffer}), got {self.points}: set both")
