"""Self-normalised importance sampling with smoothed weights (PSIS, Vehtari et al. 2024)."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from allmodes.devices.precision import double
from allmodes.diffusion.corrections.correction import Correction
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import psis


@dataclasses.dataclass(frozen=True)
class SNIS(Correction):
    """The same draws, their weights Pareto-smoothed; no evaluations beyond those of the draws.

    Never better than the raw weights allow. For any sampler whose draws have weights.
    """

    def __call__(self, sampler: Any, n: int, *, key: Array, steps: int | None = None) -> Draws:
        """Draw n, and smooth their weights."""
        raw = sampler.sample(n, key=key, **({} if steps is None else {"steps": steps}))
        with double(sampler.target.double):
            smooth = jnp.asarray(psis(raw.log_weight), raw.x.dtype)
        return dataclasses.replace(raw, log_weight=smooth, evidence=raw.log_z, pool=raw.as_pool())
