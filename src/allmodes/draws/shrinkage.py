"""What a nested-sampling run says: weights of its points, log Z with the error of the unknown
volumes, and whether each new point came from all of the volume that was left.

A run is a list of points, each with the log-likelihood at which it died and that above which it was
born (-inf of draws from the prior). The prior mass above a level is not known: each death takes a
random share of it, with expectations that depend on the number of points alive alone
(Skilling 2006).
"""

import numpy as np
from jaxtyping import Array, Float, Int

from allmodes.draws.verdict import DO_NOT_USE, TRUSTED, Finding

SIMULATIONS = 200  # of the volumes: the error of log Z is known to a twentieth
LEVEL = 1e-3  # of the test of insertion ranks: one right run in a thousand fails it
MAX_KINSHIP = 0.1  # correlation of a new point's rank with its parent's, from which on moves are too few


def alive(
    birth: Float[Array | np.ndarray, " n"], death: Float[np.ndarray, " n"]
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The order in which points die, and how many are alive at each death, the dying one included.

    Points that die at one level, all at once or on a plateau, leave one after the other and nothing
    is born there until the last has gone (Fowlie, Handley and Su 2021, arXiv:2010.13884).
    """
    order = np.argsort(death, kind="stable")
    born = np.searchsorted(np.sort(np.asarray(birth, np.float64)), death[order], side="left")
    return order, np.maximum(born - np.arange(len(death)), 1)


def log_weights(
    birth: Float[Array | np.ndarray, " n"], death: Float[Array | np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Log-weights of the points of a run, in the order given, whose mean weight estimates Z.

    Of the i-th death with m_i alive the volume is `1 / m_i prod_{j < i} (1 - 1 / m_j)`: for exact
    draws above each level `mean(exp(log_weight))` is unbiased for Z, however many die at a time
    (Brehier, Lelievre and Rousset 2015, doi:10.1051/ps/2014029).
    """
    death = np.asarray(death, np.float64)
    order, m = alive(birth, death)
    with np.errstate(divide="ignore"):  # above a plateau at the top nothing is left
        left = np.concatenate([[0.0], np.cumsum(np.log1p(-1.0 / m[:-1]))])
    log_weight = np.empty(len(death))
    log_weight[order] = death[order] + left - np.log(m) + np.log(len(death))
    return log_weight


def log_z_error(birth: Float[Array | np.ndarray, " n"], death: Float[Array | np.ndarray, " n"], seed: int) -> float:
    """Standard deviation of log Z over simulated volumes: at each death the largest of m uniform
    shares of the volume is left (Skilling 2006, section 6); about `sqrt(information / m)`.

    It does not know what exploration has missed.
    """
    death, rng = np.asarray(death, np.float64), np.random.default_rng(seed)
    order, m = alive(birth, death)
    level = death[order]

    def simulated() -> float:
        log_left = -rng.exponential(size=len(m)) / m
        outside = np.cumsum(log_left) - log_left
        return float(np.logaddexp.reduce(level + outside + np.log(-np.expm1(log_left))))

    return float(np.std([simulated() for _ in range(SIMULATIONS)], ddof=1))


def of_insertions(ranks: Float[Array | np.ndarray, " n"]) -> Finding:
    """What the ranks of new points among the living say, each as a share in [0, 1], its place
    within its rank random.

    Uniform where a new point comes from all of the volume that is left (Fowlie, Handley and Su
    2020, arXiv:2006.03371), by the distance of Kolmogorov and Smirnov. It sees a part that is not
    reached, and not that moves are too few: the copy of a point above the level has a uniform rank.
    That is what `of_parents` is for.
    """
    from scipy.stats import kstest

    p = float(kstest(np.asarray(ranks, np.float64), "uniform").pvalue)
    text = f"insertion ranks of {len(ranks):,} new points"
    if not p >= LEVEL:
        return Finding(
            DO_NOT_USE, f"{text} are not uniform (p = {p:.1g}): they do not come from all of the volume that was left"
        )
    return Finding(TRUSTED, f"{text} are uniform (p = {p:.2f})")


def of_parents(ranks: Float[Array | np.ndarray, " n"], parents: Float[Array | np.ndarray, " n"]) -> Finding:
    """What the ranks of new points and those of the points that their moves began at say: without
    correlation where moves are enough for a new point to be independent of its parent.
    """
    ranks, parents = np.asarray(ranks, np.float64), np.asarray(parents, np.float64)
    kinship = float(np.corrcoef(ranks, parents)[0, 1])
    text = f"new points take after those that their moves began at (correlation of ranks {kinship:.2f})"
    if kinship > max(MAX_KINSHIP, 4.0 / len(ranks) ** 0.5):
        return Finding(DO_NOT_USE, f"{text}: more moves are needed")
    return Finding(TRUSTED, f"{text.replace('take', 'do not take')}")
