"""Adjoint Sampling: what the control is regressed on in closed form, its replay and its counts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import (
    CENTRES,
    MEAN,
    SHARES,
    SIGMAS,
    STD,
    TARGETS,
    WIDTHS,
    draw_gaussian,
    draw_mixture,
    make_process,
    standard_errors_off,
)  # fmt: skip
from helpers import Counting, pair_log_prob

import allmodes as am
from allmodes import Target, parts
from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.noise import Noise
from allmodes.diffusion.paths import Process
from allmodes.methods.paths.adjoint import goal_of, regression
from allmodes.methods.paths.reference import PinnedBrownian, PinnedNoise, PinnedProcess
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame

pytestmark = pytest.mark.trains

N, LEVELS = 20_000, [0.1, 0.5, 1.0, 3.0]
LITTLE = am.AdjointSampling(
    steps=30, cooldown=10, batch=64, path_steps=8, network=parts.Perceptron(16, 1, 2), paths=8, every=5, kept=20
)


def noised(z_0, sigma):
    return z_0 + sigma * jnp.asarray(np.random.default_rng(7).normal(size=z_0.shape), jnp.float32)


def denoised_gaussian(z, sigma):
    return (sigma**2 * MEAN + STD**2 * z) / (STD**2 + sigma**2)


def denoised_mixture(z, sigma):
    far = z[:, None] - CENTRES
    variance = WIDTHS**2 + sigma**2
    share = jax.nn.softmax(jnp.log(SHARES / variance) - 0.5 * jnp.sum(far**2, axis=-1) / variance, axis=1)
    means = (sigma**2 * CENTRES + WIDTHS[:, None] ** 2 * z[:, None]) / variance[:, None]
    return jnp.sum(share[..., None] * means, axis=1)


def goals(target, z_0, z, sigma):
    return goal_of(z_0, jax.jit(target.evaluate)(z_0).grad, z, jnp.full(len(z), sigma))


def started(target, method=LITTLE):
    """A state before the first step, in the frame that is the user's own."""
    frame, z = Frame(jnp.zeros(2), jnp.ones(2)), draw_gaussian(0, 2048)
    points = Buffer.of(z, jax.jit(target.evaluate)(z))
    found = SearchResult(frame, points, jnp.asarray(0.05), jnp.full(2, 0.5), jnp.zeros(()), Evaluations.none())
    return method.start(found, (), jax.random.key(0))


@pytest.mark.parametrize("sigma", LEVELS)
@pytest.mark.parametrize("at", [(0.0, 0.0), (1.5, -1.0)])
def test_given_a_noised_point_the_goal_is_the_posterior_mean_in_expectation(sigma, at):
    """Of a Gaussian: over draws of its posterior, which is known."""
    z = jnp.broadcast_to(jnp.asarray(at), (N, 2))
    mean, std = denoised_gaussian(z, sigma), STD * sigma / np.sqrt(STD**2 + sigma**2)
    z_0 = mean + std * np.random.default_rng(1).normal(size=(N, 2))
    assert np.all(standard_errors_off(goals(TARGETS["gaussian"], z_0, z, sigma), mean[0]) < SIGMAS)


@pytest.mark.parametrize("sigma", LEVELS)
def test_so_it_is_of_a_mixture(sigma):
    """What the goal is off by has no correlation with any function of the noised point."""
    z_0 = draw_mixture(2, N)
    z = noised(z_0, sigma)
    off = goals(TARGETS["mixture"], z_0, z, sigma) - denoised_mixture(z, sigma)
    for function in (jnp.ones_like(z), z, z[:, ::-1], z**2, jnp.tanh(3 * z)):
        assert np.all(standard_errors_off(off * function, 0.0) < SIGMAS)


@pytest.mark.parametrize("sigma", LEVELS)
def test_of_the_unit_normal_the_goal_has_no_variance(sigma):
    z_0 = jnp.asarray(np.random.default_rng(3).normal(size=(64, 2)), jnp.float32)
    z = noised(z_0, sigma)
    np.testing.assert_allclose(goal_of(z_0, -z_0, z, jnp.full(64, sigma)), z / (1 + sigma**2), atol=1e-6)


class Bent(Denoiser):
    """The exact denoiser of the Gaussian, and something beside."""

    bend: jax.Array | None = None

    def __call__(self, z, sigma):
        return denoised_gaussian(z, sigma) + self.bend @ jnp.concatenate([jnp.ones(1), z, jnp.tanh(z)])


def bent(bend, cls=PinnedProcess):
    process = make_process(cls=cls)
    return dataclasses.replace(process, denoiser=Bent(process.denoiser.network, bend=bend))


def test_the_exact_denoiser_is_where_the_expected_gradient_is_zero():
    z_0 = draw_gaussian(4, N)
    sigma = jnp.asarray(np.random.default_rng(5).choice(LEVELS, N), jnp.float32)
    z = noised(z_0, sigma[:, None])
    grad = jax.jit(TARGETS["gaussian"].evaluate)(z_0).grad

    def slopes(bend):
        def one(*point):
            return jax.grad(lambda b: regression(bent(b), *(a[None] for a in point), jnp.ones(1))[0])(bend)

        return jax.vmap(one)(z_0, grad, z, sigma).reshape(N, -1)

    assert np.all(standard_errors_off(slopes(jnp.zeros((2, 5))), 0.0) < SIGMAS)
    assert np.max(standard_errors_off(slopes(jnp.full((2, 5), 0.02)), 0.0)) > SIGMAS


