"""A density in the plane from weighted draws, as fine as the draws allow."""

import numpy as np
from jaxtyping import Float

BANDWIDTHS = (0.5, 0.8, 1.2, 1.8, 2.7, 4.0, 6.0)  # of the smoothing, in bins
_EVEN = 1e-3  # share that is spread evenly, so that a draw on its own has a probability too

Grid = Float[np.ndarray, "rows columns"]


def density(
    points: Float[np.ndarray, "n 2"],
    w: Float[np.ndarray, " n"],
    edges: tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]],
    periodic: tuple[bool, bool] = (False, False),
) -> Grid:
    """The mass in each bin, first coordinate along the rows: a histogram, smoothed by a normal.

    Its width is the one by which each half of the draws predicts the other best, so that narrow
    modes far apart are not blurred to fit the whole. A circle is smoothed across its seam, and at
    other edges nothing is lost beyond. Points should be distinct: of copies each half has the same.
    """
    halves = [np.histogram2d(*points[i::2].T, bins=edges, weights=w[i::2])[0] for i in (0, 1)]
    mode = ["wrap" if is_circle else "reflect" for is_circle in periodic]
    best = max(BANDWIDTHS, key=lambda bandwidth: _predicted(halves, bandwidth, mode))
    return _smooth(halves[0] + halves[1], best, mode)


def levels(mass: Grid, held: tuple[float, ...]) -> list[float]:
    """For each share, the density above which the smallest region lies that holds it; falling."""
    falling = np.sort(mass.ravel())[::-1]
    sums = np.cumsum(falling)
    places = np.searchsorted(sums, np.array(held) * sums[-1])
    return falling[np.minimum(places, len(falling) - 1)].tolist()


def _predicted(halves: list[Grid], bandwidth: float, mode: list[str]) -> float:
    """The log-probability of each half by the other."""
    total = 0.0
    for seen, other in (halves, halves[::-1]):
        guess = _smooth(seen, bandwidth, mode)
        guess = (1.0 - _EVEN) * guess / max(guess.sum(), 1e-300) + _EVEN / guess.size
        total += float(np.sum(other * np.log(guess)))
    return total


def _smooth(mass: Grid, bandwidth: float, mode: list[str]) -> Grid:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(mass, bandwidth, mode=mode)
