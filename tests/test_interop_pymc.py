"""PyMC models: their density, its evidence, and draws as named, constrained variables."""

import math
import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes import ConfigError, TargetError
from allmodes.draws.draws import Draws
from allmodes.files.run_folder import Run
from allmodes.jobs import run_job as job
from allmodes.ranges import Range
from allmodes.store.load import parse

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of ArviZ's old package about its new one
    pymc = pytest.importorskip("pymc", reason="PyMC is not installed: its interop is not tested")
pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS:UserWarning")

DATA = np.array([1.2, 0.7, 2.1, 1.5])


@pytest.fixture(scope="module")
def rate():
    """A Gamma prior and exponentials: the evidence is known."""
    with pymc.Model(name="") as model:
        rate = pymc.Gamma("rate", 2.0, 1.0)
        pymc.Deterministic("mean", 1.0 / rate)
        pymc.Exponential("y", rate, observed=DATA)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="PyTensor could not link to a BLAS")
        return am.interop.pymc.target(model)


def test_the_density_of_a_model_has_its_jacobians_and_its_evidence(rate):
    assert (rate.dim, rate.name) == (1, "pymc")
    rate.check()
    z = np.linspace(-9.0, 4.0, 4001)  # log rate
    value = np.exp(z)
    exact = z - value - math.lgamma(2.0) + len(DATA) * z - value * DATA.sum() + z
    got = np.asarray(rate.values(jnp.asarray(z[:, None], jnp.float32)), float)
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=1e-3)
    evidence = math.lgamma(6.0) - math.lgamma(2.0) - 6.0 * math.log(1.0 + DATA.sum())
    assert np.trapezoid(np.exp(got - evidence), z) == pytest.approx(1.0, abs=1e-3)


def test_a_model_says_where_its_variables_lie():
    with pymc.Model() as model:
        place = pymc.Uniform("place", -1, 3)
        pymc.Uniform("part", 0, place)  # whose upper end is no number
        pymc.VonMises("angle", 0, 1)
        pymc.Dirichlet("share", [1, 1])
        pymc.Beta("beta", 1, 2)
        pymc.TruncatedNormal("cut", 0, 1, lower=0.5)
        pymc.Normal("plain")
    assert am.interop.pymc.target(model).ranges == {
        "place": Range(-1.0, 3.0), "part": Range(0.0, None), "angle": Range(-math.pi, math.pi, periodic=True),
        "share[0]": Range(0.0, 1.0), "share[1]": Range(0.0, 1.0), "beta": Range(0.0, 1.0),
        "cut": Range(0.5, None), "plain": Range(),
    }  # fmt: skip


def test_draws_are_named_and_constrained_also_from_a_folder(rate, tmp_path):
    x = jnp.asarray([[-1.0], [0.0], [2.0]])
    found = Draws(x, rate.values(x), jnp.zeros(3), parameters=rate.parameters).unravel()
    assert set(found) == {"rate", "mean"}
    np.testing.assert_allclose(found["rate"], np.exp(x[:, 0]), rtol=1e-5)
    np.testing.assert_allclose(found["mean"] * found["rate"], 1.0, rtol=1e-5)
    job.start(Run(tmp_path / "run"), rate, am.SMC(), 0, 10, "a test")
    stored, *_ = parse(Run(tmp_path / "run"))
    np.testing.assert_allclose(stored.values(x), rate.values(x), rtol=1e-5)
    assert stored.ranges == rate.ranges == {"rate": Range(0.0, None), "mean": Range()}
    np.testing.assert_allclose(stored.parameters(x)["mean"], found["mean"], rtol=1e-5)


@pytest.mark.trains
@pytest.mark.filterwarnings("ignore:these draws:UserWarning")  # few particles may not be enough
def test_a_sample_is_what_pymc_gives_with_the_evidence():
    with pymc.Model(coords={"side": ["left", "right"]}):
        pymc.Data("scale", 2.0)
        mu = pymc.Normal("mu", 0.0, 1.0, dims="side")
        pymc.Normal("y", mu, 1.0, observed=np.array([0.5, -0.5]))
        found = am.interop.pymc.sample(draws=125, chains=2, method=am.SMC(particles=250))
    posterior = found["posterior"]
    assert type(found).__name__ in ("InferenceData", "DataTree")
    assert posterior["mu"].dims == ("chain", "draw", "side")
    assert posterior["mu"].shape == (2, 125, 2)
    np.testing.assert_array_equal(found["observed_data"]["y"], [0.5, -0.5])
    assert found["constant_data"]["scale"].item() == 2.0
    assert found["sample_stats"]["lp"].shape == (2, 125)
    about = posterior.attrs
    evidence = 2 * (-0.5 * math.log(4 * math.pi) - 0.5**2 / 4)
    assert about["log_z"] == pytest.approx(evidence, abs=5 * about["log_z_std_error"] + 0.02)
    np.testing.assert_allclose(posterior["mu"].mean(("chain", "draw")), [0.25, -0.25], atol=5 * np.sqrt(0.5 / 100))
    assert about["verdict"] in ("trusted", "use with correction", "do not use")
    with pytest.raises(ConfigError, match="draws and chains must be at least 1, got draws=0"):
        am.interop.pymc.sample(pymc.Model(), draws=0)


def test_the_settings_of_jax_stay_as_they_were(rate):
    assert not jax.config.jax_enable_x64
    assert "device_count=100" not in os.environ.get("XLA_FLAGS", "")
    assert rate.values(jnp.zeros((2, 1))).dtype == jnp.float32


def test_models_without_a_density_are_refused():
    with pymc.Model() as discrete:
        pymc.Bernoulli("which", 0.5)
    with pytest.raises(TargetError, match="discrete free variables: which"):
        am.interop.pymc.target(discrete)
    with pytest.raises(TargetError, match="no free variable"):
        am.interop.pymc.target(pymc.Model(name="empty"))
    with pytest.raises(TargetError, match=r"a pymc\.Model is needed, got a function"):
        am.interop.pymc.target(test_models_without_a_density_are_refused)


def test_without_pymc_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymc", None)
    with pytest.raises(ConfigError, match="pip install pymc"):
        am.interop.pymc.target(None)
