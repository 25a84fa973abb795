"""Intensity of a point process from counts on a grid: many dimensions, one mode."""

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Int

from allmodes.target import Target

VARIANCE, LENGTH = 1.91, 1 / 33  # of the log-intensity; the latter is in units of the square's side
POINTS = 126.0  # expected number, in the whole square
MEAN = math.log(POINTS) - VARIANCE / 2
SEED = 0


def covariance(side: int) -> Float[np.ndarray, "cells cells"]:
    """`VARIANCE exp(-distance / LENGTH)` between the cells of a grid on the unit square."""
    cells = np.stack(np.meshgrid(np.arange(side), np.arange(side), indexing="ij"), -1).reshape(-1, 2) / side
    distance = np.linalg.norm(cells[:, None] - cells, axis=-1)
    return VARIANCE * np.exp(-distance / LENGTH)


def data(side: int = 16, seed: int = SEED) -> Int[np.ndarray, " cells"]:
    """Counts in the cells, drawn from the model itself."""
    rng = np.random.default_rng(seed)
    log_intensity = MEAN + np.linalg.cholesky(covariance(side)) @ rng.normal(size=side**2)
    return rng.poisson(np.exp(log_intensity) / side**2)


def log_gaussian_cox(side: int = 16, seed: int = SEED) -> Target:
    """Build the posterior of a log-Gaussian Cox process on a grid over the unit square, `side^2`
    dimensions (256).

    The counts of cells of area a are Poisson(a exp(x_i)); x is a Gaussian field of mean log 126 -
    1.91 / 2, variance 1.91 and correlation `exp(-33 distance)`. The coordinates are z of
    `x = mean + L z`, L the Cholesky factor of the covariance, with prior Normal(0, I);
    `draws.unravel()` has `log_intensity`, `(side, side)`, per unit of area, and log Z is the
    evidence. Model and constants are those of Møller, Syversveen and Waagepetersen 1998 (Log
    Gaussian Cox processes) as samplers are compared on them since Girolami and Calderhead 2011,
    there on 32 x 32 cells and more, with their counts of pines; here counts are drawn from the
    model.

    One mode, log-concave: NUTS is the tool here. Hard is the dimension alone.

    **Arguments**

    - `side`: cells along each side of the square.
    - `seed`: NumPy's seed for the counts.
    """
    counts, factor, area = data(side, seed), np.linalg.cholesky(covariance(side)), 1.0 / side**2
    constant = float(np.sum(counts * math.log(area) - np.asarray(gammaln(counts + 1.0))))
    constant -= 0.5 * side**2 * math.log(2 * math.pi)

    def log_intensity(z: Float[Array, "side side"]) -> Float[Array, " cells"]:
        return MEAN + jnp.asarray(factor, z.dtype) @ z.reshape(-1)

    def log_prob(parameters: dict[str, Float[Array, "side side"]]) -> Float[Array, ""]:
        z = parameters["z"]
        x = log_intensity(z)
        likelihood = jnp.sum(jnp.asarray(counts, z.dtype) * x - area * jnp.exp(x))
        return likelihood - 0.5 * jnp.sum(z**2) + constant

    def constrain(parameters: dict[str, Array]) -> dict[str, Array]:
        return {"log_intensity": log_intensity(parameters["z"]).reshape(side, side)}

    return Target.of_tree(log_prob, {"z": jnp.zeros((side, side))}, constrain=constrain, name="cox")
