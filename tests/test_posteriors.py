"""Posteriors among the targets: data, densities, Jacobians. No reference is made: it takes
minutes."""

import functools
import itertools
import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import listed
from scipy import optimize, stats

from allmodes import targets
from allmodes.errors import ConfigError, TargetError
from allmodes.targets.posteriors import cox, labels, logistic, radial_velocity, sensors

RNG = np.random.default_rng
POSTERIORS = ("mixture-labels", "sensors", "radial-velocity", "breast-cancer", "phi4", "cox")
SITES = {
    "mixture-labels": {"mu": (4,), "sd": (4,), "w": (4,)},
    "sensors": {"place": (8, 2)},
    "radial-velocity": {"period": (), "amplitude": (2,), "eccentricity": (2,), "offset": (), "jitter": ()},
    "breast-cancer": {"intercept": (), "weights": (30,)},
    "phi4": {"field": (8, 8)},
    "cox": {"log_intensity": (16, 16)},
}
OPTIONAL = {"mixture-labels": "numpyro", "breast-cancer": "sklearn"}


@functools.cache
def posterior(name):
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name], reason="an extra that is not installed")
    return targets.get(name)


def in_float64(name, x):
    """Values at points, in float64."""
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(posterior(name).log_prob))(jnp.asarray(x, jnp.float64)))


def normal(x, mean, sd):
    return np.sum(stats.norm.logpdf(x, mean, sd))


every_posterior = pytest.mark.parametrize("name", POSTERIORS)


@every_posterior
def test_what_is_listed_is_known(name):
    listed(name, posterior(name))


@every_posterior
def test_value_and_gradient(name):
    """Where its prior puts draws, about: finite, gradient against differences, and float32 is
    enough."""
    target, entry = posterior(name), targets.entries()[name]
    assert (target.name, target.source, target.dim) == (name, entry.source, entry.dim)
    assert target.reference == entry.reference
    target.check()
    x = RNG(0).normal(size=(4, target.dim)).astype(np.float32).astype(float)
    along = RNG(1).normal(size=(4, target.dim)) / math.sqrt(target.dim)
    with jax.enable_x64(True):
        points = jnp.asarray(np.concatenate([x, x + 1e-5 * along, x - 1e-5 * along]))
        values, grads = (np.asarray(a) for a in jax.jit(jax.vmap(jax.value_and_grad(target.log_prob)))(points))
    slope = (values[4:8] - values[8:]) / 2e-5
    values, grads = values[:4], grads[:4]
    np.testing.assert_allclose(np.sum(grads * along, axis=1), slope, rtol=1e-5, atol=1e-5)
    single = jax.jit(target.evaluate)(jnp.asarray(np.concatenate([x, np.zeros((1, target.dim))]), jnp.float32))
    assert int(single.nan) + int(single.zero) == 0  # at the origin too
    np.testing.assert_allclose(single.log_prob[:4], values, rtol=2e-5)
    np.testing.assert_allclose(single.grad[:4], grads, rtol=1e-3, atol=1e-3 * np.abs(grads).max())


@every_posterior
def test_draws_speak_the_names_of_the_model(name):
    parameters = posterior(name).parameters(jnp.zeros((3, posterior(name).dim)))
    assert {site: values.shape[1:] for site, values in parameters.items()} == SITES[name]


def test_what_is_missing_is_named(monkeypatch, capsys):
    from allmodes.command.main import main

    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.delitem(sys.modules, "sklearn.datasets", raising=False)
    with pytest.raises(ConfigError, match="scikit-learn is not installed: pip install scikit-learn"):
        targets.get("breast-cancer")
    with pytest.raises(SystemExit) as done:
        main(["targets"])
    assert done.value.code == 0  # the list goes on without it
    assert "pip install scikit-learn" in capsys.readouterr().out


# Label switching.


