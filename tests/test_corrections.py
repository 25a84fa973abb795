"""Corrections: each leaves the target invariant or is consistent, with networks that know nothing
too."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import (
    DENSITIES,
    DRAW,
    LOG_Z,
    NETWORKS,
    SIGMAS,
    TARGETS,
    check_mixture,
    make_process,
    standard_errors_off,
)

from allmodes.diffusion.corrections import PathSMC, chain_moves, path_smc
from allmodes.diffusion.paths import denoise, noise, noising, reverse
from allmodes.draws.estimates import batch_log_z, khat, log_z, psis

pytestmark = pytest.mark.trains

N, STEPS = 4000, 8
MIXTURE = TARGETS["mixture"]


# Parts of a path.


@NETWORKS
def test_a_path_in_two_parts_is_the_whole_path(perturbed):
    process, key = make_process(perturbed=perturbed), jax.random.key(0)
    k_prior, k_path = jax.random.split(key)
    z = process.prior(k_prior, 50)
    sigmas = process.noise.grid(STEPS)
    first = denoise(process, k_path, z, sigmas, 0, 3)
    second = denoise(process, k_path, first.z, sigmas, 3, STEPS)
    whole = reverse(process, key, 50, STEPS)
    np.testing.assert_allclose(second.z, whole.z, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        first.log_ratio + second.log_ratio - process.log_prior(z), whole.log_ratio, rtol=1e-4, atol=1e-3
    )
    up = noise(process, k_path, second.z, sigmas, 3, STEPS)
    top = noise(process, k_path, up.z, sigmas, 0, 3)
    back = noising(process, k_path, second.z, STEPS)
    ratio = up.log_ratio + top.log_ratio - process.log_prior(top.z)
    np.testing.assert_allclose(ratio, back.log_ratio, rtol=1e-4, atol=1e-3)


# Chains.


@NETWORKS
def test_chains_of_a_wrong_sampler_follow_the_target(perturbed):
    process = make_process(perturbed=perturbed)
    paths = [reverse(process, jax.random.key(i), N, STEPS) for i in range(2)]
    log_w = jnp.stack([path.log_ratio + MIXTURE.values(path.z) for path in paths])
    start = jnp.concatenate([path.z for path in paths])[chain_moves.starts(jax.random.key(4), log_w)]
    run = jax.jit(chain_moves.chains, static_argnums=(1, 2, 5, 6, 7, 8))
    points = run(
        process, MIXTURE.evaluate, MIXTURE.value, jax.random.key(5), start, STEPS, chain_moves.Plan(4, 8), N, True
    )
    assert np.all(check_mixture(points.z) < SIGMAS)
    np.testing.assert_allclose(points.log_prob, MIXTURE.values(points.z), rtol=1e-4, atol=1e-4)
    assert standard_errors_off(np.exp(log_w).ravel(), math.exp(LOG_Z)) < SIGMAS
    assert np.max(check_mixture(paths[0].z)) > 2 * SIGMAS


def started(spread, each):
    """Raw draws of two modes, 8 to 2 instead of 1 to 1, and weights that say so, times noise: where
    chains start."""
    rng = np.random.default_rng(3)
    left = rng.uniform(size=(each, N)) < 0.8
    log_w = np.where(left, math.log(0.5 / 0.8), math.log(0.5 / 0.2)) + spread * rng.normal(size=(each, N))
    index = np.asarray(chain_moves.starts(jax.random.key(4), jnp.asarray(log_w, jnp.float32)))
    return left.ravel()[index], index


def test_chains_start_with_right_weights_where_the_draws_carry_them():
    left, index = started(0.1, 2)
    assert abs(np.mean(left) - 0.5) < 5 * math.sqrt(0.5 * 0.5 / N * 1.6)
    assert np.any(index < N) and np.any(index >= N)  # noqa: PT018
    assert len(set(index)) > 0.7 * N


def test_few_draws_of_large_weight_do_not_crowd_out_the_others():
    left, index = started(3.0, 2)  # one in a hundred is effective
    assert np.array_equal(index % N, np.arange(N))  # each chain chooses among its own
    assert 0.55 < np.mean(left) < 0.78
    more, index = started(3.0, 16)
    assert len(set(index)) == N
    assert np.mean(more) < np.mean(left) - 0.03  # the more it has to choose from, the nearer to the truth


def test_chains_that_have_no_draw_of_any_weight_start_somewhere():
    log_w = jnp.full((3, 5), -jnp.inf).at[:, 0].set(0.0)
    index = np.asarray(chain_moves.starts(jax.random.key(0), log_w))
    assert np.all((index >= 0) & (index < 15))


@pytest.mark.parametrize(
    ("spread", "draws"), [(0.1, 5), (1.0, 11), (1.6, 16), (4.0, 2)], ids=["even", "uneven", "very", "hopeless"]
)
def test_raw_draws_are_made_until_enough_are_effective(spread, draws):
    # Log-normal weights of spread s are effective to exp(-s^2): four for each chain need 4 exp(s^2)
    # draws.
    rng, log_w = np.random.default_rng(5), []
    while not log_w or not chain_moves.enough(jnp.stack(log_w), 16):
        log_w.append(jnp.asarray(spread * rng.normal(size=N), jnp.float32))
    assert abs(len(log_w) - draws) <= (0 if draws in (2, 16) else 1)
    assert chain_moves.enough(jnp.zeros((1, 10)), 1)
    assert not chain_moves.enough(jnp.zeros((1, 10)), 2)


# SMC.


@functools.cache
def populations(name, perturbed, size=500, count=40):
    """Z over its true value, and weighted first coordinates, one a population."""
    process, target = make_process(perturbed=perturbed, sigma_min=0.05), TARGETS[name]
    run = jax.jit(lambda key: path_smc.smc(process, target.values, key, size, 24, PathSMC()))
    zs, means = [], []
    for i in range(count):
        z, log_prob, log_w = run(jax.random.key(i))
        w = np.exp(np.asarray(log_w, float) - LOG_Z)
        zs.append(w.mean())
        means.append((w[:, None] * np.asarray(z, float)).mean(axis=0))
    np.testing.assert_allclose(log_prob, target.values(z), rtol=1e-4, atol=1e-4)
    return np.array(zs), np.array(means)


@NETWORKS
@DENSITIES
def test_populations_are_unbiased(name, perturbed):
    zs, means = populations(name, perturbed)
    assert standard_errors_off(zs, 1.0) < SIGMAS
    expected = np.asarray(DRAW[name](0, 400_000), float).mean(axis=0)  # to within .002
    assert np.all(np.abs(means.mean(axis=0) - expected) < SIGMAS * means.std(axis=0) / math.sqrt(len(means)) + 0.005)


def test_populations_resample_where_that_helps():
    # Weights of a wrong network, with its kernels as they are: fewer are lost when some are
    # resampled on the way.
    process = make_process(perturbed=0.3, sigma_min=0.05)

    def run(settings):
        return jax.jit(lambda key: path_smc.smc(process, MIXTURE.values, key, 2000, 24, settings))(jax.random.key(1))

    z, _, log_w = run(PathSMC())
    assert len(np.unique(np.asarray(z), axis=0)) == 2000  # noise parts the copies
    _, _, plain = run(PathSMC(noisy=0.0))
    share = [float(path_smc.weights.ess_fraction(w)) for w in (log_w, plain)]
    assert share[0] > 1.2 * share[1]


def test_looking_ahead_is_unbiased_for_the_noised_density():
    # Of a Gaussian N(m, s^2), Z p_t is Z N(m, s^2 + sigma^2), whatever the denoiser believes.
    process, target = make_process(perturbed=0.3), TARGETS["gaussian"]
    sigma = jnp.asarray(0.4)
    z = jnp.asarray([[0.5, -1.0]])
    many = jnp.broadcast_to(z, (20_000, 2))
    seen, noisy = path_smc.look_ahead(process, target.values, jax.random.key(3), many, sigma, PathSMC())
    mean, std = np.array([0.3, -0.2]), np.array([0.8, 1.1])
    variance = std**2 + 0.4**2
    true = math.exp(LOG_Z) * np.prod(
        np.exp(-0.5 * (np.asarray(z[0]) - mean) ** 2 / variance) / np.sqrt(2 * np.pi * variance)
    )
    assert standard_errors_off(np.exp(np.asarray(seen, float)), true) < SIGMAS
    relative = np.exp(np.asarray(seen, float)).var() / true**2
    assert 0.3 < float(jnp.mean(noisy)) / relative < 1.5


def test_a_density_that_is_nowhere_gives_no_weight():
    process = make_process()
    nothing = lambda z: jnp.full(z.shape[0], -jnp.inf)  # noqa: E731
    _, _, log_w = path_smc.smc(process, nothing, jax.random.key(0), 20, 8, PathSMC())
    assert np.all(np.asarray(log_w) == -np.inf)


# Weights.


def test_smoothing_keeps_the_sum_and_the_order():
    log_w = np.random.default_rng(0).normal(size=2000) * 1.5
    smooth = psis(log_w)
    assert 0.2 < khat(log_w) < 1.0
    np.testing.assert_allclose(np.exp(smooth).sum(), np.exp(log_w).sum(), rtol=1e-9)
    assert np.array_equal(np.argsort(smooth)[-50:], np.argsort(log_w)[-50:])
    body = np.argsort(log_w)[:1500]
    shift = smooth[body] - log_w[body]
    np.testing.assert_allclose(shift, shift[0], atol=1e-9)
    assert not np.allclose(smooth - log_w, 0.0, atol=1e-3)


def test_smoothing_lowers_the_error_of_heavy_weights():
    # Pareto weights of shape .6: the variance is infinite, the mean 1 / .4.
    rng, raw, smooth = np.random.default_rng(1), [], []
    for _ in range(200):
        log_w = -0.6 * np.log(rng.uniform(size=1000))
        raw.append(np.exp(log_w).max() / np.exp(log_w).sum())
        values = np.exp(psis(log_w))
        smooth.append(values.max() / values.sum())
    assert np.std(smooth) < 0.6 * np.std(raw)


@pytest.mark.parametrize("log_w", [np.zeros(1000), np.full(30, -np.inf), np.zeros(10)], ids=["flat", "dead", "few"])
def test_weights_without_a_tail_are_left(log_w):
    np.testing.assert_array_equal(psis(log_w), log_w)


def test_evidence_of_batches_covers_the_truth():
    # Unbiased estimates of Z with a spread of 20 %: the nominal 95 % interval covers in 95 % of the
    # cases.
    rng, covered = np.random.default_rng(2), []
    for _ in range(1000):
        value, error = batch_log_z(np.log(rng.gamma(25.0, 1 / 25.0, size=5)))
        covered.append(abs(value) < 1.96 * error)
    assert 0.92 < np.mean(covered) < 0.98
    single = batch_log_z(np.zeros(1))
    assert single.value == 0.0
    assert single.std_error == math.inf
    assert log_z(np.zeros(5)).std_error < 1e-6
