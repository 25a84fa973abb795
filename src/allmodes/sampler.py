"""What `fit` returns: something that draws, whatever method trained it."""

import abc
import dataclasses
import os
from typing import Any

from jaxtyping import Array, Float

from allmodes.draws import Draws
from allmodes.methods.base import Method
from allmodes.target import Target


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler(abc.ABC):
    """A method that has been fitted to a target.

    **Attributes**: `target`, `method` (its configuration), `state` (all that fitting knows), and the `seconds` that
    the warm start, compilation and training took.
    """

    target: Target
    method: Method
    state: Any
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def evaluations(self) -> dict[str, int]:
        """What fitting cost: points at which the density, and its gradient, was computed, and the massless ones."""
        e = self.method.evaluations(self.state)
        return {
            "log_prob": int(e.log_prob),
            "gradient": int(e.gradient),
            "nan": int(e.nan),
            "zero": int(e.zero),
        }

    @abc.abstractmethod
    def sample(self, n: int, *, key: Array) -> Draws:
        """N draws; their own `evaluations` say what they cost."""

    def log_weights(self, x: Float[Array, "n dim"], *, key: Array) -> Float[Array, " n"] | None:
        """Weights of given points as the target sees them, where the method can tell; else None."""
        return None

    def save(self, path: str | os.PathLike) -> None:
        """Write the sampler to a run folder, from which `allmodes.load` makes it again, in any process.

        **Raises** `RunError` when the folder cannot be written.
        """
        from allmodes.store import save

        save(self, path)
