"""Models as they are: nested parameters and NumPyro models, from the density to named, constrained
draws."""

import math
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import little
from scipy import stats
from scipy.special import logsumexp, softmax

import allmodes as am
from allmodes import TargetError
from allmodes.draws.draws import Draws
from allmodes.files.run_folder import Run
from allmodes.jobs import run_job as job
from allmodes.ranges import Range
from allmodes.store.load import parse

pytestmark = pytest.mark.trains

QUICK = am.SMC(particles=250)
TINY = little(
    steps=150, cooldown=50, batch=64, buffer=256, every=50, path_steps=8,
    local_every=50, sample_steps=40,
)  # fmt: skip


# Nested parameters.


EXAMPLE = {"a": np.zeros((2, 3), np.float32), "b": (np.float32(0.0), np.zeros(1, np.float32))}


def nested_log_prob(p):
    return -0.5 * (jnp.sum((p["a"] - 1.0) ** 2) + p["b"][0] ** 2 + jnp.sum((p["b"][1] + 2.0) ** 2))


def test_nested_parameters_go_in_and_come_out():
    target = am.Target.of_tree(nested_log_prob, EXAMPLE, name="nested")
    assert (target.dim, target.name) == (8, "nested")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(5, 8)), jnp.float32)
    draws = Draws(x, target.values(x), jnp.zeros(5), parameters=target.parameters)
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


# Draws as other libraries want them.


def weighted():
    """Draws of two equal modes at -1 and 1, three times as many of the first, and the weights that
    make that right."""
    rng = np.random.default_rng(1)
    left = np.arange(4000) % 4 > 0
    x = np.where(left, -1.0, 1.0)[:, None] + 0.1 * rng.normal(size=(4000, 8))
    log_w = np.where(left, math.log(2 / 3), math.log(2.0))
    target = am.Target.of_tree(nested_log_prob, EXAMPLE)
    return Draws(*(jnp.asarray(a, jnp.float32) for a in (x, np.zeros(4000), log_w)), parameters=target.parameters)


def test_a_table_has_weighted_figures_by_name():
    draws = weighted()
    rows = draws.table()
    assert list(rows) == [*(f"a[{i},{j}]" for i in range(2) for j in range(3)), "b.0", "b.1[0]"]
    row = rows["a[0,1]"]
    w = np.exp(np.asarray(draws.log_weight, float))
    mean = np.average(np.asarray(draws.x[:, 1], float), weights=w)
    assert row["mean"] == pytest.approx(mean, abs=1e-6)
    assert abs(row["mean"]) < 4 * row["mcse"]
    assert row["sd"] == pytest.approx(math.sqrt(1.01), rel=0.01)
    assert row["ess"] == pytest.approx(w.sum() ** 2 / (w**2).sum(), rel=1e-4)
    assert row["mcse"] == pytest.approx(row["sd"] / math.sqrt(row["ess"]))
    assert row["5%"] == pytest.approx(-1.13, abs=0.02)
    assert row["95%"] == pytest.approx(1.13, abs=0.02)
    text = draws.summary()
    assert "mcse" in text
    assert all(name in text for name in rows)
    plain = Draws(draws.x, draws.log_prob, draws.log_weight)
    assert list(plain.table()) == [f"x[{i}]" for i in range(8)]


def test_effective_draws_of_a_figure_are_its_own():
    # Two chains, one figure of which is stuck and the other is not.
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 2))
    x[:, 0] += 5.0 * (np.arange(2000) % 2)
    draws = Draws(jnp.asarray(x, jnp.float32), jnp.zeros(2000), jnp.zeros(2000), chains=2)
    assert draws.ess_of(x[:, 0]) < 10
    assert draws.ess_of(x[:, 1]) > 1000


