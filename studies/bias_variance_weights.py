"""Measurements for the study of bias and variance: the buffer's density and the self-normalised
loss.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.diffusion import posterior
from allmodes.points import weights
from studies.bias_variance_measure import Stat, levels, mean
from studies.bias_variance_theory import Exact, snis, standard

_mixture = jax.jit(weights.log_mixture)


def _spread(first: Stat, second: Stat) -> Stat:
    """Variance from the first two moments."""
    return Stat(second.value - first.value**2, second.without - first.without**2)


def _mixtures(centres, own, x, sigma):
    """Buffer density with x's origin counted once, which is the density that x was drawn from, and
    counted twice.

    `log_mixture` adds the origin to the centres; given the whole buffer as centres, as here, it
    stands there twice.
    """
    f32 = partial(np.asarray, dtype=np.float32)
    twice = np.asarray(_mixture(f32(x), f32(own), f32(centres), np.full(len(x), sigma, np.float32)), float)
    kernel = -0.5 * np.sum((f32(x) - f32(own)).astype(float) ** 2, axis=1) / sigma**2
    kernel -= 0.5 * x.shape[1] * np.log(2.0 * np.pi * sigma**2) + np.log(len(centres) + 1.0)
    once = twice + np.log1p(-np.minimum(np.exp(kernel - twice), 0.5 + 1e-6)) + np.log1p(1.0 / len(centres))
    return once, twice


def buffer(
    target: Exact, sigmas: list[float], sizes: list[int], batch: int, blocks: int, seed: int
) -> dict[str, list[list[Stat]]]:
    """Buffer density against p_t for buffers of exact draws: Stats by name, sigma and size.

    Every true weight is one, so the ESS that is left is the noise of the estimate alone.
    """
    rng = np.random.default_rng(seed)
    names = ("bias", "variance", "ess", "ess_twice", "weight", "weight_twice")
    out = {name: [[] for _ in sigmas] for name in names}
    for size in sizes:
        parts = [[] for _ in sigmas]
        for _ in range(max(8, min(blocks, blocks * 512 // size))):
            centres = target.draw(rng, size)
            own, noise = centres[rng.integers(size, size=batch)], rng.standard_normal((batch, target.dim))
            for s, sigma in enumerate(sigmas):
                x = own + sigma * noise
                once, twice = (v - target.log_density(x, sigma) for v in _mixtures(centres, own, x, sigma))
                ess = [float(weights.ess_fraction(jnp.asarray(-e, jnp.float32))) for e in (once, twice)]
                parts[s].append([once.mean(), np.mean(once**2), *ess, np.exp(-once).mean(), np.exp(-twice).mean()])
        for s in range(len(sigmas)):
            first, second, *rest = (mean(column) for column in np.asarray(parts[s]).T)
            for name, stat in zip(names, (first, _spread(first, second), *rest), strict=True):
                out[name][s].append(stat)
    return out


@partial(jax.jit, static_argnums=0)
def _normalised_means(sizes, log_w, f):
    """Self-normalised means of f over batches of each size: block means of error and squared error,
    f centred.
    """
    out = []
    for n in sizes:
        w = weights.normalise(log_w.reshape(-1, n))
        e = jnp.mean(w * f.reshape(-1, n), axis=-1)
        out.append((e.mean(), jnp.mean(e**2)))
    return jnp.asarray(out)


def loss(dim: int, broad: float, most: int, blocks: int, seed: int) -> dict[str, Any]:
    """SNIS of the loss with exact weights against the batch N, at sigma = tau = 1.

    x_t comes from a buffer `broad` times as wide as the target. The loss is that of a denoiser
    whose score is too large by a constant factor, in units of its expectation: `|x_t|^2 / (2 d)`,
    of mean one under p_t.
    """
    rng = np.random.default_rng(seed)
    proposal, sizes = broad**2 + 1.0, tuple(levels(most, 4))
    rho, bias, variance = snis(dim, proposal, 2.0)
    parts, linear = [], []
    for _ in range(blocks):
        square = np.sum(proposal * rng.standard_normal((most, dim)) ** 2, axis=1)
        log_w = 0.5 * dim * np.log(proposal / 2.0) - 0.5 * square * (1.0 / 2.0 - 1.0 / proposal)
        f = square / (2.0 * dim) - 1.0
        parts.append(
            np.asarray(_normalised_means(sizes, jnp.asarray(log_w, jnp.float32), jnp.asarray(f, jnp.float32)), float)
        )
        linear.append(np.mean(np.exp(log_w) * f))
    parts, linear = np.asarray(parts), np.asarray(linear)[:, None]
    raw, second = mean(parts[..., 0]), mean(parts[..., 1])
    slope = np.sum(parts[..., 0] * linear, axis=0) / np.sum(linear**2)
    if broad < 1.0:
        slope = 0.0 * slope
    first = mean(parts[..., 0] - slope * linear)
    theory = {"rho": rho, "bias": bias, "variance": variance}
    return {"sizes": np.asarray(sizes), "bias": first, "variance": _spread(raw, second), "theory": theory}


@partial(jax.jit, static_argnums=(0, 1))
def _inherit(log_prob, sizes, key, x, log_w, log_p):
    """Batch functionals with K draws a point: SNIS loss value, loss of the exact score, fitted
    factor of the score.
    """
    batch, dim = x.shape
    draws = x[:, None] + jax.random.normal(key, (batch, sizes[-1], dim))
    value, grad = jax.vmap(jax.vmap(jax.value_and_grad(log_prob)))(draws)
    f = jnp.sum(x**2, axis=1) / (2.0 * dim) - 1.0
    out = []
    for k in sizes:
        split = lambda a, k=k: jnp.swapaxes(a.reshape(batch, -1, k, *a.shape[2:]), 0, 1)  # noqa: E731
        points = jax.vmap(posterior.from_draws, in_axes=(0, None, 0, 0, 0))
        e = jax.vmap(points, in_axes=(None, None, 0, 0, 0))(
            x, jnp.float32(1.0), split(draws), split(value), split(grad)
        )
        score = e.tsi - x  # sigma = 1; the true score is -x / 2
        noise = 2.0 * jnp.mean((score + 0.5 * x) ** 2, axis=-1)
        rows = []
        for log_v in (jnp.broadcast_to(log_w, e.log_density.shape), log_w + e.log_density - log_p):
            w = weights.normalise(log_v)
            factor = (
                -2.0
                * jnp.mean(w * jnp.sum(x * score, axis=-1), axis=-1)
                / jnp.mean(w * jnp.sum(x**2, axis=-1), axis=-1)
            )
            rows.append(
                [jnp.mean(w * f), jnp.mean(w * noise), jnp.mean(factor) - 1.0, jnp.mean(weights.ess_fraction(log_v))]
            )
        out.append(rows)
    return jnp.asarray(out)


def inherited_draws(dim: int, broad: float, batch: int, most: int, blocks: int, seed: int) -> dict[str, Any]:
    """What K draws a point leave in the loss at sigma = tau = 1, with exact weights and with
    weights from the draws.

    Stats of shape `(K, 2)`, the last axis exact and estimated weights: bias of the loss value; loss
    of the exact score (the noise of the target, relative); bias of the fitted factor, the one
    parameter of a model `factor * score`; ESS.
    """
    target, proposal = standard(dim), broad**2 + 1.0
    sizes, log_prob = tuple(levels(most)), target.components().log_prob(0.0)
    rng, parts = np.random.default_rng(seed), []
    for key in jax.random.split(jax.random.key(seed), blocks):
        x = (np.sqrt(proposal) * rng.standard_normal((batch, dim))).astype(np.float32)
        log_p = target.log_density(x.astype(float), 1.0)
        log_w = log_p + 0.5 * np.sum(x.astype(float) ** 2, axis=1) / proposal
        parts.append(
            np.asarray(_inherit(log_prob, sizes, key, x, *(jnp.asarray(a, jnp.float32) for a in (log_w, log_p))))
        )
    names = ("value", "noise", "factor", "ess")
    return {"sizes": np.asarray(sizes), **{n: mean(np.asarray(parts, float)[..., i]) for i, n in enumerate(names)}}


def inherited_buffer(
    dim: int, broad: float, sigma: float, sizes: list[int], batch: int, blocks: int, seed: int
) -> dict[str, dict[str, np.ndarray]]:
    """Bias of the SNIS loss value, and ESS, when x_t comes from a buffer of L points: arrays of
    shape `(L, 3)`.

    The last axis is the denominator: buffer mixture with the own component once, twice, and the
    density that the buffer was drawn from, noised. Numerators are exact; the loss is the one of
    `loss`.
    """
    target, rng = standard(dim), np.random.default_rng(seed)
    wide = Exact("wide", target.means, broad**2 * target.var, target.weights)
    out = []
    for size in sizes:
        parts = []
        for _ in range(max(8, min(blocks, blocks * 512 // size))):
            centres = wide.draw(rng, size)
            own = centres[rng.integers(size, size=batch)]
            x = own + sigma * rng.standard_normal(own.shape)
            f = np.mean(x**2, axis=1) / (1.0 + sigma**2) - 1.0
            log_p, row = target.log_density(x, sigma), []
            for log_q in (*_mixtures(centres, own, x, sigma), wide.log_density(x, sigma)):
                log_w = jnp.asarray(log_p - log_q, jnp.float32)
                row.append(
                    [np.mean(np.asarray(weights.normalise(log_w), float) * f), float(weights.ess_fraction(log_w))]
                )
            parts.append(row)
        out.append(mean(np.asarray(parts)))

    def gather(i):
        return {"value": np.stack([o.value[:, i] for o in out]), "se": np.stack([o.se[:, i] for o in out])}

    return {"value": gather(0), "ess": gather(1)}
