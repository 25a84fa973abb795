"""A mixture as the base of a denoiser: closed forms, kernels that are exact at any step, shapes
from gradients, and the first mixture of a density."""

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
from scipy.stats import multivariate_normal

import allmodes as am
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.search import base
from allmodes.search.base import SETTLED, Base, _is_far_off, fit_base
from allmodes.search.fitting import LEEWAY, _masses, fit_mixture, unexplained, with_missing
from allmodes.search.in_shapes import climb_from_beyond, move_in_shapes
from allmodes.search.parts import Parts
from allmodes.search.pool import Pool
from allmodes.search.proposals import propose
from allmodes.search.refit import refit
from allmodes.search.search import search
from allmodes.search.shapes import Seen, shape_by_gradients, shapes_of
from allmodes.targets import two_moons

SIGMAS = 5.0
MEANS = np.array([[-0.9, 0.3], [0.8, 0.7], [0.1, -0.9]])
TURN = np.array([[0.8, -0.6], [0.6, 0.8]])
VARIANCES = np.array([[0.09, 0.01], [0.04, 0.16], [0.02, 0.05]])
COVARIANCES = np.array([TURN @ np.diag(v) @ TURN.T for v in VARIANCES])
SHARES = np.array([0.6, 0.3, 0.1])
LOG_Z = 1.3


def mixture():
    axes = np.broadcast_to(TURN, (3, 2, 2))
    return GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in (np.log(SHARES), MEANS, axes, VARIANCES)))


def log_density(z, noise=0.0):
    parts = [multivariate_normal(m, c + noise * np.eye(2)) for m, c in zip(MEANS, COVARIANCES, strict=True)]
    return np.log(sum(s * p.pdf(np.asarray(z, float)) for s, p in zip(SHARES, parts, strict=True)))


def target(cls=am.Target):
    precision, log_det = jnp.asarray(np.linalg.inv(COVARIANCES)), jnp.asarray(np.linalg.slogdet(COVARIANCES)[1])

    def log_prob(x):
        away = x - jnp.asarray(MEANS)
        squared = jnp.einsum("ki,kij,kj->k", away, precision, away)
        return LOG_Z + jax.nn.logsumexp(jnp.log(SHARES) - 0.5 * (squared + log_det)) - jnp.log(2 * jnp.pi)

    return cls(log_prob, 2, name="three")


def process(perturbed=0.0, scale=1.0, better=1.0):
    return process_on(Base(mixture(), 1.0), mixture(), perturbed, scale, better)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_density_and_draws_are_those_of_the_mixture(noise):
    z = np.random.default_rng(0).normal(size=(50, 2))
    seen = mixture().log_density(jnp.asarray(z, jnp.float32), noise)
    np.testing.assert_allclose(seen, log_density(z, noise), rtol=1e-4, atol=1e-4)
    draws = np.asarray(mixture().sample(jax.random.key(1), 20_000, noise), float)
    covariance = np.einsum("k,kij->ij", SHARES, COVARIANCES) + noise * np.eye(2)
    middle = SHARES @ MEANS
    covariance += np.einsum("k,ki,kj->ij", SHARES, MEANS - middle, MEANS - middle)
    assert np.all(standard_errors_off(draws, middle) < SIGMAS)
    away = draws - middle
    products = np.stack([away[:, 0] ** 2, away[:, 1] ** 2, away[:, 0] * away[:, 1]], axis=1)
    assert np.all(standard_errors_off(products, covariance[[0, 1, 0], [0, 1, 1]]) < SIGMAS)


@pytest.mark.parametrize("steps", [2, 5])
def test_where_the_base_is_the_density_all_paths_weigh_the_same_however_few_the_steps(steps):
    check_paths_weigh_the_same(process(), mixture(), log_density, steps)


@pytest.mark.parametrize(("scale", "better"), [(1.0, 1.0), (1.6, 1.0), (1.0, (-1.0) ** np.arange(LEVELS))])
def test_path_weights_are_unbiased_whatever_the_network_adds(scale, better):
    """By the base's kernels, by independent normals, and where these change from level to level."""
    check_path_weights_are_unbiased(process(0.3, scale, better), mixture(), log_density)


