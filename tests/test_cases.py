"""The densities that verdicts are judged on: exact draws, log Z and shares belong together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from allmodes.draws.estimates import Estimate
from benchmarks.cases import BATTERY, CASES, Regions, Weighted, kind_of
from benchmarks.cases.case import Case

DRAWS, NEAR, NARROW = 40_000, (300, 3000, 10_000), 0.6


@pytest.fixture(scope="module")
def made():
    return {name: CASES[name]() for name in BATTERY}


def equal(x):
    return Weighted.of(x, np.zeros(len(x)))


def log_z_by_draws(case, x):
    """`E[q / exp(log_prob)] = 1 / Z` for any density q (Gelfand and Dey 1994): of some normals that
    whose answer varies least, cut off where the density is low, so that the ratio is bounded
    (Robert and Wraith 2009)."""
    log_prob = np.asarray(case.target.values(jnp.asarray(x, jnp.float32)), float)
    unit = np.subtract(*np.quantile(x, [0.84, 0.16], axis=0))
    centre, height, low = np.argsort(log_prob)[-len(x) // 3], *np.quantile(log_prob, [0.5, 0.2])
    noise = np.random.default_rng(0).standard_normal(x.shape)
    nearest = np.argsort(np.sum(((x - x[centre]) / unit) ** 2, axis=1))
    shapes = [(x[nearest[:n]].mean(axis=0) / unit, np.cov((x[nearest[:n]] / unit).T)) for n in NEAR]
    curvature = -np.asarray(jax.hessian(lambda y: case.target.log_prob(y * unit))(jnp.asarray(x[centre] / unit)), float)
    if np.linalg.eigvalsh(curvature)[0] > 1e-3:  # about the peak that it leads to
        slope = np.asarray(jax.grad(lambda y: case.target.log_prob(y * unit))(jnp.asarray(x[centre] / unit)), float)
        covariance = np.linalg.inv(0.5 * (curvature + curvature.T))
        shapes.append((x[centre] / unit + covariance @ slope, covariance))

    def answer(mean, covariance):
        own = (mean + noise @ np.linalg.cholesky(NARROW * covariance).T) * unit
        kept = np.mean(np.asarray(case.target.values(jnp.asarray(own, jnp.float32)), float) > low)
        log_q = multivariate_normal(mean, NARROW * covariance, allow_singular=True).logpdf(x / unit)
        ratio = np.exp(log_q - np.log(unit).sum() - (log_prob - height)) * (log_prob > low)
        if not kept or not ratio.any():
            return np.nan, np.inf
        value = height - np.log(ratio.mean()) + np.log(kept)
        return value, (ratio.var() / ratio.mean() ** 2 + (1 - kept) / kept) ** 0.5 / len(x) ** 0.5

    return min((answer(*shape) for shape in shapes), key=lambda of: of[1])


@pytest.mark.parametrize("name", BATTERY)
def test_draws_are_those_of_the_density_and_of_its_log_z(made, name):
    case = made[name]
    x = case.draw(np.random.default_rng(1), DRAWS)
    value, error = log_z_by_draws(case, x)
    assert error < 0.3
    assert abs(value - case.log_z) < 5.0 * error


@pytest.mark.parametrize("name", BATTERY)
def test_exact_draws_are_right(made, name):
    x = made[name].draw(np.random.default_rng(2), DRAWS)
    assert made[name].faults(equal(x), Estimate(made[name].log_z, 0.01)) == []


@pytest.mark.parametrize(
    "name", [name for name in BATTERY if name not in ("gammas", "simplex", "normal-20d", "corner")]
)
def test_draws_without_a_region_are_wrong(made, name):
    x = made[name].draw(np.random.default_rng(3), DRAWS)
    missing = int(np.argmax(made[name].regions.shares))
    x = x[np.asarray(made[name].regions.assign(x)) != missing]
    assert any(f"region {missing} 0.000" in fault for fault in made[name].faults(equal(x)))


def test_a_log_z_is_wrong_by_its_own_errors_and_a_tenth_of_a_nat():
    case = Case(None, 1.0, None)
    points = equal(np.zeros((4, 2)))
    assert case.faults(points, Estimate(1.09, 1e-3)) == []
    assert case.faults(points, Estimate(1.5, 0.2)) == []
    assert case.faults(points, Estimate(1.5, 0.05)) == ["log Z +0.50"]


def test_weights_count():
    case = Case(None, 0.0, None, Regions(np.array([0.5, 0.5]), lambda x: (x[:, 0] > 0).astype(int)))
    x = np.where(np.arange(4000)[:, None] % 4 == 0, -1.0, 1.0)
    assert case.faults(equal(x)) == ["region 0 0.250 for 0.500", "region 1 0.750 for 0.500"]
    assert case.faults(Weighted.of(x, np.where(x[:, 0] < 0, np.log(3.0), 0.0))) == []


def test_intervals_have_the_truth_as_often_as_they_say(made):
    """Of exact draws, equally weighted ones and ones that are drawn by a tilted density."""
    case, rng = made["gmm40"], np.random.default_rng(5)
    for tilt in (0.0, 0.02):
        held = np.zeros((2, 2))
        for _ in range(20):
            x = case.draw(rng, 8000)
            some = np.log(rng.random(len(x))) < tilt * (x[:, 0] - x[:, 0].max())
            found = case.covered(Weighted.of(x[some], -tilt * x[some, 0]))
            held += [found["shares"], found["averages"]]
        shares = held[:, 0] / held[:, 1]
        assert np.all((shares > 0.91) & (shares < 0.98)), shares


def test_fewer_effective_draws_have_wider_errors():
    points = np.random.default_rng(0).normal(size=(1000, 1))
    error = [Weighted.of(points, np.zeros(1000), ess).mean(points[:, 0])[1] for ess in (None, 1000.0, 250.0)]
    np.testing.assert_allclose(error, np.array([1.0, 1.0, 2.0]) * points.std() / 1000**0.5)


def test_four_kinds():
    words = {
        ((), "trusted"): "right, trusted", ((), "use with correction"): "right, with its weights",
        ((), "do not use"): "right, flagged", (("log Z",), "do not use"): "wrong, flagged",
        (("log Z",), "trusted"): "silently wrong", (("log Z",), "use with correction"): "silently wrong",
    }  # fmt: skip
    assert {key: kind_of({"wrong": list(key[0]), "word": key[1]}) for key in words} == words
