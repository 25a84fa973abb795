"""One step of expectation maximisation of a mixture, by points of the density and their
gradients.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from allmodes.devices.blocks import batched_map
from allmodes.points.buffer import Buffer
from allmodes.points.mixture import GaussianMixture

AT_A_TIME = 1024  # points
MANY = 2.0  # points for each dimension that tell a shape
WIDTH_OF_FEW = 0.7  # of a shape of fewer points, over the usual one, at least
NARROWEST = 1e-7  # variance along an axis, over that of the widest


def refit(mixture: GaussianMixture, points: Buffer) -> GaussianMixture:
    """The mixture whose components have the shapes of the points that they are responsible for, and
    shares between those they had and those of the points.

    A component's shape is that of its points, or that which gradients show as well
    (`shapes.shape_of`), whichever explains them better: `log p - log N` varies less. As a
    component with few points knows little of its shape, `dim` points more have the one it had.
    """
    z, dim = points.z, points.z.shape[1]
    log_parts = batched_map(lambda one: mixture.log_parts(mixture.along(one)), z, AT_A_TIME)
    share = jax.nn.softmax(log_parts, axis=1)

    def one(args):
        r, mean, axes, variance = args
        n = jnp.sum(r)
        r = r / jnp.maximum(n, 1e-9)
        known = n / (n + dim)
        old, inverse = (axes * variance) @ axes.T, (axes / variance) @ axes.T
        middle, slope = r @ z, r @ points.grad
        middle = mean + known * (middle - mean)
        away, turn = z - middle, points.grad - slope
        by_points = known * (away * r[:, None]).T @ away + (1.0 - known) * old
        by_slopes = known * (turn * r[:, None]).T @ turn + (1.0 - known) * inverse
        both = _geometric_mean(by_points, by_slopes)
        shapes = [(middle, *_eigen(by_points)), (middle + known * both @ slope, *_eigen(both))]
        explained = jnp.array([_spread(points, r, shape) for shape in shapes])
        best = jnp.where(explained[1] < explained[0], 1, 0)
        return (*jax.tree.map(lambda a, b: jnp.where(best, b, a), *shapes), n)

    mean, axes, variance, n = jax.lax.map(one, (share.T, mixture.mean, mixture.axes, mixture.variance))
    # Points that are too few for a shape would shrink it onto themselves.
    many, width = n >= MANY * dim, jnp.mean(jnp.log(variance), axis=1)
    least = jnp.exp(jnp.nanmedian(jnp.where(many, width, jnp.nan))) * WIDTH_OF_FEW**2
    variance = jnp.where(many[:, None] | jnp.isnan(least), variance, jnp.maximum(variance, least))
    log_share = jnp.logaddexp(jnp.log(n / len(z)), mixture.log_share)
    log_share = jnp.where(jnp.isfinite(mixture.log_share), log_share, -jnp.inf)
    return GaussianMixture(log_share - logsumexp(log_share), mean, axes, variance)


def _spread(points: Buffer, r: Float[Array, " n"], shape: tuple) -> Float[Array, ""]:
    """Variance of `log p - log N` over points with weights r."""
    mean, axes, variance = shape
    y = (points.z - mean) @ axes
    excess = points.log_prob + 0.5 * jnp.sum(y**2 / variance, axis=1)
    there = r > 1e-6 * jnp.max(r)
    excess = jnp.where(there, excess, 0.0)
    r = jnp.where(there, r, 0.0) / jnp.sum(jnp.where(there, r, 0.0))
    return r @ (excess - r @ excess) ** 2


def _eigen(covariance: Float[Array, "dim dim"]) -> tuple[Float[Array, "dim dim"], Float[Array, " dim"]]:
    variance, axes = jnp.linalg.eigh(0.5 * (covariance + covariance.T))
    return axes, jnp.maximum(variance, NARROWEST * variance[-1])


def _geometric_mean(a: Float[Array, "dim dim"], b: Float[Array, "dim dim"]) -> Float[Array, "dim dim"]:
    """`a # b^-1`, which is C where a is C and b its inverse."""
    axes, variance = _eigen(a)
    half, back = (axes * jnp.sqrt(variance)) @ axes.T, (axes / jnp.sqrt(variance)) @ axes.T
    del back
    turned, values = _eigen(half @ b @ half)
    middle = half @ turned
    return (middle / jnp.sqrt(values)) @ middle.T
