"""Posteriors whose evidence is known, as nested samplers see them and as ours does.

NumPy alone, so that the environment of the tools needs nothing of ours. Each log-likelihood is
written once, for NumPy and for `jax.numpy` alike (`xp`), so that all tools evaluate the same. It is
a sum of parts (the modes, where there are such), each with a known integral under the prior: so the
evidence is known, and so is what share of the draws belongs to each mode, also where modes overlap.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from scipy.special import logsumexp, ndtr


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """A log-likelihood on a box with a uniform prior.

    - `low`, `high`: `(dim,)`, the box.
    - `log_parts`: `(x, xp) -> (.., parts)` of points `(.., dim)`: the likelihood is the sum of
      their exponentials.
    - `log_masses`: `(parts,)`, the log of each part's integral under the prior, exact.
    - `periodic`: coordinates that close to circles; they come last.
    - `plain`: whether our sampler takes the likelihood as a density on R^dim; so it may where the
      box holds all mass, and its log evidence differs by the volume.
    """

    name: str
    low: np.ndarray
    high: np.ndarray
    log_parts: Callable[[Any, Any], Any]
    log_masses: np.ndarray
    periodic: tuple[int, ...] = ()
    plain: bool = False

    @property
    def dim(self) -> int:
        return len(self.low)

    @property
    def log_z(self) -> float:
        return float(logsumexp(self.log_masses))

    @property
    def weights(self) -> np.ndarray:
        """`(parts,)`: each mode's share of the posterior."""
        return np.exp(self.log_masses - self.log_z)

    def transform(self, u: np.ndarray) -> np.ndarray:
        """Map the unit cube to the box: the prior transform of nested samplers."""
        return self.low + (self.high - self.low) * u

    def log_likelihood(self, u: np.ndarray) -> np.ndarray:
        """Log-likelihood at points `(.., dim)` of the unit cube."""
        return log_sum(self.log_parts(self.transform(u), np), np)

    def shares(self, u: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """`(parts,)`: what weighted draws give each mode; on average of exact draws, its weight."""
        parts = self.log_parts(self.transform(u), np)
        belongs = np.exp(parts - log_sum(parts, np)[:, None])
        return weights @ belongs / weights.sum()

    @property
    def log_volume(self) -> float:
        """What the log evidence is less than the log-integral that our sampler is given."""
        return float(np.sum(np.log(self.high - self.low))) if self.plain else 0.0


def log_sum(parts: Any, xp: Any) -> Any:
    """Log of the sum of exponentials over the last axis, for either library."""
    most = xp.max(parts, axis=-1)
    return most + xp.log(xp.sum(xp.exp(parts - most[..., None]), axis=-1))


def normal(x: Any, mean: float, std: float) -> Any:
    return -0.5 * ((x - mean) / std) ** 2 - math.log(std * math.sqrt(2 * math.pi))


def mixture(name: str, means: np.ndarray, chols: np.ndarray, weights: np.ndarray, box: float) -> Problem:
    """Gaussian modes inside `[-box, box]^dim`, with no mass to speak of outside (in the tests)."""
    dim = means.shape[1]
    whiten = np.linalg.inv(chols)
    log_norm = np.log(weights) + np.log(np.abs(np.linalg.det(whiten))) - 0.5 * dim * math.log(2 * math.pi)

    def log_parts(x, xp):
        away = x[..., None, :] - xp.asarray(means, x.dtype)  # before all else: float32 is then enough
        z = xp.einsum("mij,...mj->...mi", xp.asarray(whiten, x.dtype), away)
        return xp.asarray(log_norm, x.dtype) - 0.5 * xp.sum(z**2, axis=-1)

    log_masses = np.log(weights) - dim * math.log(2 * box)
    return Problem(name, np.full(dim, -box), np.full(dim, box), log_parts, log_masses, plain=True)


def gmm40() -> Problem:
    """`gmm40` of `allmodes.targets`: 40 equal modes in the plane, prior uniform in a box."""
    bits = np.random.RandomState(0).randint(0, 2**32, size=(40, 2), dtype=np.uint32)  # torch's stream
    means = ((bits & 0xFFFFFF) / 2**24 - 0.5) * 80
    chols = np.broadcast_to(math.log1p(math.e) * np.eye(2), (40, 2, 2))
    return mixture("gmm40", means, chols, np.full(40, 1 / 40), 60.0)


def modes_16() -> Problem:
    """`random-16` of `benchmarks/evaluations.py`: 40 modes of unequal weights and shapes in 16
    dimensions; prior uniform in `[-60, 60]^16`.
    """
    rng, modes, dim = np.random.default_rng(7), 40, 16
    means, chols = rng.uniform(-40.0, 40.0, (modes, dim)), np.empty((modes, dim, dim))
    for m in range(modes):
        rotation, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
        chols[m] = np.linalg.cholesky(rotation @ np.diag(rng.uniform(0.7, 2.0, dim) ** 2) @ rotation.T)
    weights = np.exp(rng.uniform(0, np.log(20.0), modes))
    return mixture("modes-16", means, chols, weights / weights.sum(), 60.0)


def log_gamma(dim: int) -> Problem:
    """The LogGamma problem (Beaujean and Caldwell 2013; Feroz et al. 2019) on the unit cube.

    Four modes: the first coordinate is one of two LogGamma distributions, the second one of two
    normal ones. Of the rest half are LogGamma, half normal. The evidence is 1 less what lies
    outside of the cube, which is counted here.
    """
    scale, skewed = 1 / 30, (dim + 2) // 2 - 2

    def skew(x, place, xp):
        y = (x - place) / scale
        return y - xp.exp(y) - math.log(scale)

    def log_parts(x, xp):
        rest = xp.sum(skew(x[..., 2 : 2 + skewed], 2 / 3, xp), axis=-1)
        rest = rest + xp.sum(normal(x[..., 2 + skewed :], 2 / 3, scale), axis=-1)
        first = [skew(x[..., 0], place, xp) for place in (1 / 3, 2 / 3)]
        second = [normal(x[..., 1], place, scale) for place in (1 / 3, 2 / 3)]
        return xp.stack([a + b + rest + math.log(0.25) for a in first for b in second], axis=-1)

    def skew_mass(place):
        return math.exp(-math.exp(-place / scale)) - math.exp(-math.exp((1 - place) / scale))

    def normal_mass(place):
        return ndtr((1 - place) / scale) - ndtr(-place / scale)

    rest = skewed * math.log(skew_mass(2 / 3)) + (dim - 2 - skewed) * math.log(normal_mass(2 / 3))
    pairs = [skew_mass(a) * normal_mass(b) for a in (1 / 3, 2 / 3) for b in (1 / 3, 2 / 3)]
    return Problem(f"loggamma-{dim}", np.zeros(dim), np.ones(dim), log_parts, np.log(pairs) + rest + math.log(0.25))


@cache
def rosenbrock_log_z(dim: int, nodes: int = 2000) -> float:
    """Log evidence of `rosenbrock`, by quadrature along the chain.

    Only neighbours are coupled, so the integral over all coordinates is a product of matrices on
    the nodes of Gauss and Legendre, which lie closer than a tenth of the kernel's width.
    """
    x, w = np.polynomial.legendre.leggauss(nodes)
    x, w = 5 * x, w / 2  # of the prior, 1/10
    kernel = np.exp(-100 * (x[None, :] - x[:, None] ** 2) ** 2 - (1 - x[:, None]) ** 2)
    rest, log_z = np.ones(nodes), 0.0
    for _ in range(dim - 1):
        rest = kernel @ (w * rest)
        log_z += math.log(rest.max())
        rest = rest / rest.max()
    return log_z + math.log(w @ rest)


def rosenbrock(dim: int = 10) -> Problem:
    """Rosenbrock's function as log-likelihood (Lange 2023), prior uniform in `[-5, 5]^dim`."""

    def log_parts(x, xp):
        a, b = x[..., :-1], x[..., 1:]
        return -xp.sum(100 * (b - a**2) ** 2 + (1 - a) ** 2, axis=-1)[..., None]

    log_masses = np.array([rosenbrock_log_z(dim)])
    return Problem(f"rosenbrock-{dim}", np.full(dim, -5.0), np.full(dim, 5.0), log_parts, log_masses)


def box_and_angle() -> Problem:
    """Two parameters in a box and an angle, as orbits have: two opposite modes of the angle, one of
    them across its seam, and the most mass of the first parameter at its bound.
    """
    modes = ((0.7, 0.2, 10.0, 0.3, 0.08), (0.3, 0.2 + math.pi, 20.0, 0.7, 0.05))  # weight, angle, kappa, mean, std

    def log_parts(x, xp):
        bound = normal(x[..., 0], 0.0, 0.1)
        parts = [
            math.log(weight) + bound + normal(x[..., 1], mean, std)
            + kappa * xp.cos(x[..., 2] - angle) - math.log(2 * math.pi * np.i0(kappa))
            for weight, angle, kappa, mean, std in modes
        ]  # fmt: skip
        return xp.stack(parts, axis=-1)

    masses = [
        weight * (ndtr(10.0) - ndtr(0.0)) * (ndtr((1 - mean) / std) - ndtr(-mean / std)) / (2 * math.pi)
        for weight, _, _, mean, std in modes
    ]
    high = np.array([1.0, 1.0, 2 * math.pi])
    return Problem("box-and-angle", np.zeros(3), high, log_parts, np.log(masses), periodic=(2,))


PROBLEMS: dict[str, Callable[[], Problem]] = {  # the cheap ones first
    "gmm40": gmm40,
    "box-and-angle": box_and_angle,
    "loggamma-10": lambda: log_gamma(10),
    "modes-16": modes_16,
    "rosenbrock-10": rosenbrock,
    "loggamma-30": lambda: log_gamma(30),
}
