"""Reverse and noising paths, whose weights are exact whatever the network is, and the renewals that
rest on them."""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import (
    DENSITIES,
    DRAW,
    LEVELS,
    LOG_Z,
    NETWORKS,
    SIGMAS,
    TARGETS,
    Guided,
    check_mixture,
    counting,
    draw_mixture,
    log_mixture,
    make_process,
    run_noising,
    run_reverse,
    standard_errors_off,
)  # fmt: skip

from allmodes import IWSM, Target
from allmodes.diffusion.paths import Process, log_normal
from allmodes.parts import OwnDraws, PathMoves, PathResampling, Perceptron
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame

pytestmark = pytest.mark.trains

N = 8_000


@functools.cache
def weights_both_ways(name, perturbed, steps=8):
    """Log weights, less the true log Z, of the sampler's paths and of noised exact draws."""
    target, process = TARGETS[name], make_process(perturbed=perturbed, mean=0.2, variance=0.9)
    path = run_reverse(process, jax.random.key(2), N, steps)
    z = DRAW[name](3, N)
    back = run_noising(process, jax.random.key(4), z, steps)
    assert np.array_equal(back.z, z)
    values = jax.jit(target.values)
    return tuple(np.asarray(p.log_ratio + values(p.z), float) - LOG_Z for p in (path, back))


def ess(log_w):
    w = np.exp(log_w)
    return w.mean() ** 2 / np.mean(w**2)


@NETWORKS
@DENSITIES
def test_path_weights_are_unbiased_for_z(name, perturbed):
    log_w, _ = weights_both_ways(name, perturbed)
    assert standard_errors_off(np.exp(log_w), 1.0) < SIGMAS
    assert ess(log_w) > 0.05  # or the standard error could not be believed
    # Without its weights the sampler is wrong: the check can fail.
    assert standard_errors_off(log_w, 0.0) > 2 * SIGMAS


@NETWORKS
@DENSITIES
def test_noising_weights_are_unbiased_for_one_over_z(name, perturbed):
    _, log_w = weights_both_ways(name, perturbed)
    assert standard_errors_off(np.exp(-log_w), 1.0) < SIGMAS
    assert ess(-log_w) > 0.05


@NETWORKS
@DENSITIES
def test_reverse_and_noising_weights_have_one_law(name, perturbed):
    # For every f, E_noising[f(w)] = E_reverse[w f(w)] / Z.
    log_r, log_f = weights_both_ways(name, perturbed)
    for level in np.quantile(log_f, [0.1, 0.5, 0.9]):
        forward, backward = log_f < level, np.exp(log_r) * (log_r < level)
        error = math.hypot(forward.std(), backward.std()) / np.sqrt(N)
        assert abs(forward.mean() - backward.mean()) < SIGMAS * error
    # So both ways of the ESS agree: Z^2 / E_r[w^2] = 1 / E_f[1 / (w/Z)]^-1 .. = Z / E_f[w].
    w2, w = np.exp(2 * log_r), np.exp(log_f)
    error = math.hypot(w2.std(), w.std()) / np.sqrt(N)
    assert abs(w2.mean() - w.mean()) < SIGMAS * error
    # ELBO below log Z below EUBO.
    assert log_r.mean() < 0 < log_f.mean()


class Exact(Process):
    """Knows the posterior variance of a standard Gaussian at every level, not at 32 of them."""

    def error_at(self, sigma):
        return jnp.full(self.mean.shape, sigma**2 / (1 + sigma**2))


@pytest.mark.parametrize(("dim", "steps"), [(1, 64), (3, 2)])
def test_exact_denoiser_of_a_gaussian_gives_equal_weights(dim, steps):
    # The reverse kernel is then exact however long the steps: every path has the weight Z, every
    # draw is exact.
    process = make_process(dim, Exact, sigma_min=0.05)

    def log_prob(z):
        return LOG_Z - 0.5 * np.sum(np.asarray(z, float) ** 2, axis=-1) - 0.5 * dim * np.log(2 * np.pi)

    path = run_reverse(process, jax.random.key(5), 2000, steps)
    np.testing.assert_allclose(path.log_ratio + log_prob(path.z), LOG_Z, atol=2e-5 * dim * steps)
    assert np.all(standard_errors_off(path.z, 0.0) < SIGMAS)
    assert np.all(standard_errors_off(np.asarray(path.z) ** 2, 1.0) < SIGMAS)
    z = jnp.asarray(np.random.default_rng(6).normal(size=(500, dim)), jnp.float32)
    path = run_noising(process, jax.random.key(7), z, steps)
    np.testing.assert_allclose(path.log_ratio + log_prob(z), LOG_Z, atol=2e-5 * dim * steps)


def test_error_is_interpolated_in_log_sigma():
    process = make_process(2)
    middles = (np.arange(LEVELS) + 0.5) / LEVELS
    error_at = jax.jit(lambda sigma: process.error_at(sigma))
    for t, expected in (
        (middles[3], process.error[3]),
        (0.5 * (middles[3] + middles[4]), np.sqrt(process.error[3] * process.error[4])),
        (0.0, process.error[0]),
        (1.0, process.error[-1]),
    ):
        np.testing.assert_allclose(error_at(process.noise.sigma(jnp.asarray(t))), expected, rtol=1e-4)


def test_prior_has_its_own_density():
    process = make_process(2, mean=0.4, variance=0.7)
    z = np.asarray(process.prior(jax.random.key(9), N), float)
    variance = 0.7 + 2.5**2
    assert np.all(standard_errors_off(z, 0.4) < SIGMAS)
    assert np.all(standard_errors_off((z - 0.4) ** 2, variance) < SIGMAS)
    expected = np.sum(-0.5 * (z - 0.4) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance), axis=1)
    np.testing.assert_allclose(process.log_prior(jnp.asarray(z, jnp.float32)), expected, rtol=1e-5)


