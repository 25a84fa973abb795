"""One step of expectation maximisation of a mixture, by points of the density and their
gradients.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Scalar

from allmodes.points.buffer import Buffer
from allmodes.points.mixture import GaussianMixture

MANY = 2.0  # points for each dimension that tell a shape
WIDTH_OF_FEW = 0.7  # of a shape of fewer points, over the usual one, at least
SMALLEST = 1e-6  # weight of a point that tells how well a shape explains, over the largest
NOISE = 10.0  # nats below all mass, of what is nobody's: all over the volume of the points
NARROWEST = 1e-7  # variance along an axis, over that of the widest


class _Shape(NamedTuple):
    """Mean, axes and variances along them of a component."""

    mean: Float[Array, " dim"]
    axes: Float[Array, "dim dim"]
    variance: Float[Array, " dim"]

    @property
    def covariance(self) -> Float[Array, "dim dim"]:
        return (self.axes * self.variance) @ self.axes.T

    @property
    def precision(self) -> Float[Array, "dim dim"]:
        return (self.axes / self.variance) @ self.axes.T

    def spread(self, points: Buffer, r: Float[Array, " n"]) -> Scalar:
        """Variance of `log p - log N` over points with weights r of sum one."""
        y = (points.z - self.mean) @ self.axes
        excess = points.log_prob + 0.5 * jnp.sum(y**2 / self.variance, axis=1)
        there = (r > SMALLEST * jnp.max(r)) & (points.log_prob > -jnp.inf)
        r, excess = jnp.where(there, r, 0.0), jnp.where(there, excess, 0.0)
        return r @ (excess - r @ excess / jnp.sum(r)) ** 2 / jnp.sum(r)


def refit(mixture: GaussianMixture, points: Buffer) -> GaussianMixture:
    """The mixture whose components have the shapes of the points that they are responsible for, and
    shares between those they had and those of the points.

    A component's shape is that of its points, or that which gradients show as well
    (`search/shapes.py`), whichever explains them better: `log p - log N` varies less. As a
    component with few points knows little of its shape, `dim` points more have the one it had.
    Points far from all components are noise to them (Banfield and Raftery 1993).
    """
    dim = points.z.shape[1]
    noise = jnp.full((points.size, 1), log_noise(points))
    share = jax.nn.softmax(jnp.concatenate([mixture.log_joint(points.z), noise], axis=1), axis=1).T[:-1]
    old = _Shape(mixture.mean, mixture.axes, mixture.variance)
    new = jax.lax.map(lambda args: _shape(points, *args), (share, old))
    # Points that are too few for a shape would shrink it onto themselves.
    n = jnp.sum(share, axis=1)
    many, width = n >= MANY * dim, jnp.mean(jnp.log(new.variance), axis=1)
    least = jnp.exp(jnp.nanmedian(jnp.where(many, width, jnp.nan))) * WIDTH_OF_FEW**2
    variance = jnp.where(many[:, None] | jnp.isnan(least), new.variance, jnp.maximum(new.variance, least))
    log_share = jnp.logaddexp(jnp.log(n / points.size), mixture.log_share)
    log_share = jnp.where(jnp.isfinite(mixture.log_share), log_share, -jnp.inf)
    return GaussianMixture(log_share - logsumexp(log_share), new.mean, new.axes, variance)


def log_noise(points: Buffer) -> Scalar:
    """Log-density of next to no mass in a region as wide as all points: where a density is below it
    there is none that counts, however wide the region is.
    """
    return -NOISE - 0.5 * jnp.sum(jnp.log(2.0 * jnp.pi * jnp.e * jnp.var(points.z, axis=0) + 1e-30))


def _shape(points: Buffer, r: Float[Array, " n"], old: _Shape) -> _Shape:
    """The shape of points that are a component's by weights r."""
    n = jnp.sum(r)
    # Draws of a mixture have no gradient where the density has none, points of a search do.
    sloped = r * jnp.any(points.grad != 0.0, axis=1)
    n_sloped, dim = jnp.sum(sloped), points.z.shape[1]
    r, known = r / jnp.maximum(n, 1e-9), n / (n + dim)
    sloped, known_sloped = sloped / jnp.maximum(n_sloped, 1e-9), n_sloped / (n_sloped + dim)
    mean = old.mean + known * (r @ points.z - old.mean)
    away = points.z - mean
    by_points = known * (away * r[:, None]).T @ away + (1.0 - known) * old.covariance
    slope = sloped @ points.grad
    turn = points.grad - slope
    by_slopes = known_sloped * (turn * sloped[:, None]).T @ turn + (1.0 - known_sloped) * old.precision
    both = _geometric_mean(by_points, by_slopes)
    plain = _Shape(mean, *eigen(by_points))
    by_gradients = _Shape(mean + known * both @ slope, *eigen(both))
    is_better = by_gradients.spread(points, r) < plain.spread(points, r)
    return jax.tree.map(lambda a, b: jnp.where(is_better, a, b), by_gradients, plain)


def eigen(covariance: Float[Array, "dim dim"]) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
    """Axes of a covariance and the variances along them, none of next to nothing."""
    variance, axes = jnp.linalg.eigh(0.5 * (covariance + covariance.T))
    return axes, jnp.maximum(variance, NARROWEST * variance[-1])


def _geometric_mean(a: Float[Array, "dim dim"], b: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """`a # b^-1`, which is C where a is C and b its inverse."""
    axes, variance = eigen(a)
    half = (axes * jnp.sqrt(variance)) @ axes.T
    turned, values = eigen(half @ b @ half)
    middle = half @ turned
    return (middle / jnp.sqrt(values)) @ middle.T
