"""The search for where a density has its mass: scale, location, typical sets, and what it says when
there is none."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counting

from allmodes import IWSM, Target, TargetError, interop
from allmodes.draws.verdict import CORRECT, TRUSTED
from allmodes.mcmc.mala import Moved, mala
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.search import mass
from allmodes.search.ascent import ascend
from allmodes.search.complete import BLOCK, NEIGHBOURS, Basins, chance_of_new, of_starts
from allmodes.search.effort import THOROUGH, WAVE, Search
from allmodes.search.moves import ascend_from, fewer
from allmodes.search.ridges import along_ridges, still_rising
from allmodes.search.scout import broad, scout
from allmodes.search.search import _Extent, search
from allmodes.search.slopes import PART, evaluator, price
from allmodes.search.told import where_told
from allmodes.target import Evaluation
from allmodes.targets import affine, funnel, gaussian_mixture, random_mixture, ring

pytestmark = pytest.mark.trains

SIZE = 512
WIDTHS = np.array([0.5, 1.0, 0.3])
MIXTURE = gaussian_mixture(np.array([[-4.0, 0.0], [3.0, 3.0], [2.0, -5.0]]), WIDTHS**2, [0.2, 0.3, 0.5])


def normal(x):
    return -0.5 * jnp.sum(x**2)


def half_space(x):
    return jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), -jnp.inf)


def half_space_of_nan(x):
    return jnp.where(x[0] < 1, -0.5 * jnp.sum(x**2), jnp.nan)


def found(target, key=0):
    """The result, and its points in the user's coordinates."""
    result = search(target, jax.random.key(key), SIZE)
    x = np.asarray(result.frame.to_x(result.points.z), float)
    assert x.shape == (SIZE, target.dim)
    assert np.all(np.isfinite(x))
    assert np.all(np.isfinite(result.points.log_prob))
    assert np.all(np.isfinite(result.points.grad))
    # The frame is of the points.
    np.testing.assert_allclose(np.mean(result.points.z, axis=0), 0.0, atol=1e-3)
    np.testing.assert_allclose(np.std(result.points.z, axis=0), 1.0, atol=1e-3)
    assert 0 < result.step_size < 100
    assert np.all(np.asarray(result.tau) > 0)
    assert int(result.evaluations.gradient) > SIZE
    assert int(result.evaluations.log_prob) == int(result.evaluations.gradient) + 2 * 64  # of rays
    return result, x


def stored_values_are_true(result, target, atol):
    e = jax.jit(lambda z: result.frame.evaluate(target, z))(result.points.z)
    np.testing.assert_allclose(result.points.log_prob, e.log_prob, atol=atol)
    np.testing.assert_allclose(result.points.grad, e.grad, atol=atol * 10)


def test_standard_normal():
    dim = 10
    target = Target(normal, dim)
    result, x = found(target)
    # Forty moves after the climb the points are a sample: standard errors of its mean and standard
    # deviation, and as much again for what is left of the start.
    assert np.all(np.abs(result.frame.location) < 10 / np.sqrt(SIZE))
    assert np.all(np.abs(np.asarray(result.frame.scale) - 1) < 10 / np.sqrt(2 * SIZE))
    # At equilibrium, neither on top of the mode nor far out: E|grad|^2 = dim, and the narrowest
    # scale is one.
    gradient = np.mean(np.sum(x**2, axis=1))
    assert abs(gradient / dim - 1) < 10 * np.sqrt(2 / dim / SIZE)
    np.testing.assert_allclose(result.tau, 1.0, atol=0.3)
    assert result.edges == 0
    stored_values_are_true(result, target, 1e-4)
    # Little is spent: 100 evaluations a point and scout.
    assert int(result.evaluations.log_prob) < 100 * (SIZE + 1024)


