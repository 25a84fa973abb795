"""FAB: weights of annealing and of flows, priorities and the loss, against closed forms on a
Gaussian."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import LOG_Z, MEAN, SIGMAS, STD, TARGETS, draw_gaussian, standard_errors_off
from helpers import Counting, pair

import allmodes as am
from allmodes.methods.fab.anneal import anneal, evaluations_of
from allmodes.methods.fab.flow import CouplingFlow
from allmodes.methods.fab.method import divergence
from allmodes.methods.fab.replay import Replay
from allmodes.points.normal import log_normal

N = 20_000
SMALL = CouplingFlow(layers=2, width=16, depth=1, knots=0)
FLOWS = {"affine": SMALL, "spline": dataclasses.replace(SMALL, knots=4)}
# p^2 / q of the Gaussian p, and q = N(0, 1): a Gaussian with this precision, mean and integral.
PRECISION = 2.0 / STD**2 - 1.0
TILTED = 2.0 * MEAN / STD**2 / PRECISION
LOG_TILTED = 2.0 * LOG_Z + np.sum(
    0.5 * PRECISION * TILTED**2 - MEAN**2 / STD**2 - 2.0 * np.log(STD) - 0.5 * np.log(PRECISION)
)


def standard(z):
    return log_normal(z, jnp.zeros_like(z), jnp.ones(2))


def flow_of(settings, perturbed):
    """A flow that knows nothing: the normal itself, or one whose perceptrons are random."""
    parameters = settings.start(2, jax.random.key(3))
    return settings.at(2, perturbed * parameters)


@functools.cache
def annealed(name="gaussian", kind="affine", perturbed=0.0, levels=1):
    run = jax.jit(
        lambda key: anneal(TARGETS[name].evaluate, flow_of(FLOWS[kind], perturbed), key, N, jnp.full(levels, 0.2), 2)
    )
    return run(jax.random.key(0))


@pytest.mark.parametrize("kind", FLOWS)
def test_a_flow_that_knows_nothing_is_the_normal(kind):
    z = draw_gaussian(0, 50)
    flow = flow_of(FLOWS[kind], 0.0)
    np.testing.assert_allclose(flow.log_prob(z), standard(z), atol=1e-5)


@pytest.mark.parametrize("kind", FLOWS)
def test_draws_of_a_flow_have_its_density(kind):
    """Told with them, and asked of them afterwards; its slope is that of differences."""
    flow = flow_of(FLOWS[kind], 2.0)
    z, log_q = flow.sample(jax.random.key(1), 200)
    assert float(jnp.std(log_q - standard(z))) > 0.01  # it is another one
    np.testing.assert_allclose(flow.log_prob(z), log_q, atol=2e-4)
    value, slope = flow.score(z)
    np.testing.assert_allclose(value, log_q, atol=2e-4)
    step = jnp.array([1e-2, 0.0])
    differences = (flow.log_prob(z + step) - flow.log_prob(z - step)) / 2e-2
    np.testing.assert_allclose(np.median(np.abs(differences - slope[:, 0])), 0.0, atol=5e-3)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("name", TARGETS)
def test_annealed_weights_are_exact(name, levels):
    """Whatever the flow and the moves: their mean is Z."""
    w = np.exp(np.asarray(annealed(name, perturbed=1.0, levels=levels).draws.log_weight, float) - LOG_Z)
    assert standard_errors_off(w, 1.0) < SIGMAS
    assert w.std() > 0.1  # there is something to get wrong


def test_annealed_draws_have_the_moments_of_the_target():
    draws = annealed(levels=3).draws
    w = np.exp(np.asarray(draws.log_weight, float) - LOG_Z)[:, None]
    z = np.asarray(draws.z, float)
    assert np.all(standard_errors_off(w * z, MEAN) < SIGMAS)
    assert np.all(standard_errors_off(w * z**2, MEAN**2 + STD**2) < SIGMAS)


@pytest.mark.parametrize("levels", [1, 3])
def test_priorities_are_weights_towards_p2_over_q(levels):
    """Their mean is its integral, and their weighted mean its mean."""
    draws = annealed(levels=levels).draws
    w = np.exp(np.asarray(draws.log_priority, float) - LOG_TILTED)[:, None]
    assert np.all(standard_errors_off(w, 1.0) < SIGMAS)
    assert np.all(standard_errors_off(w * np.asarray(draws.z, float), TILTED) < SIGMAS)


def test_annealing_brings_draws_towards_p2_over_q():
    """Its weights vary less than those that the flow's own draws have towards it."""
    result = annealed(levels=3)
    there, raw = (np.exp(np.asarray(w) - LOG_TILTED) for w in (result.draws.log_priority, 2.0 * result.raw))
    assert there.var() < raw.var()


def test_its_evaluations_are_known_before():
    target = Counting(lambda x: -0.5 * jnp.sum(x**2), 2)
    jax.block_until_ready(anneal(target.evaluate, flow_of(SMALL, 0.0), jax.random.key(0), 30, jnp.full(2, 0.1), 3))
    assert target.total == evaluations_of(30, 2, 3) == 30 * 7


def shifted(mean):
    return lambda z: standard(z - mean)


