"""A mixture to draw from that covers all basins, each component with a wide, heavy-tailed copy as a
defence.

Components begin with the pool's points in a basin and are then fitted to the density by population
Monte Carlo with mixtures (Cappé et al. 2008, Adaptive importance sampling in general mixture
classes).
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln, logsumexp
from jaxtyping import Array, Float, Int

WIDER = 1.2  # variance of a component over that of its points: light tails of the weights
FREEDOM, WIDEST = 4.0, 2.5  # of the Student-t beside each, and its scale over the variance
HEAVY = 0.25  # its share
EVEN = 0.5  # of the shares, spread evenly over components: a small basin gets draws enough to know its mass
PARTS = 8  # components of a basin that is a ridge of many peaks


class Proposal(eqx.Module):
    """Components `(c, dim)` with Cholesky factors of their covariances and shares that sum to
    one.
    """

    mean: Float[Array, "c dim"]
    chol: Float[Array, "c dim dim"]
    share: Float[Array, " c"]

    def counts(self, n: int) -> Int[np.ndarray, " strata"]:
        """Draws of each stratum, Gaussian components then their copies: at least two, about n in
        all.

        The mixture's shares are these counts over their sum, exactly: drawing is stratified and
        unbiased.
        """
        share = np.asarray(self.share, float)
        share = EVEN / len(share) + (1.0 - EVEN) * share / share.sum()
        return np.maximum(np.rint(n * np.concatenate([(1 - HEAVY) * share, HEAVY * share])).astype(int), 2)

    @jax.jit
    def draw(self, key: Array, stratum: Int[Array, " n"]) -> Float[Array, "n dim"]:
        """One draw of each stratum named."""
        k_normal, k_tail = jax.random.split(key)
        c, dim = self.mean.shape
        normal = jax.random.normal(k_normal, (len(stratum), dim))
        chi2 = 2.0 * jax.random.gamma(k_tail, 0.5 * FREEDOM, (len(stratum),))
        size = jnp.where(stratum < c, WIDER**0.5, (WIDEST * FREEDOM / chi2) ** 0.5)
        which = stratum % c
        one = lambda i, e: self.mean[i] + self.chol[i] @ e  # noqa: E731
        return jax.lax.map(lambda p: one(*p), (which, size[:, None] * normal), batch_size=1024)

    @jax.jit
    def log_parts(self, z: Float[Array, "n dim"]) -> Float[Array, "n strata"]:
        """Log-density of each stratum at each point, without its share."""
        dim = self.mean.shape[1]
        whiten = jax.vmap(lambda L: solve_triangular(L, jnp.eye(dim), lower=True))(self.chol)
        log_det = jnp.sum(jnp.log(jnp.diagonal(self.chol, axis1=1, axis2=2)), axis=1)
        tail = gammaln(0.5 * (FREEDOM + dim)) - gammaln(0.5 * FREEDOM) - 0.5 * dim * jnp.log(jnp.pi * FREEDOM)

        def one(z):
            r2 = jnp.sum(jnp.einsum("cij,cj->ci", whiten, z - self.mean, precision="highest") ** 2, axis=1)
            normal = -0.5 * r2 / WIDER - log_det - 0.5 * dim * jnp.log(2 * jnp.pi * WIDER)
            heavy = tail - log_det - 0.5 * dim * jnp.log(WIDEST)
            heavy = heavy - 0.5 * (FREEDOM + dim) * jnp.log1p(r2 / (FREEDOM * WIDEST))
            return jnp.concatenate([normal, heavy])

        return jax.lax.map(one, z, batch_size=256)


def log_mixture(parts: Float[Array, "n strata"], counts: Int[np.ndarray, " strata"]) -> Float[Array, " n"]:
    """Log-density of the whole mixture that draws of these counts come from."""
    return logsumexp(parts + jnp.log(jnp.asarray(counts / counts.sum(), parts.dtype)), axis=1)


def first_proposal(
    z: Float[np.ndarray, "n dim"],
    label: Int[np.ndarray, " n"],
    count: int,
    peaks: Int[np.ndarray, " count"],
    width: float,
    seed: int,
) -> Proposal:
    """Mean and covariance of the pool's points in each basin, and of those in none; `peaks` says of
    how many it is.

    A basin of many peaks is a ridge or a plain and gets up to `PARTS` components. `width` is the
    least deviation.
    """
    rng = np.random.default_rng(seed)
    means, chols, shares = [], [], []
    for basin in range(count + 1):
        points = z[label == basin].astype(float)
        if len(points) == 0:
            continue
        many = basin == count or peaks[basin] > 2
        parts = _split(points, min(PARTS, 1 + len(points) // (5 * z.shape[1] + 5)) if many else 1, rng)
        for part in parts:
            means.append(part.mean(axis=0))
            chols.append(np.linalg.cholesky(_covariance(part, width)))
            shares.append(len(part) / len(z))
    as_jax = partial(jnp.asarray, dtype=jnp.float32)
    return Proposal(as_jax(np.array(means)), as_jax(np.array(chols)), as_jax(np.array(shares)))


def _split(points: np.ndarray, k: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Cut a set of points in k by a few rounds of k-means."""
    centres = points[rng.choice(len(points), k, replace=False)]
    for _ in range(10 if k > 1 else 1):
        nearest = np.argmin(((points[:, None] - centres) ** 2).sum(-1), axis=1) if k > 1 else np.zeros(len(points), int)
        parts = [points[nearest == i] for i in range(k)]
        centres = np.array([part.mean(axis=0) for part in parts if len(part)])
        k = len(centres)
    return [part for part in parts if len(part)]