def test_points_and_gradients_of_a_gaussian_give_its_shape_exactly():
    """From few points, wherever they lie."""
    rng, dim = np.random.default_rng(0), 6
    root = rng.normal(size=(dim, dim))
    covariance, mean = root @ root.T + 0.1 * np.eye(dim), rng.normal(size=dim)
    z = mean + 1.0 + rng.uniform(-1.0, 1.0, (12, dim))  # to one side, and not normal
    middle, chol = shape_by_gradients(z, -(z - mean) @ np.linalg.inv(covariance))
    np.testing.assert_allclose(chol @ chol.T, covariance, rtol=2e-2, atol=2e-2)
    np.testing.assert_allclose(middle, mean, atol=2e-2)


def found(density, z):
    dim = z.shape[1]
    frame = Frame.of(density, np.zeros(dim), np.ones(dim))
    points = Buffer.of(z, frame.evaluate(density, z))
    one = jnp.ones(())
    return SearchResult(frame, points, one, jnp.ones(dim), 0 * one, Evaluations.none())


def unequal(n):
    """Points of each mode alike, where the shares are 6 : 3 : 1."""
    rng, which = np.random.default_rng(2), np.arange(n) % 3
    roots = np.linalg.cholesky(COVARIANCES)
    return jnp.asarray(MEANS[which] + np.einsum("nij,nj->ni", roots[which], rng.normal(size=(n, 2))), jnp.float32)


def test_a_mixture_is_fitted_with_its_shares_though_the_points_have_others():
    fitted = fit_mixture(found(target(), unequal(300)).points, 8, jax.random.key(0))
    z = mixture().sample(jax.random.key(8), 1000)
    np.testing.assert_allclose(fitted.log_density(z), log_density(z), atol=0.2)


def test_a_cluster_of_two_modes_does_not_seem_to_have_all_the_mass():
    fitted = fit_mixture(found(target(), unequal(60)).points, 2, jax.random.key(0))  # one too few
    assert float(jnp.max(jnp.exp(fitted.log_share))) < 0.9


@pytest.mark.parametrize("few", [20, 32, 48])
def test_a_shape_that_goes_over_many_modes_does_not_have_all_the_mass(few):
    """It may explain its points, and would leave next to nothing to the modes: of these ones it
    does, by factors of e^17 and more.
    """
    rng, dim, modes, n = np.random.default_rng(9), 16, 16, 100
    means, which = rng.uniform(-10.0, 10.0, (modes, dim)), np.repeat(np.arange(modes), n)
    z = means[which] + rng.normal(size=(modes * n, dim))
    # So far apart that each point sees its own mode alone.
    grad, log_prob = means[which] - z, -0.5 * np.sum((z - means[which]) ** 2, axis=1)
    which[rng.permutation(modes * n)[:few]] = modes
    seen = Seen(z, log_prob, grad)
    excess = log_prob[:, None] - Parts.of(shapes_of(seen, which)).log_normal(z)
    log_mass = _masses(excess, which, seen)
    np.testing.assert_allclose(log_mass[:modes], 0.5 * dim * np.log(2.0 * np.pi), atol=1e-3)
    assert log_mass[modes] < log_mass[0] + LEEWAY


def test_a_refit_leaves_a_mixture_that_is_the_density_and_mends_one_that_is_not():
    """Shapes are exact, by gradients, where modes are apart; by few points nothing much changes."""
    points = found(target(), mixture().sample(jax.random.key(1), 2000)).points
    z = mixture().sample(jax.random.key(8), 1000)
    np.testing.assert_allclose(refit(mixture(), points).log_density(z), log_density(z), atol=0.1)
    wrong = dataclasses.replace(mixture(), mean=mixture().mean + 0.1, variance=4.0 * mixture().variance)
    for _ in range(8):
        wrong = refit(wrong, points)
    np.testing.assert_allclose(wrong.log_density(z), log_density(z), atol=0.3)
    few = refit(mixture(), jax.tree.map(lambda a: a[:2], points))
    assert np.all(np.asarray(few.variance) > 0.2 * VARIANCES.min(axis=1)[:, None])