def test_errors_weigh_as_those_of_the_control():
    """`u = (D - t z) / (1 - t)` against `z_0 + grad`, at any level."""
    rng = np.random.default_rng(6)
    z_0, grad, z = (jnp.asarray(rng.normal(size=(64, 2)), jnp.float32) for _ in range(3))
    sigma = jnp.asarray(rng.choice(LEVELS, 64), jnp.float32)
    process = make_process(perturbed=0.5)
    t = (1 / (1 + sigma**2))[:, None]
    control = (jax.vmap(process.denoiser)(z, sigma) - t * z) / (1 - t)
    _, squared = regression(process, z_0, grad, z, sigma, jnp.ones(64))
    np.testing.assert_allclose(squared, jnp.sum((control - z_0 - grad) ** 2, axis=1), rtol=1e-3)


def test_the_variance_of_kernels_is_led_to_what_the_denoiser_is_off_by():
    """For the exact denoiser of the Gaussian that is the variance of its posterior."""
    sigma, z_0 = 0.7, draw_gaussian(8, N)
    exact, z = bent(jnp.zeros((2, 5)), Process), noised(z_0, sigma)
    posterior = (STD * sigma) ** 2 / (STD**2 + sigma**2)

    def loss(log_variance):
        at = dataclasses.replace(exact, error=jnp.exp(log_variance))
        points = z_0, jnp.zeros_like(z), z, jnp.full(N, sigma), jnp.full(N, 1 / N)
        return regression(at, *points)[0]

    right = jnp.broadcast_to(jnp.log(posterior), exact.error.shape)
    slope = jax.grad(loss)(right)
    np.testing.assert_allclose(jnp.sum(slope, axis=0), 0.0, atol=SIGMAS * np.sqrt(0.5 / N))
    assert jnp.all(jnp.sum(jax.grad(loss)(right + 0.5), axis=0) > 0.1)


@pytest.mark.parametrize("noise", [Noise(jnp.asarray(0.05), jnp.asarray(3.0)), PinnedBrownian().noise(8)])
def test_levels_of_training_are_those_of_paths(noise):
    """Even in what the steps of a path are even in, from the lowest to the highest."""
    grid = np.asarray(noise.grid(8))[:-1]
    np.testing.assert_allclose(noise.along(jnp.linspace(1.0, 0.0, 8)), grid, rtol=1e-5)
    assert isinstance(noise, PinnedNoise) == (float(noise.along(jnp.asarray(0.5))) > 0.5)


def test_ends_are_replayed_first_in_first_out_and_evaluated_once():
    target = Counting(lambda x: TARGETS["mixture"].log_prob(x), 2)
    state, method, before = started(target), dataclasses.replace(LITTLE, clip=1.0), 2048
    assert target.total == before
    step = jax.jit(lambda s, k: method.step(target, s, k))
    # Nothing is drawn from where no end is yet.
    ends = dataclasses.replace(state.more.ends, z=jnp.full_like(state.more.ends.z, jnp.nan))
    state = dataclasses.replace(state, more=dataclasses.replace(state.more, ends=ends))
    for i in range(16):
        after, figures = step(state, jax.random.key(i))
        changed = np.any(np.asarray(after.more.ends.z) != np.asarray(state.more.ends.z), axis=1)
        changed &= ~np.isnan(np.asarray(after.more.ends.z[:, 0]))
        due = {(8 * (i // 5) + j) % 20 for j in range(8)} if i % 5 == 0 else set()
        assert set(np.flatnonzero(changed)) == due
        assert np.isfinite(float(figures["loss"]))
        assert target.total == before + 8 * (1 + i // 5)
        assert int(after.evaluations.log_prob) == int(after.evaluations.gradient) == 8 * (1 + i // 5)
        state = after
    ends, e = state.more.ends, jax.jit(TARGETS["mixture"].evaluate)(state.more.ends.z)
    np.testing.assert_allclose(ends.log_prob, e.log_prob, rtol=1e-4)
    size = np.linalg.norm(e.grad, axis=1)
    assert np.any(size > 1.0)
    assert np.any(size < 1.0)
    np.testing.assert_allclose(ends.grad, e.grad / np.maximum(1.0, size)[:, None], rtol=1e-3, atol=1e-4)


def test_ends_without_mass_teach_nothing():
    nowhere = Target(lambda x: jnp.where(x[0] > 100.0, 0.0, -jnp.inf), 2)
    state = started(nowhere)
    after, figures = jax.jit(lambda s, k: LITTLE.step(nowhere, s, k))(state, jax.random.key(0))
    assert float(figures["loss"]) == 0.0
    assert all(jax.tree.leaves(jax.tree.map(jnp.array_equal, state.model, after.model)))


@pytest.mark.parametrize("noise", [parts.NoiseRange(), PinnedBrownian()], ids=["even in log", "pinned"])
def test_it_learns_two_modes(noise):
    settings = {"batch": 128, "steps": 400, "cooldown": 200, "path_steps": 32}
    method = dataclasses.replace(LITTLE, **settings, noise=noise, paths=256, every=10, kept=2048)
    target = Counting(pair_log_prob, 2)
    sampler = am.fit(target, method, key=0)
    assert sampler.evaluations["log_prob"] == target.total
    draws = sampler.sample(2000, key=1)
    assert draws.ess / 2000 > 0.3
    assert abs(draws.log_z.value - np.log(np.pi)) < SIGMAS * draws.log_z.std_error
    share = float(jax.nn.softmax(draws.log_weight) @ (draws.x[:, 0] < 0.0))
    assert abs(share - 0.5) < SIGMAS * 0.5 / np.sqrt(draws.ess)


def test_settings_that_contradict_themselves_are_refused():
    with pytest.raises(am.ConfigError, match="guided must be left out"):
        am.AdjointSampling(guided=True)
    with pytest.raises(am.ConfigError, match="paths must not exceed the 64 ends"):
        am.AdjointSampling(kept=64)
