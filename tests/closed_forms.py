"""Densities in two dimensions of which all is known, and diffusions on them whose networks know
nothing: what tests of paths, corrections and flows share."""

import dataclasses
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from allmodes import Target
from allmodes.diffusion.networks import MLP, Denoiser, MixturePerceptron
from allmodes.diffusion.noise import Noise
from allmodes.diffusion.paths import Process, noising, reverse

SIGMAS = 5.0  # bounds are this many standard errors
LEVELS = 32
LOG_Z = 1.7

CENTRES = np.array([[-0.8, 0.6], [0.9, -0.7]])
WIDTHS, SHARES = np.array([0.5, 0.65]), np.array([0.35, 0.65])
MEAN, STD = np.array([0.3, -0.2]), np.array([0.8, 1.1])


def log_gaussian(z):
    return LOG_Z + jnp.sum(-0.5 * ((z - MEAN) / STD) ** 2 - jnp.log(STD) - 0.5 * jnp.log(2 * jnp.pi))


def log_mixture(z):
    d2 = jnp.sum((z - CENTRES) ** 2, axis=-1)
    return LOG_Z + logsumexp(jnp.log(SHARES / (2 * jnp.pi * WIDTHS**2)) - 0.5 * d2 / WIDTHS**2)


def draw_gaussian(seed, n):
    """From NumPy: nothing to compile."""
    return jnp.asarray(MEAN + STD * np.random.default_rng(seed).normal(size=(n, 2)), jnp.float32)


def draw_mixture(seed, n):
    rng = np.random.default_rng(seed)
    mode = rng.choice(2, size=n, p=SHARES)
    return jnp.asarray(CENTRES[mode] + WIDTHS[mode, None] * rng.normal(size=(n, 2)), jnp.float32)


DRAW = {"gaussian": draw_gaussian, "mixture": draw_mixture}
TARGETS = {
    "gaussian": Target(log_gaussian, 2),
    "mixture": Target(log_mixture, 2),
}


def make_process(dim=2, cls=Process, perturbed=0.0, mean=0.0, variance=1.0, sigma_min=0.1):
    """A process with a fresh network, whose last layer is random where `perturbed` is positive."""
    network = MLP(dim, 16, 1, 2, key=jax.random.key(0))
    weight = perturbed * np.random.default_rng(1).normal(size=network.last.weight.shape)
    network = eqx.tree_at(lambda m: m.last.weight, network, jnp.asarray(weight, jnp.float32))
    t = (np.arange(LEVELS) + 0.5) / LEVELS
    s2 = (sigma_min * (2.5 / sigma_min) ** t[:, None]) ** 2 * np.ones(dim)
    arrays = (s2 / (1 + s2), np.full(dim, mean), np.full(dim, variance))
    noise = Noise(jnp.asarray(sigma_min), jnp.asarray(2.5))
    return cls(Denoiser(network), noise, *(jnp.asarray(a, jnp.float32) for a in arrays))


class Guided(Denoiser):
    """A denoiser that is shown the gradient of the density, and passes it on."""

    evaluations = 1

    target: Target = dataclasses.field(default=None, metadata={"static": True})

    @classmethod
    def of(cls, target, denoiser):
        return cls(denoiser.network, denoiser.predicts_score, target)

    def many(self, z, sigma):
        pull = jnp.tanh(self.target.evaluate(z).grad)
        return super().many(z, sigma) + 0.1 * sigma**2 / (1.0 + sigma**2) * pull


def counting():
    """The mixture as a density that counts, and the list that grows by one for each point at which
    it is computed."""
    calls = []

    @jax.custom_jvp
    def count(x):
        jax.debug.callback(lambda _: calls.append(1), x)
        return x

    count.defjvp(lambda primals, tangents: (count(*primals), tangents[0]))
    return Target(lambda x: log_mixture(x) + 0.0 * count(x[0]), 2), calls


# Compiled once for each shape and number of steps.
run_reverse = jax.jit(reverse, static_argnums=(2, 3))
run_noising = jax.jit(noising, static_argnums=3)


