"""How much of the mass lies where the draws' weights have none to speak of.

The weight `w` of a point is the same whoever made it, so the target's mass above a threshold can be
told in two ways: by points of the target, `P(w > t)`, and by weighted draws of the sampler,
`sum w 1(w > t) / sum w`. Where the sampler hardly goes, w is large, and it has no draw to say so:
the first exceeds the second by the mass that its draws, and all averages of them, leave out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

from allmodes.draws.estimates import GRAIN

SURE = 4.0  # standard errors, above which an excess counts, as the largest of many is looked for
RARE = 1.0  # nats of a weight above the mean: of what is drawn more often, there are draws to tell its share


class Doubt(NamedTuple):
    """The share of the mass that draws leave out, its standard error, and how many points tell;
    a share of zero where no excess is `SURE`.
    """

    share: float
    std_error: float
    points: int

    @property
    def most(self) -> float:
        """What is left out at most."""
        return min(1.0, self.share + SURE * self.std_error)

    @property
    def least(self) -> float:
        """What is left out at least."""
        return max(0.0, self.share - SURE * self.std_error)


class Forward(NamedTuple):
    """The log-weights of points that a sampler has not made, in its own frame, their effective
    share, in [0, 1], and how many of them are distinct.
    """

    log_weight: Float[np.ndarray, " m"]
    ess: float
    distinct: int

    def doubt(self, draws: Float[Array | np.ndarray, " n"]) -> Doubt:
        """What the weighted draws leave out, by their log-weights."""
        return doubt_of(self.log_weight, draws, self.distinct)


def doubt_of(forward: Float[Array | np.ndarray, " m"], draws: Float[Array | np.ndarray, " n"], count: int) -> Doubt:
    """Compare the log-weights of m points of the target, `count` of them distinct, with those of n
    weighted draws.

    NaN and +inf are weights beyond any of a draw. Of weights that rounding alone parts, as all are
    where the sampler is the density, none is beyond another. What is drawn at a third of its share
    or more is not left out, however the points differ from the draws there: points of training are
    no independent ones.
    """
    forward = np.sort(np.where(np.isnan(forward), np.inf, np.asarray(forward, np.float64)))
    given = np.asarray(draws, np.float64)
    draws = np.sort(given[(given > -np.inf) & (given < np.inf)])
    if not len(draws) or not len(forward):
        return Doubt(1.0, 0.0, count)
    weight = np.exp(draws - draws[-1])
    mean = draws[-1] + np.log(weight.sum() / len(given))
    weight /= weight.sum()
    # Thresholds are the points themselves: as many as there are from the i-th on are no lower.
    above = 1.0 - np.arange(len(forward)) / len(forward)
    first = np.searchsorted(draws, forward - GRAIN)
    own = np.append(np.cumsum(weight[::-1])[::-1], 0.0)[first]
    squares = np.append(np.cumsum(weight[::-1] ** 2)[::-1], 0.0)[first]
    total = np.sum(weight**2)
    # Of a share that is the ratio of two sums (delta method); of a share of points, with one more
    # above and one more below, so that no share of few has no error.
    of_draws = (1.0 - own) ** 2 * squares + own**2 * (total - squares)
    smooth = (above * count + 1.0) / (count + 2.0)
    error = np.sqrt(smooth * (1.0 - smooth) / count + of_draws)
    sure = np.where(forward > mean + RARE, above - own - SURE * error, -np.inf)
    best = int(np.argmax(sure))
    excess = above[best] - own[best] if sure[best] > 0.0 else 0.0
    return Doubt(float(excess), float(error[best]), count)