def test_a_mode_that_the_mixture_lacks_gets_a_component_of_its_own():
    """From a single point of it."""
    lacking = dataclasses.replace(mixture(), log_share=jnp.log(jnp.array([0.67, 0.33, 0.0])))
    narrow = dataclasses.replace(lacking, variance=0.05 * lacking.variance)
    points = found(
        target(), jnp.concatenate([narrow.sample(jax.random.key(1), 200), jnp.asarray([[0.1, -0.9]])])
    ).points
    more = with_missing(narrow, points, jax.random.key(2))
    assert np.isfinite(more.log_share).all()
    np.testing.assert_allclose(more.mean[2], [0.1, -0.9], atol=0.1)
    np.testing.assert_array_equal(more.mean[:2], narrow.mean[:2])


@pytest.mark.parametrize("met", [1, 2])
def test_copies_of_a_point_make_no_component_of_no_width(met):
    """Moves leave copies where they are refused."""
    lacking = dataclasses.replace(mixture(), log_share=jnp.log(jnp.array([0.67, 0.33, 0.0])))
    points = jnp.asarray([[0.1, -0.9], [0.2, -0.8]])[:met].repeat(40, axis=0)
    everything = found(target(), jnp.concatenate([lacking.sample(jax.random.key(1), 200), points]))
    more = with_missing(lacking, everything.points, jax.random.key(2))
    assert np.isfinite(more.log_share[2])
    assert np.all(more.variance[2] > 0.2 * VARIANCES[2].min())


def test_moves_in_the_shapes_of_modes_leave_the_density_as_it_is_and_find_it_from_afar():
    """A condition number of 10^6, where steps of one length for all directions would not move."""
    variances = np.array([1.0, 1e-6])
    turned = TURN @ np.diag(variances) @ TURN.T
    precision = jnp.asarray(np.linalg.inv(turned), jnp.float32)
    density = Counting(lambda x: -0.5 * x @ precision @ x, 2)
    parts = np.zeros(1), np.zeros((1, 2)), TURN[None], variances[None]
    shape = GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in parts))
    frame, n = Frame.of(density, np.zeros(2), np.ones(2)), 4000
    along = np.random.default_rng(0).normal(size=(n, 2)) * np.sqrt(variances)
    for shift, steps in ((0.0, 3), (4.0, 20)):
        z = jnp.asarray((along + shift * np.sqrt(variances)) @ TURN.T, jnp.float32)
        start, before = Buffer.of(z, frame.evaluate(density, z)), density.total
        points, spent = move_in_shapes(density, frame, shape, start, jax.random.key(1), steps, 2)
        assert int(spent.log_prob) == steps * n == density.total - before
        assert points.size == 2 * n
        y = np.asarray(points.z[-n:], float) @ TURN / np.sqrt(variances)
        assert np.all(standard_errors_off(y, 0.0) < SIGMAS)
        assert np.all(standard_errors_off(y**2, 1.0) < SIGMAS)
        again = frame.evaluate(density, points.z)
        np.testing.assert_allclose(points.log_prob, again.log_prob, atol=0.05)


@pytest.mark.trains
def test_the_first_mixture_is_the_density_and_what_it_cost_is_counted():
    density = target(Counting)
    start = found(density, unequal(512))
    before = density.total
    base, end = fit_base(density, start, 8, jax.random.key(0))
    assert base.share > 0.95
    assert int(end.evaluations.log_prob) == density.total - before
    left = np.mean(np.asarray(end.points.z)[:, 0] < -0.3)  # two thirds of the points began elsewhere
    z = np.asarray(mixture().sample(jax.random.key(9), 20_000))
    assert abs(left - np.mean(z[:, 0] < -0.3)) < SIGMAS * 0.5 / np.sqrt(512)


