"""The working parts of a Gaussian mixture."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from allmodes.errors import TargetError

Numbers = ArrayLike | Sequence

OFF = 1e-6  # the share of a component's own draws that counts as lying on no mode
DRAWS_PER_CELL = 20_000  # fewer where more than twenty components overlap, at the same cost


@cache
def chi2_quantile(dim: int, tail: float) -> float:
    """Find what a chi-squared variable with `dim` degrees of freedom exceeds with probability
    `tail`, by bisection.
    """

    def survival(x):  # Q(dim / 2, x / 2), by Q(a + 1, y) = Q(a, y) + y^a e^-y / Gamma(a + 1)
        y, a = x / 2, 0.5 if dim % 2 else 1.0
        total = math.erfc(math.sqrt(y)) if dim % 2 else math.exp(-y)
        while a < dim / 2 - 0.25:
            total += math.exp(a * math.log(y) - y - math.lgamma(a + 1)) if y > 0 else 0.0
            a += 1.0
        return total

    low, high = 0.0, float(dim)
    while survival(high) > tail:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if survival(middle) > tail else (low, middle)
    return high


@dataclasses.dataclass(frozen=True)
class Components:
    """A Gaussian mixture's parameters in float64 and what follows from them.

    `means` is `(modes, dim)`, `weights` `(modes,)`; of `std`, `(modes, 1)` or `(modes, dim)`, and
    the covariances' Cholesky factors `chol`, `(modes, dim, dim)`, one is given.
    """

    means: np.ndarray
    weights: np.ndarray
    std: np.ndarray | None
    chol: np.ndarray | None

    @classmethod
    def make(cls, means: Numbers, covariances: Numbers, weights: Numbers | None = None) -> "Components":
        """Check and normalise the arguments of `gaussian_mixture`."""
        means, cov = np.asarray(means, float), np.asarray(covariances, float)
        if means.ndim != 2 or 0 in means.shape or not np.all(np.isfinite(means)):
            raise TargetError(f"means must be finite, of shape (modes, dim), got shape {means.shape}")
        m, d = means.shape
        w = np.ones(m) if weights is None else np.asarray(weights, float)
        if w.shape != (m,) or not np.all(np.isfinite(w)) or np.any(w <= 0):
            raise TargetError(f"weights must be {m} positive finite numbers, one for each mean, got shape {w.shape}")
        if cov.shape not in ((), (m,), (m, d), (m, d, d)):
            raise TargetError(f"covariances must be (), ({m},), ({m}, {d}) or ({m}, {d}, {d}), got shape {cov.shape}")
        if cov.ndim == 3:
            try:
                if not np.allclose(cov, np.swapaxes(cov, 1, 2)):
                    raise np.linalg.LinAlgError
                return cls(means, w / w.sum(), None, np.linalg.cholesky(cov))
            except np.linalg.LinAlgError:
                raise TargetError("covariances must be symmetric and positive definite") from None
        if not np.all(np.isfinite(cov)) or np.any(cov <= 0):
            raise TargetError("variances must be positive and finite")
        std = np.sqrt(cov) if cov.ndim == 2 else np.broadcast_to(np.sqrt(cov), (m,))[:, None]
        return cls(means, w / w.sum(), std, None)

    @property
    def dim(self) -> int:
        """The dimension."""
        return self.means.shape[1]

    def log_norm(self) -> np.ndarray:
        """`(modes,)`: log of weight over the component's normalising constant."""
        if self.chol is None:
            log_det = np.sum(np.log(np.broadcast_to(self.std, self.means.shape)), axis=1)
        else:
            log_det = np.sum(np.log(np.diagonal(self.chol, axis1=1, axis2=2)), axis=1)
        return np.log(self.weights) - log_det - 0.5 * self.dim * np.log(2 * np.pi)

    def log_prob(self, log_z: float) -> Callable[[Array], Array]:
        """Return the log-density, `(dim,) -> ()`.

        Means are subtracted before anything else, so that float32 is enough far from the origin.
        The gradient is written out, which is several times quicker than differentiating through the
        sum.
        """
        const = self.log_norm() + log_z
        if self.chol is None:
            means, inverse = self.means.T, 1 / self.std.T  # modes last: quickest where dimensions are few

            def parts(x):
                scale = jnp.asarray(inverse, x.dtype)
                z = (x[:, None] - jnp.asarray(means, x.dtype)) * scale
                logits = jnp.asarray(const, x.dtype) - 0.5 * jnp.sum(z**2, axis=0)
                return logits, lambda r: -jnp.sum(r * scale * z, axis=1)

        else:
            whiten = np.linalg.inv(self.chol)  # a square root of the precision: z = whiten (x - mean) ~ N(0, I)

            def parts(x):
                W = jnp.asarray(whiten, x.dtype)
                z = jnp.einsum("mij,mj->mi", W, x - jnp.asarray(self.means, x.dtype), precision="highest")
                logits = jnp.asarray(const, x.dtype) - 0.5 * jnp.sum(z**2, axis=1)
                rows = W.reshape(-1, x.size)  # (modes * dim, dim)
                return logits, lambda r: -jnp.matmul((r[:, None] * z).ravel(), rows, precision="highest")

        @jax.custom_jvp
        def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
            return logsumexp(parts(x)[0])

        @log_prob.defjvp
        def log_prob_jvp(primals, tangents):
            logits, pull = parts(*primals)
            value = logsumexp(logits)
            return value, jnp.sum(pull(jnp.exp(logits - value)) * tangents[0])

        return log_prob

    def sample(self, key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        """Exact draws."""
        key_mode, key_noise = jax.random.split(key)
        below = jnp.asarray(np.cumsum(self.weights)[:-1])
        k = jnp.searchsorted(below, jax.random.uniform(key_mode, (n,)), side="right")
        noise = jax.random.normal(key_noise, (n, self.dim))
        if self.chol is None:
            return jnp.asarray(self.means)[k] + jnp.asarray(self.std)[k] * noise
        return jnp.asarray(self.means)[k] + _turn(jnp.asarray(self.chol), k, noise)

    def assign(self, x: Float[Array | np.ndarray, "n dim"], among: np.ndarray | None = None) -> Int[np.ndarray, " n"]:
        """Most responsible component (of those in `among`) of each point, or -1 where it is too far
        or not a number.
        """
        x, log_norm = np.asarray(x, float), self.log_norm()
        best, label, distance = np.full(len(x), -np.inf), np.full(len(x), -1), np.full(len(x), np.inf)
        for m in range(len(self.weights)) if among is None else among:
            z = x - self.means[m]
            z = z / self.std[m] if self.chol is None else z @ np.ascontiguousarray(np.linalg.inv(self.chol[m]).T)
            sq = np.einsum("ni,ni->n", z, z)
            logit = log_norm[m] - 0.5 * sq
            better = logit > best
            for kept, new in ((best, logit), (label, m), (distance, sq)):
                np.copyto(kept, new, where=better)
        return np.where(distance <= chi2_quantile(self.dim, OFF), label, -1)

    def cell_masses(self) -> np.ndarray:
        """`(modes,)`: the mass of the points assigned to each component.

        Components whose balls of all but 1e-7 of the mass are disjoint take at most 1e-7 from each
        other and are left alone; the others are drawn from, with a fixed seed, and their draws
        assigned.
        """
        m, radius = len(self.weights), math.sqrt(chi2_quantile(self.dim, 1e-7))
        reach = radius * (self.std.max(axis=1) if self.chol is None else np.linalg.norm(self.chol, 2, axis=(1, 2)))
        masses, rng = np.zeros(m), np.random.default_rng(0)
        for k in range(m):
            near = np.flatnonzero(np.linalg.norm(self.means - self.means[k], axis=1) < reach + reach[k])
            if len(near) == 1:
                masses[k] += self.weights[k]
                continue
            n = max(500, min(DRAWS_PER_CELL, 20 * DRAWS_PER_CELL // len(near)))
            noise = rng.normal(size=(n, self.dim))
            noise = noise * self.std[k] if self.chol is None else noise @ self.chol[k].T
            label = self.assign(self.means[k] + noise, near)
            label[label < 0] = k
            masses += self.weights[k] * np.bincount(label, minlength=m) / n
        return masses


@jax.jit
def _turn(chol, k, noise):
    one = lambda pair: jnp.matmul(chol[pair[0]], pair[1], precision="highest")  # noqa: E731
    return jax.lax.map(one, (k, noise), batch_size=8192)  # in blocks: chol[k] for all k at once may not fit
