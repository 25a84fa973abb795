"""MALA and Hamiltonian moves of a population: what they leave invariant, where they lead, and how
they adapt."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from allmodes.mcmc.hmc import TARGET_ACCEPTANCE as HMC_ACCEPTANCE
from allmodes.mcmc.hmc import hmc
from allmodes.mcmc.mala import TARGET_ACCEPTANCE, mala, posterior_chain
from allmodes.points.buffer import Buffer
from allmodes.target import Target

pytestmark = pytest.mark.trains

SIGMAS = 5.0  # bounds are this many standard errors
N = 8_000
COVARIANCE = np.array([[1.0, 0.9], [0.9, 1.0]])
CENTRES, WIDTHS, SHARES = np.array([-1.0, 1.5]), np.array([0.4, 0.8]), np.array([0.3, 0.7])

GAUSSIAN = Target(lambda x: -0.5 * x @ jnp.asarray(np.linalg.inv(COVARIANCE), jnp.float32) @ x, 2)
TWO_MODES = Target(lambda x: logsumexp(jnp.log(SHARES / WIDTHS) - 0.5 * ((x[0] - CENTRES) / WIDTHS) ** 2), 1)
HALF = Target(lambda x: jnp.where(x[0] > 0, -0.5 * x[0] ** 2, -jnp.inf), 1)


STEPS = 50  # moves in one compiled call


@functools.partial(jax.jit, static_argnums=0)
def run(target, z, step_size, key):
    return mala(lambda z, _: target.evaluate(z), Buffer.of(z, target.evaluate(z)), step_size, key, STEPS)


def run_on(target, z, step_size, key, times):
    """`times` calls of `run`, one after the other."""
    for k in jax.random.split(key, times):
        moved = run(target, z, step_size, k)
        z, step_size = moved.points.z, moved.step_size
    return moved


def assert_near(values, expected):
    """The mean of `values` over axis 0 is `expected` within standard errors."""
    values = np.asarray(values, float)
    off = np.abs(values.mean(axis=0) - expected) / (values.std(axis=0) / np.sqrt(len(values)))
    assert np.all(off < SIGMAS), f"{off} standard errors off"


def check_gaussian(z):
    z = np.asarray(z, float)
    assert_near(z, 0.0)
    assert_near(np.stack([z[:, 0] ** 2, z[:, 1] ** 2, z[:, 0] * z[:, 1]], axis=1), [1.0, 1.0, 0.9])


def check_two_modes(z):
    z, cut = np.asarray(z, float)[:, 0], 0.0
    below = SHARES @ [0.5 * math.erfc((c - cut) / w / math.sqrt(2)) for c, w in zip(CENTRES, WIDTHS, strict=True)]
    assert_near(z < cut, below)
    assert_near(z, SHARES @ CENTRES)
    assert_near(z**2, SHARES @ (CENTRES**2 + WIDTHS**2))
    assert_near(z**3, SHARES @ (CENTRES**3 + 3 * CENTRES * WIDTHS**2))


def normal(seed, shape):
    return np.random.default_rng(seed).normal(size=shape)


def gaussian_draws():
    return jnp.asarray(normal(0, (N, 2)) @ np.linalg.cholesky(COVARIANCE).T, jnp.float32)


def two_modes_draws():
    mode = np.random.default_rng(1).choice(2, size=N, p=SHARES)
    return jnp.asarray(CENTRES[mode] + WIDTHS[mode] * normal(0, N), jnp.float32)[:, None]


def half_draws():
    return jnp.asarray(np.abs(normal(6, (N, 1))), jnp.float32)


@pytest.mark.parametrize(
    ("target", "draw", "check", "step_size"),
    [(GAUSSIAN, gaussian_draws, check_gaussian, 0.3), (TWO_MODES, two_modes_draws, check_two_modes, 0.8)],
    ids=["gaussian", "two-modes"],
)
def test_moves_leave_the_target_invariant(target, draw, check, step_size):
    z = draw()
    check(z)
    moved = run(target, z, jnp.asarray(step_size), jax.random.key(1))
    check(moved.points.z)
    # They do move: next to nothing of where a point started is left but its mode.
    assert np.mean(np.any(np.asarray(moved.points.z) == np.asarray(z), axis=1)) < 1e-3
    # What is stored with each point is its own.
    e = jax.jit(target.evaluate)(moved.points.z)
    np.testing.assert_allclose(moved.points.log_prob, e.log_prob, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(moved.points.grad, e.grad, rtol=1e-4, atol=1e-4)
    assert (int(moved.nan), int(moved.zero)) == (0, 0)


def test_without_the_acceptance_step_the_same_check_fails():
    def langevin(z, key):
        return z + 0.3 * GAUSSIAN.evaluate(z).grad + math.sqrt(0.6) * jax.random.normal(key, z.shape), None

    z, _ = jax.lax.scan(langevin, gaussian_draws(), jax.random.split(jax.random.key(1), STEPS))
    with pytest.raises(AssertionError, match="standard errors off"):
        check_gaussian(z)


@pytest.mark.parametrize("per_point", [False, True])
def test_moves_converge_from_a_wrong_start(per_point):
    z = jnp.broadcast_to(jnp.asarray([4.0, -4.0]), (N, 2))
    step_size = jnp.full((N,), 0.3) if per_point else jnp.asarray(0.3)
    moved = run_on(GAUSSIAN, z, step_size, jax.random.key(2), 8)
    assert moved.step_size.shape == step_size.shape
    if per_point:  # each step follows the point's own acceptance: near the target only
        z = np.asarray(moved.points.z, float)
        assert np.all(np.abs(np.cov(z.T) - COVARIANCE) < 0.1)
    else:
        check_gaussian(moved.points.z)


@pytest.mark.parametrize("first", [1e-2, 30.0])
def test_acceptance_goes_to_the_target(first):
    adapted = run_on(GAUSSIAN, gaussian_draws(), jnp.asarray(first), jax.random.key(4), 8)
    moved = run(GAUSSIAN, adapted.points.z, adapted.step_size, jax.random.key(5))
    # The rate of one move of all points has a standard error of .0055; the adaptation averages over
    # five.
    assert abs(moved.acceptance - TARGET_ACCEPTANCE) < 0.01
    np.testing.assert_allclose(moved.step_size, adapted.step_size, rtol=0.05)


@pytest.mark.parametrize(("step_size", "low", "high"), [(1e-4, 0.98, 1.0), (1e12, 0.0, 0.02)])
def test_acceptance_at_extreme_steps(step_size, low, high):
    moved = run(GAUSSIAN, gaussian_draws(), jnp.asarray(step_size), jax.random.key(4))
    assert low <= moved.acceptance <= high
    assert (moved.step_size > step_size) == (step_size < 1)


def test_a_truncated_gaussian_stays_inside_its_half_space():
    moved = run_on(HALF, half_draws(), jnp.asarray(0.5), jax.random.key(7), 2)
    x = np.asarray(moved.points.z, float)[:, 0]
    assert np.all(x > 0)
    assert np.all(np.isfinite(moved.points.log_prob))
    assert_near(x, math.sqrt(2 / math.pi))
    assert_near(x**2, 1.0)
    assert 0 < int(moved.zero) < STEPS * N
    assert int(moved.nan) == 0


def test_points_without_mass_move_into_the_support_and_never_back():
    z = jnp.asarray(np.linspace(-0.2, 0.2, N), jnp.float32)[:, None]
    moved = run(HALF, z, jnp.asarray(0.5), jax.random.key(8))
    inside = np.asarray(moved.points.z)[:, 0] > 0
    assert np.mean(inside) > 0.9
    assert np.array_equal(np.isfinite(moved.points.log_prob), inside)
    assert np.all(inside[np.asarray(z)[:, 0] > 0])


def test_nan_proposals_are_refused_and_counted():
    target = Target(lambda x: jnp.where(x[0] > 0, -0.5 * x[0] ** 2, jnp.nan), 1)
    moved = run(target, half_draws(), jnp.asarray(0.5), jax.random.key(7))
    other = run(HALF, half_draws(), jnp.asarray(0.5), jax.random.key(7))
    assert (int(moved.nan), int(moved.zero)) == (int(other.zero), 0)
    assert np.array_equal(moved.points.z, other.points.z)


# Chains on the posterior of z_0 given z_t.


@functools.partial(jax.jit, static_argnums=(0, 4))
def chain(target, z, sigma, key, steps, narrow=0.1):
    step_size = 0.5 / (1.0 / sigma**2 + 1.0 / narrow)  # `narrow`: least variance of the target
    k_noise, k_chain = jax.random.split(key)
    z_t = z + sigma * jax.random.normal(k_noise, z.shape)
    ones = jnp.ones(len(z))
    origin = Buffer.of(z, target.evaluate(z))
    return z_t, posterior_chain(target.evaluate, origin, z_t, sigma * ones, step_size * ones, k_chain, steps)


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_averages_over_a_posterior_chain_are_unbiased_and_vary_less(sigma):
    """The posterior of a Gaussian is known: its mean is `S (S + sigma^2)^-1 z_t`, its covariance `S
    - S (..)^-1 S`."""
    z = gaussian_draws()
    z_t, found = chain(GAUSSIAN, z, sigma, jax.random.key(9), 16)
    gain = COVARIANCE @ np.linalg.inv(COVARIANCE + sigma**2 * np.eye(2))
    mean = np.asarray(z_t, float) @ gain.T
    mean_grad = -mean @ np.linalg.inv(COVARIANCE)
    assert 0.2 < float(np.mean(found.acceptance)) <= 1.0
    for one, many, truth in ((z, found.mean, mean), (GAUSSIAN.evaluate(z).grad, found.mean_grad, mean_grad)):
        residual = np.asarray(many, float) - truth
        # Unbiased whatever z_t was: uncorrelated with it, too.
        assert_near(residual, 0.0)
        assert_near(residual * np.asarray(z_t, float), 0.0)
        assert np.mean(residual**2) < 0.9 * np.mean((np.asarray(one, float) - truth) ** 2)
    e = jax.jit(GAUSSIAN.evaluate)(found.points.z)
    np.testing.assert_allclose(found.points.log_prob, e.log_prob, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("target", "draw", "check"),
    [(GAUSSIAN, gaussian_draws, check_gaussian), (TWO_MODES, two_modes_draws, check_two_modes)],
    ids=["gaussian", "two-modes"],
)
def test_the_end_of_a_posterior_chain_is_a_draw_of_the_target(target, draw, check):
    z = draw()
    for i in range(3):
        _, found = chain(target, z, 1.0, jax.random.key(10 + i), 8, 0.3)
        assert np.mean(np.any(np.asarray(found.points.z) == np.asarray(z), axis=1)) < 0.3
        z = found.points.z
    check(z)


# Hamiltonian moves.


@functools.partial(jax.jit, static_argnums=(0, 4, 5))
def run_hmc(target, z, step_size, key, moves=5, block=N):
    points = Buffer.of(z, target.evaluate(z))
    return hmc(target.value, points, step_size, key, moves, block)


def test_hamiltonian_moves_converge_and_adapt_their_step():
    z = jnp.broadcast_to(jnp.asarray([4.0, -4.0]), (N, 2))
    moved = run_hmc(GAUSSIAN, z, jnp.asarray(0.05), jax.random.key(2), 40)
    assert moved.step_size > 0.2
    settled = run_hmc(GAUSSIAN, moved.points.z, moved.step_size, jax.random.key(3), 40)
    check_gaussian(settled.points.z)
    assert abs(settled.acceptance - HMC_ACCEPTANCE) < 0.1


def test_hamiltonian_moves_in_blocks_are_the_same_moves():
    z = gaussian_draws()[:100]
    whole = run_hmc(GAUSSIAN, z, jnp.asarray(0.3), jax.random.key(4), 2, 100)
    parts = run_hmc(GAUSSIAN, z, jnp.asarray(0.3), jax.random.key(4), 2, 32)
    np.testing.assert_allclose(whole.points.z, parts.points.z, rtol=1e-3, atol=1e-3)


def test_hamiltonian_moves_leave_places_without_mass_and_never_come_back():
    z = jnp.concatenate([half_draws()[:500], jnp.full((500, 1), -0.05)])
    moved = run_hmc(HALF, z, jnp.asarray(0.3), jax.random.key(5), 30)
    assert np.all(np.asarray(moved.points.z) > 0)
    assert np.all(np.isfinite(moved.points.log_prob))
