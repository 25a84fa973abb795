"""Figures of weighted values on the host, where pictures and tables are made."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int


def normalised(log_weight: Float[Array | np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Weights of sum one from log-weights; all zero where none has any mass. NaN and +inf carry no
    mass.
    """
    log_weight = np.asarray(log_weight, np.float64)
    log_weight = np.where(log_weight < np.inf, log_weight, -np.inf)
    top = log_weight.max(initial=-np.inf)
    if top == -np.inf:
        return np.zeros(len(log_weight))
    w = np.exp(log_weight - top)
    return w / w.sum()


def quantiles(values: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"], at: Sequence[float]) -> list[float]:
    """Quantiles of values with weights w."""
    order = np.argsort(values)
    share = np.cumsum(w[order])
    return [float(values[order[min(np.searchsorted(share, q * share[-1]), len(values) - 1)]]) for q in at]


def resample(log_weight: Float[np.ndarray, " n"]) -> Int[np.ndarray, " n"] | None:
    """Indices of an equally weighted sample (systematic resampling) in an order of no meaning, or
    None when no draw carries weight.
    """
    share = np.cumsum(normalised(log_weight))
    if not len(share) or share[-1] == 0.0:
        return None
    places = (np.arange(len(share)) + 0.5) / len(share)
    chosen = np.minimum(np.searchsorted(share / share[-1], places), len(share) - 1)
    return np.random.default_rng(0).permutation(chosen)
