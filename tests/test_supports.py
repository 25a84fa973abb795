"""Bounds, circles, priors and the unit cube: each map against its own Jacobian, masses in closed
form, draws and files in the user's coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL, call
from jax.scipy.special import i0e
from jax.scipy.stats import beta, expon, norm, truncnorm

import allmodes as am
from allmodes.chart import Circle, HalfLine, Interval, Line, log_turn
from allmodes.files.run_folder import Run
from allmodes.jobs import run_job as job
from allmodes.points.buffer import Buffer
from allmodes.points.frame import Frame
from allmodes.search.turns import in_turns
from allmodes.store.load import parse

numpyro = pytest.importorskip("numpyro")
dist, stats = numpyro.distributions, pytest.importorskip("scipy.stats")

PIECES = [Interval(-1.0, 3.0), HalfLine(2.0), HalfLine(2.0, above=False), Line(2)]


@pytest.mark.parametrize("piece", PIECES, ids=repr)
def test_a_piece_has_the_volume_of_its_jacobian_and_a_way_back(piece):
    for z in 2.0 * jax.random.normal(jax.random.key(0), (5, piece.free)):
        jacobian = np.asarray(jax.jacfwd(piece.to_x)(z), float)
        np.testing.assert_allclose(piece.log_volume(z), np.linalg.slogdet(jacobian)[1], atol=1e-4)
        np.testing.assert_allclose(piece.to_free(jax.random.key(1), piece.to_x(z)), z, atol=2e-3)


def test_no_point_is_a_bound():
    """A density may be infinite there: Beta(.5, .5)."""
    far = jnp.array([[-40.0], [-9.0], [9.0], [40.0]])
    for low, high in ((0.0, 1.0), (-3.0, -2.0), (1e4, 2e4)):
        x = jax.vmap(Interval(low, high).to_x)(far)
        assert np.all((np.asarray(x) > np.float32(low)) & (np.asarray(x) < np.float32(high)))
    assert np.all(np.asarray(jax.vmap(HalfLine(2.0).to_x)(far - 100.0)) > 2.0)


def mass_of(target, low, high, n=200_001):
    """The log of the integral of a target of one free coordinate."""
    z = np.linspace(low, high, n)
    value = np.asarray(target.free.values(jnp.asarray(z[:, None], jnp.float32)), float)
    return float(np.log(np.trapezoid(np.exp(value), z)))


BOUNDED = {
    "uniform": (lambda x: 0.0 * x, (2.0, 5.0), np.log(3.0)),
    "peak at the edge": (lambda x: truncnorm.logpdf(x, 0.0, 4.0), (0.0, 4.0), 0.0),
    "infinite at both ends": (lambda x: beta.logpdf(x, 0.5, 0.5), (0.0, 1.0), 0.0),
    "half line": (expon.logpdf, (0.0, None), 0.0),
    "below": (lambda x: expon.logpdf(-x), (None, 0.0), 0.0),
}


@pytest.mark.parametrize(("log_prob", "bounds", "log_z"), BOUNDED.values(), ids=BOUNDED.keys())
def test_log_z_is_that_of_the_users_volume(log_prob, bounds, log_z):
    target = am.Target(lambda x: log_prob(x[0]), 1, bounds=[bounds])
    assert mass_of(target, -20.0, 20.0) == pytest.approx(log_z, abs=1e-3)


@pytest.mark.parametrize("concentration", [0.0, 1.0, 50.0, 1e4])
@pytest.mark.parametrize("place", [0.7, np.pi])
def test_a_circle_has_no_seam(concentration, place):
    """Von Mises with its mode inside and at the seam: the same mass, and an even density."""

    def log_prob(x):
        return concentration * (jnp.cos(x[0] - place) - 1.0) - jnp.log(2 * jnp.pi * i0e(concentration))

    target = am.Target(log_prob, 1, periodic=[0])
    assert mass_of(target, -12.0, 12.0) == pytest.approx(0.0, abs=2e-3)
    circle = target.chart.pieces[0]
    z = jnp.asarray([[np.pi - 1e-3], [np.pi + 1e-3]], jnp.float32)
    below, above = np.asarray(target.free.values(z))
    assert below == pytest.approx(above, abs=0.02 + 3e-3 * concentration * abs(np.sin(np.pi - place)))
    x = jnp.array([2.5])
    turns = [circle.to_free(k, x) for k in jax.random.split(jax.random.key(0), 20)]
    np.testing.assert_allclose([circle.to_x(z)[0] for z in turns], 2.5, atol=1e-5)
    assert len({round(float(z[0]), 2) for z in turns}) == 2  # this turn and the one before it


def test_the_shares_of_all_turns_of_an_angle_are_one():
    circle = Circle(-1.0, 3.0)
    for angle in np.linspace(-1.0, 3.0, 9):
        z = jnp.asarray(angle - 1.0 + 4.0 * np.arange(-5, 6), jnp.float32)
        assert float(jnp.sum(jnp.exp(jax.vmap(circle.log_volume)(z[:, None])))) == pytest.approx(1.0, abs=1e-5)


def test_points_go_to_the_turns_of_their_circle_with_the_values_that_the_density_has_there():
    """A mode near the seam, of which only one of the two places on the line has been met."""
    target = am.Target(lambda x: -0.5 * ((x[0] - 3.0) / 0.05) ** 2 - 0.5 * x[1] ** 2, 2, periodic=[0]).free
    frame = Frame(jnp.array([0.3, 0.0]), jnp.array([2.0, 1.0]))
    z = jnp.asarray(np.random.default_rng(0).normal([1.35, 0.0], 0.02, (2000, 2)), jnp.float32)
    points = in_turns(target.periods, frame, Buffer.of(z, frame.evaluate(target, z)), jax.random.key(0))
    there = frame.evaluate(target, points.z)
    np.testing.assert_allclose(points.log_prob, there.log_prob, atol=2e-2)
    np.testing.assert_allclose(points.grad, there.grad, atol=0.3, rtol=1e-2)
    share = np.exp(log_turn(jnp.asarray(3.0 - 2 * np.pi), 2 * np.pi))
    assert np.mean(points.z[:, 0] < 0.0) == pytest.approx(share, abs=0.05)


# What cannot be.


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"bounds": [(0, 1)]}, "bounds must have a pair for each of the 2 coordinates, got 1"),
        ({"bounds": [(0, 1), (3, 2)]}, r"bounds of x\[1\]: the upper must be above the lower, got \(3, 2\)"),
        ({"bounds": [(0, 1), "ab"]}, r"bounds of x\[1\] must be a pair of numbers, or None for no bound, got 'ab'"),
        ({"bounds": {"b": (0, 1)}}, r"there is no parameter 'b': there are x\[0\], x\[1\]"),
        ({"bounds": {2: (0, 1)}}, "a coordinate is a number from 0 to 1, or a name, got 2"),
        ({"periodic": [1], "bounds": [None, (0, None)]}, r"x\[1\] is periodic: give both ends of its period or none"),
        ({"names": ["a", "a"]}, r"names must be 2 different words, one for each coordinate, got \['a', 'a'\]"),
        ({"names": ["a"]}, "names must be 2 different words"),
        ({"bounds": [None, (0, 1)], "symmetry": am.ParticleSymmetry(2, 1)}, "particles have no bounds"),
    ],
)
def test_a_support_that_cannot_be(given, message):
    with pytest.raises(am.TargetError, match=message):
        am.Target(lambda x: -jnp.sum(x**2), 2, **given)


def test_no_bounds_are_no_support():
    target = am.Target(lambda x: -jnp.sum(x**2), 2, bounds=[(None, None), (-np.inf, np.inf)])
    assert target.chart is None
    assert target.free is target


# Priors.


def flat(values):
    return 0.0 * sum(jnp.sum(v) for v in values.values())


PRIORS = {
    "uniform": (2.0, 5.0),
    "normal": dist.Normal(3.0, 0.1),
    "beta": dist.Beta(0.5, 0.5),
    "gamma": dist.Gamma(2.0, 3.0),
    "half normal": dist.HalfNormal(2.0),
    "von mises": dist.VonMises(3.0, 5.0),
    "cauchy": dist.Cauchy(0.0, 2.0),
    "scipy's gamma": stats.gamma(2.0),
    "scipy's beta": stats.beta(0.5, 0.5),
    "scipy's t": stats.t(3.0),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
def test_the_evidence_of_a_flat_likelihood_is_one(prior):
    """Cauchy's tail beyond a grid that can be summed has a hundredth of its mass."""
    target = am.posterior(flat, {"a": prior})
    far = 200.0 if isinstance(prior, dist.Cauchy) else 25.0
    assert mass_of(target, -far, far) == pytest.approx(0.0, abs=8e-3 if far > 25 else 2e-3)