def standard_errors_off(values, expected):
    values = np.asarray(values, float)
    return np.abs(values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(len(values)))


def check_mixture(z, n=None):
    """|z| of the share of a mode and of moments; the standard errors are of n draws."""
    z = np.asarray(z, float)
    n = len(z) if n is None else n
    # On either side of the line through the origin, along the first coordinate.
    below = SHARES @ [0.5 * math.erfc(c / w / math.sqrt(2)) for c, w in zip(CENTRES[:, 0], WIDTHS, strict=True)]
    columns = [z[:, 0] < 0, z[:, 0], z[:, 1], z[:, 0] ** 2, z[:, 1] ** 2, z[:, 0] * z[:, 1], z[:, 0] ** 3]
    expected = [
        below, *(SHARES @ CENTRES), *(SHARES @ (CENTRES**2 + WIDTHS[:, None] ** 2)), SHARES @ CENTRES.prod(axis=1),
        SHARES @ (CENTRES[:, 0] ** 3 + 3 * CENTRES[:, 0] * WIDTHS**2),
    ]  # fmt: skip
    return standard_errors_off(np.stack(columns, axis=1), expected) * np.sqrt(n / len(z))


# The last layer's fan-in is 16: outputs of about this many units.
NETWORKS = pytest.mark.parametrize("perturbed", [0.0, 0.3], ids=["untrained", "perturbed"])
DENSITIES = pytest.mark.parametrize("name", TARGETS)


def process_on(base, density, perturbed, scale, better):
    """A process on a base that is the density; its network has learned nothing, or is random."""
    dim = base.mixture.mean.shape[1]
    settings = MixturePerceptron(components=len(base.mixture.log_share), width=8, depth=1)
    network = settings.build(dim, base, jax.random.key(0))
    weight = perturbed * np.random.default_rng(1).normal(size=network.trunk.last.weight.shape)
    network = eqx.tree_at(lambda m: m.trunk.last.weight, network, jnp.asarray(weight, jnp.float32))
    noise, ones = Noise(jnp.asarray(0.02), jnp.asarray(2.0)), jnp.ones(LEVELS)
    sigma = noise.sigma((jnp.arange(2048 * LEVELS) + 0.5) / (2048 * LEVELS))
    clean = jnp.tile(density.sample(jax.random.key(8), 2048), (LEVELS, 1))
    noised = clean + sigma[:, None] * jax.random.normal(jax.random.key(9), clean.shape)
    error = (clean - jax.vmap(Denoiser(network))(noised, sigma)) ** 2
    error = jnp.mean(error.reshape(LEVELS, 2048, dim), axis=1)
    return Process(Denoiser(network), noise, error, jnp.zeros(dim), jnp.ones(dim), scale * ones, better * ones)


def check_paths_weigh_the_same(process, density, log_density, steps):
    path = run_reverse(process, jax.random.key(2), 2000, steps)
    np.testing.assert_allclose(path.log_ratio + log_density(path.z), 0.0, atol=2e-3)
    z = density.sample(jax.random.key(3), 2000)
    back = run_noising(process, jax.random.key(4), z, steps)
    np.testing.assert_allclose(back.log_ratio + log_density(z), 0.0, atol=2e-3)


def check_path_weights_are_unbiased(process, density, log_density):
    path = run_reverse(process, jax.random.key(5), 8000, 6)
    log_weight = np.asarray(path.log_ratio, float) + log_density(path.z)
    assert standard_errors_off(np.exp(log_weight), 1.0) < SIGMAS
    assert standard_errors_off(log_weight, 0.0) > 2 * SIGMAS  # without its weights the sampler is wrong
    z = density.sample(jax.random.key(6), 8000)
    back = run_noising(process, jax.random.key(7), z, 6)
    assert standard_errors_off(np.exp(-np.asarray(back.log_ratio, float) - log_density(z)), 1.0) < SIGMAS
