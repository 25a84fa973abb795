"""What all estimators share: which of the two identities they trust, and how far."""

import abc
import dataclasses
from typing import Any, Literal

from jaxtyping import Array

from allmodes.methods.iwsm.batch import Batch, Targets
from allmodes.target import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimator(abc.ABC):
    """An estimate of the posterior mean of x_0 at each x_t, which the network learns."""

    score: Literal["blend", "tsi", "dsi"] = "blend"
    """Target-score identity, denoising identity, or their least-variance blend; without a gradient,
    the second."""
    clip: float | None = None
    """Largest norm of the estimated score, in normalised coordinates."""

    @abc.abstractmethod
    def __call__(self, target: Target, state: Any, key: Array, batch: Batch) -> Targets:
        """Estimate at each point of the batch; what is evaluated is counted in the state."""
