"""Densities whose support ends, written as strangers write them: -inf or NaN outside of it."""

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from scipy import special

import allmodes as am
from benchmarks.cases.case import Case, Regions
from benchmarks.cases.mixtures import LOG_2PI


def corner():
    """Half of the mass spread over a box in 3-D, half in a corner of it."""
    width, dim = 0.05, 3
    log_part = math.log(width * (1 - math.exp(-1 / width)))

    def log_prob(x):
        inside = jnp.all((x >= 0) & (x <= 1))
        return jnp.where(inside, math.log(0.5) + jnp.logaddexp(0.0, -jnp.sum(x) / width - dim * log_part), -jnp.inf)

    def draw(rng, n):
        even = rng.random((n, dim))
        steep = -width * np.log1p(-even * (1 - math.exp(-1 / width)))
        return np.where((rng.random(n) < 0.5)[:, None], rng.random((n, dim)), steep)

    return Case(am.Target(log_prob, dim), 0.0, draw, coords=(0, 2))


def simplex():
    """A Dirichlet distribution of four parts, by three of them."""
    alpha = np.array([1.5, 2.5, 4.0, 2.0])

    def log_prob(x):
        parts = jnp.append(x, 1 - jnp.sum(x))
        inside = jnp.all(parts > 0)
        powers = jnp.asarray(alpha - 1, x.dtype) * jnp.log(jnp.where(parts > 0, parts, 1.0))
        return jnp.where(inside, jnp.sum(powers), -jnp.inf)

    log_z = float(special.gammaln(alpha).sum() - special.gammaln(alpha.sum()))
    return Case(am.Target(log_prob, 3), log_z, lambda rng, n: rng.dirichlet(alpha, n)[:, :3], coords=(0, 1, 2))


def circles():
    """Two modes on a torus that is cut where one of them is, by von Mises distributions."""
    at, kappa, weights = np.array([[math.pi - 0.2, -0.5], [0.0, 1.5]]), np.array([10.0, 14.0]), np.array([0.65, 0.35])
    const = np.log(weights) - 2 * (LOG_2PI + np.log(special.i0e(kappa)))

    def log_prob(x):
        inside = jnp.all(jnp.abs(x) <= math.pi)
        off = jnp.sum(jnp.cos(x - jnp.asarray(at, x.dtype)) - 1, axis=1)
        return jnp.where(inside, logsumexp(jnp.asarray(const, x.dtype) + jnp.asarray(kappa, x.dtype) * off), -jnp.inf)

    def draw(rng, n):
        which = rng.choice(2, n, p=weights)
        return np.stack([rng.vonmises(at[which, c], kappa[which]) for c in range(2)], axis=1)

    def assign(x):
        return np.where(np.abs(x[:, 0]) < 1.4, 0, np.where(x[:, 0] > 0, 1, 2))

    shares = np.bincount(assign(draw(np.random.default_rng(99), 1_000_000)), minlength=3) / 1e6
    return Case(am.Target(log_prob, 2), 0.0, draw, Regions(shares, assign))


def gammas():
    """Gamma distributions in 4-D, NaN below zero, as written naively."""
    shape = np.array([1.5, 2.5, 3.5, 6.0])

    def log_prob(x):
        return jnp.sum(jnp.asarray(shape - 1, x.dtype) * jnp.log(x) - x)

    log_z = float(special.gammaln(shape).sum())
    return Case(am.Target(log_prob, 4), log_z, lambda rng, n: rng.gamma(shape, size=(n, 4)), coords=(0, 3))
