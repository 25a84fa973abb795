"""Mixtures of normals: many modes, unequal scales, correlated and exchanged coordinates."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp

import allmodes as am
from allmodes.targets import get
from allmodes.targets.mixture import random_mixture
from allmodes.targets.warped import warped_mixture
from benchmarks.cases.case import Case, Regions

LOG_2PI = np.log(2 * np.pi)


def normals(weights, means, sds):
    """The log-density of a mixture of normals with diagonal covariances, its draws, and the nearest
    of its means, in units of its deviations."""
    weights, means = np.asarray(weights, float), np.asarray(means, float)
    weights, dim = weights / weights.sum(), means.shape[1]
    sds = np.broadcast_to(np.asarray(sds, float).reshape(len(means), -1), means.shape)
    const = np.log(weights) - np.log(sds).sum(axis=1) - 0.5 * dim * LOG_2PI
    as_jax = [jnp.asarray(a, jnp.float32) for a in (means, sds, const)]

    def log_prob(x):
        means, sds, const = as_jax
        return logsumexp(const - 0.5 * jnp.sum(((x - means) / sds) ** 2, axis=1))

    def draw(rng, n):
        which = rng.choice(len(weights), n, p=weights)
        return means[which] + sds[which] * rng.standard_normal((n, dim))

    def assign(x):
        squares = np.stack([(((x - mean) / sd) ** 2).sum(axis=1) for mean, sd in zip(means, sds, strict=True)], axis=1)
        return (squares + 2 * np.log(sds).sum(axis=1)).argmin(axis=1)

    return log_prob, draw, assign


def of_target(target, coords=(0, 1)):
    """A density of the library, by what it knows itself; as a stranger would give it."""

    def draw(rng, n):
        return np.asarray(target.sample(jax.random.key(int(rng.integers(2**31))), n), float)

    regions = None if target.modes is None else Regions(np.asarray(target.modes.weights), target.modes.assign)
    plain = am.Target(target.log_prob, target.dim, name=target.name)
    return Case(plain, target.log_z, None if target.sample is None else draw, regions, coords)


def gmm40():
    """40 equal modes in 2-D."""
    return of_target(get("gmm40"))


def mixture_8d():
    """Eight modes of unequal weights and shapes in 8-D."""
    return of_target(random_mixture(7, 8, 8))


def mixture_10d():
    """25 modes of unequal weights and shapes in 10-D."""
    return of_target(random_mixture(7, 25, 10))


def warped():
    """Eight skewed, bent modes of heavy tails in 4-D."""
    return of_target(warped_mixture(904, 8, 4))


def two_5d():
    """Two modes of unequal weights and widths in 5-D."""
    log_prob, draw, assign = normals([0.3, 0.7], [[4.0] * 5, [-4.0] * 5], [0.7, 1.0])
    return Case(am.Target(log_prob, 5), 0.0, draw, Regions(np.array([0.3, 0.7]), assign))


def far():
    """A narrow mode of a twentieth of the mass, 60 away from a wide one."""
    log_prob, draw, _ = normals([0.05, 0.95], [[60.0, 0.0], [0.0, 0.0]], [0.2**0.5, 1.0])
    return Case(
        am.Target(log_prob, 2), 0.0, draw, Regions(np.array([0.05, 0.95]), lambda x: (x[:, 0] < 30.0).astype(int))
    )


def scales():
    """Two modes in 5-D whose coordinates have scales from 10^-4 to 10^4."""
    sd = 10.0 ** np.array([4.0, -4.0, 0.0, 2.0, -2.0])
    log_prob, draw, assign = normals([0.35, 0.65], [np.zeros(5), 5.0 * sd], [sd, sd])
    return Case(am.Target(log_prob, 5), 0.0, draw, Regions(np.array([0.35, 0.65]), assign), coords=(0, 1, 2))


def slivers():
    """Two parallel slivers, 1,000 times as long as wide, turned, 12 of their lengths apart."""
    turn, _ = np.linalg.qr(np.random.default_rng(7).standard_normal((4, 4)))
    sd, weights = np.logspace(0, -3, 4), np.array([0.3, 0.7])
    means = np.stack([12 * turn[:, 0], 0 * turn[:, 0]])
    white, at = jnp.asarray((turn / sd).T, jnp.float32), jnp.asarray(means, jnp.float32)
    const = jnp.asarray(np.log(weights) - np.log(sd).sum() - 2 * LOG_2PI, jnp.float32)

    def log_prob(x):
        return logsumexp(const - 0.5 * jnp.sum(jnp.matmul(x - at, white.T, precision="highest") ** 2, axis=1))

    def draw(rng, n):
        return means[rng.choice(2, n, p=weights)] + (rng.standard_normal((n, 4)) * sd) @ turn.T

    return Case(am.Target(log_prob, 4), 0.0, draw, Regions(weights, lambda x: (x @ turn[:, 0] < 6.0).astype(int)))


def shifted():
    """Three modes in 2-D, a million away from where anyone would look, and 10^5 nats up."""
    log_prob, draw, assign = normals([0.2, 0.5, 0.3], [[5.0, 4.0], [-7.0, 0.0], [2.0, -9.0]], [0.6, 1.0, 1.4])
    away = np.array([1e6, -1e6])
    regions = Regions(np.array([0.2, 0.5, 0.3]), lambda x: assign(x - away))
    target = am.Target(lambda x: log_prob(x - jnp.asarray(away, x.dtype)) + 1e5, 2)
    return Case(target, 1e5, lambda rng, n: away + draw(rng, n), regions)


def labels():
    """Three components of two parameters each that may be exchanged: six modes in 6-D."""
    means, sds = np.array([[-2.5, 1.0], [0.0, -2.0], [3.0, 1.5]]), np.array([0.5, 0.3, 0.9])
    orders = [list(order) for order in itertools.permutations(range(3))]
    at, width = np.stack([means[o].ravel() for o in orders]), np.stack([np.repeat(sds[o], 2) for o in orders])
    log_prob, draw, assign = normals(np.ones(6), at, width)
    return Case(am.Target(log_prob, 6), 0.0, draw, Regions(np.full(6, 1 / 6), assign), coords=(0, 3))


def twins():
    """Two waves of unknown order in 6-D: a mode .05 wide and its exchanged copy, with slopes of
    next to no mass that lead to each."""
    first = np.array([1.5, 3.0, -1.0, -2.0, 0.5, 4.0])
    second = first[[2, 3, 0, 1, 4, 5]]
    widths, shares = np.array([0.05, 0.3, 1.5, 6.0]), np.array([1.0, 1e-5, 1e-9, 1e-12])
    at, width = np.stack([first] * 4 + [second] * 4), np.concatenate([widths, widths])[:, None]
    log_prob, draw, _ = normals(np.concatenate([shares, shares]), at, width)

    def assign(x):
        return (np.linalg.norm(x - second, axis=1) < np.linalg.norm(x - first, axis=1)).astype(int)

    return Case(am.Target(log_prob, 6), 0.0, draw, Regions(np.array([0.5, 0.5]), assign))


def signs():
    """A product of ten pairs of modes: 2^10 of them, of unequal weights, in 10-D."""
    dim, sd, weight = 10, 0.5, np.linspace(0.25, 0.75, 10)
    left, right = jnp.asarray(np.log(weight), jnp.float32), jnp.asarray(np.log1p(-weight), jnp.float32)

    def log_prob(x):
        parts = jnp.logaddexp(left - 0.5 * ((x + 3.0) / sd) ** 2, right - 0.5 * ((x - 3.0) / sd) ** 2)
        return jnp.sum(parts) - dim * (np.log(sd) + 0.5 * LOG_2PI)

    def draw(rng, n):
        return np.where(rng.random((n, dim)) < weight, -3.0, 3.0) + sd * rng.standard_normal((n, dim))

    some = [0, 4, 9]
    bits = (np.arange(8)[:, None] >> np.arange(3)) & 1
    shares = np.prod(np.where(bits, 1 - weight[some], weight[some]), axis=1)
    regions = Regions(shares, lambda x: ((x[:, some] > 0) << np.arange(3)).sum(axis=1))
    return Case(am.Target(log_prob, dim), 0.0, draw, regions, coords=(0, 9))


def normal_20d():
    """One normal in 20-D, each coordinate correlated by .6 with the next."""
    dim, mean = 20, np.linspace(-3.0, 3.0, 20)
    covariance = 0.6 ** np.abs(np.arange(dim)[:, None] - np.arange(dim))
    chol, precision = np.linalg.cholesky(covariance), np.linalg.inv(covariance)
    log_z = 0.5 * dim * LOG_2PI + float(np.log(np.diag(chol)).sum())

    def log_prob(x):
        away = x - jnp.asarray(mean, x.dtype)
        return -0.5 * away @ jnp.matmul(jnp.asarray(precision, x.dtype), away, precision="highest")

    return Case(am.Target(log_prob, dim), log_z, lambda rng, n: mean + rng.standard_normal((n, dim)) @ chol.T)


def spike_and_slab():
    """Half of the mass in a spike, a hundredth as wide as the slab around it, in 4-D: a needle."""
    log_prob, draw, _ = normals([0.5, 0.5], [[2.5] * 4, [0.0] * 4], [0.05, 5.0])
    near = lambda x: (np.linalg.norm(x - 2.5, axis=1) > 0.4).astype(int)  # noqa: E731
    return Case(am.Target(log_prob, 4), 0.0, draw, Regions(np.array([0.5, 0.5]), near), needle=True)