def labelled(y, mu, sd, w):
    """Log-density of the unconstrained coordinates of a labelling, by the textbook."""
    sticks = w[:3] / np.cumsum(w[::-1])[::-1][:3]  # the share of what is left
    free = np.concatenate([mu, np.log(sd), np.log(sticks / (1 - sticks)) + np.log([3.0, 2.0, 1.0])])
    mixture = np.sum(np.log(np.sum(w * stats.norm.pdf(y[:, None], mu, sd), axis=1)))
    prior = math.lgamma(4) + normal(mu, 1.5, 6.0) + normal(np.log(sd), math.log(0.5), 0.5)  # of log sd: Jacobian in
    left = np.concatenate([[1.0], 1 - np.cumsum(w[:2])])
    return free, mixture + prior + np.sum(np.log(left * sticks * (1 - sticks)))


def test_labels_may_be_exchanged():
    target, y = posterior("mixture-labels"), labels.data()
    assert len(y) == 100
    assert y.sum() == pytest.approx(181.65179202)  # the same data everywhere
    assert np.bincount(np.abs(y[:, None] - labels.CENTRES).argmin(axis=1)).min() >= 15
    rng = RNG(2)
    mu, sd, w = labels.CENTRES + 0.2 * rng.normal(size=4), rng.uniform(0.4, 0.8, 4), rng.dirichlet(np.ones(4))
    orders = [list(order) for order in itertools.permutations(range(4))]
    free, expected = zip(*(labelled(y, mu[o], sd[o], w[o]) for o in orders), strict=True)
    # The model's data are float32, as NumPyro gets them.
    np.testing.assert_allclose(in_float64("mixture-labels", free), expected, atol=1e-3)
    np.testing.assert_array_equal(target.modes.assign(np.array(free)), np.arange(24))
    np.testing.assert_array_equal(target.modes.assign(target.modes.means), np.arange(24))
    np.testing.assert_allclose(target.modes.weights, 1 / 24)
    sites = target.parameters(jnp.asarray(np.array(free), jnp.float32))
    for name, values in (("mu", mu), ("sd", sd), ("w", w)):
        np.testing.assert_allclose(sites[name], [values[o] for o in orders], rtol=1e-4)
    two_in_one = np.array(free[:3])
    two_in_one[0, :4], two_in_one[1], two_in_one[2, 0] = [0.0, 0.1, 3.0, 6.0], np.nan, 1e8
    np.testing.assert_array_equal(target.modes.assign(two_in_one), [-1, -1, -1])


# Sensors.


def test_sensors_by_the_textbook():
    places, measured, observed = sensors.data()
    assert len(measured) == 8 * 7 // 2 + 8 * 3
    x = places + 0.05 * RNG(3).normal(size=places.shape)
    every, total, pair = np.concatenate([x, sensors.ANCHORS]), normal(x, 0.5, 0.5), 0
    for i in range(8):
        for j in range(i + 1, 11):
            d = np.linalg.norm(every[i] - every[j])
            seen = math.exp(-(d**2) / (2 * 0.3**2))
            total += math.log(seen) + normal(measured[pair], d, 0.02) if observed[pair] else math.log1p(-seen)
            pair += 1
    assert in_float64("sensors", x.reshape(1, -1))[0] == pytest.approx(total, abs=1e-6)
    once_more = sensors.data()
    assert all(np.array_equal(a, b) for a, b in zip((places, measured, observed), once_more, strict=True))
    meet = np.tile([0.3, 0.6], 8)[None].astype(np.float32)
    assert np.isfinite(jax.grad(posterior("sensors").log_prob)(jnp.asarray(meet[0]))).all()


# Radial velocities.


def test_kepler_against_root_finding():
    rng = RNG(4)
    e = np.concatenate([np.zeros(20), rng.uniform(0, 0.95, 300), np.full(200, 0.95)])
    w = rng.uniform(0, 2 * np.pi, len(e))
    mean_anomaly = np.concatenate([rng.uniform(-np.pi, np.pi, len(e) - 100), np.geomspace(1e-6, np.pi, 100)])
    anomaly = np.array(
        [optimize.brentq(lambda x, m=m, e=e: x - e * math.sin(x) - m, -4, 4, xtol=1e-14)
         for m, e in zip(mean_anomaly, e, strict=True)]
    )  # fmt: skip
    args = mean_anomaly + w, e * np.cos(w), e * np.sin(w)
    with jax.enable_x64(True):
        found = radial_velocity.eccentric_longitude(*(jnp.asarray(a) for a in args))
    np.testing.assert_allclose(found, anomaly + w, atol=1e-10)
    single = radial_velocity.eccentric_longitude(*(jnp.asarray(a, jnp.float32) for a in args))
    off = single - e * (np.sin(single) * np.cos(w) - np.cos(single) * np.sin(w)) - args[0]
    assert np.max(np.abs(off)) < 2e-6  # as well as float32 can tell


