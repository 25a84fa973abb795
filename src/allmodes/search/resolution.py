"""Which coordinates and parameters float32 does not resolve: an epoch of 2,459,000 days has a
spacing of 6 hours.
"""

import warnings

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.draws import export
from allmodes.points.frame import Frame
from allmodes.target import Target

LEAST = 64.0  # spacings of float32 in the standard deviation of a coordinate: fewer show in averages
_POINTS = 1024


def coarse(target: Target, frame: Frame, z: Float[Array, "n free"]) -> list[str]:
    """The names of the coordinates and parameters of points z that float32 makes steps of; none of
    a float64 density.

    A parameter that is mapped from elsewhere, as NumPyro's are, may lose in the map what the
    coordinate has: so the named values are looked at too.
    """
    if target.double:
        return []
    x = frame.to_x(z[:_POINTS])
    seen = {f"x[{i}]": np.asarray(x[:, i], np.float64) for i in range(target.dim)}
    if target.parameters is not None:
        named = export.variables(x, jax.jit(target.parameters)(x))
        seen = export.columns(named) | {name: values for name, values in seen.items() if _steps(values)}
    return [name for name, values in seen.items() if _steps(values)]


def _steps(values: Float[np.ndarray, " n"]) -> bool:
    if not np.isfinite(values).all():
        return False
    deviation, spacing = values.std(), float(np.spacing(np.float32(np.median(np.abs(values)))))
    return bool(deviation < LEAST * spacing and np.abs(np.median(values)) > 0.0)


def warn_if_coarse(target: Target, frame: Frame, z: Float[Array, "n free"]) -> None:
    """Warn of the same, by name, and say what helps."""
    names = coarse(target, frame, z)
    if names:
        warnings.warn(
            f"float32 does not resolve {', '.join(names)}: the values are so large against their spread that draws "
            "take only a few. Measure from a nearby origin (subtract a constant), use other units, or switch on "
            "jax_enable_x64",
            stacklevel=3,
        )
