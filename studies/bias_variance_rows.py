"""Rows of the study of bias and variance: measurements beside theory, fitted where the theory is to
hold.
"""

from typing import Any

import numpy as np

from studies import bias_variance_measure as measure
from studies.bias_variance_measure import Stat
from studies.bias_variance_theory import Exact


def fresh_row(name: str, sizes: np.ndarray, stats: list[Stat], theory: dict[str, Any]) -> dict[str, Any]:
    """Bias (root mean square over x_t; the mean, for the log-density) and variance against K, with
    theory and fits.

    Slopes are fitted over K >= 4 max rho, where theory is to hold, and above what float32 rounds;
    biases only where they exceed three standard errors.
    """
    mean, square, variance = stats
    scalar = name == "log_density"
    floor = 1e-12 if scalar else theory["rounding"]
    bias_k, variance_k = theory["leading"][name]
    holds = sizes >= 4.0 * theory["rho"].max()
    bias = Stat(-mean.value, -mean.without) if scalar else square
    clear = (bias.value > 3.0 * bias.se) & (bias.value > (1e-5 if scalar else 10.0 * floor))
    slope = measure.fit(sizes, bias, holds & clear)
    if slope and not scalar:
        slope |= {"slope": slope["slope"] / 2.0, "se": slope["se"] / 2.0}
    root = np.sqrt(np.where(clear, bias.value, np.nan))
    return {
        "K": sizes,
        "bias": mean.value if scalar else root,
        "bias_se": mean.se if scalar else square.se / (2.0 * root),
        "bias_clear": clear,
        "bias_theory": bias_k / sizes if scalar else np.sqrt(bias_k) / sizes,
        "bias_fit": slope,
        "variance": variance.value,
        "variance_se": variance.se,
        "variance_theory": variance_k / sizes,
        "variance_rounding": floor,
        "variance_fit": measure.fit(sizes, variance, holds & (variance.value > 30.0 * floor)),
        "in_regime": holds,
    }


def stored_row(
    target: Exact, sigma: float, single: dict[str, Any], fresh: dict[str, Any], sizes: np.ndarray, s: int
) -> dict[str, Any]:
    """The one stored draw: its bias in standard errors, its variance, the fresh draws of the same
    mean squared error.

    `worth` is interpolated in log K; null where more draws would be needed than were drawn, or
    where the variance is float32's rounding.
    """
    row, gate = {}, target.var / (target.var + sigma**2)
    gaussian = {"tsi": np.mean(sigma**2 / target.var), "dsi": np.mean(target.var / sigma**2), "blend": 0.0}
    for name, (_, square, variance) in single.items():
        sound = variance.value > 1e-8 * (gate.mean() / sigma**2 if name == "blend" else 0.0)
        _, bias2, spread = fresh[name]
        above = np.log(np.maximum(bias2.value[s] + spread.value[s], 1e-300) / max(float(variance.value), 1e-300))
        below, worth = np.flatnonzero(above <= 0), None
        if sound and len(below):
            k = below[0]
            worth = 1.0 if k == 0 else float(np.exp(np.interp(0.0, above[[k, k - 1]], np.log(sizes[[k, k - 1]]))))
        row[name] = {
            "bias2_z": square.value / square.se if sound else None,
            "variance": variance.value,
            "variance_se": variance.se,
            "variance_theory": gaussian[name] if len(target.weights) == 1 else None,
            "worth": worth,
        }
    return row


def onset(pairs: np.ndarray) -> list[dict[str, Any]]:
    """Variance over its 1/K law at single x_t, against K / rho: median and central 80 % in bins a
    factor 4 wide.
    """
    out = []
    for low in range(-12, 13, 2):
        inside = pairs[1][(pairs[0] >= low) & (pairs[0] < low + 2)]
        if len(inside) >= 20:
            q = np.quantile(inside, [0.1, 0.5, 0.9])
            out.append({"K_over_rho": 2.0 ** (low + 1), "low": q[0], "median": q[1], "high": q[2], "n": len(inside)})
    return out


def growth(result: dict[str, Any]) -> list[dict[str, Any]]:
    """How the variance of the log-densities grows with d: slope of `log(1 + n var)` in d, at the
    largest n.
    """
    out = []
    for name, rows, n in (("draws", result["fresh"], "K"), ("buffer", result["buffer"], "L")):
        for sigma in sorted({row["sigma"] for row in rows}):
            points = []
            for row in rows:
                if (
                    row["target"] != "gaussian"
                    or row["sigma"] != sigma
                    or row.get("estimator", "log_density") != "log_density"
                ):
                    continue
                excess, size = row["rho_max"] if n == "K" else row["excess"], row[n][-1]
                if size >= 4.0 * excess:
                    v, se = size * row["variance"][-1], size * row["variance_se"][-1]
                    points.append((row["dim"], np.log1p(v), se / (1.0 + v)))
            if len(points) >= 3:
                d, y, se = np.asarray(points).T
                slope, cov = np.polyfit(d, y, 1, w=1.0 / se, cov="unscaled")
                theory = np.log1p(sigma**2 if n == "K" else sigma**-2)
                out.append(
                    {
                        "what": name,
                        "sigma": sigma,
                        "slope": slope[0],
                        "se": np.sqrt(cov[0, 0]),
                        "theory": theory,
                        "dims": d,
                    }
                )
    return out
