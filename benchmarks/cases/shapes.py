"""Densities that are no mixtures of normals: shells, rings, plateaus, heavy tails, kinks, necks."""

import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from scipy import integrate

import allmodes as am
from allmodes.targets import get
from allmodes.targets.funnel import funnel
from benchmarks.cases.case import Case, Regions
from benchmarks.cases.mixtures import LOG_2PI, of_target

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def _inverse(grid, density):
    """Draws of a density on a grid, by its inverse distribution."""
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1]) * np.diff(grid))])
    return lambda rng, n: np.interp(rng.random(n), below / below[-1], grid)


def shells():
    """Two Gaussian shells in 2-D (Feroz et al. 2009): radius 2, width .1, apart."""
    radius, width, away = 2.0, 0.1, np.array([[-3.5, 0.0], [3.5, 0.0]])

    def log_prob(x):
        r = jnp.sqrt(jnp.sum((x - jnp.asarray(away, x.dtype)) ** 2, axis=1) + 1e-12)
        return logsumexp(-0.5 * ((r - radius) / width) ** 2)

    grid = np.linspace(radius - 8 * width, radius + 8 * width, 20_001)
    density = grid * np.exp(-0.5 * ((grid - radius) / width) ** 2)
    radii, log_z = _inverse(grid, density), math.log(2 * 2 * math.pi * integrate.trapezoid(density, grid))

    def draw(rng, n):
        r, angle = radii(rng, n), rng.uniform(-math.pi, math.pi, n)
        return away[rng.integers(0, 2, n)] + r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)

    return Case(am.Target(log_prob, 2), log_z, draw, Regions(np.array([0.5, 0.5]), lambda x: (x[:, 0] > 0).astype(int)))


def ring_with_bump():
    """A ring of radius 5, and a bump on it with a quarter of the mass."""
    radius, width, sd, share = 5.0, 0.25, 0.2, 0.25
    grid = np.linspace(radius - 8 * width, radius + 8 * width, 20_001)
    density = grid * np.exp(-0.5 * ((grid - radius) / width) ** 2)
    radii = _inverse(grid, density)
    of_ring = math.log(1 - share) - math.log(2 * math.pi * integrate.trapezoid(density, grid))
    of_bump, at = math.log(share) - 2 * math.log(sd) - LOG_2PI, np.array([0.0, radius])

    def log_prob(x):
        r = jnp.sqrt(jnp.sum(x**2) + 1e-12)
        bump = of_bump - 0.5 * jnp.sum(((x - jnp.asarray(at, x.dtype)) / sd) ** 2)
        return jnp.logaddexp(of_ring - 0.5 * ((r - radius) / width) ** 2, bump)

    def draw(rng, n):
        r, angle = radii(rng, n), rng.uniform(-math.pi, math.pi, n)
        ring = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return np.where((rng.random(n) < share)[:, None], at + sd * rng.standard_normal((n, 2)), ring)

    assign = lambda x: (np.linalg.norm(x - at, axis=1) > 0.9).astype(int)  # noqa: E731
    near = np.mean(assign(draw(np.random.default_rng(99), 1_000_000)) == 0)
    return Case(am.Target(log_prob, 2), 0.0, draw, Regions(np.array([near, 1 - near]), assign))


def log_gamma():
    """Four modes in 10-D, with tails of log-gamma distributions (Beaujean and Caldwell 2013)."""
    dim, tails = 10, range(2, 6)

    def skew(x, at):
        return (x - at) - jnp.exp(x - at)

    def log_prob(x):
        half = math.log(0.5)
        value = jnp.logaddexp(half + skew(x[0], 10.0), half + skew(x[0], -10.0))
        value += jnp.logaddexp(half - 0.5 * (x[1] - 10.0) ** 2, half - 0.5 * (x[1] + 10.0) ** 2) - 0.5 * LOG_2PI
        for i in range(2, dim):
            value += skew(x[i], 10.0) if i in tails else -0.5 * (x[i] - 10.0) ** 2 - 0.5 * LOG_2PI
        return value

    def draw(rng, n):
        x = 10.0 + rng.standard_normal((n, dim))
        x[:, tails] = 10.0 + np.log(rng.gamma(1.0, size=(n, len(tails))))
        x[:, 0] = np.log(rng.gamma(1.0, size=n)) + rng.choice([-10, 10], n)
        x[:, 1] -= 20.0 * rng.integers(0, 2, n)
        return x

    up = 0.5 * math.exp(-math.exp(-10.0))  # of x0 above 0; of the other mode there is nothing there
    shares = np.array([(1 - up) / 2, (1 - up) / 2, up / 2, up / 2])
    regions = Regions(shares, lambda x: 2 * (x[:, 0] > 0) + (x[:, 1] > 0))
    return Case(am.Target(log_prob, dim), 0.0, draw, regions, coords=(0, 2, 9))


def students():
    """Three modes in 2-D with the tails of Student's t of 3 degrees of freedom."""
    nu, weights = 3.0, np.array([0.2, 0.5, 0.3])
    at = np.array([[0.0, -15.0], [-9.0, 1.0], [12.0, 6.0]])
    const = jnp.asarray(np.log(weights) + math.lgamma(2.5) - math.lgamma(1.5) - math.log(nu * math.pi), jnp.float32)

    def log_prob(x):
        squares = jnp.sum((x - jnp.asarray(at, x.dtype)) ** 2, axis=1)
        return logsumexp(const - 0.5 * (nu + 2) * jnp.log1p(squares / nu))

    def draw(rng, n):
        scale = np.sqrt(nu / rng.chisquare(nu, n))[:, None]
        return at[rng.choice(3, n, p=weights)] + scale * rng.standard_normal((n, 2))

    def assign(x):
        squares = np.stack([((x - a) ** 2).sum(axis=1) for a in at], axis=1)
        return (np.log(weights) - 0.5 * (nu + 2) * np.log1p(squares / nu)).argmax(axis=1)

    shares = np.bincount(assign(draw(np.random.default_rng(99), 1_000_000)), minlength=3) / 1e6
    return Case(am.Target(log_prob, 2), 0.0, draw, Regions(shares, assign), heavy=True)


