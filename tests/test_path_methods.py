"""Samplers that are trained on whole paths: their losses, reference and buffer in closed form."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import (
    LOG_Z,
    SIGMAS,
    TARGETS,
    check_mixture,
    draw_mixture,
    make_process,
    standard_errors_off,
)  # fmt: skip
from helpers import Counting, pair, pair_log_prob

import allmodes as am
from allmodes import Target, parts
from allmodes.diffusion.paths import noising, reverse
from allmodes.methods.paths.kept import log_ratio_of, walk
from allmodes.methods.paths.losses import LogVariance, ReverseKL, TrajectoryBalance
from allmodes.methods.paths.reference import PinnedBrownian, PinnedProcess
from allmodes.methods.paths.trlv import largest_power
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.targets import gaussian_mixture

pytestmark = pytest.mark.trains

N, STEPS, SIZE = 8_000, 8, 2048
SMALL = {"batch": 64, "path_steps": STEPS, "network": parts.Perceptron(16, 1, 2), "steps": 30, "cooldown": 10}
NORMAL = Target(lambda z: LOG_Z - 0.5 * jnp.sum(z**2) - 0.5 * len(z) * jnp.log(2 * jnp.pi), 2, name="normal")


def state_of(method, target, z):
    """A state before the first step, in the frame that is the user's own, with these points."""
    frame = Frame(jnp.zeros(2), jnp.ones(2))
    points = Buffer.of(z, jax.jit(target.evaluate)(z))
    found = SearchResult(frame, points, jnp.asarray(0.05), jnp.full(2, 0.5), jnp.zeros(()), Evaluations.none())
    return method.start(found, (), jax.random.key(0))


def pinned(steps, perturbed=0.0):
    """The reference process of PIS, under a network that may add something."""
    plain = make_process(perturbed=perturbed)
    fields = {f.name: getattr(plain, f.name) for f in dataclasses.fields(plain)}
    return PinnedProcess(**{**fields, "noise": PinnedBrownian().noise(steps)})


# A sampler N(m, 1) of one step towards N(0, 1), whose log w is m^2 / 2 - m x.


def log_weight(m, x):
    return LOG_Z - 0.5 * x**2 + 0.5 * (x - m) ** 2


@pytest.mark.parametrize("origin", [0.0, 0.7, 2.0])
def test_the_log_variance_of_a_shifted_normal(origin):
    """Var[log w] = m^2 whatever the mean of the points, and its derivative 2 m: twice the KL's."""
    m, x = 0.7, np.random.default_rng(0).normal(origin, size=N)
    loss, slope = jax.value_and_grad(lambda m: LogVariance()(log_weight(m, jnp.asarray(x))))(m)
    relative = SIGMAS * np.sqrt(2 / N)  # the standard error of a variance over itself
    np.testing.assert_allclose(loss, m**2, rtol=relative)
    np.testing.assert_allclose(slope, 2 * m, rtol=relative)


def test_the_reverse_kl_of_a_shifted_normal():
    noise = jnp.asarray(np.random.default_rng(0).normal(size=N))
    loss, slope = jax.value_and_grad(lambda m: ReverseKL()(log_weight(m, m + noise)))(0.7)
    error = SIGMAS * 0.7 / np.sqrt(N)
    np.testing.assert_allclose(loss, 0.7**2 / 2 - LOG_Z, atol=error)
    np.testing.assert_allclose(slope, 0.7, atol=SIGMAS / np.sqrt(N))


def test_trajectory_balance_is_the_log_variance_where_log_z_is_right():
    log_w = jnp.asarray(np.random.default_rng(1).normal(3.0, 2.0, size=64))
    balance, mean = TrajectoryBalance(rate=0.1), float(jnp.mean(log_w))
    np.testing.assert_allclose(balance(log_w, mean), LogVariance()(log_w), rtol=1e-5)
    np.testing.assert_allclose(balance(log_w, mean + 2.0), LogVariance()(log_w) + 4.0, rtol=1e-5)
    slope = jax.grad(balance, argnums=1)(log_w, 0.0)
    np.testing.assert_allclose(-balance.rate * slope, 0.2 * mean, rtol=1e-5)  # 2 rate of the way


