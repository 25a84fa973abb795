"""Closed forms for the study of bias and variance: mixtures of Gaussians that share one diagonal
covariance.

The self-normalised estimators of `posterior.from_draws` weigh draws of `q = N(x_t, sigma^2)` by
`w = pi`. With `rho = E_q[w^2] / E_q[w]^2` and `<.>` the mean under the density proportional to
`pi^2 q`, the delta method gives for an average of f with posterior mean m, to leading order in the
number K of draws,

    bias = -(rho / K) <f - m>,    variance = (rho / K) <(f - m)^2>,

and for the log-density `-(rho - 1) / (2K)` and `(rho - 1) / K` (Owen, Monte Carlo, chapter 9). For
a mixture `pi^2 q` is a mixture again, one component a pair, so all of it is closed form. For one
Gaussian of standard deviation tau the mean of rho over `x_t ~ p_t` is `(1 + sigma^2 / tau^2)^d`.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from allmodes.targets.components import Components

Vectors = Float[np.ndarray, "points dim"]
Values = Float[np.ndarray, " points"]


class Leading(NamedTuple):
    """Leading-order coefficients at each x_t: K times bias and (co)variance, of denoised points and
    log-density.
    """

    rho: Values
    bias_dsi: Vectors
    bias_tsi: Vectors
    var_dsi: Vectors
    var_tsi: Vectors
    cov: Vectors


@dataclasses.dataclass(frozen=True)
class Exact:
    """`sum_m weights_m N(means_m, diag(var))` and what is known of its noised densities and
    posteriors, in float64.
    """

    name: str
    means: Float[np.ndarray, "modes dim"]
    var: Float[np.ndarray, " dim"]
    weights: Float[np.ndarray, " modes"]

    @property
    def dim(self) -> int:
        """The dimension."""
        return self.means.shape[1]

    def components(self) -> Components:
        """The library's own mixture: the density that the estimators are given."""
        return Components.make(self.means, np.broadcast_to(self.var, self.means.shape), self.weights)

    def draw(self, rng: np.random.Generator, n: int) -> Vectors:
        """Exact draws."""
        index = rng.choice(len(self.weights), n, p=self.weights)
        return self.means[index] + np.sqrt(self.var) * rng.standard_normal((n, self.dim))

    def responsibilities(self, x: Vectors, sigma: float) -> tuple[Float[np.ndarray, "points modes"], Values]:
        """Each mode's share of the noised density at x, and the log of that density."""
        log = np.log(self.weights) + np.stack([log_normal(x - m, self.var + sigma**2) for m in self.means], axis=1)
        total = np.logaddexp.reduce(log, axis=1)
        return np.exp(log - total[:, None]), total

    def log_density(self, x: Vectors, sigma: float) -> Values:
        """`log p_t`."""
        return self.responsibilities(x, sigma)[1]

    def posteriors(self, x: Vectors, sigma: float) -> tuple[Float[np.ndarray, "points modes dim"], np.ndarray]:
        """Mean of x_0 given x_t and the mode, and its variance, which is the same for all."""
        shrink = self.var / (self.var + sigma**2)
        return shrink * x[:, None] + (1.0 - shrink) * self.means, shrink * sigma**2

    def denoised(self, x: Vectors, sigma: float) -> Vectors:
        """`E[x_0 | x_t]`."""
        return np.einsum("pm,pmd->pd", self.responsibilities(x, sigma)[0], self.posteriors(x, sigma)[0])

    def draw_posterior(self, rng: np.random.Generator, x: Vectors, sigma: float, n: int) -> np.ndarray:
        """Exact draws of `p(x_0 | x_t)`, n for each x_t: `(points, n, dim)`."""
        share, _ = self.responsibilities(x, sigma)
        means, var = self.posteriors(x, sigma)
        cumulative = np.cumsum(share, axis=1)[:, None, :-1]
        index = np.sum(rng.random((len(x), n, 1)) > cumulative, axis=2)
        return np.take_along_axis(means, index[..., None], axis=1) + np.sqrt(var) * rng.standard_normal(
            (*index.shape, self.dim)
        )

    def unit(self, sigma: float) -> Float[np.ndarray, " dim"]:
        """Factor from a denoised point's error to a score's in units of a Gaussian's own, `1 /
        sqrt(var + sigma^2)`.
        """
        return np.sqrt(self.var + sigma**2) / sigma**2

    def leading(self, x: Vectors, sigma: float) -> Leading:
        """Coefficients of 1/K at each x_t, in denoised units."""
        s2, half = sigma**2, self.var / 2.0
        total, spread = half + s2, s2 * half / (half + s2)
        pairs = [(a, b) for a in range(len(self.weights)) for b in range(len(self.weights))]
        log_c, means, to_a, to_b = [], [], [], []
        for a, b in pairs:  # N_a N_b = N(mu_a - mu_b; 0, 2 var) N(x; middle, var / 2)
            middle = 0.5 * (self.means[a] + self.means[b])
            apart = log_normal((self.means[a] - self.means[b])[None], 2.0 * self.var)
            log_c.append(np.log(self.weights[a] * self.weights[b]) + apart + log_normal(x - middle, total))
            means.append((half * x + s2 * middle) / total)
            to_a.append(means[-1] - self.means[a])
            to_b.append(means[-1] - self.means[b])
        log_c, means, to_a, to_b = (np.stack(v) for v in (log_c, means, to_a, to_b))
        log_total = np.logaddexp.reduce(log_c, axis=0)
        share = np.exp(log_c - log_total)[..., None]

        def average(f):
            return np.sum(share * f, axis=0)

        rho = np.exp(log_total - 2.0 * self.log_density(x, sigma))
        m, mean = self.denoised(x, sigma), average(means)
        grad_squared = average(spread + to_a * to_b) / self.var**2  # <(grad log pi)^2>
        grad_error = -average(spread + to_a * (means - m)) / self.var  # <grad log pi (x_0 - m)>
        scale = rho[:, None]
        return Leading(
            rho=rho,
            bias_dsi=-scale * (mean - m),
            bias_tsi=-scale * (0.5 * (mean + x) - m),  # <grad log pi> = <x_0 - x_t> / (2 sigma^2), by parts
            var_dsi=scale * average(spread + (means - m) ** 2),
            var_tsi=scale * ((x - m) ** 2 + (x - m) * (mean - x) + s2**2 * grad_squared),
            cov=scale * ((mean - m) * (x - m) + s2 * grad_error),
        )