def test_priors_of_arrays_are_named_and_come_back_in_their_shapes():
    prior = {"mu": dist.Normal(0.0, 1.0).expand([2]).to_event(1), "w": dist.Dirichlet(jnp.ones(3)), "f": (0, 1)}
    target = am.posterior(flat, prior)
    assert target.names == ("mu[0]", "mu[1]", "w[0]", "w[1]", "w[2]", "f")
    assert (target.dim, target.free.dim) == (6, 5)
    z = jax.random.normal(jax.random.key(0), (5,))
    x = target.chart.to_x(z)
    np.testing.assert_allclose(target.chart.to_free(jax.random.key(1), x), z, atol=1e-4)
    values = target.parameters(x[None])
    assert {name: value.shape for name, value in values.items()} == {"mu": (1, 2), "w": (1, 3), "f": (1,)}
    assert float(jnp.sum(values["w"])) == pytest.approx(1.0, abs=1e-6)
    expected = float(jnp.sum(norm.logpdf(values["mu"]))) + np.log(2.0)  # of a Dirichlet that is flat
    assert float(target.log_prob(x)) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("prior", "message"),
    [
        ({"a": (0, None)}, "prior of a is improper: between 0.0 and None nothing is uniform"),
        ({"a": dist.Poisson(3.0)}, "prior of a is discrete"),
        ({"a": stats.poisson(3.0)}, "prior of a is discrete"),
        ({"a": dist.ImproperUniform(dist.constraints.real, (), ())}, "prior of a is improper"),
        ({"a": 3}, "prior of a must be a NumPyro distribution, a frozen one of SciPy, or a pair of bounds, got 3"),
        ({}, "prior must be a dictionary"),
    ],
)
def test_a_prior_that_cannot_be(prior, message):
    with pytest.raises(am.TargetError, match=message):
        am.posterior(flat, prior)


