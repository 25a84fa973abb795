"""Energies of particle configurations, minus their log-densities, which forget what a symmetry
leaves free.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics.metric import Judged, Metric, SampleMetric, is_of_particles
from allmodes.target import Target

BROKEN = 20.0  # above the largest energy of the reference


def energies(target: Target, x: Float[Array | np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
    """Minus the log-density at each configuration."""
    return -np.asarray(jax.jit(target.values)(jnp.asarray(x, jnp.float32)), np.float64)


def energy_w2(x: Float[Array | np.ndarray, " n"], y: Float[Array | np.ndarray, " n"]) -> float:
    """2-Wasserstein distance between two sets of as many energies, rooted (ASBS; iDEM reports its
    square).
    """
    x, y = np.sort(np.asarray(x, np.float64)), np.sort(np.asarray(y, np.float64))
    return float(np.sqrt(np.mean((x - y) ** 2))) if np.all(np.isfinite(x)) else float("inf")


def broken(energy: Float[Array | np.ndarray, " n"], reference: Float[Array | np.ndarray, " m"]) -> float:
    """Share of draws whose energy is more than 20 above the largest of the reference, or not a
    number.
    """
    return float(np.mean(~(np.asarray(energy) <= np.max(reference) + BROKEN)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyMetric(Metric):
    """A figure of the energies of all draws and of as many of the reference: `(ours, reference)` to
    its entry.
    """

    figures: Callable[[np.ndarray, np.ndarray], dict[str, float]]
    applies: Callable[[Target], bool] = is_of_particles

    def entry(self, judged: Judged) -> dict[str, Any] | None:
        """What `figures` gives; None where no draw has any mass."""
        return self.figures(*judged.once("energies", lambda: _both(judged))) if len(judged.equal()) else None


def _both(judged: Judged) -> tuple[np.ndarray, np.ndarray]:
    """Energies of the draws, and of as many of the reference."""
    target, x = judged.target, judged.equal()
    return energies(target, x), energies(target, target.sample(judged.streams("energies"), len(x)))


ENERGY_W2 = SampleMetric(
    name="energy_w2",
    label="Energies, 2\u2011Wasserstein",
    meaning="How far the draws' energies must be moved to be exact ones.",
    function=lambda a, b, target: energy_w2(energies(target, a), energies(target, b)),
    sees_target=True,
    applies=is_of_particles,
)
BROKEN_DRAWS = EnergyMetric(
    name="broken",
    label="Broken draws",
    meaning="The share of draws more than 20 in energy above every reference draw.",
    figures=lambda ours, reference: {"value": broken(ours, reference), "floor": 0.0},
)
MEAN_ENERGY = EnergyMetric(
    name="mean_energy",
    label="Mean energy",
    meaning="Of the draws; the reference's own is in result.json.",
    figures=lambda ours, reference: {"value": float(ours.mean()), "reference": float(reference.mean())},
)
