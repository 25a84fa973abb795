"""Maximum mean discrepancy between two sets of draws."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics.metric import SampleMetric

MIXTURE_BANDWIDTHS = (0.01, 0.1, 1.0, 10.0, 100.0)


def _root(x: np.ndarray, y: np.ndarray, bandwidths: Sequence[float] | None) -> float:
    """Square root of the V-statistic for a sum of RBF kernels; the median heuristic for `None`."""
    from scipy.spatial.distance import cdist, pdist

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)
    if n < 1 or m < 1:
        raise ValueError(f"MMD needs points on both sides, got {n} and {m}")
    # Squared distances: each pair once within a set. A point that is not finite is infinitely far
    # from all others.
    within_x, within_y, between = pdist(x, "sqeuclidean"), pdist(y, "sqeuclidean"), cdist(x, y, "sqeuclidean")
    for d2 in (within_x, within_y, between):
        np.copyto(d2, np.inf, where=np.isnan(d2))
    if bandwidths is None:
        median = float(np.sqrt(np.median(within_y))) if within_y.size else 0.0
        bandwidths = (median if 0.0 < median < np.inf else 1.0,)
    total = 0.0
    for h in bandwidths:
        gamma = -0.5 / h**2
        # The diagonal of a set with itself is k(x, x) = 1, and every other pair counts twice.
        total += 1.0 / n + 2.0 * np.exp(gamma * within_x).sum() / n**2
        total += 1.0 / m + 2.0 * np.exp(gamma * within_y).sum() / m**2
        total -= 2.0 * np.exp(gamma * between).mean()
    return float(np.sqrt(max(total, 0.0)))


def mmd(
    x: Float[Array | np.ndarray, "n dim"], y: Float[Array | np.ndarray, "m dim"], bandwidth: float | None = None
) -> float:
    """Square root of the biased (V-statistic) MMD^2 with the kernel `exp(-|a - b|^2 / (2
    bandwidth^2))`.

    `MMD^2 = mean_ij k(x_i, x_j) + mean_ij k(y_i, y_j) - 2 mean_ij k(x_i, y_j)`, diagonals included
    (Gretton et al. 2012, eq. 5). Never negative; between two exact sets of n its square is near
    `2 (1 - E k) / n`, its floor.

    **Arguments**

    - `y`: the reference.
    - `bandwidth`: in units of x; when not given, the median of the pairwise distances within the
      reference y alone, so that the yardstick does not depend on the draws under judgement (1 where
      that median is zero).
    """
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0):
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")
    return _root(x, y, None if bandwidth is None else (bandwidth,))


def mmd_mixture(x: Float[Array | np.ndarray, "n dim"], y: Float[Array | np.ndarray, "m dim"]) -> float:
    """Square root of the biased MMD^2 with the sum of five RBF kernels of bandwidths .01, .1, 1, 10
    and 100.

    The kernel of iDEM's evaluation (Akhound-Sadegh et al. 2024, its `mix_rbf_mmd2`), which reports
    the square. The bandwidths are absolute: it means something only for targets of about unit to
    hundredfold scale.
    """
    return _root(x, y, MIXTURE_BANDWIDTHS)


MMD = SampleMetric(
    name="mmd",
    label="Maximum mean discrepancy",
    meaning="How well a smooth test function could tell the draws from exact ones.",
    function=mmd,
    symmetric=False,  # the bandwidth is that of the exact ones
)
