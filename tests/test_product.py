"""A product of densities of single coordinates as the base of a denoiser: closed forms, kernels
that are exact at any step, and what lines along coordinates show of wells in each of them.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import (
    LEVELS,
    check_path_weights_are_unbiased,
    check_paths_weigh_the_same,
    process_on,
    standard_errors_off,
)
from helpers import Counting
from scipy.stats import norm

import allmodes as am
from allmodes.diffusion.kernels import TIE
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.points.product import Product
from allmodes.search.base import DRAWS, Base, fit_base, product_base
from allmodes.search.effort import WAVE
from allmodes.search.product import LINES, STOPS, fit_product, seems_independent
from allmodes.search.search import WAVES_OF_PRODUCT, search

SIGMAS = 5.0
MEANS = np.array([[-0.9, 0.8], [0.1, 0.3], [-0.2, 1.1]])
VARIANCES = np.array([[0.09, 0.01], [0.04, 0.16], [0.02, 0.05]])
SHARES = np.array([[0.6, 0.4], [0.3, 0.7], [0.1, 0.9]])
DIM, TILT = 8, 0.4


def product():
    return Product(*(jnp.asarray(a, jnp.float32) for a in (np.log(SHARES), MEANS, VARIANCES)))


def log_density(z, noise=0.0):
    z = np.asarray(z, float)[:, :, None]
    return np.log(np.sum(SHARES * norm(MEANS, np.sqrt(VARIANCES + noise)).pdf(z), axis=2)).sum(axis=1)


def process(perturbed=0.0, scale=1.0, better=1.0):
    one = GaussianMixture(jnp.zeros(1), jnp.zeros((1, 3)), jnp.eye(3)[None], jnp.ones((1, 3)))
    return process_on(Base(one, 1.0, product()), product(), perturbed, scale, better)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_density_and_draws_are_those_of_the_product(noise):
    z = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_allclose(product().log_density(jnp.asarray(z, jnp.float32), noise), log_density(z, noise), 1e-4)
    draws = np.asarray(product().sample(jax.random.key(1), 20_000, noise), float)
    middle = np.sum(SHARES * MEANS, axis=1)
    variance = np.sum(SHARES * (VARIANCES + noise + MEANS**2), axis=1) - middle**2
    away = draws - middle
    assert np.all(standard_errors_off(away, 0.0) < SIGMAS)
    assert np.all(standard_errors_off(away**2, variance) < SIGMAS)
    assert np.all(standard_errors_off(away * np.roll(away, 1, axis=1), 0.0) < SIGMAS)


def test_the_denoiser_is_the_slope_of_the_noised_density():
    """Tweedie: `E[z_0 | z] = z + sigma^2 grad log p_sigma(z)`."""
    z, sigma = jax.random.normal(jax.random.key(1), (20, 3)), 0.6
    slope = jax.vmap(jax.grad(lambda one: product().log_density(one[None], sigma**2)[0]))(z)
    denoised = jax.vmap(process().denoiser, in_axes=(0, None))(z, jnp.asarray(sigma))
    np.testing.assert_allclose(denoised, z + sigma**2 * slope, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("steps", [2, 5])
def test_where_the_base_is_the_density_all_paths_weigh_the_same_however_few_the_steps(steps):
    check_paths_weigh_the_same(process(), product(), log_density, steps)


@pytest.mark.parametrize(("scale", "better"), [(1.0, 1.0), (1.6, 1.0), (1.0, (-1.0) ** np.arange(LEVELS))])
def test_path_weights_are_unbiased_whatever_the_network_adds(scale, better):
    """By the base's kernels, by independent normals, and where these change from level to level."""
    check_path_weights_are_unbiased(process(0.2, scale, better), product(), log_density)


def wells(cls=am.Target):
    """2^8 modes, of unequal weight: a double well in every coordinate, with a barrier of nine."""
    return cls(lambda x: jnp.sum(-(x**4) + 6.0 * x**2 + TILT * x), DIM, name="wells")


def coordinate():
    """The density of each coordinate, on a fine grid: places, log-density, and log Z."""
    x = np.linspace(-3.5, 3.5, 20_001)
    log_p = -(x**4) + 6.0 * x**2 + TILT * x
    log_z = np.log(np.sum(np.exp(log_p)) * (x[1] - x[0]))
    return x, log_p - log_z, log_z