def test_one_point_does_not_tell_that_a_mixture_is_far_off():
    points = found(target(), mixture().sample(jax.random.key(1), 500)).points
    outlier = dataclasses.replace(points, log_prob=points.log_prob.at[0].add(100.0))
    assert not _is_far_off(mixture(), outlier)
    assert _is_far_off(dataclasses.replace(mixture(), variance=0.05 * mixture().variance), points)


@pytest.mark.trains
def test_of_far_too_many_modes_a_single_component_is_left():
    """1,024 of them, not along the coordinates: six components would draw the network to
    themselves.
    """
    dim, spread = 10, 0.05
    turn = jnp.asarray(np.linalg.qr(np.random.default_rng(0).normal(size=(dim, dim)))[0], jnp.float32)

    def log_prob(x):
        y = x @ turn
        return jnp.sum(jax.nn.logsumexp(-0.5 * ((y[:, None] - jnp.array([-1.0, 1.0])) / spread) ** 2, axis=1))

    signs = jax.random.rademacher(jax.random.key(1), (2048, dim), jnp.float32)
    density = am.Target(log_prob, dim)
    start = found(density, (signs + spread * jax.random.normal(jax.random.key(2), signs.shape)) @ turn.T)
    base, end = fit_base(density, start, 6, jax.random.key(0))
    assert np.isfinite(base.mixture.log_share).sum() == 1
    one, z = base.mixture.variance[0], np.asarray(end.points.z, float)
    covariance = (base.mixture.axes[0] * one) @ base.mixture.axes[0].T
    np.testing.assert_allclose(covariance, np.cov(z.T, bias=True), atol=1e-3)


@pytest.mark.trains
def test_where_modes_are_no_gaussians_points_are_moved_and_all_of_it_is_counted():
    """Curved modes: the mixture cannot be the density, and the points come to be its draws."""
    density = Counting(two_moons().log_prob, 2)
    start, before = search(density, jax.random.key(0), 1024, am.parts.Search(128, 1024, 6, keep=6)), density.total
    base, end = fit_base(density, start, 2, jax.random.key(1))  # two components are far too few
    assert base.share < SETTLED
    assert int(end.evaluations.log_prob) - int(start.evaluations.log_prob) == density.total - before
    x = np.asarray(end.frame.to_x(end.points.z), float)
    exact = np.asarray(two_moons().sample(jax.random.key(2), 20_000), float)
    np.testing.assert_allclose(x.mean(axis=0), exact.mean(axis=0), atol=0.1)
    np.testing.assert_allclose(np.cov(x.T), np.cov(exact.T), atol=0.15)


@pytest.mark.trains
def test_nothing_is_trained_where_the_mixture_is_the_density():
    method = am.IWSM(search=am.parts.Search(128, 512, 10))
    sampler = am.fit(target(), method, key=jax.random.key(0))
    assert int(sampler.state.step) == 0
    draws = sampler.sample(2000, key=jax.random.key(1))
    assert draws.ess > 0.9 * 2000
    assert abs(draws.log_z.value - LOG_Z) < SIGMAS * draws.log_z.std_error + 1e-3
    assert draws.verdict().word == "trusted"


NARROW = np.array([1.0, 0.01, 0.001])  # spreads of two modes along each other, in three turned dimensions
APART = 12.0


def needles(cls=am.Target):
    turn = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))[0]
    whiten, means = jnp.asarray((turn / NARROW).T, jnp.float32), jnp.asarray([0 * turn[:, 0], APART * turn[:, 0]])

    def log_prob(x):
        away = jnp.matmul(x - means.astype(jnp.float32), whiten.T, precision="highest")
        return jax.nn.logsumexp(jnp.log(jnp.asarray([0.7, 0.3])) - 0.5 * jnp.sum(away**2, axis=1))

    mixture = GaussianMixture(*(jnp.asarray(a, jnp.float32) for a in ([0.0], [np.zeros(3)], [turn], [NARROW**2])))
    return cls(log_prob, 3, name="needles"), mixture, turn[:, 0]


