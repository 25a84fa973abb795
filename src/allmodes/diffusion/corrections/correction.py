"""What all corrections share: they are settings with a call over a sampler."""

import abc
import dataclasses
from typing import Any

from jaxtyping import Array

from allmodes.devices.precision import single
from allmodes.draws.draws import Draws


@dataclasses.dataclass(frozen=True)
class Correction(abc.ABC):
    """Draws made right by more work than their weights: `Chains(moves=8)(sampler, n, key=key)`.

    What no correction can mend is a region that the sampler does not meet.
    """

    def __init_subclass__(cls, **more: Any):
        """Let corrections run in float32 where the user has switched to float64, as samplers do."""
        super().__init_subclass__(**more)
        if "__call__" in vars(cls):
            cls.__call__ = single(vars(cls)["__call__"])

    @abc.abstractmethod
    def __call__(self, sampler: Any, n: int, *, key: Array, steps: int | None = None) -> Draws:
        """Draw n of a sampler, corrected; `steps` are those of its paths, where it has any."""
