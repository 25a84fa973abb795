"""Gaussian mixtures: everything about them is known, so every method and metric is checked on
them.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from allmodes.errors import TargetError
from allmodes.target import Modes, Target
from allmodes.targets.components import Components, Numbers


def gaussian_mixture(
    means: Numbers,
    covariances: Numbers,
    weights: Numbers | None = None,
    log_z: float = 0.0,
    name: str = "gaussian-mixture",
) -> Target:
    """`log_prob(x) = log_z + log sum_m weights_m N(x; means_m, covariances_m)`.

    Draws and `log_z` are exact. A point belongs to the component that most probably made it, or to
    none when it is further (in Mahalanobis distance) from that component than all but one in a
    million of the component's own draws. `modes.weights` are the masses of these regions: the
    mixture's weights where components are apart; where they overlap, their weights less what
    neighbours claim, plus what they claim of neighbours (standard error about 1e-4).

    **Arguments**

    - `means`: `(modes, dim)`.
    - `covariances`: `()` or `(modes,)`, isotropic; `(modes, dim)`, diagonal; `(modes, dim, dim)`,
      full. Variances, not standard deviations.
    - `weights`: `(modes,)`, positive, normalised here; equal when not given.

    **Raises** `TargetError` for shapes that do not match, weights or covariances that are not
    positive.
    """
    components = Components.make(means, covariances, weights)
    modes = Modes(weights=components.cell_masses(), assign=components.assign, means=components.means)
    return Target(
        components.log_prob(log_z), components.dim, name, sample=components.sample, log_z=float(log_z), modes=modes
    )


def random_parts(
    seed: int, modes: int, dim: int, box: float = 40.0, unequal: float = 20.0, spread: tuple[float, float] = (0.7, 2.0)
) -> tuple[Float[np.ndarray, "modes dim"], Float[np.ndarray, "modes dim dim"], Float[np.ndarray, " modes"]]:
    """Means, covariances and weights of `random_mixture`."""
    rng = np.random.default_rng(seed)
    means = rng.uniform(-box, box, (modes, dim))
    covariances = np.empty((modes, dim, dim))
    for m in range(modes):
        rotation, _ = np.linalg.qr(rng.normal(size=(dim, dim)))
        covariances[m] = rotation @ np.diag(rng.uniform(*spread, dim) ** 2) @ rotation.T
    weights = np.exp(rng.uniform(0, np.log(unequal), modes))
    return means, covariances, weights / weights.sum()


def random_mixture(
    seed: int,
    modes: int,
    dim: int,
    box: float = 40.0,
    unequal: float = 20.0,
    spread: tuple[float, float] = (0.7, 2.0),
    log_z: float = 0.0,
) -> Target:
    """Build a mixture with nothing equal.

    Means uniform in `[-box, box]^dim`, each covariance a random rotation of standard deviations
    uniform in `spread`, weights `exp(uniform(0, log(unequal)))`, normalised; from NumPy's generator
    with this seed.
    """
    parts = random_parts(seed, modes, dim, box, unequal, spread)
    return gaussian_mixture(*parts, log_z, name=f"random-mixture-{modes}x{dim}")


def gaussian(
    dim: int = 8, mean: Numbers | None = None, covariance: Numbers | None = None, log_z: float = 0.0
) -> Target:
    """One correlated Gaussian, `log_z + log N(x; mean, covariance)`, for checks in closed form.

    By default the mean runs from -1 to 1, the standard deviations from 0.5 to 2 in geometric steps,
    and the correlation of coordinates i and j is `0.8^|i-j|`.
    """
    if mean is None:
        mean = np.linspace(-1.0, 1.0, dim)
    if covariance is None:
        std, index = np.geomspace(0.5, 2.0, dim), np.arange(dim)
        covariance = np.outer(std, std) * 0.8 ** np.abs(index[:, None] - index)
    mean = np.broadcast_to(np.asarray(mean, float), (dim,))
    return gaussian_mixture(mean[None], np.asarray(covariance, float)[None], log_z=log_z, name="gaussian")


def affine(target: Target, scale: Numbers, shift: Numbers) -> Target:
    """Push a target forward: the density of `y = scale * x + shift` for x from `target`.

    `scale`, nonzero, and `shift` are `()` or `(dim,)`. The Jacobian is in the density, so `log_z`
    stays; draws, modes and hints move along.
    """
    scale, shift = np.asarray(scale, float), np.asarray(shift, float)
    if not all(a.shape in ((), (target.dim,)) and np.all(np.isfinite(a)) for a in (scale, shift)) or np.any(scale == 0):
        raise TargetError(f"scale (nonzero) and shift must be finite, of shape () or ({target.dim},)")
    log_jacobian = float(np.sum(np.log(np.abs(np.broadcast_to(scale, (target.dim,))))))

    def log_prob(y: Float[Array, " dim"]) -> Float[Array, ""]:
        return target.log_prob((y - jnp.asarray(shift, y.dtype)) / jnp.asarray(scale, y.dtype)) - log_jacobian

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        x = target.sample(key, n)
        return jnp.asarray(scale, x.dtype) * x + jnp.asarray(shift, x.dtype)

    modes = target.modes and dataclasses.replace(
        target.modes,
        assign=lambda y: target.modes.assign((np.asarray(y, float) - shift) / scale),
        means=None if target.modes.means is None else scale * target.modes.means + shift,
    )
    return dataclasses.replace(
        target,
        log_prob=log_prob,
        name=f"{target.name}-affine",
        location=None if target.location is None else scale * target.location + shift,
        scale=None if target.scale is None else np.abs(scale) * target.scale,
        sample=target.sample and sample,
        modes=modes,
    )
