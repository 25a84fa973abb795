"""Components of a mixture in double precision on the host, where it is fitted."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from allmodes.points.mixture import GaussianMixture
from allmodes.search.shapes import Shape

BELOW = 14.0  # nats below the largest mass: components of less are left out
AT_A_TIME = 1024  # points whose densities are computed together


class Parts(NamedTuple):
    """Components: means, lower Cholesky factors of the covariances, and logs of their masses."""

    mean: Float[np.ndarray, "k d"]
    chol: Float[np.ndarray, "k d d"]
    log_mass: Float[np.ndarray, " k"]

    @classmethod
    def of(cls, shapes: list[Shape]) -> "Parts":
        """Of these shapes, and of mass one each."""
        return cls(*map(np.array, zip(*shapes, strict=True)), np.zeros(len(shapes)))

    @classmethod
    def joined(cls, several: "list[Parts]") -> "Parts":
        """All of theirs."""
        return cls(*map(np.concatenate, zip(*several, strict=True)))

    @classmethod
    def of_mixture(cls, mixture: GaussianMixture) -> "Parts":
        """Those of any share."""
        there = np.isfinite(np.asarray(mixture.log_share))
        log_share, mean, axes, variance = (
            np.asarray(a, float)[there] for a in (mixture.log_share, mixture.mean, mixture.axes, mixture.variance)
        )
        return cls(mean, np.linalg.cholesky(np.einsum("kij,kj,klj->kil", axes, variance, axes)), log_share)

    def log_normal(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Log-density of each component at each point."""
        k, dim = self.mean.shape
        whiten = np.linalg.inv(self.chol)
        shift = np.einsum("kij,kj->ki", whiten, self.mean).ravel()
        log_det = np.sum(np.log(np.diagonal(self.chol, axis1=1, axis2=2)), axis=1)
        rows, out = whiten.reshape(-1, dim).T, np.empty((len(z), k))
        for i in range(0, len(z), AT_A_TIME):
            y = (z[i : i + AT_A_TIME] @ rows - shift).reshape(-1, k, dim)
            out[i : i + AT_A_TIME] = -0.5 * np.einsum("nki,nki->nk", y, y) - log_det
        return out - 0.5 * dim * np.log(2.0 * np.pi)

    def log_joint(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n k"]:
        """Log of each component's mass times its density at each point."""
        return self.log_normal(z) + self.log_mass

    def log_density(self, z: Shaped[Any, "n d"]) -> Float[np.ndarray, " n"]:
        """Log-density of the mixture at each point."""
        return log_sum(self.log_joint(np.asarray(z, float)))

    def keep(self, which: Bool[np.ndarray, " k"] | Int[np.ndarray, " m"]) -> "Parts":
        """Some of them."""
        return Parts(*(a[which] for a in self))

    def mixture(self, size: int) -> GaussianMixture:
        """Those of any mass, in float32; filled up to so many by copies of no share."""
        parts = self.keep(self.log_mass > self.log_mass.max() - BELOW)
        variance, axes = np.linalg.eigh(parts.chol @ np.swapaxes(parts.chol, 1, 2))
        known = len(parts.log_mass)
        which = np.arange(size) % known
        log_share = np.where(
            np.arange(size) < known, (parts.log_mass - np.logaddexp.reduce(parts.log_mass))[which], -np.inf
        )
        as_jax = [jnp.asarray(a, jnp.float32) for a in (log_share, parts.mean[which], axes[which], variance[which])]
        return GaussianMixture(*as_jax)


def log_sum(a: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Log of the sum of exponentials along the last axis, at least one of them finite: plain
    NumPy, as the checks of `scipy.special.logsumexp` take longer than the sums of few rows.
    """
    most = np.max(a, axis=1)
    return most + np.log(np.sum(np.exp(a - most[:, None]), axis=1))
