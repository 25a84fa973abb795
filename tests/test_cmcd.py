"""CMCD: weights of annealed paths either way against closed forms on Gaussians, the control that is
exact for one that is shifted, and what training makes of it."""

import dataclasses
import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import DRAW, LOG_Z, SIGMAS, TARGETS, standard_errors_off
from helpers import Counting, pair, pair_log_prob

import allmodes as am
from allmodes import Target, parts
from allmodes.methods.cmcd import annealing as annealing_module
from allmodes.methods.cmcd.annealing import Annealing, Learned
from allmodes.methods.cmcd.path import walk, walk_back
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame

N, STEPS, TIME, DIM = 20_000, 8, 2.0, 2
SHIFT = jnp.array([3.0, -1.0])
SHIFTED = Target(lambda z: LOG_Z - 0.5 * jnp.sum((z - SHIFT) ** 2) - jnp.log(2 * jnp.pi), DIM)
NETWORK = parts.Perceptron(16, 1, 2)
SMALL = {"batch": 64, "path_steps": STEPS, "network": NETWORK, "steps": 30, "cooldown": 10}
NARROWEST = jnp.array([0.5, 0.7])


def learned_of(perturbed=0.0, steps=STEPS):
    """What an untrained method has learned, or something arbitrary, the schedule included."""
    learned = Learned.start(NETWORK.build(DIM, (), jax.random.key(0)), NARROWEST, steps)
    rng = np.random.default_rng(1)

    def moved(leaf):
        return leaf + perturbed * jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)

    return eqx.tree_at(lambda m: (m.network.last.weight, m.log_rises, m.lengths), learned, replace_fn=moved)


class Constant(eqx.Module):
    """A control that is the same everywhere."""

    velocity: jax.Array

    def __call__(self, z, log_level):
        return self.velocity


def shifting(steps, velocity, time=TIME):
    """Steps of equal length `time / steps` and equal rises, and a control that does not change."""
    lengths = jax.scipy.special.logit(jnp.full(steps, time / steps))
    return Annealing.of(Learned(Constant(velocity), jnp.zeros(steps), lengths), jnp.ones(DIM))


@functools.cache
def programs(target, steepest):  # which is compiled in
    def own(annealing, key):
        path = walk(annealing, target.evaluate, key, N)
        return path.log_ratio + path.log_prob

    def back(annealing, key, z):
        e = target.evaluate(z)
        return walk_back(annealing, target.evaluate, key, z, e.grad) + e.log_prob

    return jax.jit(own), jax.jit(back)


def own(annealing, target):
    """Log weights of own paths."""
    return np.asarray(programs(target, annealing_module.STEEPEST)[0](annealing, jax.random.key(1)), float)


def back(annealing, target, z):
    """Log weights of paths that lead back from points."""
    return np.asarray(programs(target, annealing_module.STEEPEST)[1](annealing, jax.random.key(2), z), float)


@pytest.mark.parametrize(
    ("name", "perturbed", "steepest"),
    [("gaussian", 0.0, 100.0), ("gaussian", 0.5, 100.0), ("mixture", 0.5, 100.0), ("mixture", 0.5, 0.5)],
)
def test_weights_are_exact_whatever_was_learned(name, perturbed, steepest, monkeypatch):
    """Mean Z over own paths, and mean 1 / Z of the inverse over paths back from exact draws; also
    where gradients are shortened."""
    monkeypatch.setattr(annealing_module, "STEEPEST", steepest)
    annealing = Annealing.of(learned_of(perturbed), NARROWEST)
    log_w = own(annealing, TARGETS[name]) - LOG_Z
    assert standard_errors_off(np.exp(log_w), 1.0) < SIGMAS
    assert log_w.std() > 0.1  # or nothing was shown
    log_w = back(annealing, TARGETS[name], DRAW[name](3, N)) - LOG_Z
    assert standard_errors_off(np.exp(-log_w), 1.0) < SIGMAS