@functools.cache
def mixture_at(scale, shift):
    target = affine(MIXTURE, scale, shift)
    return target, *found(target)


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-2, 0.0), (1e3, 0.0), (1.0, 1e4)])
def test_mixture_at_any_scale_and_place(scale, shift):
    _, one, x_one = mixture_at(1.0, 0.0)
    target, result, x = mixture_at(scale, shift)
    # Every mode, each in its own typical set, wherever the density lies.
    mode = target.modes.assign(x)
    assert set(mode) == {0, 1, 2}
    counts = np.bincount(mode)
    x = (x - shift) / scale
    for m in range(3):
        radius = np.sum((x[mode == m] - MIXTURE.modes.means[m]) ** 2, axis=1) / WIDTHS[m] ** 2
        assert 1.0 < np.mean(radius) < 3.0  # 2 at equilibrium
    # The same box and the same shares of points as at scale one, within standard errors of two
    # samples.
    reference = np.bincount(MIXTURE.modes.assign(x_one))
    error = np.sqrt(2 * reference / SIZE * (1 - reference / SIZE) * SIZE)
    assert np.all(np.abs(counts - reference) < 5 * error + 1e-9)
    np.testing.assert_allclose(np.asarray(result.frame.scale, float) / scale, one.frame.scale, rtol=0.2)
    np.testing.assert_allclose((np.asarray(result.frame.location, float) - shift) / scale, one.frame.location, atol=1.0)
    np.testing.assert_allclose(result.tau, one.tau, rtol=0.25)


def test_stored_values_in_the_final_frame():
    target, result, _ = mixture_at(1e3, 0.0)
    stored_values_are_true(result, target, 1e-2)


def test_stored_values_far_from_the_origin():
    # Rounding x at 1e4 (1e-3 apart in float32), with gradients of up to 3 / 0.3.
    target, result, _ = mixture_at(1.0, 1e4)
    stored_values_are_true(result, target, 3e-2)


def test_hard_edge():
    result, x = found(Target(half_space, 2))
    assert np.all(x[:, 0] > 0)
    assert x[:, 0].min() < 0.1  # up to the edge
    assert 0.01 < result.edges < 0.5
    assert int(result.evaluations.zero) > 0
    assert int(result.evaluations.nan) == 0
    np.testing.assert_allclose(x[:, 0].mean(), np.sqrt(2 / np.pi), atol=10 * np.sqrt((1 - 2 / np.pi) / SIZE))
    np.testing.assert_allclose(x[:, 1].std(), 1.0, atol=10 / np.sqrt(2 * SIZE))


@functools.cache
def nan_region():
    return found(Target(half_space_of_nan, 1))


def test_region_of_nan():
    result, x = nan_region()
    assert np.all(x < 1)
    assert int(result.evaluations.nan) > 0
    assert int(result.evaluations.zero) == 0
    # Of N(0, 1) given x < 1: mean -phi(1) / Phi(1), variance 1 - phi(1) / Phi(1) - mean^2.
    ratio = np.exp(-0.5) / np.sqrt(2 * np.pi) / (0.5 * math.erfc(-1 / math.sqrt(2)))
    variance = 1 - ratio - ratio**2
    np.testing.assert_allclose(x.mean(), -ratio, atol=10 * np.sqrt(variance / SIZE))
    np.testing.assert_allclose(x.std(), np.sqrt(variance), rtol=10 / np.sqrt(2 * SIZE))


def test_edge_of_a_region_of_nan_is_an_edge():
    # As in log(x), which is NaN and not -inf for x < 0: the target-score identity fails on it all
    # the same.
    assert nan_region()[0].edges > 0.01


def test_nothing_found():
    with pytest.raises(TargetError, match=r"no finite value at any of .* \(\d+ NaN or \+inf, 0 -inf\)") as error:
        search(Target(lambda x: jnp.nan * x[0], 2), jax.random.key(0), SIZE)
    assert "\n" not in str(error.value)
    assert "location=.., scale=.." in str(error.value)


def test_hints_reach_what_a_search_from_the_origin_cannot():
    def island(x):
        d = (x - 2e6) / 3.0
        return jnp.where(jnp.sum(d**2) < 100, -0.5 * jnp.sum(d**2), -jnp.inf)

    with pytest.raises(TargetError, match=r"no finite value .* \(0 NaN or \+inf, \d+ -inf\)"):
        scout(Target(island, 2), jax.random.key(0))
    box, _ = scout(Target(island, 2, location=2e6, scale=5.0), jax.random.key(0))
    np.testing.assert_allclose(box.location, 2e6, atol=6.0)
    assert np.all((np.asarray(box.scale) > 2) & (np.asarray(box.scale) < 20))


