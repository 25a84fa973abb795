"""float64 densities, coordinates that float32 does not resolve, walls and cliffs, functions that
fail at points."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import little

import allmodes as am
from allmodes.devices.precision import double, halves
from allmodes.points.frame import Frame
from allmodes.search.scout import scout
from allmodes.search.search import search

pytestmark = pytest.mark.trains

EPOCH, CONSTANT = 2_459_330.0, 1e9
TINY = little(
    steps=100, cooldown=40, batch=64, buffer=256, every=50, path_steps=8,
    local_every=50, sample_steps=40,
)  # fmt: skip


def far(x):
    """A normal of deviation .01 around an epoch, times exp(1e9)."""
    return CONSTANT - 0.5 * jnp.sum(((x - EPOCH) / 0.01) ** 2) - math.log(0.01 * math.sqrt(2 * math.pi))


@pytest.mark.usefixtures("optimised")
def test_a_float64_density_keeps_an_epoch_and_a_large_constant(tmp_path):
    with double():
        target = am.Target(far, 1, location=EPOCH - 0.3)
        sampler = am.fit(target, TINY, key=jax.random.key(0))
        for correct in (None, "smc", "mcmc"):
            draws = sampler.sample(300, key=jax.random.key(1), correct=correct)
            assert draws.x.dtype == draws.log_prob.dtype == np.float64
            assert len(np.unique(draws.x)) > 200
            np.testing.assert_allclose(draws.log_prob, jax.vmap(far)(draws.x), atol=1e-4, rtol=0)
            assert abs(draws.log_z.value - CONSTANT) < 4 * draws.log_z.std_error + 1e-3 < 0.6
        assert all(a.dtype != np.float64 for a in jax.tree.leaves(sampler.state) if hasattr(a, "dtype"))
        sampler.save(tmp_path / "run")
    again = am.load(tmp_path / "run").sample(300, key=jax.random.key(1))  # float64 too, whatever is set now
    np.testing.assert_array_equal(again.x, sampler.sample(300, key=jax.random.key(1)).x)
    assert again.x.dtype == np.float64


@pytest.mark.parametrize("method", [am.SMC(particles=250), am.Tempering(steps=4, systems=4, temperatures=4)])
def test_plain_methods_draw_from_a_float64_density(method):
    with double():
        target = am.Target(far, 1, location=EPOCH - 0.3)
        draws = am.fit(target, method, key=jax.random.key(0)).sample(200, key=jax.random.key(1))
        assert abs(float(draws.x.mean()) - EPOCH) < 0.01
        assert abs(draws.log_z.value - CONSTANT) < 5 * draws.log_z.std_error + 1e-3 < 2.0


def test_a_function_on_the_host_is_called_and_answers_in_float64():
    seen = []

    def log_prob(x):
        seen.append(x.copy())
        return CONSTANT - 0.5 * (x[0] - EPOCH) ** 2

    with double():
        target = am.interop.numpy.target(log_prob, 1, location=EPOCH)
        values = np.asarray(jax.jit(target.values)(np.array([[EPOCH + 1e-3], [EPOCH + 0.5]])))
    assert seen[-1][0] == pytest.approx(EPOCH + 0.5, abs=1e-7, rel=0)
    assert seen[-2][0] == pytest.approx(EPOCH + 1e-3, abs=1e-7, rel=0)
    np.testing.assert_allclose(values - CONSTANT, [0.0, -0.125], atol=1e-4)


def test_two_float32_hold_a_float64():
    high, rest = halves([EPOCH + 0.123456, -np.inf, 1e300])
    assert (high.dtype, rest.dtype) == (np.float32, np.float32)
    assert float(high[0]) + float(rest[0]) == pytest.approx(EPOCH + 0.123456, abs=1e-8, rel=0)
    np.testing.assert_array_equal(high[1:], [-np.inf, np.inf])


def test_a_coordinate_that_float32_does_not_resolve_is_named():
    centre = jnp.array([0.0, EPOCH])
    target = am.Target(lambda x: -0.5 * jnp.sum((x - centre) ** 2), 2, location=[0.0, EPOCH])
    with pytest.warns(UserWarning, match=r"float32 does not resolve x\[1\]: .*jax_enable_x64"):
        search(target, jax.random.key(0), 256)


def test_a_parameter_that_its_map_makes_coarse_is_named():
    target = am.Target.of_tree(
        lambda p: -0.5 * (p["t0"] ** 2 + p["k"] ** 2), {"t0": np.float32(0), "k": np.float32(0)},
        constrain=lambda p: {"t0": EPOCH + 0.5 * jnp.tanh(p["t0"]), "k": p["k"]},
    )  # fmt: skip
    with pytest.warns(UserWarning, match="does not resolve t0: "):
        search(target, jax.random.key(0), 256)


# Walls, cliffs, failures.


def boxed(outside):
    return am.Target(lambda x: jnp.where(jnp.all((x > 0) & (x < 1)), 0.0, outside), 6)


def test_scouts_find_the_whole_of_a_box_from_its_corner():
    box, _ = scout(boxed(-jnp.inf), jax.random.key(0))
    np.testing.assert_allclose(box.location, 0.5, atol=0.05)
    np.testing.assert_allclose(box.scale, 0.5, atol=0.05)


def atoms(x):
    """Two Lennard-Jones atoms in a unit box with hard walls, whose corner is where a search
    begins."""
    s6 = (0.439**2 / jnp.sum((x[:3] - x[3:]) ** 2)) ** 3
    return jnp.where(jnp.all((x >= 0) & (x <= 1)), 4.0 * (s6 - s6**2), -jnp.inf)


def test_a_search_comes_out_of_a_core_in_a_corner():
    found = search(am.Target(atoms, 6), jax.random.key(0), 512)
    x = np.asarray(found.frame.to_x(found.points.z))
    r = np.linalg.norm(x[:, :3] - x[:, 3:], axis=1)
    assert abs(r.mean() - 0.694) < 0.05  # by cubature; at the bottom of a corner it is .16
    np.testing.assert_allclose(found.frame.location, 0.5, atol=0.05)


@pytest.mark.parametrize("outside", [-1e10, -1e30])
def test_a_large_penalty_is_an_edge(outside):
    found = search(boxed(outside), jax.random.key(0), 512)
    assert float(found.edges) > 0.01
    frame = Frame.of(boxed(outside), np.zeros(6), np.ones(6))
    e = frame.evaluate(boxed(outside), jnp.array([[0.5] * 6, [2.0] * 6]))
    assert (float(e.log_prob[1]), int(e.zero)) == (-np.inf, 1)


def away_from_the_origin(x):
    """A log-normal density by `math`, which raises an error where x is not positive."""
    return -0.5 * math.log(x[0]) ** 2 - math.log(x[0])


def test_a_function_is_probed_where_the_user_says():
    with pytest.raises(am.TargetError, match=r"fails on points of zeros and at 8 other points: ValueError.*location="):
        am.interop.numpy.target(lambda x: away_from_the_origin(x - 50.0), 1)
    target = am.interop.numpy.target(away_from_the_origin, 1, location=2.0)
    with pytest.warns(UserWarning, match="raised an error at 2 points, .*: ValueError"):
        e = jax.jit(target.evaluate)(jnp.array([[1.0], [-1.0], [-2.0]]))
    np.testing.assert_array_equal(e.log_prob, [0.0, -np.inf, -np.inf])
    assert (int(e.nan), am.interop.numpy.cost(target).failed) == (2, 2)


def test_a_batch_that_fails_costs_the_failing_points_only():
    def log_prob(x):
        if (x < 0).any():
            raise ArithmeticError("negative")
        return -x[:, 0]

    target = am.interop.numpy.target(log_prob, 1, batched=True)
    with pytest.warns(UserWarning, match="ArithmeticError: negative"):
        values = jax.jit(target.values)(jnp.array([[1.0], [-1.0], [2.0]]))
    np.testing.assert_array_equal(values, [-1.0, -np.inf, -2.0])


def test_a_function_that_always_fails_says_what_it_said():
    calls = []

    def log_prob(x):
        calls.append(1)
        if len(calls) > 1:
            raise KeyError("no table")
        return 0.0

    target = am.interop.numpy.target(log_prob, 1)
    said = "first error was KeyError: 'no table'"
    with pytest.warns(UserWarning, match="no table"), pytest.raises(am.TargetError, match=said):
        search(target, jax.random.key(0), 64)