def laplaces():
    """Two modes with kinks in 8-D, of Laplace distributions."""
    scale, share = np.linspace(0.5, 2.0, 8), 0.35

    def log_prob(x):
        of = lambda at: -jnp.sum(jnp.abs(x - at) / jnp.asarray(scale, x.dtype))  # noqa: E731
        return jnp.logaddexp(math.log(share) + of(6.0), math.log(1 - share) + of(-6.0)) - float(np.log(2 * scale).sum())

    def draw(rng, n):
        return np.where(rng.random(n) < share, 6.0, -6.0)[:, None] + rng.laplace(size=(n, 8)) * scale

    def assign(x):
        near, other = (np.abs(x - at) / scale for at in (6.0, -6.0))
        return (near.sum(axis=1) > other.sum(axis=1)).astype(int)

    return Case(am.Target(log_prob, 8), 0.0, draw, Regions(np.array([share, 1 - share]), assign), coords=(0, 7))


def plateau():
    """A flat plateau 20 wide in 4-D, and 40 % of the mass in a peak a two-hundredth as wide: a
    needle."""
    dim, half, sd, share = 4, 10.0, 0.1, 0.4
    flat = math.log(1 - share) - dim * math.log(2 * half * math.gamma(1 + 1 / 8))
    peak = math.log(share) - dim * (math.log(sd) + 0.5 * LOG_2PI)

    def log_prob(x):
        return jnp.logaddexp(flat - jnp.sum((x / half) ** 8), peak - 0.5 * jnp.sum(((x + 4.0) / sd) ** 2))

    def draw(rng, n):
        wide = half * rng.gamma(1 / 8, size=(n, dim)) ** (1 / 8) * rng.choice([-1, 1], (n, dim))
        return np.where((rng.random(n) < share)[:, None], -4.0 + sd * rng.standard_normal((n, dim)), wide)

    assign = lambda x: (np.linalg.norm(x + 4.0, axis=1) > 0.8).astype(int)  # noqa: E731
    return Case(am.Target(log_prob, dim), 0.0, draw, Regions(np.array([share, 1 - share]), assign), needle=True)


def neck():
    """Neal's funnel in 10-D: widths over five orders of magnitude."""
    case = of_target(funnel(10))
    half = Regions(np.array([0.5, 0.5]), lambda x: (x[:, 0] > 0.0).astype(int))
    return Case(case.target, case.log_z, case.draw, half, heavy=True)


def schools():
    """Eight schools (Rubin 1981), centred, `mu ~ N(0, 5^2)`, `tau ~ half-Cauchy(5)` as `log tau`:
    10-D, a funnel."""

    def normal(x, mean, sd):
        return -0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd) - 0.5 * LOG_2PI

    def log_prob(x):
        mu, log_tau, theta = x[0], x[1], x[2:]
        tau = jnp.exp(log_tau)
        prior = normal(mu, 0.0, 5.0) + jnp.log(2 / (5 * np.pi)) - jnp.log1p((tau / 5) ** 2) + log_tau
        return prior + jnp.sum(normal(theta, mu, tau) + normal(EFFECT, theta, ERROR))

    # mu and the schools integrate out; log tau is left for a grid.
    grid = np.linspace(-18.0, 9.0, 40_001)
    tau = np.exp(grid)[:, None]
    precision = 1 / 25.0 + (1 / (tau**2 + ERROR**2)).sum(axis=1)
    mean = (EFFECT / (tau**2 + ERROR**2)).sum(axis=1) / precision
    value = -0.5 * (np.log(tau**2 + ERROR**2) + EFFECT**2 / (tau**2 + ERROR**2)).sum(axis=1) - 4 * LOG_2PI
    value += 0.5 * precision * mean**2 - 0.5 * np.log(precision) - np.log(5.0)
    value += np.log(2 / (5 * np.pi)) - np.log1p((tau[:, 0] / 5) ** 2) + grid
    top, density = value.max(), np.exp(value - value.max())
    log_taus, log_z = _inverse(grid, density), float(top + np.log(integrate.trapezoid(density, grid)))
    inside = float(integrate.trapezoid(np.where(grid < 0.0, density, 0.0), grid) / integrate.trapezoid(density, grid))

    def draw(rng, n):
        log_tau = log_taus(rng, n)
        tau = np.exp(log_tau)[:, None]
        precision = 1 / 25.0 + (1 / (tau**2 + ERROR**2)).sum(axis=1)
        mu = (EFFECT / (tau**2 + ERROR**2)).sum(axis=1) / precision + rng.standard_normal(n) / np.sqrt(precision)
        of_school = 1 / ERROR**2 + 1 / tau**2
        theta = (EFFECT / ERROR**2 + mu[:, None] / tau**2) / of_school
        theta += rng.standard_normal((n, 8)) / np.sqrt(of_school)
        return np.concatenate([mu[:, None], log_tau[:, None], theta], axis=1)

    regions = Regions(np.array([inside, 1 - inside]), lambda x: (x[:, 1] > 0.0).astype(int))
    return Case(am.Target(log_prob, 10, name="schools"), log_z, draw, regions, coords=(0, 1, 2))


def many_well():
    """Four double wells beside four normals in 8-D: 16 modes of unequal weights."""
    return of_target(get("manywell-8"))


def particles():
    """Four particles of double-well pairs, of which no exact answer is compared."""
    return Case(get("dw4"), None, None)