# The unit cube.


def transform(u):
    return 10.0 * u - 5.0


def of_jax(theta):
    return -0.5 * jnp.sum(theta**2) - jnp.log(2 * jnp.pi)


def of_numpy(theta):
    return float(-0.5 * np.sum(np.array(theta) ** 2) - np.log(2 * np.pi))


@pytest.mark.parametrize("likelihood", [of_jax, of_numpy])
def test_the_unit_cube_is_a_normal_prior_whose_evidence_is_right(likelihood):
    target = am.interop.nested.target(likelihood, transform, 2)
    assert target.differentiable == (likelihood is of_jax)
    np.testing.assert_array_equal(target.free.location, 0.0)
    z = np.stack(np.meshgrid(*[np.linspace(-6, 6, 241)] * 2), -1).reshape(-1, 2)
    value = np.asarray(target.free.values(jnp.asarray(z, jnp.float32)), float)
    assert np.log(np.exp(value).sum() * 0.05**2) == pytest.approx(-np.log(100.0), abs=1e-3)


def test_functions_of_many_points_and_of_other_sizes():
    both = am.interop.nested.target(
        lambda theta: -0.5 * np.sum(np.asarray(theta) ** 2, -1), lambda u: np.asarray(u)[:, :1], 2, vectorized=True
    )
    assert (both.dim, both.free.dim) == (1, 2)
    with pytest.raises(am.TargetError, match="prior_transform fails at the middle of the cube: ZeroDivisionError"):
        am.interop.nested.target(of_numpy, lambda u: 1 / 0, 2)
    with pytest.raises(am.TargetError, match="a coordinate is a number from 0 to 1, or a name, got 7"):
        am.interop.nested.target(of_jax, transform, 2, periodic=[7])


