"""Where parameters lie, by their names: for tables and pictures."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from allmodes.chart import Chart, Circle, HalfLine, Interval, Piece, Support


class Range(NamedTuple):
    """The ends of where a parameter lies, None where there is none; of one that is `periodic` the
    two are one point.
    """

    low: float | None = None
    high: float | None = None
    periodic: bool = False

    @property
    def period(self) -> float:
        """The length between the ends; infinite where one is missing."""
        return math.inf if self.low is None or self.high is None else self.high - self.low

    def wound(self, values: float | Float[np.ndarray, "*n"]) -> float | Float[np.ndarray, "*n"]:
        """Give values of a circle in its own turn, from `low` to `high`."""
        return self.low + np.mod(values - self.low, self.period)

    def unwound(self, values: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
        """Give values of a circle, weighted by w, within half a turn of their mean direction, so
        that their average, spread and quantiles mean what those of a line do: where a mode lies
        across the seam, some are beyond an end.
        """
        turn = 2.0 * np.pi / self.period
        direction = np.sum(w * np.exp(1j * turn * values))
        middle = self.wound(np.angle(direction) / turn)
        return middle + np.mod(values - middle + 0.5 * self.period, self.period) - 0.5 * self.period


def ranges_of(support: Support | None, names: Sequence[str]) -> dict[str, Range]:
    """The ranges of coordinates, in their order, of a support that is made piece by piece; without
    ends of any other.
    """
    if not isinstance(support, Chart):
        return dict.fromkeys(names, Range())
    each = [_range(piece) for piece in support.pieces for _ in range(piece.size)]
    return dict(zip(names, each, strict=True))


def _range(piece: Piece) -> Range:
    if isinstance(piece, Circle | Interval):
        return Range(float(piece.low), float(piece.high), isinstance(piece, Circle))
    if isinstance(piece, HalfLine):
        return Range(piece.bound, None) if piece.above else Range(None, piece.bound)
    return Range()