def test_arviz_has_names_chains_and_no_weights_unless_beside():
    pytest.importorskip("arviz_base", reason="ArviZ is not installed: its export is not tested")
    draws = weighted()
    tree = draws.to_arviz(jax.random.key(0))
    assert tree["posterior"]["a"].shape == (1, 4000, 2, 3)
    assert float(tree["posterior"]["a"].mean()) == pytest.approx(0.0, abs=0.05)
    assert "log_weight" not in tree["sample_stats"]
    assert tree["posterior"].attrs["weights"] == "none: resampled"
    assert tree["posterior"].attrs["log_z"] == pytest.approx(draws.log_z.value)
    beside = draws.to_arviz()
    np.testing.assert_allclose(beside["sample_stats"]["log_weight"][0], draws.log_weight)
    np.testing.assert_allclose(beside["posterior"]["b.0"][0], draws.x[:, 6], rtol=1e-6)
    chains = Draws(draws.x[:9], draws.log_prob[:9], jnp.zeros(9), chains=2)
    x = chains.to_arviz(jax.random.key(0))["posterior"]["x"]
    assert x.shape == (2, 4, 8)
    np.testing.assert_array_equal(x[1, 2], draws.x[5])  # draw i is of chain i mod chains


def test_pandas_has_a_column_for_each_number():
    pytest.importorskip("pandas", reason="pandas is not installed: its export is not tested")
    draws = weighted()
    frame = draws.to_pandas()
    assert list(frame)[:2] == ["a[0,0]", "a[0,1]"]
    assert list(frame)[-2:] == ["log_prob", "log_weight"]
    np.testing.assert_allclose(frame["b.1[0]"], draws.x[:, 7], rtol=1e-6)


def test_a_file_holds_draws_and_their_parameters_by_name(tmp_path):
    draws = weighted()
    draws.save(tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz", allow_pickle=False) as file:
        np.testing.assert_array_equal(file["log_weight"], draws.log_weight)
        np.testing.assert_array_equal(file["parameters.a"][:, 1, 2], draws.x[:, 5])
        assert set(file) == {"x", "log_prob", "log_weight", "parameters.a", "parameters.b.0", "parameters.b.1"}
    draws.save(tmp_path / "fair.npz", key=jax.random.key(0))
    with np.load(tmp_path / "fair.npz") as file:
        np.testing.assert_array_equal(file["log_weight"], np.zeros(4000))
    with pytest.raises(am.ConfigError, match=r"saved as \.npz or \.nc, got .*all\.txt"):
        draws.save(tmp_path / "all.txt")
    with pytest.raises(am.RunError, match="cannot write"):
        draws.save(tmp_path / "nowhere" / "all.npz")


def test_netcdf_is_read_by_xarray(tmp_path):
    pytest.importorskip("arviz_base", reason="ArviZ is not installed: its export is not tested")
    xarray = pytest.importorskip("xarray")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed: NetCDF is not tested")
    draws = weighted()
    draws.save(tmp_path / "draws.nc")
    tree = xarray.open_datatree(tmp_path / "draws.nc", engine="h5netcdf")
    np.testing.assert_array_equal(tree["posterior"]["a"][0, :, 1, 2], draws.x[:, 5])
    np.testing.assert_array_equal(tree["sample_stats"]["log_weight"][0], draws.log_weight)
    assert tree["posterior"].attrs["verdict"] == draws.verdict().word
    tree.close()


def test_netcdf_without_what_writes_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "h5netcdf", None)
    with pytest.raises(am.ConfigError, match="pip install arviz-base h5netcdf"):
        weighted().save(tmp_path / "draws.nc")


# NumPy, SciPy and PyTorch.


def scipy_mixture(x):
    """Two normals of standard deviation 1/2, weights 1 and 3, times 5, by SciPy; nothing beyond
    50."""
    if np.abs(x).max() > 50:
        return -np.inf
    parts = [stats.norm.logpdf(x, m, 0.5).sum() for m in (-2.0, 2.0)]
    return math.log(5.0) + logsumexp(parts, b=[0.25, 0.75])


def scipy_gradient(x):
    parts = np.array([stats.norm.logpdf(x, m, 0.5).sum() for m in (-2.0, 2.0)]) + np.log([0.25, 0.75])
    share = np.exp(parts - logsumexp(parts))
    return -(x - share @ [-2.0, 2.0]) / 0.25