def test_ring_all_around():
    result, x = found(ring(3.0, 0.25))
    radius, angle = np.linalg.norm(x, axis=1), np.arctan2(x[:, 1], x[:, 0])
    np.testing.assert_allclose(radius.mean(), 3.0, atol=0.15)
    np.testing.assert_allclose(radius.std(), 0.25, atol=0.1)
    assert np.bincount(np.floor((angle + np.pi) / (np.pi / 4)).astype(int), minlength=8)[:8].min() > SIZE / 8 / 3
    np.testing.assert_allclose(result.tau * result.frame.scale, 0.25 * np.sqrt(2), rtol=0.3)


def test_funnel_is_not_all_neck():
    # The density has its peak deep in the neck, where there is no mass: the first coordinate is
    # N(0, 9).
    target = funnel(10)
    _, x = found(target)
    assert np.mean(x[:, 0] > -9) > 0.95
    # The others are at equilibrium given the first.
    ratio = x[:, 1:] ** 2 / np.exp(x[:, :1])
    assert 0.5 < np.median(np.mean(ratio, axis=1)) < 2.0


def test_broad_spreads_points_over_the_box():
    target = affine(MIXTURE, 10.0, 3.0)
    result = broad(target, jax.random.key(1), SIZE)
    z = np.asarray(result.points.z, float)
    assert np.all(np.abs(z) <= 1)
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=5 / np.sqrt(3 * SIZE))
    np.testing.assert_allclose(np.mean(z**2, axis=0), 1 / 3, atol=5 * np.sqrt(4 / 45 / SIZE))
    means = (np.asarray(10 * MIXTURE.modes.means + 3) - result.frame.location) / result.frame.scale
    assert np.all(np.abs(means) < 1)
    stored_values_are_true(result, target, 1e-2)


SCALES = 10.0 ** np.array([4.0, -4.0, 0.0, 2.0, -2.0])


@functools.cache
def two_modes_of_unequal_scales():
    return gaussian_mixture(np.array([np.zeros(5), 5.0 * SCALES]), np.stack([SCALES**2] * 2), [0.35, 0.65])


@pytest.mark.parametrize("key", range(3))
def test_the_box_is_no_wider_than_modes_where_scouts_sit_on_a_ridge(key):
    """Scouts start a distance of 10^4 at most from the origin, where the widest coordinate has next
    to no slope: by slopes alone the box was 10^4 times as wide as a mode, and climbs got nowhere.
    """
    box, _ = scout(two_modes_of_unequal_scales(), jax.random.key(key), Search())
    wide = np.asarray(box.scale) / SCALES
    assert wide.min() > 1.0
    assert wide.max() < 10.0


@pytest.mark.parametrize("key", [6, 17])
def test_modes_of_unequal_scales_keep_their_points(key):
    """In the wider box most points had not arrived, and all of the heavier mode were left out."""
    target, method = two_modes_of_unequal_scales(), IWSM()
    found = search(target, jax.random.key(key), method.buffer, method.search)
    mode = np.asarray(target.modes.assign(np.asarray(found.frame.to_x(found.points.z))))
    assert np.bincount(mode[mode >= 0], minlength=2).min() > len(mode) / 20


def test_search_is_deterministic_and_fills_a_larger_buffer_with_copies():
    _, result, _ = mixture_at(1.0, 0.0)
    again = search(
        affine(MIXTURE, 1.0, 0.0), jax.random.key(0), SIZE + 88, dataclasses.replace(THOROUGH, starts=SIZE)
    ).filled(SIZE + 88)
    assert again.points.z.shape == (SIZE + 88, 2)
    for new, old in zip(jax.tree.leaves(again.points), jax.tree.leaves(result.points), strict=True):
        assert np.array_equal(new[:SIZE], old)
        assert np.array_equal(new[SIZE:], old[:88])
    assert int(again.evaluations.log_prob) == int(result.evaluations.log_prob)


