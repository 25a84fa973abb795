"""SMC along the reverse path, with a look ahead to the clean end of it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.mesh import share_evenly
from allmodes.devices.precision import double
from allmodes.diffusion import blocks
from allmodes.diffusion.corrections.correction import Correction
from allmodes.diffusion.corrections.proposal import PathProposal
from allmodes.diffusion.paths import Path, Process, denoise
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import batch_log_z
from allmodes.errors import ConfigError
from allmodes.points import weights
from allmodes.points.normal import log_normal
from allmodes.progress.stages import parts_of


@dataclasses.dataclass(frozen=True)
class PathSMC(Correction):
    """Populations along the reverse path, resampled where their weights have become uneven.

    Weighted draws, some with a common origin; log Z from the populations; 97 n evaluations. For a
    sampler with a diffusion.
    """

    populations: int = 10
    """Independent ones, from which the error of log Z comes; fewer where n is small."""
    smallest: int = 50
    """Draws of a population, at least."""
    levels: int = 12
    """Levels of a path at which it may be resampled."""
    looks: int = 8
    """Draws of the denoised posterior with which it looks ahead at each of them."""
    least: float = 0.5
    """Effective share below which it is resampled."""
    wider: float = 1.5
    """Variance of those draws over that of the denoised posterior: a proposal must not be too
    narrow."""
    noisy: float = 0.05
    """Relative variance of what it sees ahead above which it is not resampled: with a bound of .5
    gmm40 was at high noise, where one Gaussian does not cover a posterior of several modes."""

    def __post_init__(self):
        for name in ("populations", "smallest", "levels", "looks"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("least", "wider", "noisy"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")

    def __call__(self, sampler: Any, n: int, *, key: Array, steps: int | None = None) -> Draws:
        """Draw n, in populations."""
        proposal = sampler.proposal()
        if not isinstance(proposal, PathProposal):
            raise ConfigError("SMC along the path needs a sampler with a diffusion: 'snis' and 'mcmc' do not")
        populations = max(1, min(self.populations, n // self.smallest), -(-n // blocks.BLOCK))
        size = share_evenly(-(-n // populations))
        keys = [jax.random.fold_in(key, i) for i in range(populations)]
        parts = [proposal.smc(k, size, steps, self) for k in parts_of(keys, f"correcting {n:,}")]
        with double(proposal.target.double):
            evidence = batch_log_z(jnp.stack([logsumexp(part[2]) - jnp.log(size) for part in parts]))
        x, log_prob, log_weight = (jnp.concatenate(part)[:n] for part in zip(*(p[:3] for p in parts), strict=True))
        seen, spent = proposal.look_forward()
        cost, named = spent + sum(part[3] for part in parts), proposal.target.parameters
        told = {"forward_ess": seen.ess, "findings": proposal.findings}
        return Draws(x, log_prob, log_weight, cost, evidence, parameters=named, **told)


def smc_evaluations(process: Process, steps: int, settings: PathSMC) -> int:
    """Count the evaluations of one draw: its clean end, what is looked at ahead, and its path."""
    ahead = (len(stops_of(steps, settings)) - 2) * (settings.looks + process.path_evaluations(1))
    return 1 + ahead + process.path_evaluations(steps)


def stops_of(steps: int, settings: PathSMC) -> Int[np.ndarray, " stops"]:
    """Give the steps at which a path may be resampled, between its first and its last: all of them
    where there are fewer than levels.
    """
    return np.unique(np.round(np.linspace(0, steps, settings.levels + 2)).astype(int))


def look_ahead(
    process: Process,
    values: Callable[[Float[Array, "n dim"]], Float[Array, " n"]],
    key: Array,
    z: Float[Array, "n dim"],
    sigma: Scalar,
    settings: PathSMC,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Estimate `log p_t(z) + log Z` by importance sampling of p(z_0 | z), and its relative
    variance.

    The proposal is the Gaussian that the denoiser knows: its own value and its error at the level.
    The mean of `pi(z_0) N(z; z_0, sigma^2) / q(z_0)` over it is unbiased for `Z p_t(z)`. `looks`
    evaluations a point.
    """
    looks = settings.looks
    mean, variance = process.denoiser.many(z, sigma), settings.wider * process.error_at(sigma)
    n, dim = z.shape
    z_0 = mean[:, None] + jnp.sqrt(variance) * jax.random.normal(key, (n, looks, dim))
    log_w = values(z_0.reshape(-1, dim)).reshape(n, looks)
    centre = jnp.broadcast_to(z[:, None], z_0.shape)
    log_w += log_normal(z_0, centre, sigma[None] ** 2)
    log_w -= log_normal(z_0, jnp.broadcast_to(mean[:, None], z_0.shape), variance)
    fraction = weights.ess_fraction(log_w)
    noisy = jnp.where(fraction > 0, (1.0 / jnp.maximum(fraction, 1e-6) - 1.0) / looks, 1.0)
    return logsumexp(log_w, axis=1) - jnp.log(looks), noisy


def smc(
    process: Process,
    values: Callable[[Float[Array, "n dim"]], Float[Array, " n"]],
    key: Array,
    n: int,
    steps: int,
    settings: PathSMC,
) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
    """One population along the reverse path, resampled where its weights have become uneven: z,
    log_prob, log_weight.

    The target of a path that has come down to z is `Z p_t(z)`, times the noising kernels above it;
    at some levels `look_ahead` estimates it, and whatever it estimates cancels in the end: weights
    are exact, `mean(exp(log_weight))` is unbiased for Z but for the adaptive choice of where to
    resample, and averages are consistent in n (Del Moral et al. 2006; Doucet et al. 2022 for
    diffusions). A level whose estimates vary too much is passed by. `n (1 + levels looks)`
    evaluations.
    """
    sigmas = process.noise.grid(steps)
    stops = stops_of(steps, settings)
    k_prior, k_path, k_look, k_choose = jax.random.split(key, 4)
    z = process.prior(k_prior, n)
    # `since`: log weight since the last resampling without the look-ahead of now; `log_z`: of what
    # was resampled away.
    start = (z, -process.log_prior(z), jnp.zeros(()))

    def segment(carry, bounds):
        z, since, log_z = carry
        first, last = bounds
        path = denoise(process, k_path, z, sigmas, first, last)
        z, since = path.z, since + path.log_ratio
        seen, noisy = look_ahead(process, values, jax.random.fold_in(k_look, last), z, sigmas[last], settings)
        log_w = since + seen
        uneven = weights.ess_fraction(log_w) < settings.least

        def resample(_):
            index = weights.systematic(jax.random.fold_in(k_choose, last), weights.normalise(log_w), n)
            return z[index], -seen[index], log_z + logsumexp(log_w) - jnp.log(n)

        clear = jnp.mean(jnp.minimum(noisy, 1.0)) < settings.noisy
        return jax.lax.cond(uneven & clear, resample, lambda _: (z, since, log_z), None), None

    (z, since, log_z), _ = jax.lax.scan(segment, start, (jnp.asarray(stops[:-2]), jnp.asarray(stops[1:-1])))
    path: Path = denoise(process, k_path, z, sigmas, int(stops[-2]), steps)
    log_prob = values(path.z)
    return path.z, log_prob, since + path.log_ratio + log_prob + log_z