def test_log_normal():
    z, mean, variance = np.array([[1.0, 2.0], [0.0, -1.0]]), np.array([[0.5, 0.5], [0.0, 0.0]]), np.array([0.2, 3.0])
    expected = np.sum(-0.5 * (z - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance), axis=1)
    f32 = [jnp.asarray(a, jnp.float32) for a in (z, mean, variance)]
    np.testing.assert_allclose(log_normal(*f32), expected, rtol=1e-6)
    one = np.sum(-0.5 * (z - mean) ** 2 / 0.3 - 0.5 * np.log(2 * np.pi * 0.3), axis=1)
    np.testing.assert_allclose(log_normal(*f32[:2], jnp.asarray([0.3])), one, rtol=1e-5)


# Renewals of the buffer.

# The mixture, stretched: the density that a method sees is of x, the buffer holds z.
LOCATION, SCALE = np.array([5.0, -30.0]), np.array([0.1, 20.0])
STRETCHED = Target(lambda x: log_mixture((x - LOCATION) / SCALE) - np.log(SCALE).sum(), 2)


@jax.jit
def build_state(z, perturbed):
    frame = Frame(jnp.asarray(LOCATION, jnp.float32), jnp.asarray(SCALE, jnp.float32))
    points, zero = Buffer.of(z, frame.evaluate(STRETCHED, z)), jnp.zeros(())
    found = SearchResult(frame, points, zero + 0.05, zero + jnp.full(2, 0.5), zero, Evaluations.none())
    state = MOVES.build(STRETCHED, found, (), jax.random.key(11))
    last = lambda s: s.average.network.last.weight  # noqa: E731
    return eqx.tree_at(last, state, perturbed * jax.random.normal(jax.random.key(12), last(state).shape))


def exact_state(perturbed):
    """A state whose buffer holds exact draws, and whose network knows nothing."""
    return build_state(draw_mixture(10, N), jnp.asarray(perturbed))


SMALL = dict(network=Perceptron(16, 1, 2), buffer=N)
MOVES = IWSM.thorough(reweighting=PathMoves(path_steps=8), **SMALL)
PATH = IWSM.thorough(reweighting=PathResampling(1e-6, path_steps=8), **SMALL)


@functools.cache
def compiled_refresh(method):
    return jax.jit(lambda state, key: method.renew(STRETCHED, state, key))


@functools.cache
def renew(method, perturbed):
    """The state after one renewal, and after three more."""
    refresh = compiled_refresh(method)
    first = state = refresh(exact_state(perturbed), jax.random.key(13))
    for i in range(3):
        state = refresh(state, jax.random.key(14 + i))
    return first, state


@NETWORKS
def test_independence_metropolis_leaves_the_target_invariant(perturbed):
    start = exact_state(perturbed)
    assert np.all(check_mixture(start.buffer.z) < SIGMAS)
    first, last = renew(MOVES, perturbed)
    assert np.all(check_mixture(first.buffer.z) < SIGMAS)
    assert np.all(check_mixture(last.buffer.z) < SIGMAS)
    # It did renew points, at the rate that it says.
    kept = np.mean(np.all(np.asarray(first.buffer.z) == np.asarray(start.buffer.z), axis=1))
    np.testing.assert_allclose(1 - kept, first.refresh_rate, atol=1e-3)
    assert 0.1 < first.refresh_rate < 1
    assert int(first.evaluations.log_prob) == int(first.evaluations.gradient) == N


@NETWORKS
def test_draws_of_the_same_sampler_fail_the_same_check(perturbed):
    _, process = MOVES.process(STRETCHED, exact_state(perturbed))
    draws = run_reverse(process, jax.random.key(13), N, MOVES.reweighting.path_steps)
    assert np.any(check_mixture(draws.z) > 2 * SIGMAS)


@pytest.mark.parametrize("method", [MOVES, PATH], ids=["moves", "path"])
def test_renewed_points_keep_their_own_values(method):
    _, state = renew(method, 0.3)
    e = jax.jit(lambda s: s.frame.evaluate(STRETCHED, s.buffer.z))(state)
    np.testing.assert_allclose(state.buffer.log_prob, e.log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.buffer.grad, e.grad, rtol=1e-3, atol=1e-3)


def test_untempered_path_weights_bring_the_sampler_to_the_target():
    first, last = renew(PATH, 0.3)
    assert first.refresh_rate == 1.0  # eta
    for state in (first, last):
        assert 0.05 < state.refresh_ess < 0.9
        assert np.all(check_mixture(state.buffer.z, n=float(state.refresh_ess) * N) < SIGMAS)
    assert int(first.evaluations.log_prob) == 6 * N


@pytest.mark.parametrize("reweighting", [PathMoves(8), PathResampling(1e-6), OwnDraws(8, broad_share=0.25)], ids=repr)
@pytest.mark.parametrize("guided", [False, True])
def test_renewals_count_what_their_paths_cost(reweighting, guided):
    """A denoiser that is shown the gradient evaluates the density at each step, down and up."""
    target, calls = counting()
    method = dataclasses.replace(MOVES, buffer=16, reweighting=dataclasses.replace(reweighting, path_steps=5))
    state = build_state(draw_mixture(10, 16), jnp.asarray(0.3))
    if guided:
        state = dataclasses.replace(state, average=Guided.of(target, state.average))
    state = jax.jit(lambda s: method.renew(target, s, jax.random.key(0)))(state)
    jax.block_until_ready(state.buffer.z)
    jax.effects_barrier()
    assert int(state.evaluations.log_prob) == len(calls) > (8 * 5 if guided else 0)