def draws_of_wells(n, seed, right=None):
    """Exact draws; or in wrong proportions, this share of each coordinate on the right."""
    x, log_p, _ = coordinate()
    p = np.exp(log_p)
    p = p if right is None else _with_share(x, p, right)
    below, rng = np.cumsum(p) / p.sum(), np.random.default_rng(seed)
    return np.interp(rng.random((n, DIM)), below, x)


def _with_share(x, p, right):
    is_right = x > 0.0
    return np.where(is_right, right * p / p[is_right].sum(), (1.0 - right) * p / p[~is_right].sum())


def found(density, x):
    """What a search that has ended at these points would give."""
    frame, x = Frame(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1])), jnp.asarray(x, jnp.float32)
    points, one = Buffer.of(x, frame.evaluate(density, x)), jnp.ones(())
    return SearchResult(frame, points, one, jnp.ones(x.shape[1]), 0 * one, Evaluations.none())


def strays(z):
    """The points, half of which have not come to where the density is yet."""
    away = np.random.default_rng(3).standard_t(3, z.shape) * 2.0 * np.std(z, axis=0)
    return np.where(np.arange(len(z))[:, None] % 2, z, z + away)


@pytest.mark.parametrize("moved", [lambda z: z, strays], ids=["moved", "strays"])
def test_lines_show_the_wells_and_their_shares_whatever_those_of_the_points_are(moved):
    density = wells(Counting)
    start = found(density, moved(draws_of_wells(2048, 0, right=0.2)))
    before = density.total
    fitted, spent = fit_product(density, start.frame, start.points, jax.random.key(0))
    assert int(spent.log_prob) == density.total - before == 2 * LINES * STOPS * DIM
    assert int(spent.gradient) == 0
    x, log_p, _ = coordinate()
    p = np.exp(log_p) / np.sum(np.exp(log_p))
    for j in (0, DIM - 1):
        one = Product(fitted.log_share[j : j + 1], fitted.mean[j : j + 1], fitted.variance[j : j + 1])
        log_q = np.asarray(one.log_density(jnp.asarray(x[:, None], jnp.float32)), float)
        assert 0.0 <= p @ (log_p - log_q) + 1e-4 < 2e-3  # nats
        assert (log_p - log_q)[p > 1e-7 * p.max()].max() < 1.0  # in the barrier as well: no weight is large
        q = np.exp(log_q) / np.sum(np.exp(log_q))
        assert q[x > 0.0].sum() == pytest.approx(p[x > 0.0].sum(), abs=1e-3)


def points_of(log_prob, x):
    x = jnp.asarray(x, jnp.float32)
    return Buffer(x, jax.vmap(log_prob)(x), jax.vmap(jax.grad(log_prob))(x))


def test_coordinates_seem_independent_where_they_are_and_not_where_they_mind_each_other():
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(2000, 2))
    assert not seems_independent(points_of(lambda x: -0.5 * jnp.sum((x / jnp.array([1.0, 3.0])) ** 2), normal))
    assert seems_independent(points_of(lambda x: -jnp.sum(jnp.log1p(x**2)), np.arcsinh(2.0 * normal)))
    copies = np.repeat(draws_of_wells(400, 1), 5, axis=0)
    assert seems_independent(points_of(wells().log_prob, copies))
    turned = normal @ np.linalg.cholesky([[1.0, 0.8], [0.8, 1.0]]).T
    inverse = jnp.linalg.inv(jnp.array([[1.0, 0.8], [0.8, 1.0]]))
    assert not seems_independent(points_of(lambda x: -0.5 * x @ inverse @ x, turned))
    two = 0.3 * normal + np.where(rng.random((2000, 1)) < 0.5, -2.0, 2.0)  # on a diagonal
    modes = jnp.array([[-2.0, -2.0], [2.0, 2.0]])
    of_two = lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - modes) ** 2, axis=1) / 0.09)  # noqa: E731
    assert not seems_independent(points_of(of_two, two))
    angle = rng.random(2000) * 2.0 * np.pi
    ring = 3.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1) + 0.1 * normal
    assert not seems_independent(points_of(lambda x: -50.0 * (jnp.linalg.norm(x) - 3.0) ** 2, ring))
    assert not seems_independent(points_of(lambda x: 0.0 * jnp.sum(x), normal))  # no slope tells anything


