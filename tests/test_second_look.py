"""A second look at draws: they have settled or not, and no region that points from elsewhere know
is without any."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes.draws.verdict import DO_NOT_USE, TRUSTED
from allmodes.points.frame import Frame
from allmodes.search.second_look import EXPLORERS, cost, looking
from allmodes.targets import gaussian_mixture

pytestmark = pytest.mark.trains

MEANS = np.array([[-6.0, 0.0], [6.0, 0.0]])


@functools.cache
def look_at(weights=(0.5, 0.5)):
    target = gaussian_mixture(MEANS, 1.0, list(weights))
    return target, looking(target, Frame(jnp.zeros(2), jnp.ones(2)))


def words(draws, elsewhere, weights=(0.5, 0.5)):
    return [f.word for f in look_at(weights)[1](jax.random.key(1), draws, elsewhere).findings]


@functools.cache
def exact(n=4096, weights=(0.5, 0.5), seed=0):
    return look_at(weights)[0].sample(jax.random.key(seed), n)


def test_exact_draws_pass():
    assert words(exact(), exact(EXPLORERS, seed=1)) == [TRUSTED, TRUSTED]


def test_draws_that_have_not_settled_are_told():
    wide = jnp.asarray(MEANS)[jnp.arange(4096) % 2] + 1.3 * jax.random.normal(jax.random.key(2), (4096, 2))
    assert words(wide, exact(EXPLORERS, seed=1)) == [DO_NOT_USE, TRUSTED]


def test_a_region_without_draws_is_told():
    one = jnp.abs(exact()) * jnp.array([1.0, 0.0]) + exact() * jnp.array([0.0, 1.0])  # the right mode alone
    look = look_at()[1](jax.random.key(1), one, exact(EXPLORERS, seed=1))
    assert [f.word for f in look.findings] == [TRUSTED, DO_NOT_USE]
    assert "a region is missing" in look.findings[1].reason
    assert look.evaluations == cost(look_at()[0])


def test_a_region_of_next_to_no_mass_is_not():
    weights = (0.001, 0.999)
    one = jnp.asarray(MEANS[1]) + jax.random.normal(jax.random.key(3), (4096, 2))
    assert words(one, exact(EXPLORERS, seed=1), weights) == [TRUSTED, TRUSTED]


def test_too_few_draws_tell_nothing_and_cost_nothing():
    look = look_at()[1](jax.random.key(1), exact()[:50], exact(EXPLORERS, seed=1))
    assert look.findings == ()
    assert look.evaluations == 0


def funnel(x):
    """Neal's, in 5-D, with a neck that one step of SMC's moves does not enter."""
    return -0.5 * (x[0] / 3.0) ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 2.0 * x[0]


def test_populations_that_miss_the_neck_of_a_funnel_say_so():
    truth = np.log(3.0 * np.sqrt(2 * np.pi)) + 2.0 * np.log(2 * np.pi)
    draws = am.fit(am.Target(funnel, 5), am.SMC(), key=jax.random.key(1)).sample(4000, key=jax.random.key(1))
    assert abs(draws.log_z.value - truth) > 4.0 * draws.log_z.std_error
    assert draws.verdict().word == DO_NOT_USE
    assert any("are still on their way" in reason for reason in draws.verdict().reasons)


def test_a_narrow_far_mode_that_populations_lose_is_told():
    def log_prob(x):  # .05 of the mass, 300 of its own widths away
        near = jnp.log(0.95) - 0.5 * jnp.sum(x**2)
        far = jnp.log(0.05) - 2 * jnp.log(0.2) - 0.5 * jnp.sum((x - jnp.array([60.0, 0.0])) ** 2) / 0.04
        return jnp.logaddexp(near, far) - jnp.log(2 * jnp.pi)

    draws = am.fit(am.Target(log_prob, 2), am.SMC(), key=jax.random.key(0)).sample(4000, key=jax.random.key(1))
    assert float(jnp.mean(draws.x[:, 0] > 30.0)) < 0.01  # it is lost
    assert draws.verdict().word == DO_NOT_USE
    assert any("a region is missing" in reason for reason in draws.verdict().reasons)