@pytest.mark.trains
def test_climbs_from_beyond_a_mode_find_one_that_lies_along_it():
    """Its gradients are a maze, but not where the known one is round; all is counted."""
    density, mixture, along = needles(Counting)
    frame = Frame.of(density, np.zeros(3), np.ones(3))
    ends, spent = climb_from_beyond(density, frame, mixture, jax.random.key(0), 64)
    jax.block_until_ready(ends.z)
    assert int(spent.log_prob) == density.total
    far = np.asarray(ends.z, float) @ along
    is_second = np.abs(far - APART) < 5.0
    assert 5 < np.sum(is_second) < 150
    assert np.sum(np.abs(far) < 5.0) > 5
    np.testing.assert_allclose(ends.log_prob, density.values(ends.z), atol=2e-2)
    assert np.mean(np.asarray(ends.log_prob)[is_second] > np.log(0.3) - 12.0) > 0.5


def test_points_of_no_mass_shape_no_component_and_ask_for_none():
    """Half of the points far out, where the density is 60 nats down: noise."""
    z = np.concatenate(
        [np.asarray(mixture().sample(jax.random.key(0), 400)), 8.0 + np.random.default_rng(0).normal(size=(400, 2))]
    )
    log_prob = np.concatenate([log_density(z[:400]), np.full(400, -60.0)])
    points = Buffer(*(jnp.asarray(a, jnp.float32) for a in (z, log_prob, np.zeros_like(z))))
    again = refit(mixture(), points)
    np.testing.assert_allclose(np.sort(again.variance, axis=1), np.sort(VARIANCES, axis=1), rtol=0.5)
    assert not unexplained(mixture(), points).any()
    near = dataclasses.replace(points, log_prob=jnp.where(points.log_prob == -60.0, -3.0, points.log_prob))
    assert unexplained(mixture(), near)[400:].all()  # so many nats up they could be a mode


def test_points_of_no_mass_give_way_to_draws_and_modes_that_the_mixture_lacks_do_not():
    lacking = dataclasses.replace(mixture(), log_share=jnp.log(jnp.array([0.67, 0.33, 0.0])))
    z = np.concatenate([np.full((50, 2), 9.0), np.tile(MEANS[2], (50, 1)), MEANS[[0, 1]].repeat(50, axis=0)])
    log_prob = np.concatenate([np.full(50, -60.0), log_density(z[50:])])
    points = Buffer(*(jnp.asarray(a, jnp.float32) for a in (z, log_prob, np.zeros_like(z))))
    moved = propose(target(), Frame(jnp.zeros(2), jnp.ones(2)), lacking, points, jnp.arange(200), jax.random.key(0))[1]
    assert not np.any(moved.z[:50] == 9.0)
    assert np.all(moved.z[50:100] == points.z[50:100])


def test_draws_of_a_base_need_no_path():
    """Weights are density over base, whatever the base lacks; of the base itself all are one."""
    sampler = am.fit(target(), am.IWSM(buffer=4096, opinion=0.0), key=0, progress=False)
    assert int(sampler.state.step) == sampler.steps == 0
    draws = sampler.sample(2000, key=1)
    q = sampler.process.denoiser.base.log_density(sampler.frame.to_z(draws.x)) - sampler.frame.log_det
    np.testing.assert_allclose(draws.log_weight, draws.log_prob - q, atol=2e-3)
    assert standard_errors_off(np.exp(np.asarray(draws.log_weight, float)), np.exp(LOG_Z)) < 4.0
    np.testing.assert_allclose(sampler.log_weights(draws.x, key=jax.random.key(2)), draws.log_weight, atol=2e-3)
    by_paths = sampler.sample(2000, key=1, steps=20)
    assert by_paths.log_z.value == pytest.approx(draws.log_z.value, abs=0.05)
    with pytest.raises(am.ConfigError, match="steps of at least 2, got n=10, steps=1"):
        sampler.sample(10, key=1, steps=1)


