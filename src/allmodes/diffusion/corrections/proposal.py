"""Weighted draws of any sampler as what a correction starts from."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from allmodes.diffusion.corrections.chain_moves import chain_evaluations, chains
from allmodes.diffusion.corrections.correction import BLOCK
from allmodes.points.frame import Frame
from allmodes.target import Target


class WeightedDraws:
    """A sampler that has `sample`, whose draws have weights, and no diffusion."""

    process = None

    def __init__(self, sampler: Any):
        self.sampler = sampler
        self.target: Target = sampler.target

    def sample(self, n: int, **options: Any) -> Any:
        """Draw n of the sampler itself."""
        return self.sampler.sample(n, **options)

    @functools.cached_property
    def frame(self) -> Frame:
        """The user's coordinates: nothing is known of a better scale."""
        zero = np.zeros(self.target.free_dim)
        return Frame.of(self.target, zero, zero + 1.0)

    @functools.cached_property
    def _chains(self) -> Any:
        target, frame = self.target, self.frame
        functions = functools.partial(frame.evaluate, target), functools.partial(frame.value, target)
        block, differentiable = target.block(BLOCK), target.differentiable

        @functools.partial(jax.jit, static_argnums=2)
        def run(key: Array, z: Array, moves: int) -> tuple[Array, Array]:
            points = chains(None, *functions, key, z, 2, 0, moves, block, differentiable)
            return frame.to_x(points.z), frame.log_prob(points.log_prob)

        return run

    def look_forward(self) -> tuple[None, int]:
        """Tell nothing: no path leads back from a point."""
        return None, 0

    def paths(self, key: Array, n: int, steps: int | None) -> tuple[Array, Array, int]:
        """Draw n, their log weights, and what they cost."""
        draws = self.sampler.sample(n, key=key)
        return self.frame.to_z(draws.x), draws.log_weight, draws.evaluations

    def chains(self, key: Array, z: Array, steps: int | None, rounds: int, moves: int) -> tuple[Array, Array, int]:
        """Give the ends of chains from z, their log-densities, and what they cost."""
        x, log_prob = self._chains(key, z, moves)
        return x, log_prob, len(z) * chain_evaluations(0, moves)


def proposal_of(sampler: Any) -> Any:
    """Give what a sampler offers to corrections: its paths, or else its weighted draws."""
    return sampler.proposal() or WeightedDraws(sampler)
