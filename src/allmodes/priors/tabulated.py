"""Priors of SciPy, by their quantile functions."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Scalar

from allmodes.chart import Flat, Piece, normal_cdf
from allmodes.errors import TargetError
from allmodes.priors.prior import Prior

END, KNOTS = 8.0, 2049  # of the table of a quantile function: how far it goes in the normal, and its points


@dataclasses.dataclass(frozen=True, eq=False)
class Tabulated(Prior, Piece):
    """A distribution that is known by its quantile function, tabulated over the standard normal
    that it is made of, with cubic pieces between.
    """

    values: Float[np.ndarray, " knots"]
    ends: tuple[float, float] = (-np.inf, np.inf)
    shape = ()
    spread = 1.0
    is_standard = True

    @classmethod
    def of(cls, name: str, frozen: Any) -> "Tabulated":
        """Ask SciPy's distribution, in its own double precision."""
        from scipy.stats import norm as normal

        if not hasattr(frozen, "pdf") or hasattr(frozen.dist, "pmf"):
            raise TargetError(f"prior of {name} is discrete: a density needs continuous parameters")
        z = np.linspace(-END, END, KNOTS)
        lower, upper = frozen.ppf(normal.cdf(z[z < 0])), frozen.isf(normal.sf(z[z >= 0]))
        values = np.concatenate([lower, upper])
        if values.shape != z.shape:
            raise TargetError(f"prior of {name} must be of one number, got one of shape {np.shape(frozen.mean())}")
        if not np.all(np.isfinite(values)) or not np.all(np.diff(values) >= 0):
            raise TargetError(f"prior of {name}: its ppf must rise and be finite between 0 and 1")
        low, high = frozen.support()
        return cls(values, (float(low), float(high)))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Itself."""
        return (self,)

    def to_x(self, z: Float[Array, "1"]) -> Float[Array, "1"]:
        """The quantile."""
        return self._cubic(z[0])[0][None]

    def log_volume(self, z: Float[Array, "1"]) -> Scalar:
        """Of the slope of the quantile."""
        return jnp.log(self._cubic(z[0])[1])

    def to_free(self, key: Array, x: Float[Array, "1"]) -> Float[Array, "1"]:
        """By the table, read the other way round."""
        return jnp.interp(x, jnp.asarray(self.values, x.dtype), jnp.linspace(-END, END, KNOTS, dtype=x.dtype))

    def log_prob(self, value: Array) -> Scalar:
        """That of the normal over the slope."""
        z = self.to_free(jax.random.key(0), value.reshape(1))
        return norm.logpdf(z[0]) - self.log_volume(z)

    def flats(self, x: Float[np.ndarray, "n 1"], z: Float[np.ndarray, "n 1"]) -> list[Flat | None]:
        """By the normal that it is made of."""
        sides = zip(("lower", "upper"), self.ends, strict=True)
        low, high = (f"{side} bound {end:g}" if np.isfinite(end) else "" for side, end in sides)
        return [Flat(normal_cdf(z[:, 0]), low, high)]

    def _cubic(self, z: Scalar) -> tuple[Scalar, Scalar]:
        """Value and slope: Hermite's pieces with slopes that keep them rising (Fritsch and
        Carlson).
        """
        step = 2.0 * END / (KNOTS - 1)
        slopes = jnp.asarray(_slopes(self.values, step), z.dtype)
        values = jnp.asarray(self.values, z.dtype)
        inside = jnp.clip(z, -END, END)
        i = jnp.clip(jnp.floor((inside + END) / step).astype(int), 0, KNOTS - 2)
        t = (inside + END) / step - i
        rise, m0, m1 = (values[i + 1] - values[i]) / step, slopes[i], slopes[i + 1]
        value = values[i] + step * t * (m0 + t * (3 * rise - 2 * m0 - m1 + t * (m0 + m1 - 2 * rise)))
        slope = m0 + t * (2 * (3 * rise - 2 * m0 - m1) + 3 * t * (m0 + m1 - 2 * rise))
        slope = jnp.maximum(slope, jnp.finfo(z.dtype).tiny)
        return value + slope * (z - inside), slope


def _slopes(values: Float[np.ndarray, " knots"], step: float) -> Float[np.ndarray, " knots"]:
    """At each knot: the harmonic mean of the slopes on both sides."""
    rise = np.diff(values) / step
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = 2.0 / (1.0 / rise[1:] + 1.0 / rise[:-1])
    return np.concatenate([rise[:1], np.nan_to_num(inner), rise[-1:]])