def moments(steps):
    """Mean and variance of `log w - log Z` for the exact control of a shift: -h / 4 times the
    difference of the squared distances from the middle, of which each step keeps a part 1 - h.
    """
    h, variance = TIME / steps, 1.0
    for _ in range(steps):
        variance = (1.0 - h) ** 2 * variance + 2.0 * h
    both = 2.0 * variance**2 + 2.0 - 4.0 * (1.0 - h) ** (2 * steps)
    return -h / 4.0 * DIM * (variance - 1.0), (h / 4.0) ** 2 * DIM * both


@pytest.mark.parametrize("steps", [8, 32])
def test_the_control_that_is_exact_leaves_what_steps_of_finite_length_do(steps):
    """A Gaussian moves by `SHIFT` in all. The variance of log weights falls as the square of the
    length of a step, where without a control there is no such limit.
    """
    annealing = shifting(steps, SHIFT / TIME)
    mean, variance = moments(steps)
    log_w = own(annealing, SHIFTED) - LOG_Z
    error = np.sqrt(variance / N)
    np.testing.assert_allclose(log_w.mean(), mean, atol=SIGMAS * error)
    of_variance = np.sqrt(np.mean((log_w - mean) ** 4) / variance**2 / N)
    np.testing.assert_allclose(log_w.var(), variance, rtol=SIGMAS * of_variance)
    assert own(shifting(steps, 0.0 * SHIFT), SHIFTED).var() > 100.0 * variance
    z = SHIFT + jnp.asarray(np.random.default_rng(4).normal(size=(N, DIM)), jnp.float32)
    log_w = back(annealing, SHIFTED, z) - LOG_Z  # the same with its ends exchanged
    np.testing.assert_allclose(log_w.mean(), -mean, atol=SIGMAS * error)
    np.testing.assert_allclose(log_w.var(), variance, rtol=SIGMAS * of_variance)


def test_that_variance_is_of_second_order():
    assert moments(64)[1] / moments(128)[1] == pytest.approx(4.0, rel=0.05)


def test_the_log_variance_has_no_gradient_where_all_weights_are_equal():
    """As of the normal itself by short steps: for each batch, not in the mean alone."""

    def slope(target):
        def loss(velocity):
            path = walk(shifting(STEPS, velocity, 1e-3), target.evaluate, jax.random.key(5), 256, detached=True)
            return parts.LogVariance()(path.log_ratio + path.log_prob)

        return float(jnp.linalg.norm(jax.jit(jax.grad(loss))(jnp.zeros(DIM))))

    normal = Target(lambda z: LOG_Z - 0.5 * jnp.sum(z**2), DIM)
    assert slope(normal) < 1e-3 * slope(SHIFTED)


def test_the_schedule_rises_from_the_normal_to_the_target():
    """Before training, so that the narrowest width falls by equal factors."""
    annealing = Annealing.of(learned_of(), NARROWEST)
    falls = np.diff(np.log(np.asarray(annealing.width[:, 0])))
    np.testing.assert_allclose(falls, np.log(0.5) / STEPS, rtol=1e-3)
    share = np.asarray(Annealing.of(learned_of(2.0), NARROWEST).share)
    assert (share[0], share[-1]) == (0.0, 1.0)
    assert np.all(np.diff(share) > 0.0)


def test_its_evaluations_are_known_before():
    target, annealing, key = Counting(pair_log_prob, DIM), Annealing.of(learned_of(), NARROWEST), jax.random.key(0)
    jax.block_until_ready(walk(annealing, target.evaluate, key, 10))
    assert target.total == 10 * STEPS
    z = jnp.ones((10, DIM))
    jax.block_until_ready(walk_back(annealing, target.evaluate, key, z, z))
    assert target.total == 10 * STEPS + 10 * (STEPS - 1)


