"""The noise schedule: sigma and its inverse, the reverse grid, stratified times."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.diffusion.noise import Noise, stratified_times

LOW, HIGH = 0.03, 2.5


@pytest.fixture
def noise():
    return Noise(jnp.asarray(LOW), jnp.asarray(HIGH))


def test_sigma_is_geometric(noise):
    t = np.linspace(0.0, 1.0, 11)
    np.testing.assert_allclose(noise.sigma(jnp.asarray(t, jnp.float32)), LOW ** (1 - t) * HIGH**t, rtol=2e-6)


def test_time_inverts_sigma(noise):
    t = jnp.linspace(0.0, 1.0, 101)
    # d t = d log sigma / log(HIGH / LOW): a few rounding errors of sigma.
    np.testing.assert_allclose(noise.time(noise.sigma(t)), t, atol=1e-6)
    sigma = jnp.geomspace(LOW, HIGH, 50)
    np.testing.assert_allclose(noise.sigma(noise.time(sigma)), sigma, rtol=5e-6)


def test_time_is_clipped_outside_the_range(noise):
    times = noise.time(jnp.asarray([0.0, 0.5 * LOW, LOW, HIGH, 2 * HIGH]))
    np.testing.assert_allclose(times, [0.0, 0.0, 0.0, 1.0, 1.0], atol=1e-6)
    assert np.all((times >= 0) & (times <= 1))


@pytest.mark.parametrize("steps", [2, 3, 64, 200])
def test_grid_is_geometric_and_ends_at_zero(noise, steps):
    grid = np.asarray(noise.grid(steps), float)
    assert grid.shape == (steps + 1,)
    assert grid[-1] == 0.0
    np.testing.assert_allclose(grid[[0, -2]], [HIGH, LOW], rtol=1e-6)
    ratios = grid[1:-1] / grid[:-2]
    np.testing.assert_allclose(ratios, (LOW / HIGH) ** (1 / (steps - 1)), rtol=1e-5)


def test_grid_of_one_step_goes_straight_to_zero(noise):
    np.testing.assert_allclose(noise.grid(1), [HIGH, 0.0], rtol=1e-6)


def test_noise_is_unbatched_and_traceable(noise):
    np.testing.assert_allclose(jax.jit(jax.vmap(noise.sigma))(jnp.zeros(3)), LOW, rtol=1e-6)
    assert noise.sigma(jnp.asarray(0.5)).shape == ()


def test_stratified_times_one_in_each_stratum():
    n = 96
    times = np.stack([stratified_times(jax.random.key(i), n) for i in range(50)])
    assert np.all(np.floor(times.astype(float) * n) == np.arange(n)[None])
    assert np.all(np.diff(times, axis=1) > 0)


def test_stratified_times_are_uniform_within_strata():
    n, repeats = 32, 2000
    times = np.asarray(jax.vmap(lambda k: stratified_times(k, n))(jax.random.split(jax.random.key(0), repeats)))
    u = (times * n - np.arange(n)).ravel()
    assert abs(u.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / u.size)
    assert abs(np.mean((u - 0.5) ** 2) - 1 / 12) < 5 * np.sqrt(1 / 180 / u.size)
    # Independent of one another: the mean over strata has the variance of an average of n uniforms.
    means = u.reshape(repeats, n).mean(1)
    assert abs(means.var() * n * 12 - 1) < 5 * np.sqrt(2 / repeats)


# A schedule that dwells.


@pytest.fixture(params=[(0.5, 0.25), (0.8, 0.1)])
def dwelling(request):
    return Noise(jnp.asarray(LOW), jnp.asarray(HIGH), *request.param)


def test_a_dwelling_schedule_keeps_its_ends_and_rises(dwelling):
    np.testing.assert_allclose(dwelling.sigma(jnp.asarray([0.0, 1.0])), [LOW, HIGH], rtol=1e-5)
    assert np.all(np.diff(dwelling.sigma(jnp.linspace(0.0, 1.0, 200))) > 0)


def test_a_dwelling_schedule_is_inverted(dwelling):
    t = jnp.linspace(0.0, 1.0, 101)
    np.testing.assert_allclose(dwelling.time(dwelling.sigma(t)), t, atol=1e-4)


def test_rate_stands_for_an_even_log_sigma(dwelling):
    """The mean of f over even t, weighted with the rate, is its mean over even log sigma."""
    t = (jnp.arange(4000) + 0.5) / 4000
    u = jnp.log(dwelling.sigma(t) / LOW) / np.log(HIGH / LOW)
    np.testing.assert_allclose(jnp.gradient(u, t)[1:-1], dwelling.rate(t)[1:-1], atol=2e-2)
    np.testing.assert_allclose(jnp.mean(dwelling.rate(t)), 1.0, atol=1e-4)
    np.testing.assert_allclose(jnp.mean(dwelling.rate(t) * u**2), 1.0 / 3.0, atol=1e-3)


def test_steps_are_densest_where_it_dwells(dwelling):
    grid = np.log(np.asarray(dwelling.grid(200), float)[:-1])
    steps, middles = -np.diff(grid), 0.5 * (grid[1:] + grid[:-1])
    densest = np.exp(middles[np.argmin(steps)])
    assert 0.5 < densest / dwelling.dwell_at < 2.0
    even = np.log(HIGH / LOW) / 199
    np.testing.assert_allclose(steps.min() / even, 1.0 - dwelling.dwell, rtol=0.05)


def test_without_dwelling_the_rate_is_one(noise):
    np.testing.assert_array_equal(noise.rate(jnp.linspace(0.0, 1.0, 5)), 1.0)