@pytest.mark.parametrize("of", [np, jnp], ids=["numpy", "jax"])
def test_the_cube_tells_where_parameters_lie(of):
    """Of those that a coordinate decides alone: not of one that is counted from another."""

    def transform(u):
        return of.stack([2.0 * np.pi * u[0], 3.0 - 2.0 * u[1], u[1] + u[2], u[3]])

    names = ["phase", "place", "gap", "share"]
    target = am.interop.nested.target(lambda theta: -theta[1], transform, 4, names=names, periodic=["phase"])
    assert list(target.ranges) == names
    assert target.ranges["phase"] == pytest.approx((0.0, 2.0 * np.pi, True))
    assert target.ranges["place"] == (1.0, 3.0, False)
    assert target.ranges["gap"] == (None, None, False)
    assert target.ranges["share"] == (0.0, 1.0, False)


def test_where_parameters_of_priors_lie_is_stored(tmp_path):
    prior = {"phase": (0.0, 1.0), "a": stats.norm(), "both": dist.Uniform(0, 3).expand([2]).to_event(1)}
    target = am.posterior(lambda v: -v["phase"], prior, periodic=["phase"])
    job.start(Run(tmp_path / "run"), target, am.SMC(), 0, 10, "a test")
    stored, *_ = parse(Run(tmp_path / "run"))
    assert list(stored.ranges) == ["phase", "a", "both[0]", "both[1]"]
    assert stored.ranges == target.ranges
    assert stored.ranges["phase"].periodic


# Draws.


@pytest.fixture(scope="module")
def target():
    """A parameter at the edge of its interval, an angle with a mode at the seam, and a free one."""

    def log_prob(x):
        angle = 50.0 * (jnp.cos(x[1] - 3.1) - 1.0) - jnp.log(2 * jnp.pi * i0e(50.0))
        return truncnorm.logpdf(x[0], 0.0, 4.0) + angle + norm.logpdf(x[2], 5.0, 2.0)

    return am.Target(log_prob, 3, names=["edge", "angle", "free"], bounds={"edge": (0, 4)}, periodic=["angle"])


@pytest.fixture(scope="module")
def sampler(target):
    method = am.IWSM(search=am.parts.Search(128, 1024, 8), buffer=4096, steps=40, batch=128, enough=None)
    return am.fit(target, method, key=jax.random.key(0))


@pytest.mark.trains
def test_draws_are_where_the_density_is_and_carry_its_names(target, sampler):
    draws = sampler.sample(4000, key=jax.random.key(1))
    x = np.asarray(draws.x)
    assert np.all((x[:, 0] > 0) & (x[:, 0] < 4) & (np.abs(x[:, 1]) <= np.pi))
    assert list(draws.table()) == ["edge", "angle", "free"]  # in the order of the user
    np.testing.assert_allclose(draws.log_prob, target.values(draws.x), atol=1e-3)
    assert draws.log_z.value == pytest.approx(0.0, abs=5 * draws.log_z.std_error + 1e-3)
    assert draws.resample(jax.random.key(2), 100).free.shape == (100, 3)
    assert sampler.log_weights(draws.x[:50], key=jax.random.key(3)).shape == (50,)