def test_the_largest_power_keeps_its_bound():
    """Of weights that are log-normal, power p moves the points by p^2 s^2 / 2 nats."""
    log_w = 3.0 * jnp.asarray(np.random.default_rng(2).normal(size=N))
    power, kl = largest_power(log_w, 0.1)
    np.testing.assert_allclose(kl, 0.1, rtol=1e-3)
    np.testing.assert_allclose(power, np.sqrt(0.2) / 3.0, rtol=SIGMAS * np.sqrt(1 / N))
    power, kl = largest_power(0.1 * log_w, 0.1)
    assert float(power) == 1.0
    np.testing.assert_allclose(kl, 0.3**2 / 2, rtol=2 * SIGMAS * np.sqrt(2 / N))


def test_the_pinned_reference_is_brownian_motion():
    """In x = t z the steps of equal time of an untrained sampler are independent, of variance
    1 / (steps + 1) each.
    """
    path = jax.jit(walk, static_argnums=(2, 3))(pinned(STEPS), jax.random.key(0), N, STEPS)
    time = (np.arange(STEPS + 1) + 1.0) / (STEPS + 1)
    x = time[:, None, None] * np.asarray(path.z, float)
    moves = np.diff(np.concatenate([np.zeros((1, N, 2)), x]), axis=0) * np.sqrt(STEPS + 1)
    for move in moves:
        assert np.all(standard_errors_off(move, 0.0) < SIGMAS)
        assert np.all(standard_errors_off(move**2, 1.0) < SIGMAS)
    assert np.all(standard_errors_off(moves[1:, :, 0].T * moves[:-1, :, 0].T, 0.0) < SIGMAS)


@pytest.mark.parametrize("perturbed", [0.0, 0.5])
def test_path_weights_of_the_pinned_reference_are_exact(perturbed):
    """Mean Z over its own paths, of an untrained network and of one that says something wrong; and
    mean 1 / Z of the inverse, over noised exact draws.
    """
    process, target = pinned(STEPS, perturbed), TARGETS["mixture"]
    path = jax.jit(reverse, static_argnums=(2, 3))(process, jax.random.key(1), N, STEPS)
    log_w = np.asarray(path.log_ratio + jax.jit(target.values)(path.z), float) - LOG_Z
    assert standard_errors_off(np.exp(log_w), 1.0) < SIGMAS
    z = draw_mixture(3, N)
    back = jax.jit(noising, static_argnums=3)(process, jax.random.key(2), z, STEPS)
    log_w = np.asarray(back.log_ratio + jax.jit(target.values)(z), float) - LOG_Z
    assert standard_errors_off(np.exp(-log_w), 1.0) < SIGMAS
    assert log_w.std() > 0.1  # or nothing was shown


