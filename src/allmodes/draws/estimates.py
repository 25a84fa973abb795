"""What log importance weights say: effective sample size, evidence, bounds, and the heaviness of
their tail.

Throughout, `log_weight` is the log of a ratio *target over proposal*,
`log w = log pi~(x) - log q(x)`, with pi~ unnormalised: of draws from the proposal ("reverse")
unless it is said that they are exact draws ("forward"). A draw with weight zero has -inf; NaN and
+inf carry no mass, as everywhere in the library. Nothing here raises on values.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float

GRAIN = 1e-3  # nats, by which rounding may part log-weights in float32 that are equal


class Estimate(NamedTuple):
    """A figure and its standard error; the error is inf where it cannot be told."""

    value: float
    std_error: float


def _reverse(log_weight: Float[Array | np.ndarray, " n"]) -> np.ndarray:
    log_weight = np.asarray(log_weight, np.float64)
    return np.where(log_weight < np.inf, log_weight, -np.inf)


def _log_sum(log_w: np.ndarray) -> float:
    top = log_w.max()
    return top + np.log(np.exp(log_w - top).sum())


def _mean(values: np.ndarray) -> Estimate:
    n = len(values)
    if n == 0:
        return Estimate(float("nan"), float("inf"))
    if not np.isfinite(values).all():  # one infinite term makes the mean infinite, two of unlike sign undefined
        with np.errstate(invalid="ignore"):
            return Estimate(float(values.sum()), float("inf"))
    return Estimate(float(values.mean()), float(values.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf"))


def ess(log_weight: Float[Array | np.ndarray, " n"]) -> float:
    """Kish's effective sample size, `(sum w)^2 / sum w^2`, in (0, n]; 0 where no draw has any mass.

    Reverse: it sees only where the proposal has draws, and is blind to a missing mode.
    """
    log_w = _reverse(log_weight)
    if log_w.max(initial=-np.inf) == -np.inf:
        return 0.0
    return float(min(np.exp(2.0 * _log_sum(log_w) - _log_sum(2.0 * log_w)), len(log_w)))


def forward_ess(log_weight: Float[Array | np.ndarray, " n"]) -> float:
    """Effective sample size per draw seen from exact draws, `1 / (mean(w) mean(1/w))`, in [0, 1].

    On exact draws `E[w] = Z E_q[(w/Z)^2]` and `E[1/w] = 1/Z`, so this estimates the same
    `E_q[w]^2 / E_q[w^2]` as `ess / n`, but it falls when the proposal misses a mode. 0 where an
    exact draw has no proposal density at all (+inf), or where a weight is NaN or zero.
    """
    log_w = np.asarray(log_weight, np.float64)
    n = len(log_w)
    if n == 0 or not np.isfinite(log_w).all():
        return 0.0
    return float(min(np.exp(2.0 * np.log(n) - _log_sum(log_w) - _log_sum(-log_w)), 1.0))


def elbo(log_weight: Float[Array | np.ndarray, " n"]) -> Estimate:
    """Evidence lower bound `E_q[log w] <= log Z`, from draws of the proposal; -inf if a draw has
    weight zero.
    """
    return _mean(_reverse(log_weight))


def eubo(log_weight: Float[Array | np.ndarray, " n"]) -> Estimate:
    """Evidence upper bound `E_pi[log w] >= log Z`, from exact draws (Ji and Shen 2019; Blessing et
    al. 2024).
    """
    return _mean(np.asarray(log_weight, np.float64))


def log_z(log_weight: Float[Array | np.ndarray, " n"]) -> Estimate:
    """`log mean(w)` from draws of the proposal, with the delta method's standard error.

    `se(log Z^) = sd(w) / (sqrt(n) mean(w)) = sqrt((n / ess - 1) / (n - 1))`. `exp` of it is
    unbiased for Z. The error is itself estimated from the same weights: it is too small where their
    tail is heavy, see `khat`.
    """
    log_w = _reverse(log_weight)
    n, effective = len(log_w), ess(log_weight)
    if effective == 0.0:
        return Estimate(float("-inf"), float("inf"))
    value = float(_log_sum(log_w) - np.log(n))
    error = float(np.sqrt(max(n / effective - 1.0, 0.0) / (n - 1))) if n > 1 else float("inf")
    return Estimate(value, error)


def khat(log_weight: Float[Array | np.ndarray, " n"]) -> float:
    """Pareto k^: the shape of the generalised Pareto distribution fitted to the largest weights, by
    ArviZ.

    The tail is the largest `min(n / 5, 3 sqrt(n))` weights (Vehtari et al. 2024, Pareto smoothed
    importance sampling). Moments of the weights of order below 1/k exist: below 0.5 the variance is
    finite; above 0.7 estimates from the weights are unreliable. ArviZ takes log-likelihoods, the
    negative of log importance ratios, so the sign is turned.

    Where the largest weights are all equal, but for rounding, they are bounded and their tail has
    no spread: 0. Where
    nothing can be fitted, inf: fewer than 25 draws, fewer of them with mass than a tail needs, or a
    quarter of the tail's weights no larger than its threshold (ties, or weights so spread that they
    vanish beside the largest).
    """
    log_w = _reverse(log_weight)
    n = len(log_w)
    tail = int(3 * n**0.5 if n > 225 else n / 5)
    # One weight below the tail must have mass too: it is the threshold that the tail is measured
    # from.
    if tail < 5 or np.count_nonzero(log_w > -np.inf) <= tail:
        return float("inf")
    largest = np.sort(log_w)[-tail - 1 :]  # the threshold, then the tail
    if largest[-1] - largest[1] <= GRAIN:
        return 0.0
    weights = np.exp(largest - largest[-1])
    # The fit starts from the lower quartile of the excesses; at zero it would return its prior, a
    # k^ near nothing.
    if not weights[int(tail / 4 + 0.5)] - weights[0] > 1e-200:
        return float("inf")
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        _, shape = array_stats.psislw(-log_w)
    return float(shape) if np.isfinite(shape) else float("inf")


def beyond_largest(log_weight: Float[Array | np.ndarray, " n"], shape: float) -> float:
    """Share of the weights' sum that draws beyond the largest weight would bring, in [0, 1], by a
    Pareto tail of this `shape` (k^).

    As many draws again have one weight above the largest on average, of mean `largest / (1 - k)`;
    `k / (1 - k)` of the largest are lacking. It tells the order: of Pareto weights the sum lacks
    more than that in about a third of all cases, and more than twice as much in up to a fifth. 1
    where k is 1 or more, as the tail has no mean then.
    """
    if shape <= 0.0:
        return 0.0
    if not shape < 1.0:
        return 1.0
    log_w = _reverse(log_weight)
    return min(1.0, float(np.exp(np.max(log_w) - _log_sum(log_w)) * shape / (1.0 - shape)))


def psis(log_weight: Float[Array | np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Pareto-smoothed log weights (Vehtari et al. 2024), by ArviZ: the largest replaced by expected
    order statistics.

    Of the same sum as the raw ones. Smoothing bounds the variance at the price of a bias that
    vanishes with n; where `khat` is above 0.7 neither can be relied on. Where no tail can be fitted
    the weights come back as they are.
    """
    log_w = _reverse(log_weight)
    shape = khat(log_weight)
    if not 0.0 < shape < np.inf:
        return log_w
    from arviz_stats.base import array_stats

    with np.errstate(all="ignore"):
        smooth, _ = array_stats.psislw(-log_w)
    smooth = np.asarray(smooth, np.float64) + _log_sum(log_w)
    return np.where(log_w > -np.inf, smooth, -np.inf)