def _covariance(points: np.ndarray, width: float) -> np.ndarray:
    """Shrunk towards its diagonal, the more the fewer points there are, with a floor of the least
    width.
    """
    n, dim = points.shape
    centred = points - points.mean(axis=0)
    diagonal = (np.sum(centred**2, axis=0) + 2.0 * width**2) / (n + 2.0)
    keep = n / (n + dim)
    return keep * centred.T @ centred / n + (1.0 - keep) * np.diag(diagonal) + 1e-6 * np.diag(diagonal)


@jax.jit
def refit(
    proposal: Proposal, z: Float[Array, "n dim"], parts: Float[Array, "n strata"], log_weight: Float[Array, " n"],
    share: Float[Array, " strata"],
) -> Proposal:  # fmt: skip
    """One step of population Monte Carlo: means, covariances and shares from weighted draws of the
    mixture.

    Each draw belongs to each component in the probability that it came from it or from its copy. A
    component with few effective draws stays as it is.
    """
    c, dim = proposal.mean.shape
    joint = parts + jnp.log(share)
    belongs = jnp.exp(joint - logsumexp(joint, axis=1, keepdims=True))
    belongs = belongs[:, :c] + belongs[:, c:]
    weight = jnp.exp(log_weight - logsumexp(log_weight))[:, None] * belongs  # (n, c)
    total = jnp.sum(weight, axis=0)
    effective = total**2 / jnp.maximum(jnp.sum(weight**2, axis=0), 1e-38)
    safe = jnp.maximum(total, 1e-30)

    def moments(i):
        w = weight[:, i] / safe[i]
        mean = w @ z
        centred = z - mean
        covariance = (w[:, None] * centred).T @ centred
        diagonal = jnp.diag(jnp.diagonal(covariance))
        keep = effective[i] / (effective[i] + dim)
        return mean, jnp.linalg.cholesky(keep * covariance + (1.0 - keep + 1e-5) * diagonal)

    mean, chol = jax.lax.map(moments, jnp.arange(c))
    good = (effective > 5.0 * (dim + 1)) & jnp.all(jnp.isfinite(chol), axis=(1, 2))
    return Proposal(
        jnp.where(good[:, None], mean, proposal.mean), jnp.where(good[:, None, None], chol, proposal.chol), total
    )