def test_a_scipy_function_is_evaluated_in_batches_of_any_nesting():
    target = am.interop.numpy.target(scipy_mixture, 2, grad=scipy_gradient)
    target.check()
    assert target.name == "scipy_mixture"
    x = jnp.asarray([[0.1, -0.2], [2.0, 1.0], [60.0, 0.0]])
    got = jax.jit(target.evaluate)(x)
    np.testing.assert_allclose(got.log_prob[:2], [scipy_mixture(np.asarray(p, float)) for p in x[:2]], rtol=1e-5)
    np.testing.assert_allclose(got.grad[:2], [scipy_gradient(np.asarray(p, float)) for p in x[:2]], rtol=1e-4)
    assert (got.log_prob[2], int(got.zero)) == (-jnp.inf, 1)
    cost = am.interop.numpy.cost(target)
    assert (cost.calls, cost.points, cost.seconds > 0) == (1, 3, True)
    assert "1 calls, 3 points" in str(cost)
    nested = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(target.log_prob))))(jnp.stack([x, x + 0.1]))
    np.testing.assert_allclose(nested[0][0], got.log_prob)
    assert nested[1].shape == (2, 3, 2)
    assert am.interop.numpy.cost(target).points == 9
    with pytest.raises(am.ConfigError, match="traced by JAX"):
        am.interop.numpy.cost(am.Target(lambda x: -jnp.sum(x**2), 2, name="traced"))


def numpy_mixture(x):
    """The same of many points at once."""
    squared = (x[:, None] - np.array([-2.0, 2.0])[:, None]) ** 2
    return math.log(5.0) + logsumexp(-2.0 * squared.sum(-1) + np.log([0.25, 0.75]), axis=1) - math.log(0.5 * math.pi)


def numpy_gradient(x):
    """Its gradient."""
    offset = x[:, None] - np.array([-2.0, 2.0])[:, None]
    share = softmax(-2.0 * (offset**2).sum(-1) + np.log([0.25, 0.75]), axis=1)
    return -4.0 * np.einsum("nk,nkd->nd", share, offset)


def test_a_numpy_function_from_beginning_to_end():
    points = np.array([[0.3, -0.1], [2.0, 1.5]])
    np.testing.assert_allclose(numpy_mixture(points), [scipy_mixture(p) for p in points])
    target = am.interop.numpy.target(numpy_mixture, 2, grad=numpy_gradient, batched=True)
    draws = am.fit(target, TINY, key=jax.random.key(0)).sample(400, key=jax.random.key(1))
    assert abs(draws.log_z.value - math.log(5.0)) < 4 * draws.log_z.std_error < 0.8
    w = np.exp(np.asarray(draws.log_weight - draws.log_weight.max(), float))
    assert abs(np.average(draws.x[:, 0] > 0, weights=w) - 0.75) < 0.15


def test_a_function_without_a_gradient_from_beginning_to_end():
    target = am.interop.numpy.target(numpy_mixture, 2, batched=True)
    assert not target.differentiable
    sampler = am.fit(target, TINY, key=jax.random.key(0))
    assert sampler.evaluations["gradient"] == 0
    assert am.interop.numpy.cost(target).points >= sampler.evaluations["log_prob"]
    assert not bool(sampler.state.smooth)  # the denoising identity alone
    for correct in (None, "mcmc"):
        draws = sampler.sample(400, key=jax.random.key(1), correct=correct)
        assert abs(draws.log_z.value - math.log(5.0)) < 4 * draws.log_z.std_error < 0.8
        w = np.exp(np.asarray(draws.log_weight - draws.log_weight.max(), float))
        assert abs(np.average(draws.x[:, 0] > 0, weights=w) - 0.75) < 0.15
        right = np.asarray(draws.x[:, 0] > 0)
        deviation = np.sqrt(np.cov(np.asarray(draws.x[right, 0], float), aweights=w[right]))
        assert abs(deviation - 0.5) < 0.12
    with pytest.raises(am.ConfigError, match="an audit climbs to peaks along gradients"):
        am.audit(sampler, key=jax.random.key(0))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(QUICK, id="smc"),
        pytest.param(am.Tempering(steps=10, systems=8, temperatures=8), id="tempering", marks=pytest.mark.slow),
    ],
)
def test_plain_methods_walk_where_there_is_no_gradient(method):
    target = am.interop.numpy.target(numpy_mixture, 2, batched=True)
    draws = am.fit(target, method, key=jax.random.key(0)).sample(1000, key=jax.random.key(1))
    assert abs(draws.log_z.value - math.log(5.0)) < 5 * draws.log_z.std_error < 1.0
    assert abs(np.mean(np.asarray(draws.x[:, 0] > 0)) - 0.75) < 0.2


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (am.NUTS(), "nuts needs the gradient of the density, and numpy_mixture has none"),
        (am.IDEM(), "score='tsi' needs the gradient of the density, and numpy_mixture has none"),
    ],
    ids=["nuts", "idem"],
)
def test_methods_that_need_a_gradient_refuse_a_density_without(method, words):
    target = am.interop.numpy.target(numpy_mixture, 2, batched=True)
    with pytest.raises(am.ConfigError, match=words):
        am.fit(target, method, key=jax.random.key(0))