def test_velocity_is_the_textbook_one():
    """`K (cos(nu + w) + e cos w)` by the anomalies."""
    time, period, K, e, w, M = np.linspace(-40, 40, 30), 11.0, 7.0, 0.6, 2.0, 0.7
    mean = 2 * np.pi * time / period + M
    E = np.array([optimize.brentq(lambda x, m=m: x - e * math.sin(x) - m, m - 1, m + 1, xtol=1e-14) for m in mean])
    nu = 2 * np.arctan2(math.sqrt(1 + e) * np.sin(E / 2), math.sqrt(1 - e) * np.cos(E / 2))
    with jax.enable_x64(True):
        amplitude = K * jnp.array([math.cos(M + w), math.sin(M + w)])
        eccentricity = e * jnp.array([math.cos(w), math.sin(w)])
        args = jnp.asarray(time), jnp.asarray(period), amplitude, eccentricity
        velocity = jax.jit(radial_velocity.velocity)
        found, circle = velocity(*args), velocity(*args[:3], jnp.zeros(2))
    np.testing.assert_allclose(found, K * (np.cos(nu + w) + e * math.cos(w)), atol=1e-9)
    np.testing.assert_allclose(circle, K * np.cos(mean + w), atol=1e-9)
    still = jax.grad(lambda a: jnp.sum(radial_velocity.velocity(jnp.asarray(time), jnp.asarray(11.0), a, a)))
    assert np.isfinite(still(jnp.zeros(2))).all()


def test_second_derivatives_of_the_orbit():
    """The solver's derivatives can be derived once more: Stein's identity needs a Laplacian."""
    x = 0.5 * RNG(5).normal(size=7)
    with jax.enable_x64(True):
        log_prob = posterior("radial-velocity").log_prob
        hessian = jax.jit(jax.hessian(log_prob))(jnp.asarray(x))
        grad = jax.jit(jax.vmap(jax.grad(log_prob)))
        differences = (grad(jnp.asarray(x + 1e-5 * np.eye(7))) - grad(jnp.asarray(x - 1e-5 * np.eye(7)))) / 2e-5
    np.testing.assert_allclose(hessian, differences, rtol=1e-4, atol=1e-4 * np.abs(hessian).max())


def test_prior_of_the_orbit():
    u = np.linspace(-30, 30, 6001)
    zero = {name: jnp.zeros(shape) for name, shape in SITES["radial-velocity"].items()}
    others = -0.5 * 6 * math.log(2 * math.pi)
    density = np.exp([float(radial_velocity.log_prior(zero | {"period": jnp.asarray(v)})) - others for v in u[::20]])
    assert np.trapezoid(density, u[::20]) == pytest.approx(1.0, abs=1e-4)
    # Log period is uniform: its distribution function is the sigmoid of u.
    period = jax.vmap(lambda v: radial_velocity.constrain(zero | {"period": v})["period"])(jnp.asarray(u, jnp.float32))
    share = np.log(np.asarray(period) / 2.0) / math.log(50.0)
    below = np.concatenate([[0.0], np.cumsum(0.5 * (density[1:] + density[:-1])) * (u[20] - u[0])])
    np.testing.assert_allclose(share[::20], below, atol=2e-3)
    far = radial_velocity.constrain(zero | {"eccentricity": jnp.full(2, 1e4)})
    assert float(jnp.linalg.norm(far["eccentricity"])) <= 0.95
    time, velocity = radial_velocity.data()
    assert len(time) == len(velocity) == radial_velocity.OBSERVATIONS
    assert np.all(np.abs(time) <= radial_velocity.SPAN / 2)
    np.testing.assert_array_equal(velocity, radial_velocity.data()[1])