def test_a_kept_path_is_that_of_reverse_and_so_is_its_derivative():
    """Detached from its points, in both."""
    process, key, n = make_process(perturbed=0.5), jax.random.key(4), 64
    kept = walk(process, key, n, STEPS)

    def mean_of_reverse(error):
        return jnp.mean(reverse(dataclasses.replace(process, error=error), key, n, STEPS, detached=True).log_ratio)

    def mean_of_kept(error):
        return jnp.mean(log_ratio_of(dataclasses.replace(process, error=error), kept.z))

    path = reverse(process, key, n, STEPS)
    np.testing.assert_allclose(kept.z[-1], path.z, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(kept.log_ratio, path.log_ratio, rtol=1e-4, atol=1e-4)
    value, slope = jax.value_and_grad(mean_of_reverse)(process.error)
    value_kept, slope_kept = jax.value_and_grad(mean_of_kept)(process.error)
    np.testing.assert_allclose(value_kept, value, rtol=1e-4)
    np.testing.assert_allclose(slope_kept, slope, rtol=1e-3, atol=1e-3)
    through = jax.grad(lambda e: jnp.mean(reverse(dataclasses.replace(process, error=e), key, n, STEPS).log_ratio))
    assert float(jnp.max(jnp.abs(through(process.error) - slope))) > 1e-2  # not so where points move


@pytest.mark.parametrize(
    "method",
    [
        am.TB(**SMALL, noise=PinnedBrownian(), loss=LogVariance()),
        am.TB(**SMALL, noise=PinnedBrownian()),
        am.TRLV(**SMALL, noise=PinnedBrownian(), paths=64),
        am.AdjointSampling(**SMALL, noise=PinnedBrownian(), paths=64),
    ],
    ids=["log-variance", "trajectory-balance", "trust-region", "adjoint"],
)
def test_where_the_sampler_is_exact_there_is_no_loss(method):
    """The reference process is exact for the unit normal: log w is log Z on each path, of own and
    of noised ones.
    """
    z = jnp.asarray(np.random.default_rng(5).normal(size=(SIZE, 2)), jnp.float32)
    state = state_of(method, NORMAL, z)
    if isinstance(method, am.TB):
        state = dataclasses.replace(state, more=dataclasses.replace(state.more, log_z=jnp.asarray(LOG_Z)))
    step = jax.jit(lambda s, k: method.step(NORMAL, s, k))
    _, figures = step(state, jax.random.key(6))
    assert float(figures["loss"]) < 1e-8
    np.testing.assert_allclose(figures["elbo"], LOG_Z, atol=1e-4)
    if isinstance(method, am.TRLV):
        assert float(figures["power"]) == 1.0
    # Of another normal it is not: the check can fail.
    wide = Target(lambda z: NORMAL.log_prob(z / 2.0), 2)
    _, figures = jax.jit(lambda s, k: method.step(wide, s, k))(state_of(method, wide, 2.0 * z), jax.random.key(6))
    assert float(figures["loss"]) > 0.05


def test_a_buffer_of_exact_draws_stays_one():
    """Exchanges for ends of own paths and local moves leave the target invariant, whatever the
    network has learned so far.
    """
    method = am.TB(**SMALL, search_every=5, moves=3)
    target, shares, taken = TARGETS["mixture"], [], 0.0
    step = jax.jit(lambda s, k: method.step(target, s, k))
    for seed in range(4):
        state = state_of(method, target, draw_mixture(seed, SIZE))
        for i in range(30):
            state, figures = step(state, jax.random.key(100 * seed + i))
            taken += float(figures["entered"])
        shares.append(state.buffer.z)
    assert taken > 1.0
    assert np.all(check_mixture(np.concatenate(shares)) < SIGMAS)
    e = jax.jit(target.evaluate)(state.buffer.z)
    np.testing.assert_allclose(state.buffer.log_prob, e.log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.buffer.grad, e.grad, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        am.TB(**SMALL, guided=True, search_every=10, moves=2),
        am.TB(**SMALL, replayed=0.0),
        am.TRLV(**SMALL, guided=True, paths=64, every=10),
        am.DDS(**SMALL, guided=False),
    ],
    ids=["tb guided", "tb on-policy", "trlv guided", "dds not guided"],
)
def test_counts_are_exact_in_other_forms_too(method):
    target = Counting(pair_log_prob, 2)
    sampler = am.fit(target, method, key=jax.random.key(0))
    assert sampler.evaluations["log_prob"] == target.total
    before = target.total
    draws = sampler.sample(100, key=jax.random.key(1))
    assert draws.evaluations == target.total - before


def test_off_policy_training_needs_no_gradient_and_the_reverse_kl_does():
    target = Target(pair_log_prob, 2, differentiable=False)
    sampler = am.fit(target, am.TB(**SMALL, moves=2), key=jax.random.key(0))
    assert sampler.evaluations["gradient"] == 0
    for method in (am.DDS(guided=False), am.PIS(), am.TB(guided=True), am.AdjointSampling()):
        with pytest.raises(am.ConfigError, match=f"{method.name} needs the gradient of the density"):
            method.init(target, jax.random.key(0))