def test_climbs_that_have_settled_cost_nothing_more():
    """They end where they would by themselves: nearly all at a wide peak next to them, some far
    off."""
    scale = np.where(np.arange(SIZE) % 10, 1.0, 1e4)
    z = jnp.asarray(scale[:, None] * np.random.default_rng(0).normal(size=(SIZE, 3)), jnp.float32)
    frame = Frame.of(Target(normal, 3), np.zeros(3), np.ones(3))

    def climb(z):
        none = Evaluations.none()
        evaluate = lambda z, _: frame.evaluate(Target(normal, 3), z)  # noqa: E731
        return ascend(evaluate, z, jnp.full(len(z), 0.1), 200, none, jax.random.key(0))

    together = climb(z)
    assert np.mean(together.settled) >= 0.99
    spent = int(together.evaluations.log_prob)
    assert spent < 0.6 * SIZE * int(together.steps)
    for i in (0, 10, 500):
        np.testing.assert_allclose(climb(z[i : i + 1]).points.z[0], together.points.z[i], rtol=1e-4, atol=1e-4)


def test_waves_of_starts_end_when_none_is_alone():
    """On three modes after the first; with a bound that so few starts cannot meet, after all."""
    few = Search(scouts=128, starts=3 * WAVE, moves=6, keep=6, unseen=0.01)
    seen = search(affine(MIXTURE, 1.0, 0.0), jax.random.key(0), 3 * WAVE, few)
    assert seen.points.size == WAVE
    assert seen.passed.size == 6 * WAVE
    many = dataclasses.replace(few, unseen=1e-6)
    all_of_them = search(affine(MIXTURE, 1.0, 0.0), jax.random.key(0), 3 * WAVE, many)
    assert all_of_them.points.size == 3 * WAVE
    assert int(all_of_them.evaluations.log_prob) > 2 * int(seen.evaluations.log_prob)
    stored_values_are_true(all_of_them, MIXTURE, 1e-2)
    stored_values_are_true(all_of_them._replace(points=all_of_them.passed), MIXTURE, 1e-2)


def test_points_are_kept_of_no_more_moves_than_there_are():
    found = search(affine(MIXTURE, 1.0, 0.0), jax.random.key(0), 256, Search(128, 256, moves=3, keep=8))
    assert found.passed.size == 3 * 256


def ends_of(target, middle, number, key, dim):
    """Draws of unit normals about places, as ends of so many starts each."""
    z = jnp.repeat(jnp.asarray(middle, jnp.float32), jnp.asarray(number), axis=0)
    z = z + jax.random.normal(key, (sum(number), dim))
    return Buffer(z, target.values(z), jnp.zeros_like(z))


@pytest.mark.parametrize("dim", [2, 30])
def test_starts_that_are_alone(dim):
    """Two of 300, in modes of their own beside two, in 2 and in 30 dimensions, where draws of one
    mode are as far apart as modes may be; no longer when another start comes there.
    """
    middle = np.zeros((4, dim), np.float32)
    middle[:, :2] = [[-5, 5], [5, 5], [9, -9], [-9, -9]]
    target = Counting(lambda x: jax.nn.logsumexp(-0.5 * jnp.sum((x - middle) ** 2, axis=1)), dim)
    basins = Basins(target, Frame.of(target, jnp.zeros(dim), jnp.ones(dim)))
    ends = ends_of(target, middle, [150, 148, 1, 1], jax.random.key(0), dim)
    before = target.total
    basins.add(ends, jnp.ones(300, bool))
    assert (basins.alone, basins.starts) == (2, 300)
    assert basins.chance_of_new == chance_of_new(2, 300)
    assert int(basins.evaluations.log_prob) == target.total - before < 300 + NEIGHBOURS * BLOCK + 100
    assert int(basins.evaluations.gradient) == 0
    basins.add(ends_of(target, middle, [0, 10, 10, 0], jax.random.key(1), dim), jnp.ones(20, bool))
    assert (basins.alone, basins.starts) == (1, 320)
    basins.add(ends_of(target, middle, [0, 0, 0, 10], jax.random.key(2), dim), jnp.zeros(10, bool))  # none arrives
    assert (basins.alone, basins.starts) == (1, 330)


def test_a_narrow_mode_on_the_flank_of_a_wide_one_is_alone():
    """Half way to it is above the wide one's ends, but far below what lies between two ends of one
    mode.
    """
    log_prob = lambda x: jnp.logaddexp(-0.5 * jnp.sum(x**2), 20.0 - 0.5 * jnp.sum((x - 2.0) ** 2) / 1e-4)  # noqa: E731
    target = Target(log_prob, 2)
    z = jnp.concatenate([jax.random.normal(jax.random.key(0), (99, 2)), jnp.full((1, 2), 2.0)])
    basins = Basins(target, Frame.of(target, jnp.zeros(2), jnp.ones(2)))
    basins.add(Buffer(z, target.values(z), z), jnp.ones(100, bool))
    assert basins.alone == 1


