"""Mixtures whose modes are no Gaussians, with everything about them known: what a sampler that
starts from fitted Gaussians still has to learn.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from allmodes.errors import TargetError
from allmodes.target import Modes, Target
from allmodes.targets.components import OFF, chi2_quantile

DRAWS_PER_CELL = 5000  # of each mode, for the masses of their regions


@dataclasses.dataclass(frozen=True)
class _Warp:
    """`x = mean_k + matrix_k y`, where y is a standard normal u with its tails drawn out and leant
    to one side (sinh-arcsinh, Jones and Pewsey 2009), and its second coordinate bent along the
    first: `y = sinh((arcsinh(u) + skew_k) / tail)`, `y_2 += bend_k (y_1^2 - 1)`.
    """

    means: Float[np.ndarray, "modes dim"]
    matrices: Float[np.ndarray, "modes dim dim"]
    weights: Float[np.ndarray, " modes"]
    skew: Float[np.ndarray, "modes dim"]
    bend: Float[np.ndarray, " modes"]
    tail: float

    def log_parts(self, x: Float[Array, " dim"]) -> tuple[Float[Array, " modes"], Float[Array, "modes dim"]]:
        """Log of each mode's weight times its density, and the normal u that made the point."""
        dim = self.means.shape[1]
        const = np.log(self.weights) - np.linalg.slogdet(self.matrices)[1] - 0.5 * dim * np.log(2.0 * np.pi)
        inverse, means, skew, bend, const = (
            jnp.asarray(a, x.dtype) for a in (np.linalg.inv(self.matrices), self.means, self.skew, self.bend, const)
        )
        y = jnp.einsum("kij,kj->ki", inverse, x - means, precision="highest")
        if dim > 1:
            y = y.at[:, 1].add(-bend * (y[:, 0] ** 2 - 1.0))
        a = self.tail * jnp.arcsinh(y) - skew
        u = jnp.sinh(a)
        slope = jnp.log(self.tail * jnp.cosh(a)) - 0.5 * jnp.log1p(y**2)
        return const + jnp.sum(slope - 0.5 * u**2, axis=1), u

    def draws_of(self, key: PRNGKeyArray, mode: Int[Array, " n"]) -> Float[Array, "n dim"]:
        """One draw of each mode that is named."""
        means, matrices, skew, bend = map(jnp.asarray, (self.means, self.matrices, self.skew, self.bend))
        u = jax.random.normal(key, (len(mode), self.means.shape[1]))
        y = jnp.sinh((jnp.arcsinh(u) + skew[mode]) / self.tail)
        if u.shape[1] > 1:
            y = y.at[:, 1].add(bend[mode] * (y[:, 0] ** 2 - 1.0))
        turn = lambda pair: jnp.matmul(matrices[pair[0]], pair[1], precision="highest")  # noqa: E731
        return means[mode] + jax.lax.map(turn, (mode, y), batch_size=8192)


def warped_mixture(
    seed: int,
    modes: int,
    dim: int,
    box: float = 40.0,
    unequal: float = float(np.exp(3.0)),
    spread: tuple[float, float] = (0.7, 2.0),
    skew: float = 0.4,
    tail: float = 0.8,
    bend: float = 0.35,
    log_z: float = 0.0,
) -> Target:
    """Build a mixture whose modes are skewed, heavy in the tails and bent, none like another.

    Means uniform in `[-box, box]^dim`, axes at random with scales uniform in `spread`, weights
    `exp(uniform(0, log(unequal)))`, normalised; along the axes sinh-arcsinh normals (Jones and
    Pewsey 2009) of skewness uniform in `[-skew, skew]` and of tails `tail` (1: those of a normal;
    less: heavier), the second bent along the first by up to `bend`; from NumPy's generator with
    this seed. Draws and `log_z` are exact. A point belongs to the mode that most probably made it,
    or to none where it is further out than all but one in a million of the mode's own draws.

    **Raises** `TargetError` when `tail` is not positive.
    """
    if not tail > 0.0:
        raise TargetError(f"tail must be positive, got {tail}")
    rng = np.random.default_rng(seed)
    means = rng.uniform(-box, box, (modes, dim))
    axes = [np.linalg.qr(rng.normal(size=(dim, dim)))[0] * rng.uniform(*spread, dim) for _ in range(modes)]
    weights = np.exp(rng.uniform(0.0, np.log(unequal), modes))
    skews = rng.uniform(-skew, skew, (modes, dim))
    warp = _Warp(means, np.array(axes), weights / weights.sum(), skews, rng.uniform(-bend, bend, modes), tail)
    parts = jax.jit(lambda x: jax.lax.map(warp.log_parts, x, batch_size=4096))

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        return logsumexp(warp.log_parts(x)[0]) + log_z

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        k_mode, k_draw = jax.random.split(key)
        mode = jax.random.categorical(k_mode, jnp.log(jnp.asarray(warp.weights)), shape=(n,))
        return warp.draws_of(k_draw, mode)

    def assign(x: Float[Array | np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
        log_parts, u = map(np.asarray, parts(jnp.asarray(x, jnp.float32)))
        label = log_parts.argmax(axis=1)
        return np.where(np.sum(u[np.arange(len(u)), label] ** 2, axis=1) <= chi2_quantile(dim, OFF), label, -1)

    every = jnp.repeat(jnp.arange(modes), DRAWS_PER_CELL)
    label = assign(warp.draws_of(jax.random.key(0), every))
    label = np.where(label < 0, every, label)
    masses = np.bincount(label, warp.weights[np.asarray(every)] / DRAWS_PER_CELL, minlength=modes)
    known = Modes(weights=masses, assign=assign, means=means)
    return Target(log_prob, dim, f"warped-mixture-{modes}x{dim}", sample=sample, log_z=float(log_z), modes=known)
