"""Importance weights: ESS, normalising, tempering, truncating, resampling, the noised buffer's
density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.points import weights

INF = np.inf

ess_fraction, normalise, truncate = (jax.jit(f) for f in (weights.ess_fraction, weights.normalise, weights.truncate))
temper = jax.jit(weights.temper, static_argnums=1)
log_mixture = jax.jit(weights.log_mixture, static_argnames="member")


def normal(seed, *shape):
    """From NumPy: nothing to compile."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def log_of(w):
    with np.errstate(divide="ignore"):
        return jnp.asarray(np.log(w), jnp.float32)


# ESS.


@pytest.mark.parametrize(
    ("w", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 1.0),
        ([0.0, 0.0, 5.0, 0.0], 0.25),
        ([1.0, 1.0, 0.0, 0.0], 0.5),
        ([3.0, 1.0], 16 / 20),
        ([0.0, 0.0], 0.0),
    ],
)
def test_ess_of_known_weights(w, expected):
    np.testing.assert_allclose(ess_fraction(log_of(w)), expected, rtol=1e-5)
    # Scale does not matter, nor does a range beyond that of float32's exp.
    np.testing.assert_allclose(ess_fraction(log_of(w) + 300.0), expected, rtol=1e-4)
    np.testing.assert_allclose(ess_fraction(log_of(w) - 300.0), expected, rtol=1e-4)