@pytest.mark.parametrize("shift", [0.0, 0.15], ids=["as seen", "since seen"])
def test_the_loss_has_the_gradient_of_the_divergence(shift):
    """With respect to the mean of a normal q, which has moved by `shift` since it was seen: minus
    the integral of `p^2 / q (z - shift)`, over that of the `p^2 / q` that draws were chosen by."""
    replay = annealed(levels=3).draws
    index = replay.choose(jax.random.key(5), N)
    z, seen = replay.z[index], replay.log_q[index]

    def one(z, seen):
        loss = lambda mean: divergence(shifted(mean)(z[None]), seen[None], jnp.ones(1, bool), 1e6)  # noqa: E731
        return jax.grad(loss)(jnp.full(2, shift))

    gradients = np.asarray(jax.vmap(one)(z, seen), float)
    # p^2 / N(shift, 1), whose slope of the log at 0 is shift less.
    mean = TILTED - shift / PRECISION
    log_ratio = np.sum(0.5 * PRECISION * (mean**2 - TILTED**2) + 0.5 * shift**2)
    expected = -np.exp(log_ratio) * (mean - shift)
    # Draws are chosen from weighted ones: the errors of those are on top.
    share = float(am.Draws(z, seen, replay.log_priority).ess) / N
    assert np.all(standard_errors_off(gradients, expected) * np.sqrt(share / (1.0 + share)) < SIGMAS)
    assert np.all(np.abs(expected) > 20 * gradients.std(axis=0) / np.sqrt(N * share))  # one can tell it from 0


def test_corrected_priorities_are_those_of_the_flow_of_now():
    replay = annealed().draws
    index = jnp.arange(100)
    log_q = shifted(0.4)(replay.z[index])
    corrected = replay.seen(index, log_q)
    expected = replay.log_weight[index] + replay.log_prob[index] - log_q
    np.testing.assert_allclose(corrected.log_priority[:100], expected, rtol=1e-6)
    np.testing.assert_array_equal(corrected.log_priority[100:], replay.log_priority[100:])


def test_what_is_corrected_too_far_is_cut_and_what_has_no_mass_is_left_out():
    log_q = jnp.array([0.0, 0.0, 0.0])
    seen, has_mass = jnp.array([0.0, 5.0, 0.0]), jnp.array([True, True, False])
    slope = jax.grad(lambda log_q: divergence(log_q, seen, has_mass, 10.0))(log_q)
    np.testing.assert_allclose(slope, [-1.0 / 3.0, -10.0 / 3.0, 0.0], rtol=1e-6)


def test_the_buffer_keeps_the_latest_and_never_gives_what_is_empty_or_has_no_mass():
    def batch(value, log_weight):
        log_weight = jnp.asarray(log_weight)
        return Replay(jnp.full((3, 2), value), jnp.zeros(3), jnp.zeros(3), log_weight)

    none = -jnp.inf
    replay = Replay.empty(8, 2).put(jnp.asarray(0), batch(1.0, [0.0, none, 0.0]))
    index = np.asarray(replay.choose(jax.random.key(0), 64))
    assert set(index) == {0, 2}
    replay = replay.put(jnp.asarray(6), batch(2.0, [0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(replay.z[:, 0], [2.0, 1.0, 1.0, 0.0, 0.0, 0.0, 2.0, 2.0])
    heavy = replay.put(jnp.asarray(3), batch(3.0, [np.log(4.0), none, none]))
    shares = np.bincount(np.asarray(heavy.choose(jax.random.key(1), 800)), minlength=8) / 800
    np.testing.assert_allclose(shares, np.array([1, 0, 1, 4, 0, 0, 1, 1]) / 8, atol=2 / 800)


def test_one_dimension_is_refused():
    with pytest.raises(am.ConfigError, match="at least 2 dimensions, got 1"):
        SMALL.start(1, jax.random.key(0))


def test_a_buffer_that_cannot_be_begun_is_refused():
    with pytest.raises(am.ConfigError, match="buffer must be at least 2560"):
        am.FAB(batch=256, buffer=2000)


@functools.cache
def trained():
    method = am.FAB(steps=300, cooldown=100, batch=128, buffer=6400, flow=CouplingFlow(4, 32, 1))
    return am.fit(pair(), method, key=0)


@pytest.mark.trains
def test_it_learns_two_modes():
    draws = trained().sample(4000, key=1)
    assert draws.ess > 0.5 * 4000
    value, error = draws.log_z
    assert abs(value - np.log(np.pi)) < SIGMAS * error
    assert draws.forward_ess > 0.5
    share = float(np.mean(np.asarray(draws.x)[:, 0] > 0))
    assert 0.4 < share < 0.6


@pytest.mark.trains
def test_its_density_is_that_of_its_weights_and_integrates_to_one():
    sampler = trained()
    draws = sampler.sample(1000, key=1)
    density = sampler.log_density(draws.x).log_density
    np.testing.assert_allclose(draws.log_weight, draws.log_prob - density, atol=2e-3)
    np.testing.assert_allclose(sampler.log_weights(draws.x), draws.log_weight, atol=2e-3)
    side = np.linspace(-8.0, 8.0, 320, endpoint=False) + 0.025
    grid = jnp.stack(jnp.meshgrid(side, side), axis=-1).reshape(-1, 2)
    total = float(jnp.sum(jnp.exp(sampler.log_density(grid).log_density))) * 0.05**2
    assert total == pytest.approx(1.0, abs=0.01)


@pytest.mark.trains
def test_corrected_draws_have_equal_weights():
    draws = trained().sample(400, key=2, correct="mcmc")
    assert float(jnp.ptp(draws.log_weight)) == 0.0
    assert 0.35 < float(np.mean(np.asarray(draws.x)[:, 0] > 0)) < 0.65
    with pytest.raises(am.ConfigError, match="SMC along the path needs a sampler with a diffusion"):
        trained().sample(400, key=2, correct="smc")
