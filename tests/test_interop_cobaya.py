"""The sampler of cobaya, by `cobaya.run`: its density by quadrature, a whole run, one that was
killed."""

import os
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from hosts import TINY, kill_in_training
from scipy.special import i0e
from scipy.stats import norm

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    cobaya = pytest.importorskip("cobaya", reason="cobaya is not installed: its sampler is not tested")
    from cobaya.log import LoggedError
    from cobaya.model import get_model
    from cobaya.run import run as cobaya_run
    from cobaya.sampler import get_sampler
    from cobaya.yaml import yaml_load_file

NAME = "allmodes.interop.cobaya.AllModes"


def circle(x, y):
    return norm.logpdf(x, 1.0, 0.5) + norm.logpdf(y, -1.0, 0.3)


def sampler_of(params, prior=None, **options):
    info = {"params": params, "likelihood": {"circle": circle}} | ({} if prior is None else {"prior": prior})
    return get_sampler({NAME: options or None}, get_model(info))


def evidence_of(sampler):
    """By quadrature over the free coordinates."""
    line = np.linspace(-9.0, 9.0, 181)
    z = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    value = np.asarray(sampler.target.free.values(jnp.asarray(z, jnp.float32)), float)
    return float(np.log(np.sum(np.exp(value)) * 0.1**2))


SQUARE = {"x": {"prior": {"min": -5, "max": 5}}, "y": {"prior": {"min": -5, "max": 5}}}
NORMAL = {"x": {"prior": {"dist": "norm", "loc": 0, "scale": 2}}, "y": {"prior": {"dist": "cauchy", "scale": 3}}}


def test_the_evidence_is_with_respect_to_the_priors():
    assert evidence_of(sampler_of(SQUARE)) == pytest.approx(-np.log(100.0), abs=1e-3)
    external = {"slope": lambda x: 0.5 * x}  # counts as it stands: E exp(x / 2) of the normal in x
    got = evidence_of(sampler_of(SQUARE, external))
    assert got == pytest.approx(-np.log(100.0) + 0.5 + 0.5 * 0.25**2, abs=1e-3)


def test_points_of_the_cube_are_quantiles():
    sampler = sampler_of(NORMAL)
    (mass,) = np.exp([evidence_of(sampler)])
    y = np.linspace(-4.0, 2.0, 20_001)
    cauchy = np.trapezoid(np.exp(norm.logpdf(y, -1.0, 0.3)) * 3.0 / np.pi / (9.0 + y**2), y)
    assert mass == pytest.approx(norm.pdf(1.0, 0.0, np.hypot(2.0, 0.5)) * cauchy, rel=2e-3)
    x = sampler.posterior.parameters(np.array([0.975, 0.75]))
    np.testing.assert_allclose(x, [2.0 * norm.ppf(0.975), 3.0], rtol=1e-6)


def here(x, y):
    """The process that evaluates it, as its value."""
    return float(os.getpid()) + 0.0 * x


def test_workers_have_a_model_of_their_own():
    free = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    alone, two = (sampler_of(NORMAL, workers=n).target.free for n in (None, 2))
    np.testing.assert_array_equal(two.values(free), alone.values(free))
    info = {"params": SQUARE, "likelihood": {"here": here}}
    targets = (get_sampler({NAME: {"workers": n}}, get_model(info)).target for n in (None, 1))
    alone, one = (target.log_prob.host.values(np.full((1, 2), 0.5), np.float64) for target in targets)
    assert alone == os.getpid()
    assert one != os.getpid()


def test_options():
    assert sampler_of(SQUARE).draws == 10_000
    with pytest.raises(ValueError, match="unknown method 'iwms'"):
        sampler_of(SQUARE, method="iwms")


def two(x, phase):
    """Two modes in x, of which one has three quarters; a phase with its mode at the seam."""
    modes = np.logaddexp(norm.logpdf(x, -2.0, 0.3) + np.log(0.75), norm.logpdf(x, 2.0, 0.3) + np.log(0.25))
    return modes + 20.0 * (np.cos(phase - 0.1) - 1.0) - np.log(2 * np.pi * i0e(20.0))


INFO = {
    "params": {
        "x": {"prior": {"min": -5, "max": 5}},
        "phase": {"prior": {"min": 0, "max": 2 * np.pi}, "periodic": True},
        "square": {"derived": "lambda x: x**2"},
    },
    "likelihood": {"two": {"external": two}},
    "sampler": {NAME: TINY},
}
LOG_Z = -np.log(10.0) - np.log(2 * np.pi)


def run(folder, resume=False):
    """A likelihood that is a function is kept by dill, beside the input."""
    return cobaya_run(INFO, output=str(folder / "a"), resume=resume)[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder)


@pytest.mark.trains
def test_products(whole):
    folder, sampler = whole
    products = sampler.products()
    assert products["logZ"] == pytest.approx(LOG_Z, abs=5 * products["logZstd"] + 1e-3)
    assert products["logZstd"] < 0.2
    assert yaml_load_file(str(folder / "a.logZ"))["logZ"] == products["logZ"]
    sample, effective = products["sample"], products["allmodes"]["effective_draws"]
    w = sample["weight"] / np.sum(sample["weight"])
    assert np.sum(w * (sample["x"] < 0)) == pytest.approx(0.75, abs=5 * np.sqrt(0.19 / effective))
    np.testing.assert_allclose(sample["square"], sample["x"] ** 2)
    np.testing.assert_allclose(-0.5 * sample["chi2"], two(sample["x"], sample["phase"]), rtol=1e-6)
    np.testing.assert_allclose(-sample["minuslogprior"], LOG_Z, rtol=1e-6)
    assert len(np.loadtxt(folder / "a.1.txt")) == len(sample)
    means = sampler.products(to_getdist=True)["sample"].getMeans()
    assert means[0] == pytest.approx(sample.mean()[0])
    with pytest.raises(LoggedError, match="Delete the previous output manually"):
        run(folder)


@pytest.mark.slow
@pytest.mark.trains
def test_a_killed_run_goes_on_to_the_same_products(whole, tmp_path):
    kill_in_training("test_interop_cobaya", tmp_path)
    assert (tmp_path / "a_allmodes" / "checkpoint" / "20").is_dir()
    assert not (tmp_path / "a_allmodes" / "draws.npz").exists()
    again, sampler = run(tmp_path, resume=True).products(), whole[1]
    assert again["logZ"] == sampler.products()["logZ"]
    np.testing.assert_array_equal(again["sample"]["x"], sampler.products()["sample"]["x"])
