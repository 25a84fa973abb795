"""Exact optimal transport between two sets of draws."""

import functools
import os
import sys
import threading
import warnings
from types import ModuleType

import numpy as np
from jaxtyping import Array, Float

from allmodes.errors import AllmodesError
from allmodes.metrics.metric import SampleMetric, has_exact_draws

_LOCK = threading.Lock()
_BACKENDS = {"PYTORCH": "torch", "TENSORFLOW": "tensorflow", "CUPY": "cupy"}


@functools.cache
def _pot() -> ModuleType:
    """POT, without its backends of other frameworks where the process has not loaded those itself.

    Importing it takes 1.3 s beside JAX; PyTorch or TensorFlow, where installed, would add seconds,
    memory and messages. Its docstrings hold invalid escape sequences, on which Python warns when it
    first compiles them.
    """
    keys = [f"POT_BACKEND_DISABLE_{key}" for key, module in _BACKENDS.items() if module not in sys.modules]
    keys = [key for key in keys if key not in os.environ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.environ.update(dict.fromkeys(keys, "1"))
        try:
            import ot
        finally:
            for key in keys:
                del os.environ[key]
    return ot


def w2(
    x: Float[Array | np.ndarray, "n dim"],
    y: Float[Array | np.ndarray, "m dim"],
    weights_x: Float[Array | np.ndarray, " n"] | None = None,
    *,
    max_iterations: int = 10_000_000,
) -> float:
    """2-Wasserstein distance between two sets of points, exact, in units of x.

    `sqrt(min_P sum_ij P_ij |x_i - y_j|^2)` over couplings P of the two empirical measures, by the
    network simplex (Bonneel et al. 2011) of POT (Flamary et al. 2021, `ot.emd`): *plain* W2 on raw
    coordinates, as iDEM reports it. Costs are float64 sums of squared differences, so a large
    common shift or a common scale does no harm. A point with a coordinate that is not finite is
    infinitely far away.

    **Arguments**

    - `weights_x`: of the points of x, non-negative, normalised here; equal when not given.
    - `max_iterations`: pivots of the simplex; 2,000 against 2,000 points take about 1e5.

    **Raises** `AllmodesError` when the solver did not converge, `ValueError` for weights that are
    not weights. The solver releases the GIL: calls in several threads run in parallel, about 200 MB
    each at 2,000 points.
    """
    from scipy.spatial.distance import cdist

    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    n, m = len(x), len(y)
    if n == 0 or m == 0:
        raise ValueError(f"W2 needs points on both sides, got {n} and {m}")
    if weights_x is None:
        a = np.full(n, 1.0 / n)
    else:
        a = np.asarray(weights_x, np.float64)
        total = a.sum()
        if not (np.isfinite(total) and total > 0 and a.min() >= 0):
            raise ValueError(f"weights must be finite, non-negative and not all zero; their sum is {total}")
        a = a / total
    if not (np.isfinite(x[a > 0]).all() and np.isfinite(y).all()):
        return float("inf")
    kept = a > 0
    return coupling_cost(cdist(x[kept], y, "sqeuclidean"), a[kept], max_iterations=max_iterations)


def coupling_cost(
    cost: Float[np.ndarray, "n m"],
    weights_x: Float[np.ndarray, " n"] | None = None,
    *,
    max_iterations: int = 10_000_000,
) -> float:
    """Root of the least mean cost over couplings of two sets, the second of equal weights; see
    `w2`.
    """
    n, m = cost.shape
    a = np.full(n, 1.0 / n) if weights_x is None else weights_x
    with _LOCK:  # the warning filters and the environment belong to the whole process
        ot = _pot()
    _, log = ot.emd(a, np.full(m, 1.0 / m), cost, numItermax=max_iterations, log=True)
    if log["warning"] is not None:
        raise AllmodesError(
            f"optimal transport between {n} and {m} points did not converge in {max_iterations} iterations: "
            f"{log['warning']} Raise max_iterations, or judge fewer points at a time."
        )
    return float(np.sqrt(max(float(log["cost"]), 0.0)))


W2 = SampleMetric(
    name="w2",
    label="2\u2011Wasserstein distance",
    meaning="How far the draws must be moved, in units of x, to become exact ones.",
    function=w2,
    applies=has_exact_draws,  # of particles too: the published protocol
)
