"""Variance-exploding noise: x_t = x_0 + sigma(t) eps, with a geometric sigma (Song et al. 2021)
that may dwell.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.errors import ConfigError
from allmodes.settings import check

_TABLE = 1024
PER_ROOT_DIM = 0.36  # of sigma_max: .9 sqrt(dim) in units of the spread, with the default of 2.5


class Noise(eqx.Module):
    """`sigma(t) = sigma_min (sigma_max / sigma_min)^u(t)` for t in [0, 1], in units of the
    normalised target.

    `u(t) = t` unless the schedule dwells: with `dwell` in (0, 1), training points and steps of a
    path are `1 / (1 - dwell)` times as dense around the noise level `dwell_at` and
    `1 / (1 + dwell)` times far from it.
    """

    sigma_min: Scalar
    sigma_max: Scalar
    dwell: float = eqx.field(static=True, default=0.0)
    dwell_at: float = eqx.field(static=True, default=0.25)

    def sigma(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Noise level at time t."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** self._warp(t)

    def time(self, sigma: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Inverse of `sigma`, clipped to [0, 1]: sigma = 0 counts as the lowest level."""
        u = self._share(sigma)
        if not self.dwell:
            return u
        t = jnp.linspace(0.0, 1.0, _TABLE)
        return jnp.interp(u, self._warp(t), t)

    def rate(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """`du/dt`: what a uniform t must be weighted with to stand for a uniform log sigma; its
        mean is one.
        """
        return 1.0 - self.dwell * jnp.cos(2.0 * np.pi * (t - self._centre))

    def grid(self, steps: int) -> Float[Array, " levels"]:
        """Levels of a reverse path of `steps` steps: from sigma_max to sigma_min, even in t, then
        0.
        """
        return jnp.append(self.sigma(jnp.linspace(1.0, 0.0, steps)), 0.0)

    def along(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Noise level at a share t of a path's steps, from its end."""
        return self.sigma(t)

    def _share(self, sigma):
        ratio = jnp.maximum(sigma, self.sigma_min) / self.sigma_min
        return jnp.clip(jnp.log(ratio) / jnp.log(self.sigma_max / self.sigma_min), 0.0, 1.0)

    @property
    def _centre(self):
        # u is its own centre up to the bend's offset, which moves the densest level a little and no
        # more.
        return self._share(jnp.asarray(self.dwell_at))

    def _warp(self, t):
        if not self.dwell:
            return t
        bend = jnp.sin(2.0 * np.pi * (t - self._centre)) + jnp.sin(2.0 * np.pi * self._centre)
        return t - self.dwell / (2.0 * np.pi) * bend


def stratified_times(key: Array, n: int) -> Float[Array, " n"]:
    """N times in increasing order, one uniform in each of n equal strata of [0, 1]."""
    return (jnp.arange(n) + jax.random.uniform(key, (n,))) / n


@dataclasses.dataclass(frozen=True)
class NoiseRange:
    """Which noise levels there are, in units of a target that is not known yet."""

    sigma_max: float = 2.5
    """Highest noise, over the spread of the target: the largest principal one, or more where there
    are many dimensions (0.36 times their root)."""
    sigma_min: float = 0.15
    """Lowest noise, over the narrowest scale of the target."""
    dwell: float = 0.0
    """In [0, 1): how much denser than even in log sigma the schedule is around `dwell_at`, for
    points and for steps."""
    dwell_at: float = 0.25
    """Noise level around which it dwells, over the spread of the target."""

    def __post_init__(self):
        check(self, zero=("dwell",))
        if not self.dwell < 1.0:
            raise ConfigError(f"dwell must lie in [0, 1), got {self.dwell}")


def noise_for(wanted: NoiseRange, z: Float[Array, "n dim"], tau: Float[Array, " dim"], particles: bool) -> Noise:
    """Choose the noise of a density by points z of it and its narrowest scale `tau` along each
    coordinate, in normalised coordinates.
    """
    # An effective width over all coordinates: each may be narrow, the sharpest decides.
    narrowest = jnp.sqrt(1.0 / jnp.mean(1.0 / tau**2))
    sigma_max = wanted.sigma_max * (jnp.ones(()) if particles else _reach(z))
    return Noise(jnp.clip(wanted.sigma_min * narrowest, 1e-5, 0.1), sigma_max, wanted.dwell, wanted.dwell_at)


def _reach(z: Float[Array, "size dim"]) -> Scalar:
    """How much further than the spread of a coordinate noise must reach, for what it makes of the
    target to be normal.

    As far as the largest principal deviation: modes along a diagonal are sqrt(dim) times as far
    apart as each coordinate shows. And with the root of the dimension: modes at random places are
    that far from each other.
    """
    z = z - jnp.mean(z, axis=0)
    widest = jnp.sqrt(jnp.linalg.eigvalsh(z.T @ z / z.shape[0])[-1])
    return jnp.maximum(1.0, jnp.maximum(widest, PER_ROOT_DIM * z.shape[1] ** 0.5))
