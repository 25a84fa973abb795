"""What is worth saying of parameters, though nothing is wrong with the draws: that the mass piles
up at a bound or at the end of a prior, and that a parameter is spread as it was before the data.

Both are told from coordinates in which what is known before is flat (`allmodes.chart.Flat`).
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Array, Float

from allmodes.chart import Flat
from allmodes.points.weighted import normalised

LEAST = 400  # effective draws, for either to be told
FAR, NEAR = 0.99, 0.05  # the range of a coordinate holds so much of its mass; so much of the range is at its end
MORE = 1.5  # times what is flat, at least, in that part of the range, for mass to pile up
SURE, UNSURE = 3.0, 2.0  # standard errors: by which there is more; by which it may fall off towards the end
KOLMOGOROV = 1.63  # quantile .99 of sqrt(n) times the distance of n draws from what they are drawn from
ALIKE = 0.02  # distance that is nothing, however many draws show it: a normal moved by .05 of its deviation
SHOWN = 8  # parameters in one remark, and remarks on ends

EssOf = Callable[[Float[np.ndarray, " n"]], float]


def remarks(flats: Mapping[str, Flat], log_weight: Float[Array | np.ndarray, " n"], ess_of: EssOf) -> list[str]:
    """A sentence for each end that a parameter leans on, and one for those that are not
    constrained.

    `ess_of` is the effective sample size for the average of a figure. Where that is below 400
    nothing is said.
    """
    w, leaning, free = normalised(log_weight), [], {}
    for name, flat in flats.items():
        effective = ess_of(flat.y)
        if effective < LEAST or not np.all(np.isfinite(flat.y[w > 0])):
            continue
        if is_as_before(flat, w, effective):
            free.setdefault(flat.before, []).append(name)
            continue
        ends = [(flat.low, flat.y)] + [(flat.high, 1.0 - flat.y)] * flat.closed
        shares = [(end, share_at_end(y, w, effective)) for end, y in ends if end]
        near = f"of the mass is in the {NEAR:.0%} of its range next to it"
        leaning += [f"{name} leans on the {end}: {share:.0%} {near}" for end, share in shares if share is not None]
    said = [f"{_listed(names)} not constrained: {before}" for before, names in free.items()]
    more = [f"so do {len(leaning) - SHOWN} more"] * (len(leaning) > SHOWN)
    return leaning[:SHOWN] + more + said


def share_at_end(y: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"], effective: float) -> float | None:
    """The share of the mass in the first twentieth of the range, where mass piles up towards y = 0;
    else None.

    Two things have to hold. Of the range, which ends where 99 % of the mass are below, the first
    twentieth holds at least half again as much as what is flat there, by three standard errors. And
    the density does not fall off towards the end: of the lowest twentieth of the mass, no less than
    half, within two standard errors, lies in the lower half of where it lies. A density that
    vanishes at a bound close to which its mass is (a log-normal at 0) fails by that.
    """
    order = np.argsort(y, kind="stable")
    at, below = y[order], np.cumsum(w[order])

    def mass(end: float) -> float:
        i = np.searchsorted(at, end, side="right")
        return float(below[i - 1]) if i else 0.0

    top, low = (float(at[min(np.searchsorted(below, share), len(at) - 1)]) for share in (FAR, NEAR))
    share = mass(NEAR * top)
    error = np.sqrt(share * (1.0 - share) / effective)
    if share < MORE * NEAR or share - NEAR < SURE * error:
        return None
    lower = mass(0.5 * low) / max(mass(low), 1e-300)
    return share if lower >= 0.5 - UNSURE * 0.5 / np.sqrt(NEAR * effective) else None


def is_as_before(flat: Flat, w: Float[np.ndarray, " n"], effective: float) -> bool:
    """Whether weighted draws cannot be told from what is flat, by the largest distance of the
    distribution functions (Kolmogorov and Smirnov): at the level of 1 %, or below .02.
    """
    if not flat.closed:
        return False
    order = np.argsort(flat.y, kind="stable")
    at, above = flat.y[order], np.cumsum(w[order])
    below = above - w[order]
    distance = float(max(np.max(above - at), np.max(at - below)))
    return distance <= max(KOLMOGOROV / effective**0.5, ALIKE)


def _listed(names: list[str]) -> str:
    more = [f"{len(names) - SHOWN} more"] * (len(names) > SHOWN)
    return ", ".join(names[:SHOWN] + more) + (" is" if len(names) == 1 else " are")
