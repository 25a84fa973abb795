"""The sampler's own draws, resampled by their path weights."""

import dataclasses

import jax
from jaxtyping import Array

from allmodes.mcmc.mala import mala
from allmodes.methods.iwsm.reweighting.reweighting import Reweighting, renewed
from allmodes.methods.iwsm.state import State
from allmodes.points import weights
from allmodes.settings import check
from allmodes.target import Target

PARTING = 5  # local moves, in which copies part before they are learned from


@dataclasses.dataclass(frozen=True)
class PathResampling(Reweighting):
    """Draws take the place of the whole buffer, resampled by tempered path weights."""

    min_ess: float = 0.25
    """Least effective share that tempering must leave."""

    def __post_init__(self):
        check(self)

    def renew(self, target: Target, state: State, key: Array) -> State:
        """Draw, resample, and let copies part."""
        k_path, k_part, k_choose, _ = jax.random.split(key, 4)
        size = state.buffer.size
        fresh, state = self.draw(target, state, k_path, size)
        log_w, exponent = weights.temper(fresh.log_weight, self.min_ess)
        buffer = fresh.points.take(weights.systematic(k_choose, weights.normalise(log_w), size))
        moved = mala(lambda z, _: state.frame.evaluate(target, z), buffer, state.step_size, k_part, PARTING)
        evaluations = state.evaluations.add_points(PARTING * size, moved.nan, moved.zero)
        state = dataclasses.replace(state, evaluations=evaluations)
        return renewed(state, moved.points, fresh.log_weight, exponent)

    def paths(self, buffer: int) -> int:
        """Down for the draws."""
        return buffer
