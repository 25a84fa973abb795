"""Models as they are: nested parameters and NumPyro models, from the density to named, constrained draws."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes import TargetError
from allmodes.draws import Draws

QUICK = am.SMC(particles=250)


# Nested parameters.


EXAMPLE = {"a": np.zeros((2, 3), np.float32), "b": (np.float32(0.0), np.zeros(1, np.float32))}


def nested_log_prob(p):
    return -0.5 * (jnp.sum((p["a"] - 1.0) ** 2) + p["b"][0] ** 2 + jnp.sum((p["b"][1] + 2.0) ** 2))


def test_nested_parameters_go_in_and_come_out():
    target = am.Target.of_tree(nested_log_prob, EXAMPLE, name="nested")
    assert (target.dim, target.name) == (8, "nested")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)), jnp.float32)
    draws = Draws(x, target.values(x), jnp.zeros(5), parameters=target.unravel)
    tree = draws.unravel()
    assert jax.tree.structure(tree) == jax.tree.structure(EXAMPLE)
    assert tree["a"].shape == (5, 2, 3)
    assert tree["b"][0].shape == (5,)
    np.testing.assert_allclose(jax.vmap(nested_log_prob)(tree), draws.log_prob, rtol=1e-5)
    some = draws.resample(jax.random.key(0), 3).unravel()
    assert some["b"][1].shape == (3, 1)


@pytest.mark.parametrize(
    ("example", "words"),
    [({}, "no number in them"), ({"a": np.zeros(2, int)}, "real floating-point numbers, got int")],
    ids=["empty", "integers"],
)
def test_examples_that_are_no_parameters_are_refused(example, words):
    with pytest.raises(TargetError, match=words):
        am.Target.of_tree(nested_log_prob, example)


def test_draws_without_named_parameters_say_where_they_are():
    with pytest.raises(am.ConfigError, match=r"they are draws\.x"):
        Draws(jnp.zeros((2, 1)), jnp.zeros(2), jnp.zeros(2)).unravel()


# NumPyro.

numpyro = pytest.importorskip("numpyro", reason="NumPyro is not installed: its interop is not tested")
dist = pytest.importorskip("numpyro.distributions")

DATA = np.array([1.2, 0.7, 2.1, 1.5])


def rate_model(y, prior=2.0):
    """A Gamma prior and a Poisson-like likelihood by exponentials: the evidence is known."""
    rate = numpyro.sample("rate", dist.Gamma(prior, 1.0))
    numpyro.deterministic("mean", 1.0 / rate)
    numpyro.sample("y", dist.Exponential(rate).expand([len(y)]), obs=y)


def test_the_density_of_a_model_has_its_jacobians_and_its_evidence():
    target = am.interop.numpyro.target(rate_model, DATA, prior=3.0)
    assert (target.dim, target.name) == (1, "rate_model")
    # Of z = log rate: the Gamma prior with its Jacobian, times the likelihood.
    z = np.linspace(-9.0, 4.0, 4001)
    rate = np.exp(z)
    exact = 2.0 * z - rate - math.lgamma(3.0) + len(DATA) * z - rate * DATA.sum() + z
    got = np.asarray(target.values(jnp.asarray(z[:, None], jnp.float32)), float)
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-3)
    evidence = math.lgamma(7.0) - math.lgamma(3.0) - 7.0 * math.log(1.0 + DATA.sum())
    assert np.trapezoid(np.exp(got - evidence), z) == pytest.approx(1.0, abs=1e-3)


def test_draws_of_a_model_are_named_and_constrained_also_from_a_saved_sampler(tmp_path):
    target = am.interop.numpyro.target(rate_model, DATA)
    sampler = am.fit(target, QUICK, key=jax.random.key(0))
    draws = sampler.sample(1000, key=jax.random.key(1))
    sites = draws.unravel()
    assert set(sites) == {"rate", "mean"}
    np.testing.assert_allclose(sites["rate"], np.exp(np.asarray(draws.x[:, 0])), rtol=1e-4)
    np.testing.assert_allclose(sites["mean"] * sites["rate"], 1.0, rtol=1e-4)
    w = np.exp(np.asarray(draws.log_weight - draws.log_weight.max(), float))
    mean = np.average(np.asarray(sites["rate"], float), weights=w)
    shape, scale = 2.0 + len(DATA), 1.0 / (1.0 + DATA.sum())
    assert abs(mean - shape * scale) < 5 * math.sqrt(shape) * scale / math.sqrt(draws.ess)
    sampler.save(tmp_path / "run")
    again = am.load(tmp_path / "run").sample(1000, key=jax.random.key(1)).unravel()
    np.testing.assert_allclose(again["rate"], sites["rate"], rtol=1e-3)


def discrete_model():
    numpyro.sample("which", dist.Bernoulli(0.5))


def nothing_model(y):
    numpyro.sample("y", dist.Normal(0.0, 1.0), obs=y)


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (discrete_model, (), "discrete latent sites: which"),
        (nothing_model, (1.0,), "has no latent site"),
        (rate_model, (), "cannot be run with these arguments .*missing 1 required"),
    ],
)
def test_models_that_cannot_be_drawn_are_refused(model, arguments, words):
    with pytest.raises(TargetError, match=words) as error:
        am.interop.numpyro.target(model, *arguments)
    assert "\n" not in str(error.value)
