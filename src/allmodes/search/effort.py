"""How much a search spends."""

import dataclasses

from allmodes.settings import check

WAVE = 1024  # starts that climb together


@dataclasses.dataclass(frozen=True)
class Search:
    """Scouts that find the box, starts that fill it, and what each of them does.

    Each start costs an evaluation a step of its climb (some ten) and one a move; where the density
    has no gradient `dim + 1` of them, and waves and scouts are fewer by as much, but not below 128.
    """

    scouts: int = 256
    """Points that look for the regions of mass over seven decades."""
    starts: int = 8192
    """Most points of the second stage, and particles of tempered SMC, where that follows; a larger
    buffer begins with copies, which local moves part."""
    moves: int = 8
    """Local moves of each after its climb."""
    climb: int = 120
    """Most steps of a climb."""
    keep: int = 8
    """Of how many of the last moves (all, where there are fewer) the points are kept, for a mixture
    to be fitted to, where the network has one; it tells masses, so there are no rounds of moves
    towards more of it then."""
    unseen: float | None = 0.0022
    """Waves of 1,024 starts come until the chance that the next start ends in a basin that none has
    ended in is below this, times `sqrt(2 / dim)`, and by as much larger as waves are smaller; None
    for all starts at once."""

    def __post_init__(self):
        check(self, zero=("keep",))


BEFORE_TEMPERING = Search(starts=1024, keep=0, unseen=None)  # which only needs to know how wide to begin
THOROUGH = Search(scouts=1024, moves=40, keep=0, unseen=None)  # for a density that is cheap