def state_of(method, target, frame, n=64):
    """A state before the first step, without a search."""
    z = 0.5 * jax.random.normal(jax.random.key(3), (n, target.free_dim))
    points, narrowest = Buffer.of(z, frame.evaluate(target, z)), jnp.full(target.free_dim, 0.7)
    zero = jnp.zeros(())
    return method.start(SearchResult(frame, points, zero, narrowest, zero, Evaluations.none()), jax.random.key(0))


def test_particles_get_an_equivariant_control():
    """Of three, each bound to their middle: a unit normal of four dimensions, Z = (2 pi)^2."""
    symmetry = am.ParticleSymmetry(3, 2)

    def log_prob(x):
        x = x.reshape(3, 2)
        return -0.5 * jnp.sum((x - jnp.mean(x, axis=0)) ** 2)

    target, method = Target(log_prob, 6, symmetry=symmetry), am.CMCD(**SMALL)
    frame = Frame(jnp.zeros(4), jnp.ones(4), symmetry)
    state = state_of(method, target, frame)
    state, figures = jax.jit(lambda s, k: method.step(target, s, k))(state, jax.random.key(1))
    assert np.isfinite(figures["loss"])
    evaluate = functools.partial(frame.evaluate, target)
    path = jax.jit(lambda k: walk(Annealing.of(state.learned, state.narrowest), evaluate, k, 4000))(jax.random.key(2))
    w = np.exp(np.asarray(path.log_ratio + path.log_prob, float) - 2.0 * np.log(2.0 * np.pi))
    assert standard_errors_off(w, 1.0) < SIGMAS
    a, z = Annealing.of(state.learned, state.narrowest), path.z[:8]
    exchanged = frame.to_z(frame.to_x(z).reshape(8, 3, 2)[:, ::-1].reshape(8, 6))
    control = a.at(3, z, 0.0 * z).control
    turned = frame.to_z(frame.to_x(control).reshape(8, 3, 2)[:, ::-1].reshape(8, 6))
    np.testing.assert_allclose(a.at(3, exchanged, 0.0 * z).control, turned, atol=1e-5)


def test_settings_that_contradict_themselves_are_refused():
    with pytest.raises(am.ConfigError, match="path_steps must be at least 2"):
        am.CMCD(path_steps=1)
    with pytest.raises(am.ConfigError, match="is a control, and predicts no score"):
        am.CMCD(network=parts.Perceptron(predicts="score"))
    flat = Target(pair_log_prob, DIM, differentiable=False)
    with pytest.raises(am.ConfigError, match="cmcd needs the gradient of the density"):
        am.CMCD().init(flat, jax.random.key(0))
    on_host = am.interop.numpy.target(lambda x: -0.5 * np.sum(x**2), DIM, grad=lambda x: -x)
    with pytest.raises(am.ConfigError, match="needs second derivatives of the density"):
        am.CMCD(loss=parts.ReverseKL()).init(on_host, jax.random.key(0))


# What training makes of it.


@pytest.mark.trains
@pytest.mark.parametrize("loss", [parts.LogVariance(), parts.ReverseKL()], ids=lambda loss: type(loss).__name__)
def test_it_learns_two_modes(loss):
    """From a few steps of annealing, of which hardly a draw in ten is effective."""
    method = am.CMCD(**{**SMALL, "batch": 128, "steps": 400, "cooldown": 200, "loss": loss})
    sampler = am.fit(pair(), method, key=0)
    untrained = Learned.start(NETWORK.build(DIM, (), jax.random.key(0)), sampler.state.narrowest, STEPS)
    state = dataclasses.replace(sampler.state, average=untrained)
    draws, before = (each.sample(4000, key=1) for each in (sampler, dataclasses.replace(sampler, state=state)))
    assert draws.ess > 2.0 * before.ess
    value, error = draws.log_z
    assert abs(value - np.log(np.pi)) < SIGMAS * error
    assert abs(float(jnp.mean(draws.x[:, 0] < 0.0)) - 0.5) < 0.1
