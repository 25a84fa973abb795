"""What the settings of all networks share."""

import abc
from typing import Any, ClassVar

import equinox as eqx
from jaxtyping import Array

from allmodes.points.found import SearchResult
from allmodes.target import Target


class NetworkSettings(abc.ABC):
    """A frozen dataclass that builds a network; most need nothing of the points for it.

    `predicts` is what the network's output means: the preconditioned denoiser, or the score;
    `fits_mixture`, whether `prepare` fits one to the points that a search has kept.
    """

    fits_mixture: ClassVar[bool] = False

    predicts: str
    width: int
    depth: int

    def prepare(self, target: Target, found: SearchResult, key: Array) -> tuple[Any, SearchResult]:
        """Compute on the host what `build` needs of what was found; that, with what it has cost."""
        return (), found

    def unprepared(self, size: int, dim: int) -> Any:
        """Give the shapes of what `prepare` gives."""
        return ()

    @abc.abstractmethod
    def build(self, dim: Any, prepared: Any, key: Array) -> eqx.Module:
        """Make the network, which has learned nothing; an equivariant one takes the symmetry in
        the place of the dimension.
        """
