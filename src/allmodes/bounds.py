"""What a user says of bounds and circles, coordinate by coordinate, made into a chart."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from allmodes.chart import Chart, Piece, circle, line
from allmodes.errors import TargetError

Pairs = tuple[tuple[float | None, float | None], ...]


def chart_of(pairs: Pairs, circles: Sequence[int], names: Sequence[str]) -> Chart | None:
    """The chart of bounds, a pair for each coordinate, and of which are circles; None where there
    are none.

    **Raises** `TargetError`, which names the coordinate, where a circle has but one bound.
    """
    if not circles and all(pair == (None, None) for pair in pairs):
        return None
    return Chart(tuple(_piece(names[i], *pair, i in circles) for i, pair in enumerate(pairs)))


def _piece(name: str, low: float | None, high: float | None, is_circle: bool) -> Piece:
    if is_circle and (low is None) != (high is None):
        raise TargetError(f"{name} is periodic: give both ends of its period or none, for -pi to pi, got {(low, high)}")
    if is_circle:
        return circle(*((-np.pi, np.pi) if low is None else (low, high)))
    return line(low, high)


def pairs_of(dim: int, bounds: Any, names: Sequence[str]) -> Pairs:
    """Bounds as one pair for each coordinate, from a sequence of pairs or a dictionary by name or
    number.

    **Raises** `TargetError`, which names the coordinate, where a bound is not a number, or the
    upper is not above the lower.
    """
    if bounds is None:
        return ((None, None),) * dim
    if isinstance(bounds, dict):
        given = {i: pair for which, pair in bounds.items() for i in indices_of(which, dim, names)}
        bounds = [given.get(i) for i in range(dim)]
    elif not hasattr(bounds, "__len__") or len(bounds) != dim:
        given = len(bounds) if hasattr(bounds, "__len__") else bounds
        raise TargetError(f"bounds must have a pair for each of the {dim} coordinates, got {given!r}")
    return tuple(_pair(names[i], pair) for i, pair in enumerate(bounds))


def _pair(name: str, pair: Any) -> tuple[float | None, float | None]:
    if pair is None:
        return None, None
    try:
        low, high = (None if b is None or np.isinf(b) else float(b) for b in pair)
    except (TypeError, ValueError):
        raise TargetError(f"bounds of {name} must be a pair of numbers, or None for no bound, got {pair!r}") from None
    if any(b is not None and np.isnan(b) for b in (low, high)):
        raise TargetError(f"bounds of {name} must be numbers, or None for no bound, got {pair!r}")
    if low is not None and high is not None and not low < high:
        raise TargetError(f"bounds of {name}: the upper must be above the lower, got {pair!r}")
    return low, high


def indices_of(which: Any, dim: int, names: Sequence[str]) -> list[int]:
    """The places of a coordinate that is given by its number or its name, or of all that an array
    of that name has.

    **Raises** `TargetError` where there is none such.
    """
    if isinstance(which, str):
        found = [i for i, name in enumerate(names) if name == which or name.startswith(f"{which}[")]
        if not found:
            raise TargetError(f"there is no parameter {which!r}: there are {', '.join(names)}")
        return found
    if isinstance(which, bool) or not isinstance(which, int | np.integer) or not -dim <= which < dim:
        raise TargetError(f"a coordinate is a number from 0 to {dim - 1}, or a name, got {which!r}")
    return [int(which) % dim]
