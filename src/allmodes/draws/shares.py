"""Whether raw draws are in the proportions of the density, region by region, as their weights tell.

The effective share of all draws hardly falls where two modes are in the wrong proportion: a mode
with 39 % of the draws in the place of 30 % leaves 96 % of them effective. So draws are gathered in
small regions, in each of which the mean weight of right ones is one.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.points.clusters import kmeans

MOST, EACH = 20_000, 150  # draws that are looked at, evenly over their order; of a region, on average
REGIONS, ROUNDS, FARTHEST = 64, 10, 8.0  # at most; of k-means; spreads, beyond which all is alike
SURE = 5.0  # standard errors of a mean weight
# By how much of their share regions are off, and of how many of all draws, to be told.
LOOKS = (0.25, 0.02), (0.1, 0.03)


class Uneven(NamedTuple):
    """The share of the mass that regions have whose draws are too many or too few, and of draws."""

    mass: float
    draws: float


def uneven(x: Float[Array | np.ndarray, "n dim"], log_weight: Float[Array | np.ndarray, " n"]) -> Uneven | None:
    """The regions that differ most, all with too many draws or all with too few; None where nearly
    all draws are where they should be, or too few to tell.
    """
    some = np.linspace(0, len(x) - 1, min(len(x), MOST)).astype(int)
    x, log_weight = np.asarray(x, np.float64)[some], np.asarray(log_weight, np.float64)[some]
    count = min(REGIONS, len(x) // EACH)
    if count < 2 or not np.isfinite(log_weight.max()):
        return None
    weight = np.exp(log_weight - log_weight.max())
    low, middle, high = np.quantile(x, [0.25, 0.5, 0.75], axis=0)
    unit = np.where(high > low, high - low, 1.0)
    label = kmeans(np.clip((x - middle) / unit, -FARTHEST, FARTHEST), count, ROUNDS, np.random.default_rng(0))[1]
    draws, total = np.bincount(label, minlength=count), weight.sum()
    there = np.maximum(draws, 1)
    mean = np.bincount(label, weight, count) / there
    error = np.sqrt(np.bincount(label, (weight - mean[label]) ** 2, count)) / there
    usual = total / len(x)
    is_sure = np.abs(mean - usual) > SURE * error
    is_sure &= draws > 1
    for off, least in LOOKS:
        sides = mean < usual / (1.0 + off), mean > usual / (1.0 - off)
        found = [_together(is_sure & side, mean, draws, total) for side in sides]
        worst = max(found, key=lambda region: abs(region.draws - region.mass))
        if abs(worst.draws - worst.mass) >= least:
            return worst
    return None


def _together(
    which: Bool[np.ndarray, " k"], mean: Float[np.ndarray, " k"], draws: Int[np.ndarray, " k"], total: float
) -> Uneven:
    """Some of the regions as one."""
    return Uneven(float((mean * draws)[which].sum() / total), float(draws[which].sum() / draws.sum()))
