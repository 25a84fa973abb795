"""Every estimator and every re-weighting of IWSM: counts are exact, stored values belong to their
points, and what is re-weighted by exact paths keeps exact points exact.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counting, pair

import allmodes as am
from allmodes import parts
from allmodes.methods.iwsm.batch import LEVELS, Batch
from allmodes.methods.iwsm.estimators import ESTIMATORS
from allmodes.methods.iwsm.reweighting import REWEIGHTINGS
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame

PAIR, SIZE = pair(), 256
SMALL = {"FreshDraws": {"count": 8}, "Chain": {"moves": 2}, "Neighbours": {"count": 16}, "OwnDraws": {"count": 64}}
METHOD = am.IWSM.thorough(buffer=SIZE, batch=2 * LEVELS, network=parts.Perceptron(16, 1, 2))


@pytest.fixture(scope="module")
def state():
    """Exact draws of the pair, and a network that knows nothing."""
    k_mode, k_noise = jax.random.split(jax.random.key(0))
    means = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
    x = means[jax.random.randint(k_mode, (SIZE,), 0, 2)] + 0.5 * jax.random.normal(k_noise, (SIZE, 2))
    frame, zero = Frame(jnp.array([0.0, 0.5]), jnp.array([2.1, 0.7])), jnp.zeros(())
    z = frame.to_z(x)
    found = SearchResult(
        frame, Buffer.of(z, frame.evaluate(PAIR, z)), zero + 0.05, zero + jnp.full(2, 0.3), zero, Evaluations.none()
    )
    return METHOD.build(PAIR, found, (), jax.random.key(1))


def batch_of(state):
    index = jnp.arange(2 * LEVELS)
    sigma = state.noise.sigma((jnp.arange(2 * LEVELS) + 0.5) / (2 * LEVELS))
    origin = state.buffer.take(index)
    z = origin.z + sigma[:, None] * jax.random.normal(jax.random.key(2), origin.z.shape)
    return Batch(index, origin, z, sigma)


def values_belong(state):
    e = jax.jit(lambda s: s.frame.evaluate(PAIR, s.buffer.z))(state)
    np.testing.assert_allclose(state.buffer.log_prob, e.log_prob, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_gives_two_finite_targets_and_counts(name, state):
    estimator = ESTIMATORS[name](**SMALL.get(name, {}))
    pair = Counting(PAIR.log_prob, 2)
    targets = jax.jit(lambda s, k: estimator(pair, s, k, batch_of(s)))(state, jax.random.key(3))
    for estimate in (targets.dsi, targets.tsi):
        assert estimate.shape == (2 * LEVELS, 2)
        assert np.isfinite(estimate).all()
    np.testing.assert_allclose(jnp.mean(targets.weight), 1.0, rtol=1e-4)
    spent = int(targets.state.evaluations.log_prob) - int(state.evaluations.log_prob)
    assert spent == pair.total
    values_belong(targets.state)
    # Both are near the origin of the point where the noise is low, as exact posteriors are.
    low = slice(0, 8)
    assert float(jnp.max(jnp.abs(targets.dsi[low] - batch_of(state).z[low]))) < 1.0


@pytest.mark.parametrize("name", ESTIMATORS)
def test_a_clip_bounds_the_score(name, state):
    method = dataclasses.replace(METHOD, estimator=ESTIMATORS[name](**SMALL.get(name, {}), clip=1e-3))
    after, figures = jax.jit(lambda s, k: method.step(PAIR, s, k))(state, jax.random.key(4))
    assert int(after.step) == 1
    assert np.isfinite(figures["loss"])


@pytest.mark.parametrize("name", REWEIGHTINGS)
def test_a_renewal_keeps_values_counts_and_says_how_much_it_took(name, state):
    reweighting = REWEIGHTINGS[name](**SMALL.get(name, {}), every=5, path_steps=8)
    pair = Counting(PAIR.log_prob, 2)
    after = jax.jit(lambda s, k: reweighting.renew(pair, s, k))(state, jax.random.key(5))
    values_belong(after)
    assert after.buffer.size == SIZE
    assert 0.0 < float(after.refresh_ess) <= 1.0 + 1e-5
    assert 0.0 < float(after.refresh_rate) <= 1.0
    assert int(after.evaluations.log_prob) - int(state.evaluations.log_prob) == pair.total > 0
    assert reweighting.paths(SIZE) > 0
    changed = np.any(np.asarray(after.buffer.z) != np.asarray(state.buffer.z), axis=1)
    assert changed.any()


@pytest.mark.parametrize("name", REWEIGHTINGS)
def test_a_renewal_that_does_not_fit_is_refused(name):
    settings = {"PathMoves": {"points": 2 * SIZE}, "OwnDraws": {"count": 2 * SIZE}}.get(name)
    if settings is None:
        dataclasses.replace(METHOD, reweighting=REWEIGHTINGS[name]())  # fits any buffer
        return
    with pytest.raises(am.ConfigError, match="must not exceed the buffer"):
        dataclasses.replace(METHOD, reweighting=REWEIGHTINGS[name](**settings))