@pytest.mark.trains
def test_wells_in_every_coordinate_have_a_product_for_a_base_and_points_come_to_be_its_draws():
    density = wells(Counting)
    start = found(density, draws_of_wells(2048, 0, right=0.2))
    before = density.total
    base, end = fit_base(density, start, 6, jax.random.key(0))
    assert base.share > 0.97
    assert base.product is not None
    assert int(end.evaluations.log_prob) == density.total - before == 2 * LINES * STOPS * DIM + DRAWS
    x, log_p, _ = coordinate()
    right = np.sum(np.exp(log_p)[x > 0.0]) / np.sum(np.exp(log_p))
    seen = np.mean(np.asarray(end.points.z) > 0.0, axis=0)
    np.testing.assert_allclose(seen, right, atol=SIGMAS * 0.5 / np.sqrt(2048))


def test_points_dispute_a_product_that_lacks_a_mode_which_they_have_seen(monkeypatch):
    """Two lines through the middle mode see nothing of others off the axes, uncorrelated as these
    are."""
    rng = np.random.default_rng(0)
    modes = np.array([[0.0, 0.0], [6.0, 6.0], [-6.0, 6.0], [6.0, -6.0], [-6.0, -6.0]])
    which = rng.choice(5, 2000, p=[0.96, 0.01, 0.01, 0.01, 0.01])
    density = am.Target(lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - modes) ** 2, axis=1)), 2)
    start = found(density, modes[which] + rng.normal(size=(2000, 2)))
    assert seems_independent(start.points)
    base, end = product_base(density, start, 6, jax.random.key(2))
    assert base is None
    np.testing.assert_array_equal(end.points.z, start.points.z)
    monkeypatch.setattr("allmodes.search.base.UNDISPUTED", 0.0)  # by its draws alone it would be the density
    assert product_base(density, start, 6, jax.random.key(2))[0].share > 0.97


@pytest.mark.trains
def test_a_search_ends_where_starts_cannot_meet_all_modes_and_need_not():
    """2^16 modes: as many starts as there may be would go on, as they do where no base is fitted,
    and points are all that there will be.
    """
    spent = am.parts.Search(128, 4 * WAVE, 6, keep=6)
    density = Counting(wells().log_prob, 2 * DIM)
    ends = search(density, jax.random.key(0), 4 * WAVE, spent)
    assert ends.starts.tolist()[0] == WAVES_OF_PRODUCT * WAVE
    assert int(ends.evaluations.log_prob) == density.total
    without = search(density, jax.random.key(0), 4 * WAVE, dataclasses.replace(spent, keep=0))
    assert without.starts.tolist()[0] == 4 * WAVE


@pytest.mark.trains
def test_a_fit_of_wells_trains_nothing_and_one_that_does_begins_with_the_kernels_of_the_product():
    settings = dict(search=am.parts.Search(128, 1024, 6, keep=6), buffer=4096, batch=128, opinion=0.0)
    sampler = am.fit(wells(), am.IWSM(**settings), key=jax.random.key(0), progress=False)
    assert int(sampler.state.step) == 0
    draws = sampler.sample(4000, key=jax.random.key(1))
    assert draws.ess > 0.97 * 4000
    log_z = DIM * coordinate()[2]
    assert abs(draws.log_z.value - log_z) < SIGMAS * draws.log_z.std_error + 1e-3
    assert draws.verdict().word == "trusted"
    assert "no coordinate minds the others" in " ".join(draws.verdict().reasons)
    deeper = am.Target(lambda x: 1.1 * wells().log_prob(x), DIM)
    again = am.fit(deeper, am.IWSM(**settings), key=jax.random.key(3), progress=False, start=sampler)
    assert bool(again.state.denoiser.base.is_product)
    assert again.sample(2000, key=jax.random.key(4)).ess > 0.97 * 2000
    trained = am.fit(wells(), am.IWSM(**settings, ready=None, steps=10), key=jax.random.key(0), progress=False)
    assert int(trained.state.step) == 10
    assert np.all(np.asarray(trained.state.better) > -TIE)
    np.testing.assert_allclose(trained.state.scale, 1.0, atol=0.3)
    assert trained.sample(2000, key=jax.random.key(2), steps=10).ess > 0.9 * 2000
