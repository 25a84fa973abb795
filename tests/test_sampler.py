"""Draws and samplers: the contract of `sample`, `resample` and `log_weights`."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import pair, small

import allmodes as am
from allmodes.diffusion import blocks

pytestmark = pytest.mark.trains

LOG_Z = math.log(math.pi)  # of `pair`


@pytest.fixture(scope="module")
def sampler():
    return am.fit(pair(), small(100), key=jax.random.key(0))


@pytest.fixture(scope="module")
def draws(sampler):
    return sampler.sample(1000, key=jax.random.key(1), steps=20)


def rows(x):
    return [tuple(row) for row in np.asarray(x).tolist()]


# Draws.


def test_draws_keep_the_contract(draws):
    n = 1000
    assert len(draws) == n
    assert draws.x.shape == (n, 2)
    assert draws.log_prob.shape == draws.log_weight.shape == (n,)
    assert draws.x.dtype == draws.log_prob.dtype == draws.log_weight.dtype == jnp.float32
    np.testing.assert_allclose(draws.log_prob, pair().values(draws.x), atol=1e-5)
    assert len(set(rows(draws.x))) == n
    assert 0.0 < draws.ess <= n
    assert isinstance(draws.ess, float)
    assert math.isfinite(draws.khat)


def test_the_evidence_is_an_estimate_with_its_error(draws):
    value, std_error = draws.log_z
    assert (value, std_error) == (draws.log_z.value, draws.log_z.std_error)
    assert 0.0 < std_error < 0.2
    assert abs(value - LOG_Z) < 5.0 * std_error
    assert value == pytest.approx(float(jax.nn.logsumexp(draws.log_weight)) - math.log(1000), abs=1e-5)


def test_weighted_draws_have_the_moments_of_the_target(draws):
    weight = np.exp(np.asarray(draws.log_weight, float) - np.max(draws.log_weight))
    mean = weight @ np.asarray(draws.x, float) / weight.sum()
    deviation = np.sqrt([4.25, 0.5])  # of the two modes at x_0 = +-2 and x_1 = 0 and 1
    assert np.all(np.abs(mean - [0.0, 0.5]) < 5.0 * deviation / math.sqrt(draws.ess))


def test_equal_weights_are_all_effective():
    zeros = jnp.zeros(50)
    drawn = am.Draws(jnp.zeros((50, 3)), zeros, zeros)
    assert drawn.ess == pytest.approx(50.0)
    assert drawn.log_z == pytest.approx((0.0, 0.0), abs=1e-6)


def test_resampled_draws_are_equal_and_keep_the_evidence(draws):
    fair = draws.resample(jax.random.key(2))
    assert len(fair) == len(draws)
    np.testing.assert_array_equal(fair.log_weight, np.zeros(1000))
    assert fair.ess == pytest.approx(draws.ess)  # they err as the weighted ones did
    assert draws.resample(jax.random.key(2), 100).ess == pytest.approx(100.0)
    assert fair.log_z == draws.log_z
    values = dict(zip(rows(draws.x), draws.log_prob.tolist(), strict=True))
    assert [values[row] for row in rows(fair.x)] == fair.log_prob.tolist()
    assert fair.resample(jax.random.key(3)).log_z == draws.log_z  # and again


def test_copies_of_a_draw_are_in_proportion_to_its_weight(draws):
    """Systematic: floor or ceil of n times the normalised weight, and in no order."""
    for n in (1000, 300, 2500):
        fair = draws.resample(jax.random.key(2), n)
        assert fair.x.shape == (n, 2)
        index = {row: i for i, row in enumerate(rows(draws.x))}
        picked = np.asarray([index[row] for row in rows(fair.x)])
        copies = np.bincount(picked, minlength=1000)
        expected = n * np.asarray(jax.nn.softmax(draws.log_weight), float)
        assert np.all(np.abs(copies - expected) < 1.0 + 1e-3)
        assert abs(np.corrcoef(np.arange(n), picked)[0, 1]) < 5.0 / math.sqrt(n)


def test_resampling_fewer_has_few_copies(draws):
    few = draws.resample(jax.random.key(2), 100)
    assert len(set(rows(few.x))) > 90
    assert few.log_z == draws.log_z


def test_resampling_is_fixed_by_its_key(draws):
    first, again, other = (draws.resample(jax.random.key(seed)) for seed in (2, 2, 3))
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.x, other.x)


def test_a_draw_without_mass_is_never_resampled():
    log_weight = jnp.asarray([0.0, -jnp.inf, 0.0, -jnp.inf])
    drawn = am.Draws(jnp.arange(4.0)[:, None], log_weight, log_weight)
    assert drawn.ess == 2.0
    fair = drawn.resample(jax.random.key(0), 40)
    assert sorted(set(fair.x[:, 0].tolist())) == [0.0, 2.0]
    assert fair.log_z.value == pytest.approx(math.log(0.5))


@pytest.mark.parametrize("value", [-jnp.inf, jnp.nan])
def test_draws_without_any_mass_cannot_be_resampled(value):
    dead = am.Draws(jnp.zeros((30, 2)), jnp.full(30, -jnp.inf), jnp.full(30, value))
    assert dead.ess == 0.0
    assert dead.log_z == (-math.inf, math.inf)
    with pytest.raises(am.TargetError, match="no draw has any mass"):
        dead.resample(jax.random.key(0))


@pytest.mark.parametrize("n", [0, -3])
def test_no_draws_are_refused(sampler, draws, n):
    with pytest.raises(am.ConfigError, match=rf"n must be at least 1, got {n}"):
        draws.resample(jax.random.key(0), n)
    with pytest.raises(am.ConfigError, match=rf"n of at least 1 .*got n={n}"):
        sampler.sample(n, key=jax.random.key(0))


@pytest.mark.parametrize("steps", [1, 0])
def test_a_path_needs_two_steps(sampler, steps):
    with pytest.raises(am.ConfigError, match=rf"steps of at least 2, got n=10, steps={steps}"):
        sampler.sample(10, key=jax.random.key(0), steps=steps)


# Blocks.


@pytest.mark.parametrize("n", [1, 7, 8, 9, 13, 16, 20])
def test_any_number_of_draws_in_blocks(sampler, monkeypatch, n):
    monkeypatch.setattr(blocks, "BLOCK", 8)
    drawn = sampler.sample(n, key=jax.random.key(5), steps=3)
    assert drawn.x.shape == (n, 2)
    assert drawn.log_prob.shape == drawn.log_weight.shape == (n,)
    assert np.isfinite(drawn.x).all()
    assert np.isfinite(drawn.log_weight).all()
    assert len(set(rows(drawn.x))) == n  # no block repeats another


def test_draws_are_fixed_by_their_key(sampler, monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK", 8)
    for n in (7, 13):
        first, again, other = (sampler.sample(n, key=jax.random.key(seed), steps=3) for seed in (5, 5, 6))
        for name in ("x", "log_prob", "log_weight"):
            np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
            assert not np.array_equal(getattr(first, name), getattr(other, name))


def test_weights_of_given_points_do_not_feel_the_padding(sampler, draws, monkeypatch):
    """13 points in two blocks of 7: what fills up the last block changes nothing."""
    monkeypatch.setattr(blocks, "BLOCK", 8)
    x, key = draws.x[:14], jax.random.key(7)
    weights = sampler.log_weights(x[:13], key=key, steps=3)
    assert weights.shape == (13,)
    assert np.isfinite(weights).all()
    np.testing.assert_array_equal(weights, sampler.log_weights(x, key=key, steps=3)[:13])
    np.testing.assert_array_equal(weights[:7], sampler.log_weights(x[:7], key=key, steps=3))
    assert not np.array_equal(weights, sampler.log_weights(x[:13], key=jax.random.key(8), steps=3))


def test_weights_of_exact_draws_bound_the_evidence_from_above(sampler, draws):
    """E_pi[log w] >= log Z >= E_q[log w], and 1 / E_pi[1 / w] is Z."""
    k_mode, k_noise = jax.random.split(jax.random.key(11))
    means = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
    exact = means[jax.random.randint(k_mode, (1000,), 0, 2)] + 0.5 * jax.random.normal(k_noise, (1000, 2))
    forward = np.asarray(sampler.log_weights(exact, key=jax.random.key(12), steps=20), float)
    error = forward.std() / math.sqrt(1000)
    assert forward.mean() > LOG_Z - 5.0 * error
    assert np.mean(draws.log_weight) < LOG_Z + 5.0 * np.std(draws.log_weight) / math.sqrt(1000)
    inverse = np.exp(LOG_Z - forward)
    assert abs(inverse.mean() - 1.0) < 5.0 * inverse.std() / math.sqrt(1000)


@pytest.mark.parametrize(("n", "steps"), [(0, 3), (3, 0)])
def test_weights_of_nothing_are_refused(sampler, n, steps):
    with pytest.raises(am.ConfigError, match="at least"):
        sampler.log_weights(jnp.zeros((n, 2)), key=jax.random.key(0), steps=steps)


# Evaluations.


def test_evaluations_are_counted_exactly(sampler):
    spent = sampler.evaluations
    assert set(spent) == {"log_prob", "gradient", "nan", "zero"}
    assert all(type(value) is int for value in spent.values())
    assert spent["nan"] == spent["zero"] == 0
    assert spent["log_prob"] >= spent["gradient"] > 512
    # 40 steps more: renewals of the buffer at steps 100 and 120, and local moves at step 100, of
    # 512 points each.
    longer = am.fit(pair(), small(140), key=jax.random.key(0))
    assert longer.evaluations["log_prob"] - spent["log_prob"] == 3 * 512
    assert longer.evaluations["gradient"] - spent["gradient"] == 3 * 512


def test_drawing_does_not_change_the_cost_of_training(sampler):
    before = sampler.evaluations
    sampler.sample(10, key=jax.random.key(0), steps=3)
    assert sampler.evaluations == before
