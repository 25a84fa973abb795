"""DiKL: what noised points say of clean ones, against closed forms on a Gaussian, and the generator
that follows it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import LOG_Z, MEAN, SIGMAS, STD, TARGETS, standard_errors_off
from helpers import Counting, pair

import allmodes as am
from allmodes.methods.dikl.posterior import denoise, evaluations_of
from allmodes.parts import Perceptron

N, DRAWS, LEVELS, MOVES = 4000, 4, 6, 2
POINT = np.array([0.9, -1.0])
NOISES = pytest.mark.parametrize("sigma", [0.3, 1.0])


@functools.cache
def posteriors(sigma):
    """Of the same noised point again and again."""
    run = jax.jit(
        lambda sigma, key: denoise(
            TARGETS["gaussian"].evaluate, jnp.tile(jnp.asarray(POINT, jnp.float32), (N, 1)), jnp.full(N, sigma),
            jnp.asarray(0.8), key, DRAWS, LEVELS, MOVES,
        )
    )  # fmt: skip
    return run(sigma, jax.random.key(0))


@NOISES
def test_annealed_weights_are_exact(sigma):
    """Their mean is the density of the noised target at the point."""
    variance = STD**2 + sigma**2
    expected = np.prod(np.exp(-0.5 * (POINT - MEAN) ** 2 / variance) / np.sqrt(2 * np.pi * variance))
    w = np.exp(np.asarray(posteriors(sigma).log_weight, float) - LOG_Z).mean(axis=1)
    assert standard_errors_off(w, expected) < SIGMAS
    assert w.std() > 0.01 * expected  # there is something to get wrong


@NOISES
def test_the_denoised_point_is_the_mean_of_the_posterior(sigma):
    """One of few draws is chosen by its weight, so that a bias remains that is small beside the
    spread of the posterior."""
    expected = (POINT * STD**2 + MEAN * sigma**2) / (STD**2 + sigma**2)
    spread = STD * sigma / np.sqrt(STD**2 + sigma**2)
    mean = np.asarray(posteriors(sigma).mean, float)
    error = mean.std(axis=0) / np.sqrt(N)
    assert np.all(np.abs(mean.mean(axis=0) - expected) < SIGMAS * error + 0.02 * spread)
    assert np.all(np.abs(expected - POINT) > 10 * error + 0.05 * spread)  # one can tell it from the point


def test_the_chains_end_in_the_posterior():
    sigma = 1.0
    z = np.asarray(posteriors(sigma).points.z, float)
    variance = STD**2 * sigma**2 / (STD**2 + sigma**2)
    np.testing.assert_allclose(z.var(axis=0), variance, rtol=0.12)


def test_its_evaluations_are_known_before():
    target = Counting(lambda x: -0.5 * jnp.sum(x**2), 2)
    z_t, sigma = jnp.zeros((10, 2)), jnp.ones(10)
    jax.block_until_ready(denoise(target.evaluate, z_t, sigma, jnp.asarray(1.0), jax.random.key(0), 4, 3, 2))
    assert target.total == evaluations_of(10, 4, 3, 2) == 10 * (4 * 4 + 2)


def test_a_network_of_the_score_is_refused():
    with pytest.raises(am.ConfigError, match="dikl needs a network that predicts a denoiser"):
        am.DiKL(network=Perceptron(predicts="score"))


@pytest.mark.trains
def test_it_learns_two_modes_and_says_that_nothing_is_known():
    network = Perceptron(32, 1, 2)
    method = am.DiKL(
        steps=300, cooldown=100, batch=64, updates=4, draws=4, levels=6, moves=2, generator=network, network=network
    )
    draws = am.fit(pair(), method, key=0).sample(4000, key=1)
    x = np.asarray(draws.x)
    right = x[:, 0] > 0
    assert 0.3 < right.mean() < 0.7
    near = np.minimum(np.linalg.norm(x - [2.0, 1.0], axis=1), np.linalg.norm(x - [-2.0, 0.0], axis=1))
    assert np.mean(near < 1.5) > 0.8  # three standard deviations
    assert np.isnan(draws.log_z.value)
    verdict = draws.verdict()
    assert verdict.word == "do not use"
    assert "have no density" in verdict.reasons[0]