def test_what_ended_far_below_the_best_of_a_later_wave_is_no_basin():
    target = Target(lambda x: -0.5 * jnp.sum(x**2), 2)
    basins = Basins(target, Frame.of(target, jnp.zeros(2), jnp.ones(2)))
    low = jnp.asarray([[9.0, 0.0], [0.0, 9.0]])
    for z in (low, 0.1 * low):
        basins.add(Buffer(z, target.values(z), z), jnp.ones(2, bool))
    assert (basins.alone, basins.starts) == (0, 4)


def test_the_starts_of_later_waves_reach_as_far_as_the_first_have_found():
    """Modes along a line, of which the scouts know the middle: the second wave is spread over all
    that the first has met.
    """
    extent = _Extent(-jnp.ones(2), jnp.ones(2))
    points = Buffer(jnp.asarray([[3.0, 0.0], [0.0, -0.5], [9.0, 9.0]]), jnp.zeros(3), jnp.zeros((3, 2)))
    wider = extent.with_points(points, jnp.asarray([True, True, False]))
    np.testing.assert_allclose([*wider.middle, *wider.half], [1.0, 0.0, 2.0, 1.0])


def test_starts_are_drawn_where_the_target_says_its_mass_is():
    """By place and scale, in any frame; nothing of a target that tells one of them alone."""
    told = where_told(Target(normal, 2, location=[4.0, -2.0], scale=3.0), Frame(jnp.ones(2), 2.0 * jnp.ones(2)))
    np.testing.assert_allclose([*told.middle, *told.spread], [1.5, -1.5, 1.5, 1.5])
    assert where_told(Target(normal, 2, scale=3.0), Frame(jnp.ones(2), jnp.ones(2))) is None


def test_a_mode_that_few_of_a_prior_lead_to_is_met():
    """A narrow one beside a wide one in five dimensions of a unit cube, without a gradient: 6 % of
    the prior climb to it, and from the scouts' box alone none of 340 did.
    """
    means, stds = np.array([[3.0] * 5, [-3.0] * 5]), np.array([0.5, 1.0])

    def log_likelihood(x):
        each = [-0.5 * jnp.sum((x - m) ** 2) / s**2 for m, s in zip(means, stds, strict=True)]
        return jnp.logaddexp(*each)

    target = interop.nested.target(log_likelihood, lambda u: 20.0 * u - 10.0, 5)
    blind = dataclasses.replace(target.free, differentiable=False)
    result = search(blind, jax.random.key(1), 4096, Search())
    x = np.asarray(jax.vmap(target.chart.to_x)(result.frame.to_x(result.points.z)))
    assert np.sum(np.linalg.norm(x - means[0], axis=1) < 3.0) >= 3


def test_a_start_of_zero_density_costs_one_evaluation():
    """No gradient leads from there: of 400 starts around a box, those outside."""
    inside = lambda x: jnp.where(jnp.all(jnp.abs(x) < 1.0), -50.0 * jnp.sum(x**2), -jnp.inf)  # noqa: E731
    target = Target(inside, 2)
    frame, z = Frame.of(target, jnp.zeros(2), jnp.ones(2)), 3.0 * jax.random.normal(jax.random.key(0), (400, 2))
    c = ascend_from(target, frame, z, jnp.full(400, 0.1), 120, jax.random.key(1))
    lost = np.asarray(jnp.any(jnp.abs(z) >= 1.0, axis=1))
    assert np.mean(lost) > 0.8
    assert np.all(np.asarray(c.settled)[lost])
    np.testing.assert_array_equal(c.points.z[lost], z[lost])
    assert int(c.evaluations.log_prob) < 400 + 30 * 100


@pytest.mark.parametrize(("once", "starts"), [(0, 1024), (8, 2048)])
def test_the_chance_of_a_new_basin_is_no_less_than_goods_estimate(once, starts):
    assert once / starts < chance_of_new(once, starts) < once / starts + 4.0 * (once + 1.0) ** 0.5 / starts


