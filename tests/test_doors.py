"""What was given to the wrong place is told where to go; seeds stand for keys, functions for
targets, and files hold models of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import call, same_bits
from scipy import stats

import allmodes as am
from allmodes.devices.keys import key_of
from allmodes.doors import door_of, is_numpyro_model, is_pymc_model, nearest
from allmodes.draws.draws import Draws

numpyro = pytest.importorskip("numpyro", reason="NumPyro is not installed: its interop is not tested")
dist = pytest.importorskip("numpyro.distributions")
SMC = am.SMC(particles=64)


def of_numpy(x):
    return float(np.sum(stats.norm.logpdf(x)))


def of_math(x):
    return -1.0 if x[0] > 0 else -2.0


def model(y=None):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    numpyro.sample("y", dist.Exponential(rate), obs=y)


def log_prob_by_distributions(x):
    return dist.Normal(0.0, 1.0).log_prob(x).sum()


# Functions and models.


@pytest.mark.parametrize("function", [of_numpy, of_math], ids=["NumPy", "if"])
def test_a_function_of_numpy_is_told_of_its_door(function):
    with pytest.raises(am.TargetError, match=r"am\.interop\.numpy\.target\(log_prob, dim\)"):
        am.Target(function, 2).check()


@pytest.mark.parametrize(
    "give", [lambda: am.Target(model, 2).check(), lambda: am.fit(model, key=0), lambda: am.fit(model, dim=2, key=0)]
)
def test_a_numpyro_model_is_told_of_its_door(give):
    with pytest.raises(am.TargetError, match=r"am\.interop\.numpyro\.target\(model, data\)"):
        give()


def test_what_is_a_numpyro_model():
    from numpyro import sample

    def within(y):
        def part():
            return sample("a", dist.Normal(0.0, 1.0))

        return part()

    assert is_numpyro_model(model)
    assert is_numpyro_model(within)
    assert not is_numpyro_model(log_prob_by_distributions)
    assert not is_numpyro_model(of_numpy)
    assert not is_numpyro_model(np.sum)
    assert not is_numpyro_model(None)


def test_a_pymc_model_is_told_of_its_door():
    pymc = pytest.importorskip("pymc", reason="PyMC is not installed: its interop is not tested")
    with pymc.Model() as made:
        pymc.Normal("a")
    assert is_pymc_model(made)
    assert "am.interop.pymc.target(model)" in door_of(made)  # which `Target` ends its error with


def normal(x):
    return -0.5 * jnp.sum(x**2)


def test_what_fit_cannot_take():
    with pytest.raises(am.TargetError, match=r"got a function\. For a function say its dimension: am\.fit\(log_prob"):
        am.fit(normal, key=0)
    with pytest.raises(am.TargetError, match="dim, bounds are for a function: a Target has its own"):
        am.fit(am.Target(normal, 2), dim=2, bounds=[(0, 1), None], key=0)


@pytest.mark.trains
def test_fit_takes_a_function_and_a_seed():
    more = {"names": ["a", "b"], "bounds": {"a": (0, None)}}
    ours = am.fit(normal, SMC, dim=2, key=3, **more).sample(64, key=4)
    same = am.fit(am.Target(normal, 2, **more), SMC, key=jax.random.key(3)).sample(64, key=jax.random.key(4))
    assert same_bits(ours.x, same.x)
    assert set(ours.unravel()) == {"a", "b"}


# Seeds.


def test_a_seed_stands_for_a_key():
    assert same_bits(jax.random.key_data(key_of(np.int32(5))), jax.random.key_data(jax.random.key(5)))
    draws = Draws(jnp.arange(6.0)[:, None], jnp.zeros(6), jnp.arange(6.0))
    assert same_bits(draws.resample(7).x, draws.resample(jax.random.key(7)).x)
    for wrong in ("a", 0.5, True, 2**70):
        with pytest.raises(am.ConfigError, match=r"key must be a JAX key, as jax\.random\.key\(0\), or a whole number"):
            key_of(wrong)


# Names.


def test_the_nearest_name():
    assert nearest("rnu", ("run", "sample")) == " Did you mean run?"
    assert nearest("xyz", ("run", "sample")) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu", "gmm40"], "Did you mean run?"),
        (["run", "gmm4"], "Did you mean gmm40?"),
        (["run", "gmm40", "--method", "iwms"], "Did you mean iwsm?"),
        (["run", "gmm40", "-n", "1.5"], "-n"),
    ],
)
def test_wrong_names_on_the_command_line(words, said, capsys):
    assert call(*words) == 2
    assert said in capsys.readouterr().err


def test_a_setting_that_there_is_not_is_told_of_the_nearest():
    from allmodes.store.find import find_method

    with pytest.raises(am.ConfigError, match=r"SMC has no setting particle.*Did you mean particles\?"):
        find_method("smc", {"particle": 3})


# Files.

FILE = """
import jax.numpy as jnp, math, numpy as np, numpyro, numpyro.distributions as dist

def of_jax(x):
    return -0.5 * jnp.sum(x ** 2)

def of_numpy(x):
    return -0.5 * float(np.sum(x ** 2)) if x[0] > 0 else -math.inf

def only_between_bounds(x):
    return -math.log(x[0] - 5.0) - math.log(7.0 - x[1])

def model():
    numpyro.sample("rate", dist.Gamma(2.0, 1.0))

def with_data(y):
    numpyro.sample("rate", dist.Gamma(2.0, 1.0))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.py"
    path.write_text(FILE)
    return path


def test_a_file_holds_models_of_every_kind(file):
    x = jnp.array([[1.0, 2.0]])
    assert am.find_target(f"{file}:of_jax", 2).differentiable
    numpy = am.find_target(f"{file}:of_numpy", 2, names=["a", "b"])
    assert (numpy.differentiable, numpy.name, numpy.names) == (False, "model", ("a", "b"))
    np.testing.assert_allclose(numpy.values(x), [-2.5])
    bounded = am.find_target(f"{file}:only_between_bounds", 2, bounds=[(5.0, 6.0), (6.0, 7.0)])
    np.testing.assert_allclose(bounded.values(jnp.array([[6.0, 6.0]])), [0.0], atol=1e-6)
    model = am.find_target(f"{file}:model")
    assert (model.dim, model.origin) == (1, f"{file}:model")
    with pytest.raises(am.TargetError, match="model has dimension 1, not 2: leave --dim out"):
        am.find_target(f"{file}:model", 2)
    with pytest.raises(am.TargetError, match=r"write target = am\.interop\.numpyro\.target\(with_data, data\) into"):
        am.find_target(f"{file}:with_data")


def test_a_file_holds_a_pymc_model(tmp_path):
    pytest.importorskip("pymc", reason="PyMC is not installed: its interop is not tested")
    (tmp_path / "pm.py").write_text("import pymc\nwith pymc.Model() as model:\n    pymc.Normal('a')\n")
    target = am.find_target(f"{tmp_path / 'pm.py'}:model")
    assert (target.dim, target.name) == (1, "pm")


@pytest.mark.trains
def test_a_run_of_a_numpy_function_and_a_number_as_1e2(file, tmp_path):
    words = ["run", f"{file}:of_numpy", "--dim", 2, "--method", "smc", "--particles", 64, "-n", "1e2", "--quiet"]
    assert call(*words, "--out", tmp_path / "run", "--judge-repeats", 2) == 0
    with np.load(tmp_path / "run" / "draws.npz") as draws:
        assert draws["x"].shape == (100, 2)
        assert draws["x"][:, 0].min() > 0
    assert not am.load(tmp_path / "run").target.differentiable
