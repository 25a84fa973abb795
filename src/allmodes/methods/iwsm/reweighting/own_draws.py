"""The sampler's own draws as they are: iDEM's buffer, and that of the paper, whose weights are in
the loss.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.diffusion.paths import reverse
from allmodes.errors import ConfigError
from allmodes.methods.iwsm.reweighting.reweighting import Reweighting, renewed, walked
from allmodes.methods.iwsm.state import State, process_of
from allmodes.points.buffer import Buffer
from allmodes.settings import check
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class OwnDraws(Reweighting):
    """Draws take the place of the oldest points, unweighted."""

    count: int = 1000
    """Draws that a renewal adds."""
    broad_share: float = 0.0
    """Share of them that is spread over the box instead of drawn by the sampler."""

    def __post_init__(self):
        check(self, zero=("broad_share",))

    def renew(self, target: Target, state: State, key: Array) -> State:
        """Put new draws in the place of the oldest points."""
        k_path, _, _, k_broad = jax.random.split(key, 4)
        index, broad = self.turn(state, self.count), math.ceil(self.broad_share * self.count)
        process = process_of(state)
        path = reverse(process, k_path, self.count, self.path_steps)
        spread = jax.random.uniform(k_broad, path.z.shape, minval=-1.0, maxval=1.0)
        z = jnp.where((jnp.arange(self.count) < broad)[:, None], spread, path.z)
        e = state.frame.evaluate(target, z)
        seen, one = {"refresh_ess": state.refresh_ess, "refresh_log_z": state.refresh_log_z}, jnp.ones(())
        state = dataclasses.replace(state, evaluations=state.evaluations.add(e))
        state = walked(state, process, self.count, self.path_steps)
        state = renewed(state, state.buffer.put(index, Buffer.of(z, e)), (path.log_ratio + e.log_prob)[broad:], one)
        return state if broad < self.count else dataclasses.replace(state, **seen)

    def paths(self, buffer: int) -> int:
        """Down for the draws."""
        return self.count

    def check(self, buffer: int) -> None:
        """**Raises** `ConfigError` where the share is none, or there are fewer points in the
        buffer.
        """
        if not 0.0 <= self.broad_share <= 1.0:
            raise ConfigError(f"broad_share must lie in [0, 1], got {self.broad_share}")
        if self.count > buffer:
            raise ConfigError(f"draws of a renewal must not exceed the buffer ({buffer}), got {self.count}: set both")
