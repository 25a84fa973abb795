"""Measurements for the study of bias and variance. Each repeats the library's own estimators where
the truth is known.

Replicates come in blocks. A block of Kmax draws gives one estimate from all of them, four from
quarters, and so on down to K = 1. Standard errors are jackknives over blocks. Biases are far
smaller than the scatter of the estimates, so where Kmax is at least four times rho we subtract from
each block's error a multiple of its linear part, the mean of `w (f - m)`, whose expectation is
exactly zero (a control variate; the multiple comes from the other blocks).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.diffusion import posterior
from studies.bias_variance_theory import Exact


class Stat(NamedTuple):
    """A figure, and the figure without each block in turn (first axis)."""

    value: np.ndarray | np.floating
    without: np.ndarray

    @property
    def se(self) -> np.ndarray | np.floating:
        """Jackknife standard error."""
        blocks = len(self.without)
        return np.sqrt((blocks - 1) / blocks * np.sum((self.without - self.without.mean(axis=0)) ** 2, axis=0))

    def map(self, f: Callable[[np.ndarray], Any]) -> "Stat":
        """A function of the figure, with its own standard error."""
        return Stat(f(self.value), np.stack([f(v) for v in self.without]))


def mean(blocks: np.ndarray) -> Stat:
    """Mean over blocks, the first axis."""
    total = blocks.sum(axis=0)
    return Stat(total / len(blocks), (total - blocks) / (len(blocks) - 1))


def levels(most: int, least: int = 1) -> list[int]:
    """Powers of four from `least` to `most`."""
    return [k for k in (4**i for i in range(20)) if least <= k <= most]


def without_linear(first: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """Errors `(blocks, ..., dim)` less their regression on the linear part, with the slope of the
    other blocks.
    """
    product, square = np.sum(first * linear, axis=-1, keepdims=True), np.sum(linear**2, axis=-1, keepdims=True)
    rest = square.sum(axis=0) - square
    slope = (product.sum(axis=0) - product) / np.where(rest > 0, rest, 1.0)
    return first - slope * linear


def moments(first: np.ndarray, second: np.ndarray, linear: np.ndarray) -> tuple[Stat, Stat, Stat]:
    """Mean error, mean squared bias and variance, averaged over points and coordinates (the last
    two axes).

    `first` and `second` are the blocks' mean errors and mean squared errors. The squared bias is
    the U-statistic of products of different blocks, so that it is unbiased and may come out
    negative.
    """
    clean, blocks = without_linear(first, linear), len(first)
    total, squares = clean.sum(axis=0), (clean**2).sum(axis=0)
    square = (total**2 - squares) / (blocks * (blocks - 1))
    others = ((total - clean) ** 2 - (squares - clean**2)) / ((blocks - 1) * (blocks - 2))
    bias2 = Stat(square.mean(axis=(-2, -1)), others.mean(axis=(-2, -1)))
    raw = mean(second.mean(axis=(-2, -1)))
    return mean(clean.mean(axis=(-2, -1))), bias2, Stat(raw.value - bias2.value, raw.without - bias2.without)


def fit(x: np.ndarray, y: Stat, use: np.ndarray) -> dict[str, Any] | None:
    """Least-squares slope of log y on log x at the points `use`, with jackknife error; None for
    fewer than three.
    """
    use = use & np.all(y.without > 0, axis=0) & (y.value > 0)
    if use.sum() < 3:
        return None
    slope = y.map(lambda v: np.polyfit(np.log(x[use]), np.log(v[use]), 1)[0])
    return {"slope": float(slope.value), "se": float(slope.se), "from": float(x[use][0]), "to": float(x[use][-1])}


def fit_independent(x: np.ndarray, y: np.ndarray, se: np.ndarray, use: np.ndarray) -> dict[str, Any] | None:
    """As `fit`, of independent figures with standard errors."""
    use = use & (y > 0)
    if use.sum() < 3:
        return None
    log_x = np.log(x[use]) - np.mean(np.log(x[use]))
    share = log_x / np.sum(log_x**2)
    error = np.sqrt(np.sum((share * se[use] / y[use]) ** 2))
    return {"slope": share @ np.log(y[use]), "se": error, "from": float(x[use][0]), "to": float(x[use][-1])}


@partial(jax.jit, static_argnums=(0, 1))
def _fresh(log_prob, sizes, key, x, log_p, truth, sigma, share, unit):
    """One block: mean errors and squared errors of each estimate at each K, and the linear parts,
    for each sigma.
    """
    noise = jax.random.normal(key, (x.shape[1], sizes[-1], x.shape[2]))

    def one(args):
        x, log_p, truth, sigma, share, unit = args
        draws = x[:, None] + sigma * noise
        value, grad = jax.vmap(jax.vmap(jax.value_and_grad(log_prob)))(draws)
        w = jnp.exp(jnp.minimum(value - log_p[:, None], 40.0)) / sizes[-1]

        def errors(dsi, tsi):  # of the score, relative
            both = {"tsi": tsi, "dsi": dsi, "blend": share * tsi + (1.0 - share) * dsi}
            return {name: (v - truth.reshape(len(x), *[1] * (v.ndim - 2), -1)) * unit for name, v in both.items()}

        each = errors(draws, x[:, None] + sigma**2 * grad)
        linear = {name: jnp.einsum("pk,pkd->pd", w, v) for name, v in each.items()}
        linear["log_density"] = jnp.sum(w, axis=1)[:, None] - 1.0
        first, second = [], []
        for k in sizes:
            split = lambda a, k=k: a.reshape(len(x), -1, k, *a.shape[2:])  # noqa: E731
            inner = jax.vmap(posterior.from_draws, in_axes=(None, None, 0, 0, 0))
            estimate = jax.vmap(inner, in_axes=(0, None, 0, 0, 0))(x, sigma, split(draws), split(value), split(grad))
            error = errors(estimate.dsi, estimate.tsi)
            error["log_density"] = (estimate.log_density - log_p[:, None])[..., None]
            first.append({name: v.mean(axis=1) for name, v in error.items()})
            second.append({name: (v**2).mean(axis=1) for name, v in error.items()})
        stack = lambda parts: jax.tree.map(lambda *a: jnp.stack(a), *parts)  # noqa: E731
        return stack(first), stack(second), linear

    return jax.lax.map(one, (x, log_p, truth, sigma, share, unit))


def score(target: Exact, sigmas: list[float], points: int, blocks: int, draws: list[int], seed: int) -> dict[str, Any]:
    """Fresh draws and the single stored draw at fixed x_t ~ p_t: Stats over (sigma, K) and the
    theory beside them.
    """
    (least, most), rng = draws, np.random.default_rng(seed)
    x_0, noise = target.draw(rng, points), rng.standard_normal((points, target.dim))
    x = np.stack([x_0 + s * noise for s in sigmas]).astype(np.float32)  # the same points and noise at every sigma
    wide = x.astype(float)
    log_p = np.stack([target.log_density(v, s) for v, s in zip(wide, sigmas, strict=True)])
    truth = np.stack([target.denoised(v, s) for v, s in zip(wide, sigmas, strict=True)])
    unit = np.stack([target.unit(s) for s in sigmas])
    single, share = _single(target, sigmas, wide, truth, unit, blocks, max(64, most // 32), rng)

    log_prob, sizes = target.components().log_prob(0.0), tuple(levels(most, least))
    inputs = [jnp.asarray(a, jnp.float32) for a in (x, log_p, truth, np.asarray(sigmas), share, unit)]
    keys = jax.random.split(jax.random.key(seed), blocks)
    got = [jax.tree.map(np.asarray, _fresh(log_prob, sizes, key, *inputs)) for key in keys]
    first, second, linear = ({n: np.stack([b[i][n] for b in got]).astype(float) for n in got[0][i]} for i in range(3))
    theory = _theory(target, sigmas, wide, share, unit)
    usable = np.stack([most >= 4.0 * row["rho"] for row in theory])[:, None, :, None]
    fresh = {n: moments(first[n], second[n], np.where(usable, linear[n][:, :, None], 0.0)) for n in first}
    tsi, n = first["tsi"], len(first["tsi"])
    square = (tsi.sum(axis=0) ** 2 - (tsi**2).sum(axis=0)) / (n * (n - 1))  # as in `moments`, point by point
    variance = np.mean(second["tsi"].mean(axis=0) - square, axis=-1)  # (sigma, K, points)
    expected = np.stack([row["tsi_points"] for row in theory])[:, None] / np.asarray(sizes)[:, None]
    return {
        "sizes": np.asarray(sizes),
        "fresh": fresh,
        "single": single,
        "gate": share,
        "theory": theory,
        "over_theory": variance / expected,
    }


def _single(target, sigmas, x, truth, unit, blocks, n, rng):
    """One exact posterior draw with its gradient (`posterior.from_origin`), and the gate that it
    gives.
    """
    grad_of = jax.jit(jax.vmap(jax.vmap(jax.grad(target.components().log_prob(0.0)))))
    estimate = jax.jit(jax.vmap(jax.vmap(posterior.from_origin, in_axes=(0, 0, None, None)), in_axes=(0, 0, 0, None)))
    out, shares = [], []
    for s, sigma in enumerate(sigmas):
        parts = []
        for _ in range(blocks):
            x_0 = jnp.asarray(target.draw_posterior(rng, x[s], sigma, n), jnp.float32)
            parts.append([np.asarray(v) for v in estimate(x_0, grad_of(x_0), jnp.asarray(x[s], jnp.float32), sigma)])
        dsi, tsi = (np.stack([p[i] for p in parts]).astype(float) for i in range(2))  # (blocks, points, n, dim)
        flat = [
            jnp.asarray(a.reshape(-1, target.dim), jnp.float32)
            for a in (dsi, tsi, np.broadcast_to(truth[s][None, :, None], dsi.shape))
        ]
        gate = posterior.Gate(jnp.zeros((1, target.dim)), jnp.ones((1, target.dim))).update(*flat, 0.0)
        share = np.asarray(gate.share()[0], float)
        shares.append(share)
        errors = {"tsi": tsi, "dsi": dsi, "blend": share * tsi + (1.0 - share) * dsi}
        errors = {name: (v - truth[s][None, :, None]) * unit[s] for name, v in errors.items()}
        out.append(
            {k: moments(v.mean(axis=2), (v**2).mean(axis=2), np.zeros_like(v[:, :, 0])) for k, v in errors.items()}
        )
    return out, np.stack(shares)


def _theory(target, sigmas, x, share, unit):
    """K times variance and K^2 times squared bias in the units of the measurements; what float32
    cannot resolve.
    """
    rows = []
    for s, sigma in enumerate(sigmas):
        lead, a, u = target.leading(x[s], sigma), share[s], unit[s]
        bias = {"tsi": lead.bias_tsi, "dsi": lead.bias_dsi, "blend": a * lead.bias_tsi + (1 - a) * lead.bias_dsi}
        mixed = a**2 * lead.var_tsi + (1 - a) ** 2 * lead.var_dsi + 2 * a * (1 - a) * lead.cov
        variance = {"tsi": lead.var_tsi, "dsi": lead.var_dsi, "blend": mixed}
        leading = {n: (np.mean((bias[n] * u) ** 2), np.mean(variance[n] * u**2)) for n in bias}
        leading["log_density"] = (np.mean(lead.rho - 1.0) / -2.0, np.mean(lead.rho - 1.0))
        rounding = np.mean((1e-7 * np.maximum(np.abs(x[s]), sigma) * u) ** 2)
        points = np.mean(lead.var_tsi * u**2, axis=1)
        rows.append({"leading": leading, "rho": lead.rho, "rounding": float(rounding), "tsi_points": points})
    return rows
