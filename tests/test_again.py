"""Fitting again, from the sampler of a density that has changed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am

pytestmark = pytest.mark.trains

MEANS = np.array([[-4.0, 0.0], [3.0, 3.0], [2.0, -5.0]])
SMALL = am.IWSM(search=am.parts.Search(128, 1024, moves=8, keep=8), buffer=4096, steps=64, batch=128)


def three(share, shift=0.0, width=1.0):
    """Three modes, of other shares, places and widths; log Z is that of the shares' sum."""

    def log_prob(x):
        squared = jnp.sum((x - MEANS - shift) ** 2, axis=1) / width**2
        return jax.nn.logsumexp(jnp.log(jnp.asarray(share)) - 0.5 * squared) - jnp.log(2.0 * jnp.pi * width**2)

    return am.Target(log_prob, 2, name="three")


@pytest.fixture(scope="module")
def before():
    return am.fit(three([0.2, 0.3, 0.5]), SMALL, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("share", "shift", "width"), [([1.2, 0.3, 0.5], 0.0, 1.0), ([0.2, 0.3, 0.5], 0.7, 0.8), ([0.2, 0.3, 0.5], 0.0, 1.3)]
)
def test_a_changed_density_costs_a_fraction(before, share, shift, width):
    """Another weight, all modes elsewhere, another temperature."""
    target = three(share, shift, width)
    sampler = am.fit(target, start=before, key=jax.random.key(1))
    assert sampler.evaluations["log_prob"] < 0.7 * before.evaluations["log_prob"]
    assert set(sampler.spent) == {"moves", "mixture", "opinion"}
    assert sampler.target is target
    draws = sampler.sample(4000, key=jax.random.key(2))
    assert draws.ess > 3000
    np.testing.assert_allclose(draws.log_z.value, np.log(sum(share)), atol=5 * draws.log_z.std_error + 1e-3)
    nearest = np.argmin(((np.asarray(draws.x)[:, None] - MEANS - shift) ** 2).sum(-1), axis=1)
    weight = np.exp(np.asarray(draws.log_weight, float))
    mass = np.bincount(nearest, weight, minlength=3) / weight.sum()
    np.testing.assert_allclose(mass, np.array(share) / sum(share), atol=0.05)


def test_a_network_without_a_base_goes_on_from_what_it_has_learned():
    method = dataclasses.replace(SMALL, network=am.parts.Perceptron(16, 1), steps=40)
    first = am.fit(three([0.2, 0.3, 0.5]), method, key=jax.random.key(0))
    again = am.fit(three([0.5, 0.3, 0.2]), start=first, steps=3, key=jax.random.key(1))
    assert int(again.state.step) == 3
    assert set(again.spent) == {"moves", "opinion"}
    weights = [np.ravel(s.state.denoiser.network.first.weight) for s in (first, again)]
    assert 0 < np.max(np.abs(np.subtract(*weights))) < 0.1
    e = again.state.frame.evaluate(again.target, again.state.buffer.z)
    np.testing.assert_allclose(e.log_prob, again.state.buffer.log_prob, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"method": am.IWSM.thorough()}, "start goes on with its own method, iwsm: leave method out"),
        ({"target": am.Target(lambda x: -jnp.sum(x**2), 3)}, "a sampler of three in 2 dimensions, and .* of 3"),
    ],
)
def test_a_start_that_cannot_be_one(before, given, message):
    options = {"target": three([1.0, 1.0, 1.0]), "start": before, "key": jax.random.key(0), **given}
    with pytest.raises(am.ConfigError, match=message):
        am.fit(**options)


def test_a_method_that_has_no_use_of_it():
    first = am.fit(three([1.0, 1.0, 1.0]), am.NUTS(chains=4), key=jax.random.key(0))
    with pytest.raises(am.ConfigError, match="method nuts cannot begin where another sampler has ended"):
        am.fit(three([1.0, 1.0, 1.0]), start=first, key=jax.random.key(1))
