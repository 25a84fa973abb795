"""The densities of `benchmarks/tools`: their evidence against quadrature and exact draws, and what
our sampler is given against what the other tools are given."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import erf

from allmodes.targets import gmm_torch, random_mixture
from benchmarks.tools import table
from benchmarks.tools.adapters import Counted, kish, target_of
from benchmarks.tools.problems import PROBLEMS, rosenbrock, rosenbrock_log_z

BUILT = {name: make() for name, make in PROBLEMS.items()}
MIXTURES = {"gmm40": lambda: gmm_torch(40), "modes-16": lambda: random_mixture(7, 40, 16)}


def nodes(n, pieces=1):
    """Those of Gauss and Legendre on [0, 1], in so many equal pieces."""
    x, w = np.polynomial.legendre.leggauss(n)
    starts = np.arange(pieces)[:, None] / pieces
    return (starts + (x + 1) / 2 / pieces).ravel(), np.tile(w / 2 / pieces, pieces)


def test_evidence_of_gmm40_by_quadrature():
    problem, (x, w) = BUILT["gmm40"], nodes(10, 40)
    rows = (np.stack([np.full_like(x, a), x], axis=-1) for a in x)
    total = sum(wa * (w @ np.exp(problem.log_likelihood(row))) for wa, row in zip(w, rows, strict=True))
    assert math.log(total) == pytest.approx(problem.log_z, abs=1e-9)


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_are_those_of_the_library(name):
    """Whose log Z is 0; no exact draw comes near a bound of the box: all mass is inside."""
    problem, target = BUILT[name], MIXTURES[name]()
    x = np.asarray(target.sample(jax.random.key(0), 20_000), float)
    u = (x - problem.low) / (problem.high - problem.low)
    assert problem.log_likelihood(u[:500]) == pytest.approx(np.asarray(target.values(jnp.asarray(x[:500]))), abs=1e-3)
    assert problem.log_z == pytest.approx(-np.log(problem.high - problem.low).sum(), abs=1e-12)
    assert np.abs(x).max() < 55
    assert problem.shares(u, np.ones(len(u))) == pytest.approx(problem.weights, abs=5 * math.sqrt(0.25 / len(u)))


@pytest.mark.parametrize("name", ["loggamma-10", "loggamma-30"])
def test_evidence_of_loggamma_one_coordinate_at_a_time(name):
    """The likelihood is a product over coordinates: so is the integral, through any one point."""
    problem, (x, w) = BUILT[name], nodes(40, 60)
    point = np.full(problem.dim, 0.6)
    at, log_z = problem.log_likelihood(point), 0.0
    for i in range(problem.dim):
        line = np.tile(point, (len(x), 1))
        line[:, i] = x
        log_z += math.log(w @ np.exp(problem.log_likelihood(line) - at))
    assert log_z + at == pytest.approx(problem.log_z, abs=1e-9)


def test_weights_of_the_modes_of_loggamma():
    """By draws that are exact: the log of an exponential variate is LogGamma of shape 1."""
    problem, n, rng = BUILT["loggamma-10"], 40_000, np.random.default_rng(0)
    skewed = 2 / 3 + np.log(rng.exponential(size=(n, 10))) / 30
    bell = 2 / 3 + rng.normal(size=(n, 10)) / 30
    u = np.concatenate([skewed[:, :1], bell[:, 1:2], skewed[:, 2:6], bell[:, 6:]], axis=1)
    u[:, :2] -= rng.integers(0, 2, size=(n, 2)) / 3
    u = u[np.all((u > 0) & (u < 1), axis=1)]
    assert problem.shares(u, np.ones(len(u))) == pytest.approx(problem.weights, abs=5 * math.sqrt(0.25 / n))


def test_evidence_of_rosenbrock_in_two_and_three_dimensions():
    """The last coordinate in closed form, the others by other rules than the chain's."""

    def last(x):  # the integral over the coordinate that x is followed by
        return math.sqrt(math.pi) / 20 * (erf(10 * (5 - x**2)) + erf(10 * (5 + x**2)))

    two, _ = quad(lambda x: math.exp(-((1 - x) ** 2)) * last(x), -5, 5, points=[-math.sqrt(5), 0, math.sqrt(5)])
    assert rosenbrock_log_z(2) == pytest.approx(math.log(two / 100), abs=1e-8)
    x = np.linspace(-5, 5, 4001)
    inner = np.exp(-100 * (x[None] - x[:, None] ** 2) ** 2 - (1 - x[None]) ** 2 - (1 - x[:, None]) ** 2) * last(x)
    three = inner.sum() * (x[1] - x[0]) ** 2
    assert rosenbrock_log_z(3) == pytest.approx(math.log(three / 1000), abs=1e-8)


def test_evidence_of_rosenbrock_does_not_depend_on_the_nodes():
    assert rosenbrock_log_z(10, 1600) == pytest.approx(rosenbrock_log_z(10), abs=1e-9)


def test_the_likelihood_of_rosenbrock_is_what_was_integrated():
    """In two dimensions over a grid, by the likelihood itself."""
    problem, (x, w) = rosenbrock(2), nodes(20, 50)
    grid = np.stack(np.meshgrid(x, x, indexing="ij"), axis=-1)
    total = w @ np.exp(problem.log_likelihood(grid)) @ w
    assert math.log(total) == pytest.approx(problem.log_z, abs=1e-9)


def test_evidence_of_box_and_angle_by_quadrature():
    problem, (x, w) = BUILT["box-and-angle"], nodes(60)
    turn = np.arange(128) / 128
    grid = np.stack(np.meshgrid(x, x, turn, indexing="ij"), axis=-1)
    total = np.einsum("i,j,ijk->", w, w, np.exp(problem.log_likelihood(grid))) / len(turn)
    assert math.log(total) == pytest.approx(problem.log_z, abs=1e-9)


@pytest.mark.parametrize("name", BUILT)
def test_what_we_are_given_is_what_the_others_are_given(name):
    """The same likelihood at the same point; and, on R^n, times a prior that is normal."""
    problem = BUILT[name]
    target, u = target_of(problem), np.random.default_rng(1).uniform(0.05, 0.95, size=(200, problem.dim))
    x = jnp.asarray(problem.transform(u), jnp.float32)
    assert np.asarray(target.values(x)) == pytest.approx(problem.log_likelihood(u), rel=2e-4, abs=2e-3)
    assert (target.chart is None) == problem.plain
    assert np.exp(problem.log_volume) == pytest.approx(np.prod(problem.high - problem.low) if problem.plain else 1.0)


def test_calls_are_counted():
    likelihood = Counted(BUILT["gmm40"])
    one, many = likelihood(np.full(2, 0.5)), likelihood(np.full((7, 2), 0.5))
    assert many == pytest.approx(np.full(7, one))
    assert likelihood.calls == 8
    assert kish(np.log([1.0, 1.0, 1e-30])) == pytest.approx(2)


def test_the_page_is_what_the_rows_make():
    """So that no figure of it is written by hand."""
    results = Path(__file__).parent.parent / "docs" / "results"
    assert table.page(table.read(results / "tools.json")) == (results / "tools.md").read_text()
