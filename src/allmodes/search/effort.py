"""How much a search spends."""

import dataclasses
import math

from allmodes.errors import ConfigError
from allmodes.settings import check

WAVE = 1024  # starts that climb together
PER_ROOT_DIM = 900  # starts, at most: rounded up to whole waves


@dataclasses.dataclass(frozen=True)
class Search:
    """Scouts that find the box, starts that fill it, and what each of them does.

    Each start costs an evaluation a step of its climb (some ten) and one a move.
    """

    scouts: int = 1024
    """Points that look for the regions of mass over seven decades."""
    starts: int | None = 8192
    """Most points of the second stage; a larger buffer begins with copies, which local moves part.
    None for 900 times the root of the dimension, rounded up to whole waves of 1,024."""
    moves: int = 40
    """Local moves of each after its climb."""
    climb: int = 120
    """Most steps of a climb."""
    keep: int = 0
    """Of how many of the last moves the points are kept, for a mixture to be fitted to."""
    unseen: float | None = None
    """Waves of 1,024 starts come until the chance that the next start ends in a basin that none has
    ended in is below this; None for all starts at once."""

    def __post_init__(self):
        check(self, zero=("keep",))
        if self.keep > self.moves:
            raise ConfigError(f"keep must be at most moves ({self.moves}), got {self.keep}")
        if self.unseen is not None and not self.keep:
            raise ConfigError(f"unseen={self.unseen} needs points that tell basins apart: set keep, up to moves")

    def starts_in(self, dim: int) -> int:
        """Give the most starts in so many dimensions."""
        return WAVE * math.ceil(PER_ROOT_DIM * dim**0.5 / WAVE) if self.starts is None else self.starts
