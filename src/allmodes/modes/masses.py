"""The share of the mass in each basin with its standard error: from a mixture, from populations,
from a sampler.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from allmodes.draws.estimates import Estimate, log_z
from allmodes.points.weighted import normalised


class Shares(NamedTuple):
    """Shares of the basins, the last of what belongs to none, with standard errors; of how many
    effective draws.
    """

    mass: Float[np.ndarray, " basins"]
    std_error: Float[np.ndarray, " basins"]
    effective: float


def of_mixture(
    log_weight: Float[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    stratum: Int[np.ndarray, " n"],
    basins: int,
) -> tuple[Shares, Estimate]:
    """Self-normalised importance sampling from a mixture whose components were drawn in fixed
    numbers; and log Z.

    The delta method: the error of `sum w 1_b / sum w` is that of the mean of `w (1_b - m_b)` over
    the mean of w, whose variance is the sum of those within strata. With whole components in single
    basins it is far below that of independent draws: how many fall in a basin is no longer chance.
    """
    w = np.exp(log_weight - log_weight.max())
    strata, n, total = int(stratum.max()) + 1, len(w), w.sum()
    cell = stratum * basins + label
    first, second = (np.bincount(cell, w**power, minlength=strata * basins).reshape(strata, basins) for power in (1, 2))
    size = np.bincount(stratum, minlength=strata).astype(float)
    mass = first.sum(0) / total

    def spread(sums, squares):
        """Standard error of the total, from sums of terms and of their squares in each stratum."""
        used = np.maximum(size, 2.0)[:, None]
        variance = np.maximum(squares - sums**2 / np.maximum(size, 1.0)[:, None], 0.0) * used / (used - 1.0)
        return np.sqrt(variance.sum(0)) / total

    sums = first - mass * first.sum(1, keepdims=True)
    squares = second * (1.0 - 2.0 * mass) + mass**2 * second.sum(1, keepdims=True)
    error = np.maximum(spread(sums, squares), 1.0 / n)  # no figure is known to better than one draw
    evidence_error = float(spread(first.sum(1, keepdims=True), second.sum(1, keepdims=True))[0])
    evidence = Estimate(float(np.log(w.mean()) + log_weight.max()), evidence_error)
    return Shares(mass, error, float(total**2 / (w**2).sum())), evidence


def of_populations(
    labels: list[Int[np.ndarray, " n"]], log_zs: Float[np.ndarray, " p"], basins: int
) -> tuple[Shares, Estimate]:
    """Shares over independent populations of SMC, each weighted with its estimate of Z; errors from
    their spread.

    Few populations know their spread badly: the error is widened so that three of it each way hold
    what three standard errors of a normal do (Student). Where no population has a point nothing can
    be told, and the error is infinite.
    """
    from scipy.stats import norm, t

    p = len(labels)
    share = np.array([np.bincount(label, minlength=basins) / len(label) for label in labels])
    w = np.exp(log_zs - log_zs.max())
    mass = w @ share / w.sum()
    factor = float(t.ppf(norm.cdf(3.0), p - 1)) / 3.0
    residual = w[:, None] * (share - mass)
    error = factor * np.sqrt((residual**2).sum(0) * p / (p - 1)) / w.sum()
    points = sum(len(label) for label in labels)
    error = np.where(share.any(axis=0), np.maximum(error, np.sqrt(mass * (1 - mass) / points)), np.inf)
    pooled = log_z(log_zs)
    return Shares(mass, error, float(points)), Estimate(pooled.value, factor * pooled.std_error)


def of_draws(
    log_weight: Float[np.ndarray, " n"], label: Int[np.ndarray, " n"], basins: int, effective: float
) -> Shares:
    """Shares of independent weighted draws (delta method), or of equal ones of which `effective`
    are (binomial).

    No error is less than one effective draw.
    """
    w = normalised(log_weight)
    mass = np.bincount(label, w, minlength=basins)
    n, effective = len(w), max(effective, 1.0)
    if np.all(log_weight == log_weight[0]):
        variance = mass * (1.0 - mass) / effective
    else:
        squares = np.bincount(label, w**2, minlength=basins)
        variance = (squares * (1.0 - 2.0 * mass) + mass**2 * (w**2).sum()) * n / max(n - 1, 1)
    return Shares(mass, np.maximum(np.sqrt(np.maximum(variance, 0.0)), 1.0 / effective), effective)