@pytest.mark.parametrize(
    ("log_prob", "grad", "words"),
    [
        (lambda x: x, lambda x: x, r"log_prob of points \(2,\) must have shape \(\), but has \(2,\)"),
        (lambda x: 0.0, lambda x: 0.0, r"grad of points \(2,\) must have shape \(2,\), but has \(\)"),
        (lambda x: x.nothing, lambda x: x, "<lambda> fails on points of zeros and at 8 other points: AttributeError"),
    ],
    ids=["value", "gradient", "error"],
)
def test_functions_of_the_wrong_shape_are_refused(log_prob, grad, words):
    with pytest.raises(TargetError, match=words):
        am.interop.numpy.target(log_prob, 2, grad=grad)


def test_a_torch_function_has_its_values_and_gradients():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its interop is not tested")
    target = am.interop.torch.target(lambda x: -0.5 * torch.sum(x**2, dim=1), 3, name="normal")
    x = jnp.asarray(np.random.default_rng(3).normal(size=(5, 3)), jnp.float32)
    got = jax.jit(target.evaluate)(x)
    np.testing.assert_allclose(got.log_prob, -0.5 * jnp.sum(x**2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(got.grad, -x, rtol=1e-5)
    assert am.interop.numpy.cost(target).points == 5


def test_a_torch_function_from_beginning_to_end():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: its interop is not tested")

    def log_prob(x):  # numpy_mixture
        means = torch.tensor([-2.0, 2.0])[:, None]
        squared = ((x[:, None] - means) ** 2).sum(-1)
        weighed = -2.0 * squared + torch.log(torch.tensor([0.25, 0.75]))
        return math.log(5.0) + torch.logsumexp(weighed, 1) - math.log(0.5 * math.pi)

    target = am.interop.torch.target(log_prob, 2)
    draws = am.fit(target, TINY, key=jax.random.key(0)).sample(400, key=jax.random.key(1))
    assert abs(draws.log_z.value - math.log(5.0)) < 4 * draws.log_z.std_error < 0.8
    w = np.exp(np.asarray(draws.log_weight - draws.log_weight.max(), float))
    assert abs(np.average(draws.x[:, 0] > 0, weights=w) - 0.75) < 0.15


def test_a_library_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(am.ConfigError, match="PyTorch is not installed: pip install torch"):
        am.interop.torch.target(lambda x: x, 2)
    monkeypatch.setitem(sys.modules, "numpyro.infer.util", None)
    with pytest.raises(am.ConfigError, match="NumPyro is not installed: pip install numpyro"):
        am.interop.numpyro.target(lambda: None)


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


def test_draws_of_a_model_are_named_and_constrained_also_from_a_folder(tmp_path):
    target = am.interop.numpyro.target(rate_model, DATA)
    x = jnp.asarray([[-1.0], [0.0], [2.0]])
    sites = Draws(x, target.values(x), jnp.zeros(3), parameters=target.parameters).unravel()
    assert set(sites) == {"rate", "mean"}
    np.testing.assert_allclose(sites["rate"], np.exp(x[:, 0]), rtol=1e-4)
    np.testing.assert_allclose(sites["mean"] * sites["rate"], 1.0, rtol=1e-4)
    job.start(Run(tmp_path / "run"), target, am.SMC(), 0, 10, "a test")
    stored, *_ = parse(Run(tmp_path / "run"))
    np.testing.assert_allclose(stored.values(x), target.values(x), rtol=1e-5)
    np.testing.assert_allclose(stored.parameters(x)["mean"], sites["mean"], rtol=1e-5)


def test_uniform_sites_are_standard_normals_within_and_themselves_outside():
    """Of a plate, of several numbers, and between ends that depend on another site."""

    def model():
        with numpyro.plate("each", 2):
            low = numpyro.sample("low", dist.Uniform(-1.0, 3.0))
        numpyro.sample("part", dist.Uniform(low[0], 5.0 * jnp.ones(3)).to_event(1))

    target = am.interop.numpyro.target(model)
    z = 0.7 * jax.random.normal(jax.random.key(0), (5, target.dim))
    np.testing.assert_allclose(target.values(z), np.sum(stats.norm.logpdf(z), axis=1), rtol=1e-5)
    sites = target.parameters(z)
    assert set(sites) == {"low", "part"}
    u = (np.asarray(sites["part"]) - np.asarray(sites["low"])[:, :1]) / (5.0 - np.asarray(sites["low"])[:, :1])
    both = np.concatenate([(np.asarray(sites["low"]) + 1.0) / 4.0, u], axis=1)
    np.testing.assert_allclose(np.sort(stats.norm.ppf(both), axis=1), np.sort(z, axis=1), rtol=1e-3, atol=1e-3)


def test_a_model_says_where_its_sites_lie_in_its_own_order():
    def model(y):
        share = numpyro.sample("share", dist.Dirichlet(jnp.ones(2)))
        angle = numpyro.sample("angle", dist.Uniform(0.0, 3.0))
        numpyro.sample("part", dist.Uniform(0.0, angle))  # whose upper end is no number
        numpyro.sample("scale", dist.HalfNormal(jnp.ones(2)).to_event(1))
        numpyro.deterministic("both", share[0] + angle)
        numpyro.sample("y", dist.Normal(angle, 1.0), obs=y)

    target = am.interop.numpyro.target(model, 1.0)
    assert target.ranges == {
        "share[0]": Range(0.0, 1.0), "share[1]": Range(0.0, 1.0), "angle": Range(0.0, 3.0), "part": Range(),
        "scale[0]": Range(0.0, None), "scale[1]": Range(0.0, None), "both": Range(),
    }  # fmt: skip
    x = jnp.zeros((3, target.dim))
    draws = Draws(x, jnp.zeros(3), jnp.zeros(3), parameters=target.parameters, ranges=target.ranges)
    assert list(draws.table()) == list(target.ranges)


def test_a_circular_site_is_a_circle():
    with pytest.warns(UserWarning, match="circular sample site"):
        target = am.interop.numpyro.target(lambda: numpyro.sample("angle", dist.VonMises(0.0, 1.0)))
    assert target.ranges == {"angle": Range(-math.pi, math.pi, periodic=True)}


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


def test_samples_of_a_model_are_a_dictionary_that_knows_its_evidence():
    """A Gamma prior of exponentials: the posterior and the evidence are known."""
    key = jax.random.key(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few particles may not be enough
        samples = am.interop.numpyro.sample(rate_model, DATA, rng_key=key, num_samples=250, method=QUICK, prior=3.0)
    assert set(samples) == {"rate", "mean"}
    n, total = len(DATA), float(np.sum(DATA))
    truth = stats.gamma(3.0 + n, scale=1.0 / (1.0 + total))
    assert np.mean(samples["rate"]) == pytest.approx(truth.mean(), abs=5 * truth.std() / np.sqrt(samples.draws.ess))
    evidence = math.lgamma(3.0 + n) - math.lgamma(3.0) - (3.0 + n) * math.log(1.0 + total)
    assert samples.draws.log_z.value == pytest.approx(evidence, abs=5 * samples.draws.log_z.std_error + 0.02)
    assert samples.draws.equally_weighted
    predicted = numpyro.infer.Predictive(rate_model, samples)(jax.random.key(1), DATA)
    assert predicted["mean"].shape == (250,)
    assert type(jax.tree.map(jnp.sum, samples)) is dict