def test_settings_that_contradict_themselves_are_refused():
    for settings, words in (
        ({"replayed": 1.0}, r"replayed must lie in \[0, 1\)"),
        ({"batch": 8192}, "replay 2048 paths at most"),
        ({"path_steps": 1}, "path_steps must be at least 2"),
    ):
        with pytest.raises(am.ConfigError, match=words):
            am.TB(**settings)
    with pytest.raises(am.ConfigError, match="batch must not exceed the 64 paths"):
        am.TRLV(paths=64)


@pytest.mark.parametrize("method", [am.TB, am.TRLV])
def test_it_learns_two_modes(method):
    """From an effective share of some hundredths to one of most draws."""
    settings = {**SMALL, "batch": 128, "steps": 400, "cooldown": 200}
    more = {"paths": 512, "every": 10} if method is am.TRLV else {}
    sampler = am.fit(pair(), method(**settings, **more), key=jax.random.key(0))
    draws = sampler.sample(2000, key=jax.random.key(1))
    assert draws.ess / 2000 > 0.5
    assert abs(float(jnp.mean(draws.x[:, 0] < 0.0)) - 0.5) < 0.1


def test_time_that_runs_out_brings_the_end_forward():
    method = am.TB(**SMALL)
    state = method.wind_down(state_of(method, NORMAL, jnp.zeros((SIZE, 2))), 7)
    assert int(method.end(state)) == int(state.cooldown) == 7


# A reference that is fitted.


@functools.cache
def on_two_modes():
    """LRDS before its first step, on a density that a mixture can be."""
    target = gaussian_mixture(np.array([[-4.0, 0.0], [3.0, 1.0]]), np.array([0.5, 1.5]), [0.3, 0.7], log_z=LOG_Z)
    method = am.LRDS(**SMALL | {"network": parts.MixturePerceptron(8, 8, 16, 1, 2)})
    return target, method, method.init(target, jax.random.key(0))


def test_where_the_fitted_mixture_is_the_density_all_weights_are_log_z():
    target, method, state = on_two_modes()

    def log_weight(key):
        path = reverse(method.process_of(target, state, state.model), key, N, STEPS)
        return path.log_ratio + state.frame.values(target, path.z), state.frame.to_x(path.z)

    log_w, x = jax.jit(log_weight)(jax.random.key(1))
    assert float(jnp.std(log_w)) < 0.05
    np.testing.assert_allclose(jnp.mean(log_w), LOG_Z, atol=0.02)
    share = np.mean(np.asarray(x)[:, 0] > -0.5)
    np.testing.assert_allclose(share, 0.7, atol=0.02 + SIGMAS * np.sqrt(0.21 / N))


def test_the_reference_stays_as_it_was_fitted():
    """The correction alone is trained: no gradient reaches the mixture."""
    target, method, state = on_two_modes()
    after, figures = jax.jit(lambda s, k: method.step(target, s, k))(state, jax.random.key(2))
    assert float(figures["loss"]) < 0.01
    same = jax.tree.map(jnp.array_equal, state.model[0].base, after.model[0].base)
    assert all(jax.tree.leaves(same))
    assert not all(jax.tree.leaves(jax.tree.map(jnp.array_equal, state.model[0].network.up, after.model[0].network.up)))


@pytest.mark.parametrize(
    "method", [am.DDS(guided=False), am.TB(), am.TRLV(), am.AdjointSampling()], ids=lambda m: m.name
)
def test_a_fitted_mixture_serves_all_samplers_of_paths(method):
    network = parts.MixturePerceptron(8, 8, 16, 1, 2)
    more = {"every": 10, "paths": 64} if isinstance(method, am.TRLV | am.AdjointSampling) else {}
    method = dataclasses.replace(method, **SMALL | {"network": network, "batch": 32}, **more)
    sampler = am.fit(pair(), method, key=0)
    draws = sampler.sample(2000, key=1)
    assert draws.ess / 2000 > 0.5
    np.testing.assert_allclose(draws.log_z.value, np.log(np.pi), atol=0.1)
