"""The sampler of bilby, by `bilby.run_sampler`: its density by quadrature, a whole result, a run
that was killed."""

import os
import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from hosts import TINY, kill_in_training
from scipy.special import i0e
from scipy.stats import norm

import allmodes as am

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what it imports
    bilby = pytest.importorskip("bilby", reason="bilby is not installed: its sampler is not tested")
    from allmodes.interop.bilby import AllModes

from bilby.core.prior import Constraint, Gaussian, PriorDict, Uniform

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:bilby")


class Likelihood(bilby.Likelihood):
    """A function of a dictionary."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def log_likelihood(self, parameters):
        return self.function(parameters)


def sampler_of(function, priors, **options):
    return AllModes(Likelihood(function), priors, label="a", soft_init=True, meta_data={"likelihood": None}, **options)


def evidence_of(sampler, n=401):
    """By quadrature over the free coordinates."""
    free = sampler.target.free
    line = np.linspace(-9.0, 9.0, n if free.dim < 2 else 181)
    z = np.stack(np.meshgrid(*[line] * free.dim), -1).reshape(-1, free.dim)
    value = np.asarray(free.values(jnp.asarray(z, jnp.float32)), float)
    return float(np.log(np.sum(np.exp(value)) * (line[1] - line[0]) ** free.dim))


def circle(p):
    return norm.logpdf(p["x"], 1.0, 0.5) + norm.logpdf(p["y"], -1.0, 0.3)


def test_the_evidence_is_with_respect_to_the_prior(tmp_path):
    square = {"x": Uniform(-5, 5), "y": Uniform(-5, 5)}
    assert evidence_of(sampler_of(circle, square, outdir=tmp_path)) == pytest.approx(-np.log(100.0), abs=1e-3)
    normal = {"x": Gaussian(0, 2), "y": 0.0}  # y is fixed
    got = evidence_of(sampler_of(lambda p: norm.logpdf(p["x"], 1.0, 0.5) + p["y"], normal, outdir=tmp_path))
    assert got == pytest.approx(norm.logpdf(1.0, 0.0, np.hypot(2.0, 0.5)), abs=1e-3)


def test_a_constraint_takes_mass_away(tmp_path):
    def difference(p):
        return p | {"d": p["x"] - p["y"]}

    half = PriorDict({"x": Uniform(0, 1), "y": Uniform(0, 1), "d": Constraint(0, 1)}, conversion_function=difference)
    assert evidence_of(sampler_of(lambda p: 0.0, half, outdir=tmp_path)) == pytest.approx(
        np.log(0.5), abs=0.04
    )  # the diagonal of the grid
    assert sampler_of(lambda p: 0.0, half, outdir=tmp_path).log_likelihood([0.2, 0.7]) == -np.inf


def test_a_time_of_many_digits_is_resolved(tmp_path):
    """1126259462.4 +- .1 s, known to 2 ms: float32 resolves 128 s there."""
    epoch = 1126259462.4
    late = {"t": Uniform(epoch - 0.1, epoch + 0.1)}
    got = evidence_of(sampler_of(lambda p: norm.logpdf(p["t"] - epoch, 0.03, 0.002), late, outdir=tmp_path), 20_001)
    assert got == pytest.approx(-np.log(0.2), abs=5e-3)


def test_files_and_names(tmp_path):
    assert AllModes.get_expected_outputs("out", "a") == ([], ["out/allmodes_a/"])
    assert bilby.core.sampler.get_sampler_class("allmodes") is AllModes  # by the entry point
    ring = {"x": Uniform(0, 1, boundary="periodic"), "y": Uniform(0, 1)}
    target = sampler_of(circle, ring, outdir=tmp_path).target
    assert (target.names, target.periodic, target.double) == (("x", "y"), (0,), True)
    with pytest.raises(am.ConfigError, match=r"unknown method 'iwms'.* Did you mean iwsm\?"):
        sampler_of(circle, ring, outdir=tmp_path, method="iwms").run_sampler()


def here(p):
    """The process that evaluates it, as its value."""
    return float(os.getpid()) + 0.0 * p["x"]


def test_npool_are_processes_that_evaluate(tmp_path):
    free = jnp.asarray(np.random.default_rng(0).normal(size=(6, 2)), jnp.float32)
    square = {"x": Uniform(-5, 5), "y": Uniform(-5, 5)}
    alone, pool = (sampler_of(circle, square, outdir=tmp_path, npool=n).target.free for n in (1, 2))
    np.testing.assert_array_equal(pool.values(free), alone.values(free))
    u = np.full((1, 2), 0.5)
    alone, pool = (sampler_of(here, square, outdir=tmp_path, npool=n).target.log_prob.host for n in (None, 2))
    assert alone.values(u, np.float64) == os.getpid()
    assert pool.values(u, np.float64) != os.getpid()
    with pytest.raises(SystemExit, match="77"):  # on a signal
        sampler_of(circle, square, outdir=tmp_path, npool=2, exit_code=77).write_current_state_and_exit(15)


def two(p):
    """Two modes in x, of which one has three quarters; a phase with its mode at the seam."""
    modes = np.logaddexp(norm.logpdf(p["x"], -2.0, 0.3) + np.log(0.75), norm.logpdf(p["x"], 2.0, 0.3) + np.log(0.25))
    return modes + 20.0 * (np.cos(p["phase"] - 0.1) - 1.0) - np.log(2 * np.pi * i0e(20.0))


PRIORS = {"x": Uniform(-5, 5), "phase": Uniform(0, 2 * np.pi, boundary="periodic")}
LOG_Z = -np.log(10.0) - np.log(2 * np.pi)


def run(folder, **options):
    options = {"outdir": str(folder), "label": "two", "sampler": "allmodes", "save": False, **TINY, **options}
    return bilby.run_sampler(Likelihood(two), PriorDict(PRIORS), **options)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.trains
def test_a_result_has_what_those_of_bilby_have(result):
    assert result.log_evidence == pytest.approx(LOG_Z, abs=5 * result.log_evidence_err + 1e-3)
    assert result.log_evidence_err < 0.2
    nested, posterior = result.nested_samples, result.posterior
    assert list(nested.columns) == ["x", "phase", "weights", "log_likelihood"]
    assert (len(nested), nested["weights"].sum()) == (1000, pytest.approx(1.0))
    np.testing.assert_allclose(nested["log_likelihood"], two(nested), rtol=1e-4, atol=1e-3)
    effective = result.meta_data["allmodes"]["effective_draws"]
    assert len(posterior) == len(result.samples) == int(effective)
    np.testing.assert_allclose(posterior["log_likelihood"], two(posterior), rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(posterior["log_prior"], LOG_Z, rtol=1e-5)
    left = np.sum(nested["weights"] * (nested["x"] < 0))
    assert left == pytest.approx(0.75, abs=5 * np.sqrt(0.19 / effective))
    assert posterior["phase"].between(0, 2 * np.pi).all()
    below = np.mean(posterior["phase"] > np.pi)  # on the far side of the seam
    assert below == pytest.approx(norm.cdf(-0.1 * np.sqrt(20.0)), abs=5 * np.sqrt(0.22 / effective) + 0.01)
    assert result.num_likelihood_evaluations > 1000
    assert result.information_gain > 0
    assert set(result.meta_data["allmodes"]) >= {"verdict", "reasons", "method"}


@pytest.mark.slow
@pytest.mark.trains
def test_a_killed_run_goes_on_to_the_same_result(result, tmp_path):
    kill_in_training("test_interop_bilby", tmp_path)
    folder = tmp_path / "allmodes_two"
    assert (folder / "checkpoint" / "20").is_dir()
    assert not (folder / "draws.npz").exists()
    again = run(tmp_path)
    assert again.log_evidence == result.log_evidence
    np.testing.assert_array_equal(again.samples, result.samples)
    with pytest.raises(am.RunError, match="holds a run of another seed: bring back what it was"):
        run(tmp_path, seed=1)


@pytest.mark.slow
@pytest.mark.trains
def test_npool_gives_the_same_result(result, tmp_path):
    again = run(tmp_path, npool=2)
    assert again.log_evidence == result.log_evidence
    np.testing.assert_array_equal(again.samples, result.samples)
