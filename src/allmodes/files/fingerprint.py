"""Whether a density is still the one that a run or a reference was made from: its values at a few
fixed points.
"""

from collections.abc import Sequence

import jax
import numpy as np

from allmodes.target import Target

SCALES = (1.0, 1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0)  # of the points, one for each
REL, ABS = 1e-3, 1e-3  # float32, other machines and other orders of sums


def fingerprint(target: Target) -> list[float]:
    """The log-density at normal draws of a fixed seed; -inf where it has no mass."""
    target = target.free
    normal = np.random.default_rng(0).normal(size=(len(SCALES), target.dim))
    points = np.asarray(np.asarray(SCALES)[:, None] * normal, np.float32)
    return [float(value) for value in np.asarray(jax.jit(target.values)(points))]


def differing(first: Sequence[float | None], second: Sequence[float | None]) -> tuple[float, float] | None:
    """The two values of log-densities, at the same points, that differ first; None where none do.

    JSON's null is -inf. Constants count: log Z depends on them.
    """
    for one, other in zip(*(np.array([-np.inf if v is None else v for v in f]) for f in (first, second)), strict=False):
        if not np.isclose(one, other, rtol=REL, atol=ABS):
            return float(one), float(other)
    return None
