"""Curved densities in two dimensions, with exact draws."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from allmodes.errors import TargetError
from allmodes.target import Modes, Target
from allmodes.targets.components import Components, Numbers


def ring_log_z(radius: float, width: float) -> float:
    """Log of the integral over the plane of `exp(-(|x| - radius)^2 / (2 width^2))`, in closed
    form.
    """
    inner = width**2 * math.exp(-(radius**2) / (2 * width**2))
    return math.log(2 * math.pi * (inner + radius * width * _SQRT_2PI * _normal_cdf(radius / width)))


def ring(radius: float = 3.0, width: float = 0.25) -> Target:
    """`log_prob(x) = -(|x| - radius)^2 / (2 width^2)`, unnormalised; `log_z` is `ring_log_z`."""
    return rings((radius,), width, log_z=ring_log_z(radius, width), name="ring")


def rings(
    radii: tuple[float, ...] = (1.0, 3.0),
    width: float = 0.15,
    weights: Numbers | None = None,
    log_z: float = 0.0,
    name: str = "rings",
) -> Target:
    """Concentric rings: `log_prob(x) = log_z + log sum_k w_k exp(-(|x| - radii_k)^2 / (2 width^2))
    / Z_k`.

    `Z_k` is `exp(ring_log_z(radii_k, width))`; by default `weights` follow the circumference, so
    that all rings are equally dense. Draws: a ring, an angle, and a radius by inverting its
    closed-form distribution function. Modes: the rings. The gradient at the origin, where |x| has a
    kink, is taken as zero.
    """
    radius = np.asarray(radii, float)
    w = radius if weights is None else np.asarray(weights, float)
    if radius.ndim != 1 or w.shape != radius.shape or not width > 0 or np.any(radius <= 0) or np.any(w <= 0):
        raise TargetError("radii, weights and width must be positive, with one weight for each radius")
    const = np.log(w / w.sum()) - np.array([ring_log_z(r, width) for r in radius])

    def log_prob(x: Float[Array, "2"]) -> Float[Array, ""]:
        sq = jnp.sum(x**2)
        r = jnp.where(sq > 0, jnp.sqrt(jnp.where(sq > 0, sq, 1.0)), 0.0)
        z = (r - jnp.asarray(radius, x.dtype)) / width
        return logsumexp(jnp.asarray(const + log_z, x.dtype) - 0.5 * z**2)

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n 2"]:
        return _draw_rings(key, n, radius, np.cumsum(w / w.sum())[:-1], width)

    def label(r: np.ndarray) -> np.ndarray:
        return np.argmax(const - 0.5 * ((r[:, None] - radius) / width) ** 2, axis=1)

    def assign(x: Float[Array | np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
        r = np.linalg.norm(np.asarray(x, float), axis=1)
        k = label(r)
        return np.where(np.abs(r - radius[k]) <= 5 * width, k, -1)

    r = np.linspace(0.0, radius.max() + 10 * width, 100_001)  # each ring's mass, by quadrature, in case they touch
    density = 2 * np.pi * r * np.exp(const - 0.5 * ((r[:, None] - radius) / width) ** 2).sum(1)
    masses = np.bincount(label(r), density, minlength=len(radius))
    means = np.stack([radius, np.zeros_like(radius)], axis=1)
    modes = Modes(weights=masses / masses.sum(), assign=assign, means=means)
    return Target(log_prob, 2, name, sample=sample, log_z=float(log_z), modes=modes)


def two_moons(std: float = 0.1, points: int = 64) -> Target:
    """Two interleaved half circles of radius 1, with the geometry of scikit-learn's `make_moons`.

    Each moon is `points` equal isotropic Gaussians along its arc, by default half a standard
    deviation apart, so that draws and `log_z = 0` are exact: arcs `(cos t, sin t)` and
    `(1 - cos t, 1/2 - sin t)`, t from 0 to pi. Modes: the moons, half of the mass each by symmetry.
    """
    t = np.linspace(0, np.pi, points)
    upper = np.stack([np.cos(t), np.sin(t)], axis=1)
    components = Components.make(np.concatenate([upper, [1.0, 0.5] - upper]), std**2)

    def assign(x: Float[Array | np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
        k = components.assign(x)
        return np.where(k < 0, -1, k // points)

    modes = Modes(weights=np.full(2, 0.5), assign=assign, means=components.means[[points // 2, points + points // 2]])
    return Target(components.log_prob(0.0), 2, "two-moons", sample=components.sample, log_z=0.0, modes=modes)


_SQRT_2PI = math.sqrt(2 * math.pi)


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _mass_below(r, R, width):
    """Integral from 0 to r of `s exp(-(s - R)^2 / (2 width^2)) ds`."""
    edge = jnp.exp(-0.5 * (R / width) ** 2) - jnp.exp(-0.5 * ((r - R) / width) ** 2)
    return width**2 * edge + R * width * _SQRT_2PI * (ndtr((r - R) / width) - ndtr(-R / width))


@partial(jax.jit, static_argnames="n")
def _draw_rings(key, n, radii, below, width):
    which, u, turn = jax.random.uniform(key, (3, n))
    R = radii[jnp.searchsorted(below, which, side="right")]
    goal = u * _mass_below(jnp.inf, R, width)

    def halve(_, bounds):
        low, high = bounds
        middle = (low + high) / 2
        right = _mass_below(middle, R, width) < goal
        return jnp.where(right, middle, low), jnp.where(right, high, middle)

    low, high = jax.lax.fori_loop(0, 40, halve, (jnp.zeros_like(R), R + 10 * width))
    angle = 2 * math.pi * turn
    return ((low + high) / 2)[:, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=1)