def batch_log_z(log_zs: Float[Array | np.ndarray, " batches"]) -> Estimate:
    """Log Z from independent, unbiased estimates of Z, one a batch; the error is inf for a single
    one.

    The spread of few batches is itself uncertain: the error is widened by Student's factor, so that
    1.96 of it each way is a 95 % interval.
    """
    log_zs = np.asarray(log_zs, np.float64)
    batches = len(log_zs)
    pooled = log_z(log_zs)
    if batches < 2:
        return Estimate(pooled.value, float("inf"))
    from scipy.stats import t

    return Estimate(pooled.value, pooled.std_error * float(t.ppf(0.975, batches - 1)) / 1.96)


def _varies(x: Float[np.ndarray, "chains draws dim"]) -> np.ndarray:
    """Which figures are not one number throughout, of which chains say nothing: the log-density of
    an even density.
    """
    return np.any(x != x[:1, :1], axis=(0, 1))


def chain_ess(x: Float[np.ndarray, "chains draws dim"]) -> float:
    """Smallest bulk ESS over the coordinates (Vehtari et al. 2021), by ArviZ, at most the number of
    draws; 0 for NaN.

    Chains stuck in different modes make it small: it compares them with each other.
    """
    from arviz_stats.base import array_stats

    x = x[:, :, _varies(x)]
    if x.shape[1] < 4 or x.shape[2] == 0:
        return 0.0
    least = np.min(array_stats.ess(np.moveaxis(x, 2, 0)))
    return float(min(least, x.shape[0] * x.shape[1])) if np.isfinite(least) else 0.0


def chain_rhat(x: Float[np.ndarray, "chains draws dim"]) -> float:
    """Largest rank-normalised R^ over the coordinates (Vehtari et al. 2021), by ArviZ; inf where it
    is undefined.
    """
    from arviz_stats.base import array_stats

    x = x[:, :, _varies(x)]
    if x.shape[1] < 4 or x.shape[2] == 0:
        return float("inf")
    most = np.max(array_stats.rhat(np.moveaxis(x, 2, 0)))
    return float(most) if np.isfinite(most) else float("inf")