def test_the_chance_of_a_new_basin_is_a_bound():
    """Of unequal basins the true chance is below it about nine times in ten."""
    rng, below = np.random.default_rng(1), 0
    chance = np.exp(-np.arange(60) / 6)
    chance /= chance.sum()
    for _ in range(300):
        count = np.bincount(rng.choice(60, 500, p=chance), minlength=60)
        below += chance[count == 0].sum() < chance_of_new(int(np.sum(count == 1)), 500)
    assert 250 < below < 290


def test_differences_find_the_modes_and_the_widths_of_a_density_without_a_gradient():
    target = Target(lambda x: jnp.logaddexp(*(-0.5 * jnp.sum((x - m) ** 2) / 0.04 for m in (-3.0, 9.0))), 2)
    blind = search(dataclasses.replace(target, differentiable=False), jax.random.key(0), 1024)
    seeing = search(target, jax.random.key(0), 1024)
    assert (int(blind.evaluations.gradient), int(seeing.evaluations.gradient) > 0) == (0, True)
    x = np.asarray(blind.frame.to_x(blind.points.z))
    assert np.all(np.abs(x - np.where(x[:, :1] > 3, 9.0, -3.0)) < 1.5)
    assert 0.2 < np.mean(x[:, 0] > 3) < 0.8
    assert np.std(x[x[:, 0] > 3]) == pytest.approx(0.2, rel=0.2)
    np.testing.assert_allclose(blind.frame.scale, seeing.frame.scale, rtol=0.2)
    ratio = np.asarray(blind.tau / seeing.tau)
    assert np.all((ratio > 0.4) & (ratio < 1.5))


def test_slopes_are_those_of_the_density_and_none_at_a_wall():
    """A quadratic between walls: over a distance of 1 a fiftieth is stepped."""
    inside = lambda x: jnp.where(x[0] < 1.0, -0.5 * x[0] ** 2 - 2.0 * (x[1] - 1.0) ** 2, -jnp.inf)  # noqa: E731
    target, frame = Target(inside, 2, differentiable=False), Frame(jnp.zeros(2), jnp.ones(2))
    z = jnp.asarray([[0.3, -0.5], [0.999, 1.0], [2.0, 0.0]])
    e = jax.jit(evaluator(target, frame))(z, jnp.asarray([1.0, 1.0, 1.0]))
    half = 0.5 * PART  # of a curvature, by which a slope ahead is steeper
    np.testing.assert_allclose(e.grad, [[-0.3 - half, 6.0 - 4 * half], [0.0, -4 * half], [0.0, 0.0]], atol=2e-4)
    assert (price(target), int(e.zero)) == (3, 1 + 1 + 2)


def test_a_search_without_gradients_counts_what_slopes_cost():
    asked = []

    def log_prob(x):
        jax.debug.callback(lambda _: asked.append(1), x[0])
        return -0.5 * jnp.sum(x**2)

    blind = Target(log_prob, 5, differentiable=False)
    found = search(blind, jax.random.key(0), 4096, Search(scouts=32, starts=256, moves=2))
    jax.effects_barrier()
    assert len(asked) == int(found.evaluations.log_prob)
    assert (fewer(blind, 1024), fewer(blind, 512), fewer(Target(log_prob, 5), 1024)) == (170, 128, 1024)


def test_an_island_is_found_without_a_gradient():
    island = Target(lambda x: jnp.where(jnp.sum(x**2) < 1.0, -0.5 * jnp.sum(x**2), -jnp.inf), 2, differentiable=False)
    found = search(island, jax.random.key(1), 512)
    assert np.all(np.isfinite(found.points.log_prob))
    assert found.edges > 0.01


def two_components():
    """The posterior of a mixture of two normals: basins in which one stands for nothing lie 35
    below its two modes."""
    rng = np.random.default_rng(0)
    data = jnp.asarray(np.concatenate([rng.normal(-2.0, 1.0, 60), rng.normal(2.0, 1.0, 30)]), jnp.float32)

    def log_prob(x):
        mu, log_sd, share = x[:2], x[2:4], jax.nn.log_sigmoid(jnp.array([x[4], -x[4]]))
        each = share - log_sd - 0.5 * ((data[:, None] - mu) / jnp.exp(log_sd)) ** 2
        prior = -0.5 * jnp.sum((mu / 5.0) ** 2) - 0.5 * jnp.sum(jnp.exp(2 * log_sd) / 4.0) + jnp.sum(log_sd)
        return prior + jnp.sum(share) + jnp.sum(jax.nn.logsumexp(each, axis=1))

    return Target(log_prob, 5)


