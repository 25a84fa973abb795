"""How much a search spends."""

import dataclasses

from allmodes.settings import check

PER_ROOT_DIM = 1024  # starts


@dataclasses.dataclass(frozen=True)
class Search:
    """Scouts that find the box, starts that fill it, and what each of them does.

    Each start costs an evaluation a step of its climb (some ten) and one a move.
    """

    scouts: int = 1024
    """Points that look for the regions of mass over seven decades."""
    starts: int | None = 8192
    """Most points of the second stage; a larger buffer begins with copies, which local moves part.
    None for 1024 times the root of the dimension."""
    moves: int = 40
    """Local moves of each after its climb."""
    climb: int = 120
    """Most steps of a climb."""
    keep: int = 0
    """Of how many of the last moves the points are kept, for a mixture to be fitted to."""

    def __post_init__(self):
        check(self, zero=("keep",))

    def starts_in(self, dim: int) -> int:
        """Give the most starts in so many dimensions."""
        return int(PER_ROOT_DIM * dim**0.5) if self.starts is None else self.starts
