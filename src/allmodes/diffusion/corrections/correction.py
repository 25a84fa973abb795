"""What all corrections share: they are settings with a call over a sampler."""

import abc
import dataclasses
from typing import Any

import jax
from jaxtyping import Array

from allmodes.devices.mesh import even
from allmodes.draws.draws import Draws

BLOCK = 4096  # most draws in one compiled call


@dataclasses.dataclass(frozen=True)
class Correction(abc.ABC):
    """Draws made right by more work than their weights: `Chains(moves=8)(sampler, n, key=key)`.

    What no correction can mend is a region that the sampler does not meet.
    """

    @abc.abstractmethod
    def __call__(self, sampler: Any, n: int, *, key: Array, steps: int | None = None) -> Draws:
        """Draw n of a sampler, corrected; `steps` are those of its paths, where it has any."""


def blocks_of(key: Array, n: int) -> tuple[list[Array], int]:
    """Keys of the fewest blocks that n draws fit into, and the size of each: what devices share."""
    blocks = -(-n // BLOCK)
    return [jax.random.fold_in(key, i) for i in range(blocks)], even(-(-n // blocks))