def test_basins_of_next_to_no_mass_are_left():
    found = search(two_components(), jax.random.key(0), 1024)
    assert np.mean(found.points.log_prob > np.max(found.points.log_prob) - 20.0) > 0.5
    x = np.asarray(found.frame.to_x(found.points.z))
    right = (
        np.mean(np.abs(x[:, :2] - [2.0, -2.0]).max(axis=1) < 1.0),
        np.mean(np.abs(x[:, :2] - [-2.0, 2.0]).max(1) < 1.0),
    )
    assert min(right) > 0.1


def test_points_for_a_mixture_make_no_rounds_towards_more_mass():
    """The same basins: every start makes the moves that it was told to, and no more."""
    plain = Search(128, 1024, moves=6, keep=0)
    rounds, kept = (
        search(two_components(), jax.random.key(0), 1024, spent).evaluations.booked["moves"]
        for spent in (plain, dataclasses.replace(plain, keep=6))
    )
    assert int(kept) == 1024 * 6 < int(rounds)


def test_along_a_ridge_points_come_where_steps_of_one_length_do_not():
    widths = jnp.geomspace(0.05, 1.0, 8)

    def evaluate(z, _):
        return Evaluation(-0.5 * jnp.sum((z / widths) ** 2, axis=1), -z / widths**2, jnp.int32(0), jnp.int32(0))

    start = widths * jax.random.normal(jax.random.key(0), (64, 8)).at[:, -1].set(10.0)
    points = Buffer.of(start, evaluate(start, None))
    way = along_ridges(evaluate, points, 64, Evaluations.none())
    steepest, flattest = 1.0 / np.min(widths) ** 2, 1.0 / np.max(widths) ** 2
    left = (1.0 - 2.0 / (1.0 + steepest / flattest)) ** 64  # of the way, by the best length for all steps
    assert -0.5 * (10.0 * left) ** 2 < -20.0
    assert float(jnp.quantile(way.points.log_prob, 0.1)) > -5.0
    assert int(way.evaluations.log_prob) == 64 * 64
    assert np.all((way.narrow > 0.9 / steepest) & (way.narrow < 10.0 / steepest))  # for local moves to begin with


def curved_ridge():
    """A normal of deviation 2 at 40, along a ridge that goes from side to side, .2 wide."""

    def log_prob(x):
        across = (x[1] - 3.0 * jnp.sin(0.2 * x[0])) / 0.2
        return -0.5 * (((x[0] - 40.0) / 2.0) ** 2 + across**2 + jnp.sum(x[2:] ** 2))

    return Counting(log_prob, dim=6, scale=50.0)


@pytest.mark.parametrize("moves", [8, 12])  # more than there are after a ridge: all are kept all the same
def test_climbs_that_have_ended_on_a_ridge_go_on_along_it(moves):
    density = curved_ridge()
    found = search(density, jax.random.key(0), 4096, Search(moves=moves, keep=moves))
    x = np.asarray(found.frame.to_x(found.points.z))
    assert np.mean(np.abs(x[:, 0] - 40.0) < 6.0) > 0.98  # three deviations; two of three without
    assert found.passed.size == moves * found.points.size
    assert int(found.evaluations.log_prob) == density.total


def test_points_that_have_arrived_in_a_basin_of_no_mass_stay(monkeypatch):
    def along(*_):
        raise AssertionError("climbs went on along a ridge")

    monkeypatch.setattr("allmodes.search.search.some_along_ridges", along)
    means = jnp.asarray([[-20.0, 0.0, 0.0, 0.0], [20.0, 0.0, 0.0, 0.0]])

    def log_prob(x):
        return jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, axis=1) + jnp.asarray([0.0, -60.0]))

    density = Counting(log_prob, dim=4, scale=30.0)
    found = search(density, jax.random.key(0), 4096, Search(moves=8, keep=8))
    x = np.asarray(found.frame.to_x(found.points.z))
    assert np.all(x[:, 0] < 0.0)
    assert int(found.evaluations.log_prob) == density.total