def test_density_of_the_orbit_by_the_textbook():
    target, x = posterior("radial-velocity"), RNG(6).normal(size=(1, 7))
    with jax.enable_x64(True):
        physical = {name: np.asarray(v[0]) for name, v in jax.jit(target.parameters)(jnp.asarray(x)).items()}
        orbit = (jnp.asarray(physical[name]) for name in ("period", "amplitude", "eccentricity"))
        time, observed = radial_velocity.data()
        model = np.asarray(jax.jit(radial_velocity.velocity)(jnp.asarray(time), *orbit)) + physical["offset"]
    # Parameters stand in the order of their names: amplitude, eccentricity, jitter, offset, period.
    prior = normal(x[0, :6], 0, 1) + stats.logistic.logpdf(x[0, 6])
    expected = normal(observed, model, math.hypot(radial_velocity.ERROR, physical["jitter"])) + prior
    assert in_float64("radial-velocity", x)[0] == pytest.approx(expected, rel=1e-6)


# One mode.


def test_logistic_regression_by_the_textbook():
    posterior("breast-cancer")
    features, sign = logistic.data()
    assert features.shape == (569, 31)
    assert np.sum(sign == 1) == 357
    np.testing.assert_allclose(features[:, 1:].std(axis=0), 1.0)
    w = 0.3 * RNG(7).normal(size=31)
    p = 1 / (1 + np.exp(-(features @ w)))
    expected = np.sum(np.log(np.where(sign > 0, p, 1 - p))) + normal(w, 0, 1)
    assert in_float64("breast-cancer", w[None])[0] == pytest.approx(expected, rel=1e-6)


def test_cox_process_by_the_textbook():
    covariance, counts = cox.covariance(16), cox.data()
    i, j = 5 * 16 + 3, 7 * 16 + 14  # rows 5 and 7, columns 3 and 14
    assert covariance[i, j] == pytest.approx(1.91 * math.exp(-33 * math.hypot(2, 11) / 16))
    assert covariance[i, i] == pytest.approx(1.91)
    np.testing.assert_array_equal(counts, cox.data())
    assert 40 < counts.sum() < 400
    z = RNG(8).normal(size=256)
    x = math.log(126.0) - 1.91 / 2 + np.linalg.cholesky(covariance) @ z
    expected = np.sum(stats.poisson.logpmf(counts, np.exp(x) / 256)) + normal(z, 0, 1)
    assert in_float64("cox", z[None])[0] == pytest.approx(expected, rel=1e-6)
    shown = posterior("cox").parameters(jnp.asarray(z[None], jnp.float32))["log_intensity"]
    np.testing.assert_allclose(np.ravel(shown), x, rtol=1e-4, atol=1e-4)


# The lattice.


def test_field_theory():
    target, field = posterior("phi4"), RNG(9).normal(size=(8, 8))
    action = 0.0
    for i, j in itertools.product(range(8), repeat=2):
        value = field[i, j]
        action -= 2 * 0.3 * value * (field[(i + 1) % 8, j] + field[i, (j + 1) % 8])
        action += (1 - 2 * 0.022) * value**2 + 0.022 * value**4
    x = np.stack([field.ravel(), -field.ravel()])
    np.testing.assert_allclose(in_float64("phi4", x), -action, rtol=1e-10)
    with jax.enable_x64(True):  # the constant field of least action
        assert np.max(np.abs(jax.grad(target.log_prob)(jnp.asarray(target.modes.means[1])))) < 1e-10
    np.testing.assert_array_equal(target.modes.assign(np.concatenate([target.modes.means, x * np.nan])), [0, 1, -1, -1])
    np.testing.assert_array_equal(target.modes.weights, [0.5, 0.5])
    with pytest.raises(TargetError, match="broken phase"):
        targets.phi4(kappa=0.2)