@pytest.mark.trains
def test_a_sampler_with_bounds_is_stored_with_them(sampler, tmp_path):
    sampler.save(tmp_path / "run")
    again = am.load(tmp_path / "run")
    assert again.target.bounds == ((0.0, 4.0), (None, None), (None, None))
    assert (again.target.periodic, again.target.names) == ((1,), ("edge", "angle", "free"))
    one, other = (s.sample(50, key=jax.random.key(1)) for s in (sampler, again))
    np.testing.assert_allclose(one.x, other.x, atol=1e-4)
    np.testing.assert_allclose(one.log_weight, other.log_weight, atol=1e-3)


@pytest.mark.trains
def test_a_posterior_that_lives_in_memory_is_stored_with_its_priors(tmp_path):
    target = am.posterior(lambda v: -0.5 * jnp.sum((v["w"] - 0.3) ** 2) / 0.01, {"w": dist.Dirichlet(jnp.ones(3))})
    first = am.fit(target, am.IWSM.thorough(**SMALL | {"steps": 5}), key=jax.random.key(0))
    first.save(tmp_path / "run")
    again = am.load(tmp_path / "run")
    one, other = (s.sample(20, key=jax.random.key(1)) for s in (first, again))
    np.testing.assert_allclose(one.x, other.x, atol=1e-4)
    np.testing.assert_allclose(np.sum(one.x, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(one.log_weight, other.log_weight, atol=1e-2)
    assert other.unravel()["w"].shape == (20, 3)
    assert again.log_weights(other.x, key=jax.random.key(2)) is None  # the way back is lost


def test_parameters_of_a_tree_have_bounds_by_their_names():
    example = {"scale": 1.0, "mu": np.zeros(2)}
    bounds = {"scale": (0, None), "mu": (-1, 1)}
    target = am.Target.of_tree(lambda p: -p["scale"] - jnp.sum(p["mu"] ** 2), example, bounds=bounds)
    assert target.names == ("mu[0]", "mu[1]", "scale")
    assert target.bounds == ((-1.0, 1.0), (-1.0, 1.0), (0.0, None))


# The command line.


FILE = """
import jax.numpy as jnp

def log_prob(x):
    return 20.0 * (jnp.cos(x[1] - 3.0) - 1.0) - x[0]
"""


@pytest.mark.trains
def test_a_run_with_bounds_keeps_them(tmp_path):
    (tmp_path / "model.py").write_text(FILE)
    words = ["run", f"{tmp_path / 'model.py'}:log_prob", "--dim", 2, "--names", "rate,phase", "--bounds", "rate=0:"]
    words += ["--periodic", "phase", "--method", "iwsm-thorough", "--steps", 20, "-n", 200, "--quiet"]
    words += ["--batch", 128, "--buffer", 512, "--network.width", 16, "--network.depth", 1, "--cooldown", 10]
    assert call(*words, "--out", tmp_path / "run") == 0
    again = am.load(tmp_path / "run")
    assert (again.target.names, again.target.bounds) == (("rate", "phase"), ((0.0, None), (None, None)))
    with np.load(tmp_path / "run" / "draws.npz") as file:
        assert file["x"][:, 0].min() > 0
        assert np.abs(file["x"][:, 1]).max() <= np.pi
        assert file["free"].shape == (200, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bounds", "0-5,:"], "--bounds takes LOW:HIGH, as 0:5 or 0: or :, with commas between them, got '0-5'"),
        (["--bounds", "0:5"], "bounds must have a pair for each of the 2 coordinates, got 1"),
        (["--names", "a"], "names must be 2 different words"),
        (["--periodic", "b"], "there is no parameter 'b'"),
    ],
)
def test_options_that_cannot_be(options, message, tmp_path, capsys):
    (tmp_path / "model.py").write_text(FILE)
    assert call("run", f"{tmp_path / 'model.py'}:log_prob", "--dim", 2, "--out", tmp_path / "run", *options) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