def test_points_in_the_typical_set_of_a_mode_rise_no_more_than_they_fall():
    z = jax.random.normal(jax.random.key(0), (4096, 5))

    def evaluate(z, _):
        return Evaluation(-0.5 * jnp.sum(z**2, axis=1), -z, jnp.int32(0), jnp.int32(0))

    for start, low, high in ((z, 0.45, 0.55), (3.0 * z, 0.9, 1.0)):
        points = Buffer.of(start, evaluate(start, None))
        moved = mala(evaluate, points, jnp.full(4096, 0.05), jax.random.key(1), 8, 8)
        assert low < still_rising(moved) < high


def test_a_wide_mode_counts_as_much_as_a_narrow_one_of_its_mass():
    scale = np.repeat([[0.05], [5.0]], 500, axis=0)  # 23 lower, in five dimensions
    z = scale * np.random.default_rng(0).normal(size=(1000, 5))
    log_prob = -0.5 * np.sum((z / scale) ** 2, axis=1) - 5.0 * np.log(scale[:, 0])
    moved = Moved(None, None, None, None, None, jnp.asarray(log_prob), jnp.asarray(1.0 / scale**2 * np.ones(5)))
    moved = moved._replace(points=Buffer(*(jnp.asarray(a, jnp.float32) for a in (z, log_prob, z))))
    short = np.asarray(mass.shortfall(moved)).reshape(2, 500).mean(axis=1)
    reach = 5.0 * np.log(1.25 / 5.0)  # the box is narrower than the wide one
    assert short[1] - short[0] == pytest.approx(-reach, abs=0.5)


IMPROPER = {
    "flat": Target(lambda x: 0.0 * jnp.sum(x), 2),
    "one coordinate flat": Target(lambda x: -0.5 * x[0] ** 2, 2),
    "a half-space": Target(lambda x: -jnp.sum(jax.nn.softplus(-x)), 3),
}
PROPER = {
    "Cauchy": Target(lambda x: -1.5 * jnp.log1p(jnp.sum(x**2)), 2),
    "a funnel without a bottom": Target(
        lambda x: -jnp.log1p(jnp.exp(2 * x[0])) - 0.5 * (x[1] * jnp.exp(-x[0])) ** 2, 2
    ),
    "a floor that does not matter": Target(lambda x: jnp.log(jnp.exp(-0.5 * jnp.sum(x**2)) + 1e-30), 2),
    "a box": Target(lambda x: jnp.where(jnp.max(jnp.abs(x)) < 1.0, 0.0, -jnp.inf), 2),
}


@pytest.mark.parametrize("target", IMPROPER.values(), ids=IMPROPER.keys())
def test_a_density_without_a_finite_integral_is_warned_of(target):
    with pytest.warns(UserWarning, match=r"falls off too slowly along \d+ of 64 rays: its integral is infinite"):
        scout(target, jax.random.key(0))


@pytest.mark.parametrize("target", PROPER.values(), ids=PROPER.keys())
def test_a_heavy_tail_is_not(target):
    scout(target, jax.random.key(0))  # warnings are errors here


def test_what_a_search_says_of_its_completeness():
    assert of_starts(0, 0) == ()
    (found,) = of_starts(1024, 0)
    assert found.word == TRUSTED
    assert "fewer than 1 in 512 starts" in found.reason  # (0 + 2 sqrt(1)) / 1024
    (found,) = of_starts(1024, 300)
    assert found.word == CORRECT
    assert "300 of 1,024 starts" in found.reason
    assert "33%" in found.reason  # (300 + 2 sqrt(301)) / 1024


@pytest.mark.trains
def test_modes_in_many_dimensions_keep_their_points_however_roughly_masses_are_told():
    """Estimates of the mass around points err by nats for each coordinate: most points of these
    modes were once left out as of no mass, and with them modes.
    """
    target, method = random_mixture(7, 40, 32), IWSM()
    found = search(target, jax.random.key(0), method.buffer, method.search)
    points = found.points if found.passed is None else found.passed
    mode = np.asarray(target.modes.assign(np.asarray(found.frame.to_x(points.z))))
    assert np.bincount(mode[mode >= 0], minlength=40).min() > 0  # -1: on the way
