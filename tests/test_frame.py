"""The affine map to unit scale: a round trip, a change of variables, a chain rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.points.frame import Frame
from allmodes.target import Target

LOCATION, SCALE = np.array([3.0, -0.5, 10.0]), np.array([0.1, 7.0, 2.0])


@pytest.fixture
def frame():
    return Frame(jnp.asarray(LOCATION, jnp.float32), jnp.asarray(SCALE, jnp.float32))


@pytest.fixture
def target():
    return Target(lambda x: -0.25 * jnp.sum(x**4) + x[0] * x[1], 3)


Z = jax.random.normal(jax.random.key(0), (20, 3))


def test_round_trip(frame):
    # One rounding of x, of which location is up to 30 scales.
    np.testing.assert_allclose(frame.to_z(frame.to_x(Z)), Z, atol=1e-5)
    np.testing.assert_allclose(frame.to_x(Z), LOCATION + SCALE * np.asarray(Z, float), rtol=1e-6, atol=1e-6)
    assert frame.to_x(Z[0]).shape == (3,)


def test_values_keep_the_integral(frame, target):
    x = frame.to_x(Z)
    np.testing.assert_allclose(frame.log_det, np.sum(np.log(SCALE)), rtol=1e-6)
    np.testing.assert_allclose(frame.values(target, Z), target.values(x) + np.sum(np.log(SCALE)), rtol=1e-6)


def test_integral_of_a_density_in_z():
    # A normal density of x, summed over a fine grid of z.
    frame = Frame(jnp.asarray([5.0]), jnp.asarray([0.3]))
    target = Target(lambda x: -0.5 * ((x[0] - 4.8) / 0.2) ** 2 - jnp.log(0.2) - 0.5 * jnp.log(2 * jnp.pi), 1)
    z = jnp.linspace(-8.0, 8.0, 4001)[:, None]
    assert abs(np.sum(np.exp(np.asarray(frame.values(target, z), float))) * 16 / 4000 - 1) < 1e-5


def test_evaluate_agrees_with_values_and_the_chain_rule(frame, target):
    e = jax.jit(lambda z: frame.evaluate(target, z))(Z)
    np.testing.assert_allclose(e.log_prob, frame.values(target, Z), rtol=1e-6)
    np.testing.assert_allclose(e.grad, SCALE * target.evaluate(frame.to_x(Z)).grad, rtol=1e-5)
    automatic = jax.vmap(jax.grad(lambda z: frame.values(target, z[None])[0]))(Z)
    np.testing.assert_allclose(e.grad, automatic, rtol=1e-5)


def test_massless_points_stay_massless(frame):
    target = Target(lambda x: jnp.where(x[0] > 3, -jnp.inf, jnp.where(x[1] > 0, jnp.nan, 0.0)), 3)
    z = jnp.asarray([[1.0, 0.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
    e = frame.evaluate(target, z)
    np.testing.assert_allclose(e.log_prob, [-np.inf, -np.inf, np.sum(np.log(SCALE))], rtol=1e-6)
    assert np.all(e.grad == 0)
    assert (int(e.nan), int(e.zero)) == (1, 1)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_precision_at_a_location_of_ten_thousand_scales(scale):
    location = 1e4 * scale
    frame = Frame(jnp.full(3, location), jnp.full(3, scale))
    grid = np.spacing(np.float32(location)) / scale  # of float32 around x, in units of z: up to 1e-3
    z = np.asarray(Z, float)
    assert np.max(np.abs(frame.to_z(frame.to_x(Z)) - z)) <= grid
    target = Target(lambda x: jnp.sum(-0.5 * ((x - location) / scale) ** 2 - jnp.log(scale)), 3)
    e = frame.evaluate(target, Z)
    np.testing.assert_array_less(np.abs(e.log_prob + 0.5 * np.sum(z**2, axis=1)), 3 * grid * (np.abs(z).max() + 1))
    np.testing.assert_allclose(e.grad, -z, atol=1.5 * grid)
