"""Expectations under p(x_0 | x_t): a Gaussian target has all of them in closed form."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp

from allmodes.diffusion import posterior
from allmodes.diffusion.posterior import Gate

SIGMAS = 5.0  # bounds are this many standard errors
MEAN = np.array([0.7, -0.4])
TAU = np.array([0.5, 1.5])


def log_gaussian(x):
    """Log of N(MEAN, TAU^2), normalised."""
    return jnp.sum(-0.5 * ((x - MEAN) / TAU) ** 2 - jnp.log(TAU) - 0.5 * jnp.log(2 * jnp.pi), axis=-1)


def exact(x_t, sigma):
    """Log p_t(x_t), and mean and variance of p(x_0 | x_t)."""
    v = TAU**2 + sigma**2
    log_p = np.sum(-0.5 * (x_t - MEAN) ** 2 / v - 0.5 * np.log(2 * np.pi * v))
    return log_p, (TAU**2 * x_t + sigma**2 * MEAN) / v, TAU**2 * sigma**2 / v


def with_values(x):
    x = jnp.asarray(x, jnp.float32)
    return x, log_gaussian(x), -(x - MEAN) / TAU**2


def draw_around(seed, x_t, sigma, n):
    return with_values(x_t + sigma * np.random.default_rng(seed).normal(size=(n, 2)))


def assert_near(values, expected, sigmas=SIGMAS):
    """The mean of `values` over axis 0 is `expected` within standard errors."""
    values = np.asarray(values, float)
    error = values.std(axis=0) / np.sqrt(len(values))
    off = np.abs(values.mean(axis=0) - expected) / error
    assert np.all(off < sigmas), f"{off} standard errors off"


# Estimates from draws around x_t.


@pytest.mark.parametrize("sigma", [0.1, 0.8, 3.0])
def test_from_draws_gaussian_closed_form(sigma):
    x_t, K = np.array([1.0, 0.5]), 200_000
    draws, log_prob, grad = draw_around(1, x_t, sigma, K)
    e = jax.jit(posterior.from_draws)(jnp.asarray(x_t, jnp.float32), jnp.asarray(sigma), draws, log_prob, grad)
    log_p, mean, _ = exact(x_t, sigma)

    w = np.asarray(e.weights, float)
    assert abs(w.sum() - 1) < 1e-4
    np.testing.assert_allclose(w, np.exp(log_prob - logsumexp(log_prob)), rtol=1e-4, atol=1e-30)
    # Standard errors of self-normalised estimates, by linearisation.
    error = np.sqrt(np.var(w) * K)
    assert abs(e.log_density - log_p) < SIGMAS * error + 1e-5
    for estimate, per_draw in ((e.dsi, draws), (e.tsi, x_t + sigma**2 * grad)):
        error = np.sqrt(w**2 @ (np.asarray(per_draw, float) - mean) ** 2)
        assert np.all(np.abs(estimate - mean) < SIGMAS * error + 1e-5)
        assert np.all(error < 0.2 * max(1.0, sigma**2))  # the bound means something


def test_from_draws_does_not_depend_on_the_constant_of_the_density():
    x_t, sigma = jnp.asarray([1.0, 0.5]), jnp.asarray(0.8)
    draws, log_prob, grad = draw_around(1, x_t, 0.8, 64)
    a = posterior.from_draws(x_t, sigma, draws, log_prob, grad)
    b = posterior.from_draws(x_t, sigma, draws, log_prob + 500.0, grad)
    np.testing.assert_allclose(b.log_density - a.log_density, 500.0, rtol=1e-5)
    np.testing.assert_allclose(a.dsi, b.dsi, atol=2e-4)
    np.testing.assert_allclose(a.tsi, b.tsi, atol=2e-4)


@pytest.mark.parametrize("K", [16, 64])
def test_bias_is_of_order_one_over_k(K):
    # With w = pi(x) over draws of N(x_t, sigma^2): E log mean w = log E w - cv2 / (2K), and the
    # self-normalised mean of x is off by -E[w^2 (x - mean)] / (K (E w)^2); both up to O(1/K^2), and
    # all in closed form, since w^2 is again a Gaussian, of standard deviation TAU / sqrt 2.
    x_t, sigma, replicates = np.array([1.0, 0.5]), 0.5, 2_000_000 // K

    @jax.jit
    def estimates(key):
        def one(key):
            draws, log_prob, grad = with_values(x_t + sigma * jax.random.normal(key, (K, 2)))
            e = posterior.from_draws(jnp.asarray(x_t, jnp.float32), jnp.asarray(sigma), draws, log_prob, grad)
            return e.log_density, e.dsi

        return jax.lax.map(one, jax.random.split(key, replicates), batch_size=10_000)

    log_density, dsi = estimates(jax.random.key(K))
    log_p, mean, _ = exact(x_t, sigma)
    half = TAU**2 / 2
    log_second = np.sum(
        -0.5 * (x_t - MEAN) ** 2 / (half + sigma**2)
        - 0.5 * np.log(2 * np.pi * (half + sigma**2))
        - 0.5 * np.log(4 * np.pi * TAU**2)
    )
    second = np.exp(log_second - 2 * log_p)  # E[w^2] / (E w)^2
    mean_of_square = (half * x_t + sigma**2 * MEAN) / (half + sigma**2)
    for values, exact_value, coefficient in (
        (np.asarray(log_density, float)[:, None], log_p, -(second - 1) / 2),
        (np.asarray(dsi, float), mean, -second * (mean_of_square - mean)),
    ):
        bias, error = values.mean(0) - exact_value, values.std(0) / np.sqrt(replicates)
        # Beyond the leading order: a tenth of it at K = 16, and 1/K of that at most for other K.
        slack = np.abs(coefficient) * 3.2 * second / K**2
        assert np.all(np.abs(bias - coefficient / K) < SIGMAS * error + slack), (bias * K, coefficient, error * K)
        assert np.any(np.abs(bias) > SIGMAS * error + slack)  # and the bias is there


def test_dead_draws():
    x_t, draws = jnp.asarray([1.0, 2.0]), jnp.ones((5, 2))
    e = jax.jit(posterior.from_draws)(x_t, jnp.asarray(0.5), draws, jnp.full(5, -jnp.inf), jnp.zeros((5, 2)))
    assert e.log_density == -jnp.inf
    assert np.array_equal(e.dsi, x_t)
    assert np.array_equal(e.tsi, x_t)
    assert np.array_equal(e.weights, np.zeros(5))


def test_some_dead_draws_have_no_weight():
    x_t, draws = jnp.zeros(2), jnp.asarray([[1.0, 0.0], [0.0, 3.0]])
    log_prob, grad = jnp.asarray([-jnp.inf, 2.0]), jnp.asarray([[0.0, 0.0], [1.0, -1.0]])
    e = posterior.from_draws(x_t, jnp.asarray(2.0), draws, log_prob, grad)
    np.testing.assert_allclose(e.weights, [0.0, 1.0])
    np.testing.assert_allclose(e.dsi, [0.0, 3.0])
    np.testing.assert_allclose(e.tsi, [4.0, -4.0])
    np.testing.assert_allclose(e.log_density, 2.0 - np.log(2.0), rtol=1e-6)


# The single draw that x_t was made of.


def gaussian_posterior_draws(seed, x_t, sigma, n):
    """Exact draws of p(x_0 | x_t), and their gradients."""
    _, mean, variance = exact(x_t, sigma)
    x_0 = jnp.asarray(mean + np.sqrt(variance) * np.random.default_rng(seed).normal(size=(n, 2)), jnp.float32)
    return x_0, -(x_0 - MEAN) / TAU**2


@pytest.mark.parametrize("sigma", [0.2, 2.0])
def test_from_origin_is_unbiased_at_equilibrium(sigma):
    x_t = np.array([0.3, -1.0])
    x_0, grad = gaussian_posterior_draws(2, x_t, sigma, 50_000)
    one = functools.partial(posterior.from_origin, x_t=jnp.asarray(x_t, jnp.float32), sigma=jnp.asarray(sigma))
    dsi, tsi = jax.vmap(one)(x_0, grad)
    _, mean, variance = exact(x_t, sigma)
    assert_near(dsi, mean)
    assert_near(tsi, mean)
    np.testing.assert_allclose(np.var(dsi, axis=0), variance, rtol=SIGMAS * np.sqrt(2 / 50_000))
    np.testing.assert_allclose(np.var(tsi, axis=0), variance * (sigma / TAU) ** 4, rtol=SIGMAS * np.sqrt(2 / 50_000))


CENTRES, WIDTHS, SHARES = np.array([-1.0, 2.0]), np.array([0.4, 0.8]), np.array([0.3, 0.7])


def log_two(x):
    return logsumexp(jnp.log(SHARES / WIDTHS) - 0.5 * ((x[..., None] - CENTRES) / WIDTHS) ** 2, axis=-1)


def draw_two(rng, n):
    mode = rng.choice(2, size=n, p=SHARES)
    return jnp.asarray(CENTRES[mode] + WIDTHS[mode] * rng.normal(size=n), jnp.float32)


def denoised_two(x_t, sigma):
    """E[x_0 | x_t] of the two modes."""
    x_t, v = np.asarray(x_t, float)[..., None], WIDTHS**2 + sigma**2
    share = SHARES / np.sqrt(v) * np.exp(-0.5 * (x_t - CENTRES) ** 2 / v)
    share /= share.sum(-1, keepdims=True)
    return np.sum(share * (WIDTHS**2 * x_t + sigma**2 * CENTRES) / v, axis=-1)


def regression_errors(estimate, x_t, sigma):
    """Standard errors by which E[(estimate - D(x_t)) f(x_t)] is off zero, for three f; D is the
    exact denoiser."""
    off = np.asarray(estimate, float) - denoised_two(x_t, sigma)
    values = np.stack([off, off * x_t, off * np.sin(3 * np.asarray(x_t))], axis=1)
    return np.abs(values.mean(0)) / (values.std(0) / np.sqrt(len(values)))


M = 8


@functools.cache
def single_draw_estimates(sigma, n=100_000):
    """x_t, `from_origin` and `from_neighbours` of points at equilibrium, with M others each."""
    rng = np.random.default_rng(3)
    points = draw_two(rng, n * (M + 1)).reshape(n, M + 1)
    x_t = points[:, 0] + sigma * jnp.asarray(rng.normal(size=n), jnp.float32)

    @jax.jit
    def estimates(points, x_t, sigma):
        grads = jax.vmap(jax.vmap(jax.grad(log_two)))(points)

        def one(x, grad, x_t):
            x, grad, x_t = x[:, None], grad[:, None], x_t[None]
            origin = posterior.from_origin(x[0], grad[0], x_t, sigma)
            neighbours = posterior.from_neighbours(x[0], grad[0], x_t, sigma, x[1:], grad[1:])
            return [e[0] for e in (*origin, *neighbours)]

        return jax.vmap(one)(points, grads, x_t)

    return np.asarray(x_t), points, [np.asarray(e) for e in estimates(points, x_t, jnp.asarray(sigma))]


@pytest.mark.parametrize("sigma", [0.3, 2.0])
def test_single_draw_targets_of_a_mixture_are_unbiased(sigma):
    x_t, _, estimates = single_draw_estimates(sigma)
    for estimate in estimates:
        assert np.all(regression_errors(estimate, x_t, sigma) < SIGMAS)


def test_neighbours_lower_the_variance_where_noise_spans_many_of_them():
    x_t, _, (dsi, _, shared, _) = single_draw_estimates(2.0)
    exact_mean = denoised_two(x_t, 2.0)
    assert np.mean((shared - exact_mean) ** 2) < 0.4 * np.mean((dsi - exact_mean) ** 2)


def test_neighbours_without_the_own_point_fail_the_same_check():
    x_t, points, _ = single_draw_estimates(0.3)
    log_kernel = -0.5 * (np.asarray(points)[:, 1:] - x_t[:, None]) ** 2 / 0.3**2
    weight = np.exp(log_kernel - log_kernel.max(axis=1, keepdims=True))
    wrong = np.sum(weight * np.asarray(points)[:, 1:], axis=1) / weight.sum(axis=1)
    assert np.any(regression_errors(wrong, x_t, 0.3) > 2 * SIGMAS)


def test_neighbours_that_are_far_do_not_count_and_near_ones_do_not_overflow():
    x_0, x_t, sigma = np.array([1.0, 2.0]), np.array([1.1, 1.9]), 0.1
    others, grads = np.array([[50.0, 0.0], [-30.0, 9.0]]), np.array([[5.0, 5.0], [1.0, 2.0]])
    f32 = lambda *arrays: [jnp.asarray(a, jnp.float32) for a in arrays]  # noqa: E731
    grad = np.array([0.5, -0.5])
    dsi, tsi = posterior.from_neighbours(*f32(x_0, grad, x_t, sigma, others, grads))
    np.testing.assert_allclose(dsi, x_0, rtol=1e-6)
    np.testing.assert_allclose(tsi, x_t + sigma**2 * grad, rtol=1e-6)
    dsi, tsi = posterior.from_neighbours(*f32(others[0], grads[0], x_t, sigma, [x_0, x_0 + 9], [grad, -grad]))
    np.testing.assert_allclose(dsi, x_0, rtol=1e-6)
    np.testing.assert_allclose(tsi, x_t + sigma**2 * grad, rtol=1e-6)


def test_neighbours_by_hand():
    x_t, sigma, points, grads = 0.5, 0.8, np.array([0.0, 1.0, -0.5]), np.array([1.0, -2.0, 4.0])
    w = np.exp(-0.5 * (points - x_t) ** 2 / sigma**2)
    w /= w.sum()
    p, g = jnp.asarray(points, jnp.float32)[:, None], jnp.asarray(grads, jnp.float32)[:, None]
    dsi, tsi = posterior.from_neighbours(p[0], g[0], jnp.asarray([x_t]), jnp.asarray(sigma), p[1:], g[1:])
    np.testing.assert_allclose(dsi, [w @ points], rtol=1e-5)
    np.testing.assert_allclose(tsi, [x_t + sigma**2 * (w @ grads)], rtol=1e-5)


# The gate.

SCHEDULE = jnp.geomspace(0.05, 4.0, 16)


def test_optimal_blend_of_a_gaussian_has_no_variance():
    share = np.asarray(Gate.start(SCHEDULE, jnp.asarray(TAU, jnp.float32)).share())
    np.testing.assert_allclose(share, TAU**2 / (TAU**2 + np.asarray(SCHEDULE, float)[:, None] ** 2), rtol=1e-5)
    x_t = np.array([0.3, -1.0])
    for i in (0, 7, 15):
        sigma = float(SCHEDULE[i])
        x_0, grad = gaussian_posterior_draws(i, x_t, sigma, 1000)
        dsi, tsi = jax.vmap(posterior.from_origin, (0, 0, None, None))(
            x_0, grad, jnp.asarray(x_t, jnp.float32), SCHEDULE[i]
        )
        blend = share[i] * np.asarray(tsi, float) + (1 - share[i]) * np.asarray(dsi, float)
        _, mean, _ = exact(x_t, sigma)
        rounding = 1e-6 * (10 + share[i] * np.abs(np.asarray(tsi)).max(0))
        assert np.all(np.abs(blend - mean) < rounding)


@functools.cache
def gaussian_batch(n, off):
    """`n` points at each level of SCHEDULE in order; `off` is the error of the current denoiser."""
    rng = np.random.default_rng(4)
    sigma = np.repeat(np.asarray(SCHEDULE, float), n)[:, None]
    x_0 = MEAN + TAU * rng.normal(size=(16 * n, 2))
    x_t = x_0 + sigma * rng.normal(size=(16 * n, 2))
    denoised = (TAU**2 * x_t + sigma**2 * MEAN) / (TAU**2 + sigma**2) + off
    return tuple(jnp.asarray(a, jnp.float32) for a in (x_0, x_t - (sigma / TAU) ** 2 * (x_0 - MEAN), denoised))


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_gate_learned_from_data_is_the_gaussian_one(off):
    n, batches = 2048, 40
    dsi, tsi, denoised = gaussian_batch(n * batches, off)
    parts = [a.reshape(16, batches, n, 2).swapaxes(0, 1).reshape(batches, 16 * n, 2) for a in (dsi, tsi, denoised)]
    wrong = Gate(jnp.full((16, 2), 3.0), jnp.full((16, 2), 4.0))  # forgotten: 0.5^40
    gate, _ = jax.lax.scan(lambda g, b: (g.update(*b, 0.5), None), wrong, parts)
    # A running mean with decay 1/2 has the variance of a mean over 3 batches.
    effective = 3 * n
    start = Gate.start(SCHEDULE, jnp.asarray(TAU, jnp.float32))
    # Up to noise: the denominator is the mean square of a Gaussian; with an error of D, the
    # numerator has -off (dsi - tsi) besides, of mean zero.
    error = np.sqrt(2 / effective)
    np.testing.assert_allclose(gate.denominator, start.denominator, rtol=SIGMAS * error)
    spread = np.sqrt(2 * np.asarray(start.numerator) ** 2 + off**2 * np.asarray(start.denominator))
    assert np.all(np.abs(gate.numerator - start.numerator) < SIGMAS * spread / np.sqrt(effective))
    if off == 0:  # dsi - D = a (dsi - tsi) exactly
        np.testing.assert_allclose(gate.share(), start.share(), rtol=1e-3, atol=1e-4)


def test_gate_update_moments():
    rng = np.random.default_rng(0)
    dsi, tsi, denoised = rng.normal(size=(3, 12, 2))
    gate = Gate(jnp.ones((4, 2)), 2 * jnp.ones((4, 2)))
    new = gate.update(*(jnp.asarray(a, jnp.float32) for a in (dsi, tsi, denoised)), 0.9)
    for level in range(4):
        rows = slice(3 * level, 3 * level + 3)
        difference = dsi[rows] - tsi[rows]
        numerator = 0.9 + 0.1 * np.mean((dsi[rows] - denoised[rows]) * difference, axis=0)
        np.testing.assert_allclose(new.numerator[level], numerator, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(new.denominator[level], 0.9 * 2 + 0.1 * np.mean(difference**2, axis=0), rtol=1e-5)


def test_share_is_clipped_and_finite():
    gate = Gate(jnp.asarray([[-1.0], [3.0], [0.0], [1.0]]), jnp.asarray([[1.0], [2.0], [0.0], [4.0]]))
    np.testing.assert_allclose(gate.share(), [[0.0], [1.0], [0.0], [0.25]])


# Posterior moves.


def without_own(key, log_prob, own):
    """Wrong: chooses among the fresh draws alone."""
    return jax.random.categorical(key, log_prob)


def without_density(key, log_prob, own):
    """Wrong: chooses at random, own point included."""
    return jax.random.randint(key, (), 0, log_prob.shape[0] + 1)


def standardised_errors_after_a_move(move, K, sigma=1.5, n=200_000):
    """|z| of the mode share and of three moments after one move of n exact draws."""
    rng = np.random.default_rng(5)
    x_0 = draw_two(rng, n)
    x_t = x_0 + sigma * jnp.asarray(rng.normal(size=n), jnp.float32)
    draws = x_t[:, None] + sigma * jnp.asarray(rng.normal(size=(n, K)), jnp.float32)
    k_move = jax.random.key(5)
    index = jax.jit(jax.vmap(move))(jax.random.split(k_move, n), log_two(draws), log_two(x_0))
    assert np.all((index >= 0) & (index <= K))
    moved = np.asarray(jnp.take_along_axis(jnp.concatenate([draws, x_0[:, None]], axis=1), index[:, None], 1)[:, 0])
    assert 0.05 < np.mean(np.asarray(index) == K) < 0.95 or move is not posterior.move  # it moves, and it stays

    second = SHARES @ (CENTRES**2 + WIDTHS**2)
    third = SHARES @ (CENTRES**3 + 3 * CENTRES * WIDTHS**2)
    # Beyond the mass of each mode on either side of a cut, by its own normal law.
    cut = np.mean(CENTRES)
    cdf = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in (cut - CENTRES) / WIDTHS])
    z = []
    for values, expected in (
        (moved < cut, SHARES @ cdf), (moved, SHARES @ CENTRES), (moved**2, second), (moved**3, third)
    ):  # fmt: skip
        values = np.asarray(values, float)
        z.append(abs(values.mean() - expected) / (values.std() / np.sqrt(n)))
    return np.array(z)


@pytest.mark.parametrize("K", [1, 4])
def test_posterior_move_leaves_the_target_invariant(K):
    assert np.all(standardised_errors_after_a_move(posterior.move, K) < SIGMAS)


@pytest.mark.parametrize(("wrong", "K"), [(without_own, 4), (without_own, 1), (without_density, 4)])
def test_wrong_posterior_moves_fail_the_same_check(wrong, K):
    assert np.any(standardised_errors_after_a_move(wrong, K) > 2 * SIGMAS)


def test_posterior_move_never_takes_a_dead_draw():
    dead, alive = jnp.full(3, -jnp.inf), jnp.asarray([-jnp.inf, 0.0, -jnp.inf])
    keys = jax.random.split(jax.random.key(6), 500)
    move = jax.vmap(posterior.move, (0, None, None))
    assert np.all(move(keys, dead, jnp.asarray(1.0)) == 3)
    assert np.all(move(keys, dead, jnp.asarray(-jnp.inf)) == 3)  # nothing alive: stays
    assert np.all(move(keys, alive, jnp.asarray(-jnp.inf)) == 1)
    both = np.asarray(move(keys, alive, jnp.asarray(0.0)))
    assert set(both) == {1, 3}