def log_normal(x: Vectors, var: Float[np.ndarray, " dim"]) -> Values:
    """`log N(x; 0, diag(var))`."""
    return -0.5 * np.sum(x**2 / var + np.log(2.0 * np.pi * var), axis=1)


def standard(dim: int) -> Exact:
    """`N(0, I)`: tau = 1."""
    return Exact("gaussian", np.zeros((1, dim)), np.ones(dim), np.ones(1))


def anisotropic(dim: int) -> Exact:
    """Standard deviations from 1/3 to 3 in geometric steps."""
    return Exact("anisotropic", np.zeros((1, dim)), np.geomspace(1 / 3, 3, dim) ** 2, np.ones(1))


def two_modes(dim: int) -> Exact:
    """`2/3 N(-m, I) + 1/3 N(m, I)`, the modes six standard deviations apart in every dimension."""
    mean = np.full((1, dim), 3.0 / np.sqrt(dim))
    return Exact("two-modes", np.concatenate([-mean, mean]), np.ones(dim), np.array([2 / 3, 1 / 3]))


def snis(dim: int, proposal: float, target: float) -> tuple[float, float, float]:
    """`E_q[w^2]` and N times bias and variance of the self-normalised mean of `|x|^2 / (d target)`.

    The weights go from `N(0, proposal)` to `N(0, target)` (variances). The second moment is
    infinite where `proposal <= target / 2`.
    """
    var = 1.0 / (2.0 / target - 1.0 / proposal)
    rho = (np.sqrt(proposal * var) / target) ** dim
    ratio = var / target
    return float(rho), float(-rho * (ratio - 1.0)), float(rho * (2.0 * ratio**2 / dim + (ratio - 1.0) ** 2))