def test_strays_in_the_flank_of_a_mode_move_before_they_dispute_it_and_a_lost_mode_stays():
    """Points six standard deviations out, where no draw is, would be a fiftieth of the mass: they
    say nothing any more. Those of a mode that the mixture lacks stay, and where nothing is disputed
    nothing is spent.
    """
    rng = np.random.default_rng(0)
    far = rng.normal(size=(40, 2))
    far *= 6.0 / np.linalg.norm(far, axis=1, keepdims=True)
    at_home, lost = rng.normal(size=(2000, 2)), rng.normal(size=(60, 2)) + 20.0

    target, frame = TWO_FAR_APART, Frame(jnp.zeros(2), jnp.ones(2))
    narrow = GaussianMixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.eye(2)[None], jnp.full((1, 2), 0.9))
    draws = narrow.sample(jax.random.key(1), 4000)
    pool = Pool().plus(Parts.of_mixture(narrow), Buffer.of(draws, target.evaluate(draws)))

    def moved(z):
        z = jnp.asarray(z, jnp.float32)
        points = Buffer.of(z, target.evaluate(z))
        return base._strays_moved(target, frame, narrow, points, pool, jax.random.key(2))

    points, spent = moved(np.concatenate([at_home, far, lost]))
    x = np.asarray(points.z)
    assert np.sum(np.linalg.norm(x - 20.0, axis=1) < 6.0) == 60
    assert np.sum((np.linalg.norm(x, axis=1) > 4.5) & (x.sum(1) < 20.0)) <= 1
    assert int(spent.log_prob) == base.MOVED_OF_FEW * 2 * base.MOVES
    assert int(moved(np.asarray(narrow.sample(jax.random.key(3), 1000)))[1].log_prob) == 0


TWO_FAR_APART = am.Target(
    lambda x: jnp.logaddexp(-0.5 * jnp.sum(x**2), -0.5 * jnp.sum((x - 20.0) ** 2)), 2, name="two-far-apart"
)
ONE_OF_THEM = GaussianMixture(
    jnp.asarray([0.0, -jnp.inf]), jnp.zeros((2, 2)), jnp.broadcast_to(jnp.eye(2), (2, 2, 2)), jnp.ones((2, 2))
)


def test_two_points_in_thousands_of_a_mode_that_the_mixture_lacks_are_not_left_out():
    """They belong to a component that has points enough, of which half are left out."""
    z = np.random.default_rng(0).normal(size=(2 * base.DRAWS, 2))
    z[[3, 4000]] = [[20.0, 20.5], [19.5, 20.0]]
    points = Buffer.of(jnp.asarray(z, jnp.float32), TWO_FAR_APART.evaluate(jnp.asarray(z, jnp.float32)))
    for i in range(4):
        kept = np.asarray(base._evened_with_missing(ONE_OF_THEM, points, jax.random.key(i)).z)
        assert len(kept) == base.DRAWS
        assert sorted(kept[-2:, 0]) == [19.5, 20.0]  # last, so that they move where not all points do


@pytest.mark.parametrize(("lost", "phases"), [(0, [False]), (2, [False, True])])
def test_good_draws_do_not_settle_it_while_points_are_unexplained(lost, phases, monkeypatch):
    """Draws of a mixture that lacks a mode may all be effective."""
    seen = []

    def rounds(target, found, mixture, pool, key, has_moved):
        seen.append(has_moved)
        drawn = mixture.sample(key, 500)
        return base.Base(mixture, 0.95), pool.plus(Parts.of_mixture(mixture), Buffer.of(drawn, evaluate(drawn))), found

    evaluate = TWO_FAR_APART.evaluate
    monkeypatch.setattr(base, "_rounds", rounds)
    z = np.random.default_rng(0).normal(size=(2000, 2))
    z[:lost] += 20.0
    start = found(TWO_FAR_APART, jnp.asarray(z, jnp.float32))
    base.improved(TWO_FAR_APART, start, ONE_OF_THEM, jax.random.key(0))
    assert seen == phases