def test_ess_along_the_last_axis():
    log_w = log_of([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(ess_fraction(log_w), [1.0, 0.5, 0.0], rtol=1e-6)


@pytest.mark.parametrize("spread", [0.3, 0.8])
def test_ess_of_lognormal_weights(spread):
    n = 200_000
    log_w = spread * normal(0, n)
    w = np.exp(np.asarray(log_w, float))
    closed = np.exp(-(spread**2))
    influence = 2 * w / w.mean() - w**2 / np.mean(w**2) - 1  # of log ESS
    assert abs(ess_fraction(log_w) - closed) < 5 * closed * influence.std() / np.sqrt(n)


# Normalising.


def test_normalise_within_strata():
    log_w = log_of([[1.0, 3.0, 0.0, 4.0], [1e-30, 1e-30, 1e-30, 1e-30], [0.0, 0.0, 0.0, 0.0]])
    expected = [[0.5, 1.5, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]]
    np.testing.assert_allclose(normalise(log_w), expected, rtol=1e-5)
    np.testing.assert_allclose(normalise(log_w + 1000.0), expected, rtol=1e-3)
    np.testing.assert_allclose(normalise(log_w[0]), expected[0], rtol=1e-5)


def test_normalised_weights_have_mean_one():
    w = normalise(5 * normal(1, 16, 512))
    np.testing.assert_allclose(np.mean(w, axis=-1), 1.0, rtol=1e-5)


# Tempering.


@pytest.mark.parametrize(("spread", "min_ess"), [(2.0, 0.25), (1.0, 0.9), (300.0, 0.5)])
def test_temper_meets_the_ess_with_the_largest_exponent(spread, min_ess):
    log_w = spread * normal(2, 50_000) - 1000.0
    tempered, eta = temper(log_w, min_ess)
    assert 0 < eta < 1
    ess = ess_fraction(tempered)
    assert min_ess <= ess < min_ess + 1e-3
    assert ess_fraction(1.002 * eta * log_w) < min_ess
    w = np.asarray(normalise(tempered), float)
    expected = np.exp(float(eta) * (np.asarray(log_w, float) - float(jnp.max(log_w))))
    np.testing.assert_allclose(w, expected / expected.mean(), rtol=1e-3, atol=1e-30)


def test_temper_of_lognormal_weights_closed_form():
    # ESS(eta w) = exp(-(eta spread)^2).
    n, spread, min_ess = 200_000, 2.0, 0.5
    log_w = spread * normal(3, n)
    _, eta = temper(log_w, min_ess)
    closed = np.sqrt(-np.log(min_ess)) / spread
    w = np.exp(closed * np.asarray(log_w, float))
    influence = 2 * w / w.mean() - w**2 / np.mean(w**2) - 1
    error = influence.std() / np.sqrt(n) / (2 * closed * spread**2)  # d log ESS = -2 eta spread^2 d eta
    assert abs(eta - closed) < 5 * error


def test_temper_leaves_weights_that_are_good_enough():
    log_w = 0.1 * normal(4, 1000)
    tempered, eta = temper(log_w, 0.5)
    assert eta == 1.0
    np.testing.assert_allclose(tempered - jnp.max(tempered), log_w - jnp.max(log_w), atol=1e-6)


def test_temper_keeps_points_without_mass_out():
    log_w = jnp.asarray(np.where(np.arange(1000) % 2 == 0, -INF, 3 * normal(5, 1000)))
    tempered, eta = temper(log_w, 0.25)
    assert 0 < eta < 1
    assert np.array_equal(tempered == -INF, log_w == -INF)
    assert not np.any(np.isnan(tempered))
    assert 0.25 <= ess_fraction(tempered) < 0.251


def test_temper_flattens_fully_where_the_ess_cannot_be_met():
    # Ten live points of a thousand: at most 1 % of ESS.
    log_w = jnp.asarray(np.where(np.arange(1000) < 10, 5.0 * np.arange(1000.0), -INF), jnp.float32)
    tempered, _ = temper(log_w, 0.25)
    np.testing.assert_allclose(normalise(tempered)[:10], 100.0, rtol=1e-3)
    assert np.all(tempered[10:] == -INF)


def test_temper_of_nothing():
    tempered, eta = temper(jnp.full(8, -jnp.inf), 0.25)
    assert np.all(tempered == -INF)
    assert np.isfinite(eta)


# Truncation.


def test_truncate_caps_at_root_n_times_the_mean():
    w = np.array([[1.0, 2.0, 3.0, 94.0], [1.0, 1.0, 1.0, 2.0]])
    capped = np.exp(truncate(log_of(w)))
    np.testing.assert_allclose(capped[0], [1.0, 2.0, 3.0, 50.0], rtol=1e-5)  # the mean is 25, root n is 2
    np.testing.assert_allclose(capped[1], w[1], rtol=1e-5)


def test_truncate_keeps_the_dead():
    capped = truncate(jnp.asarray([[-INF, 0.0], [-INF, -INF]]))
    np.testing.assert_allclose(capped, [[-INF, -0.5 * np.log(2)], [-INF, -INF]], rtol=1e-5)


def test_truncated_weights_are_less_spread():
    log_w = 3 * normal(6, 4, 4096)
    before, after = ess_fraction(log_w), ess_fraction(truncate(log_w))
    assert np.all(after > before)
    assert np.all(truncate(log_w) <= log_w)


# Systematic resampling.


def test_systematic_counts_are_floor_or_ceil_and_unbiased():
    w = np.array([0.0, 0.05, 0.4, 0.0, 1.7, 2.0, 0.85, 0.0])
    size, repeats = 11, 20_000
    resample = jax.jit(jax.vmap(lambda k: weights.systematic(k, jnp.asarray(w, jnp.float32), size)))
    index = np.asarray(resample(jax.random.split(jax.random.key(7), repeats)))
    counts = (index[:, :, None] == np.arange(8)).sum(1)
    expected = size * w / w.sum()
    assert np.all((counts >= np.floor(expected)) & (counts <= np.ceil(expected)))
    error = counts.std(0) / np.sqrt(repeats)
    assert np.all(np.abs(counts.mean(0) - expected) <= 5 * error + 1e-6)
    assert np.all(np.diff(index, axis=1) >= 0)


def test_systematic_of_equal_weights_takes_each_once():
    index = weights.systematic(jax.random.key(8), jnp.ones(1000), 1000)
    # The positions lie u, 1 + u, .. with one u: only rounding can move one across a border.
    counts = np.bincount(index, minlength=1000)
    assert counts.sum() == 1000
    assert np.all(counts == 1)


def test_systematic_never_takes_a_point_without_weight():
    # The first and the last of the points have no weight either. Sums in float32 round: with
    # thousands of points, as in a replay buffer, that must not lend them any.
    n, repeats = 8192, 1000
    rng = np.random.default_rng(9)
    dead = rng.random(n) < 0.5
    dead[[0, -1]] = True
    w = normalise(jnp.asarray(np.where(dead, -INF, 1.5 * rng.normal(size=n)), jnp.float32))
    assert np.array_equal(w == 0, dead)
    dead = jnp.asarray(dead)

    def count(key):
        return jnp.sum(dead[weights.systematic(key, w, n)])

    chosen = jax.jit(lambda keys: jax.lax.map(count, keys, batch_size=50))(jax.random.split(jax.random.key(9), repeats))
    assert np.sum(chosen) == 0


def test_systematic_never_rounds_past_the_last_weight():
    # The last position is (size - 1 + u) / size of the total, which rounds to the total for u close
    # to one.
    size = 100_000
    keys = jax.random.split(jax.random.key(10), 20_000)
    u = jax.vmap(jax.random.uniform)(keys)
    key = keys[jnp.argmax(u)]
    assert (jnp.float32(size - 1) + jnp.max(u)) / size == 1.0  # float32
    index = weights.systematic(key, jnp.asarray([0.0, 1.0, 0.0]), size)
    assert np.all(index == 1)


# The density of the noised buffer.


def mixture_in_float64(x, own, centres, sigma):
    x, own, centres, sigma = (np.asarray(a, float) for a in (x, own, centres, sigma))
    out = []
    for x_i, own_i, sigma_i in zip(x, own, sigma, strict=True):
        d2 = np.sum((np.vstack([centres, own_i]) - x_i) ** 2, axis=1)
        log_kernel = -0.5 * d2 / sigma_i**2 - 0.5 * len(x_i) * np.log(2 * np.pi * sigma_i**2)
        top = log_kernel.max()
        out.append(top + np.log(np.mean(np.exp(log_kernel - top))))
    return np.array(out)


@pytest.mark.parametrize("dim", [1, 5])
def test_log_mixture_direct_computation(dim):
    sigma = jnp.asarray(np.geomspace(0.01, 5.0, 40), jnp.float32)
    centres, own = normal(11, 300, dim), normal(12, 40, dim)
    x = own + sigma[:, None] * normal(13, 40, dim)
    got = log_mixture(x, own, centres, sigma)
    # x - own is rounded at 1e-7, beside a sigma of 0.01 or more.
    np.testing.assert_allclose(got, mixture_in_float64(x, own, centres, sigma), rtol=1e-5, atol=2e-4)


def test_log_mixture_counts_an_own_component_that_is_a_member_once():
    sigma, centres = jnp.asarray(np.geomspace(0.01, 5.0, 40), jnp.float32), normal(17, 300, 2)
    own = centres[:40]
    x = own + sigma[:, None] * normal(18, 40, 2)
    got = np.asarray(log_mixture(x, own, centres, sigma, member=True), float)
    expected = []
    for i in range(40):
        row = slice(i, i + 1)
        expected.append(mixture_in_float64(x[row], own[row], np.delete(centres, i, 0), sigma[row])[0])
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=2e-4)
    assert np.all(np.asarray(log_mixture(x, own, centres, sigma))[:5] - got[:5] > 0.6)  # twice: log 2 where it is alone


def test_log_mixture_is_bounded_by_its_own_component():
    x = jnp.asarray([[100.0, 0.0]])
    got = log_mixture(x, x, jnp.zeros((9, 2)), jnp.asarray([0.01]))
    np.testing.assert_allclose(got, [-np.log(2 * np.pi * 1e-4) - np.log(10.0)], rtol=1e-5)


def test_log_mixture_of_many_exact_points_is_the_noised_density():
    m, n, dim = 20_000, 50, 2
    sigma = jnp.asarray(np.geomspace(0.3, 3.0, n), jnp.float32)
    centres, own = normal(14, m, dim), normal(15, n, dim)
    x = own + sigma[:, None] * normal(16, n, dim)
    got = np.asarray(log_mixture(x, own, centres, sigma), float)

    def kernel(r2, variance):
        return np.exp(-0.5 * r2 / variance) / (2 * np.pi * variance)

    x, own, centres, s2 = (np.asarray(a, float) for a in (x, own, centres, sigma**2))
    p_t = kernel(np.sum(x**2, axis=1), 1 + s2)
    own_part = kernel(np.sum((x - own) ** 2, axis=1), s2)
    kernels = kernel(np.sum((x[:, None] - centres) ** 2, axis=-1), s2[:, None])
    error = kernels.std(axis=1) / np.sqrt(m)
    off = (np.exp(got) * (m + 1) - own_part) / m - p_t
    assert np.all(np.abs(off) < 5 * error + 1e-5 * p_t)
    assert np.all(error < 0.1 * p_t)