def test_points_of_a_mode_that_the_mixture_lacks_move_to_where_its_mass_is():
    """In its flank, as climbs end, they would say that a component as small as they are spread is
    all of it.
    """
    rng = np.random.default_rng(0)
    z = rng.normal(size=(1000, 2))
    z[:4] = 20.0 + np.array([4.5, 0.0]) + 0.01 * rng.normal(size=(4, 2))
    frame, z = Frame(jnp.zeros(2), jnp.ones(2)), jnp.asarray(z, jnp.float32)
    points = Buffer.of(z, TWO_FAR_APART.evaluate(z))
    more, moved, spent = base._with_moved(TWO_FAR_APART, frame, ONE_OF_THEM, points, jax.random.key(1))
    assert int(spent.log_prob) == base.MOVED_OF_FEW * 2 * base.MOVES
    away = np.linalg.norm(np.asarray(moved.z)[:4] - 20.0, axis=1)
    assert np.all(away < 4.3)
    np.testing.assert_array_equal(moved.z[4:], points.z[4:])
    assert np.isfinite(more.log_share[1])
    # Nothing is missing: nothing moves.
    same, there, none = base._with_moved(
        TWO_FAR_APART, frame, ONE_OF_THEM, points.take(jnp.arange(4, 1000)), jax.random.key(1)
    )
    assert same is ONE_OF_THEM
    assert there.size == 996
    assert int(none.log_prob) == 0


def test_a_single_draw_is_not_proposed_all_the_time():
    """One where the mixture is far above what it was drawn from, and the density is not."""
    z = jnp.asarray(np.random.default_rng(0).normal(size=(1000, 1)), jnp.float32)
    old = GaussianMixture(jnp.zeros(1), jnp.zeros((1, 1)), jnp.ones((1, 1, 1)), jnp.ones((1, 1)))
    spike = jnp.asarray([[3.5]])
    draws = jnp.concatenate([z, spike])
    log_prob = -0.5 * draws[:, 0] ** 2
    pool = Pool().plus(Parts.of_mixture(old), Buffer(draws, log_prob, -draws))
    both = GaussianMixture(
        jnp.log(jnp.asarray([0.999, 0.001])),
        jnp.asarray([[0.0], [3.5]]),
        jnp.ones((2, 1, 1)),
        jnp.asarray([[1.0], [1e-6]]),
    )
    points, copies = Buffer(z, log_prob[:-1], -z), 0
    for i in range(5):
        copies += np.sum(np.asarray(base._proposed_again(both, points, pool, jax.random.key(i)).z) == 3.5)
    assert copies <= 5


def test_draws_proposed_again_move_strays_and_leave_a_mode_that_the_mixture_lacks():
    """Where the search has met next to no mass no point stays; the lost mode keeps all of its."""
    rng = np.random.default_rng(0)
    at = lambda place, n: rng.normal(size=(n, 2)) + place  # noqa: E731
    z = jnp.asarray(np.concatenate([at(0.0, 600), at(9.0, 300), at(-9.0, 100)]), jnp.float32)

    def log_prob(z):
        known, lost = (-0.5 * jnp.sum((z - place) ** 2, -1) for place in (0.0, -9.0))
        return jnp.logaddexp(known, lost)

    one = GaussianMixture(jnp.zeros(1), jnp.zeros((1, 2)), jnp.eye(2)[None], jnp.ones((1, 2)))
    draws = one.sample(jax.random.key(1), 1000)
    pool = Pool().plus(Parts.of_mixture(one), Buffer(draws, log_prob(draws), -draws))
    points = base._proposed_again(one, Buffer(z, log_prob(z), -z), pool, jax.random.key(2))
    x = np.asarray(points.z)
    assert np.sum(np.abs(x - 9.0).max(1) < 5.0) == 0
    assert np.sum(np.abs(x + 9.0).max(1) < 5.0) == 100
    np.testing.assert_allclose(points.log_prob, log_prob(points.z), rtol=1e-5)
    np.testing.assert_allclose(np.mean(x[np.abs(x + 9.0).max(1) > 5.0], 0), 0.0, atol=0.2)
