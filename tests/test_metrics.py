"""Metrics against closed forms; bounds are standard errors derived from the distribution at
hand."""

import dataclasses
import importlib
import itertools
import json
import threading
import time
from math import erf

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.draws.estimates import beyond_largest
from allmodes.errors import AllmodesError
from allmodes.jobs.evaluation import bounds_gap
from allmodes.metrics import (
    elbo,
    ess,
    eubo,
    evaluate,
    forward_ess,
    khat,
    log_z,
    mmd,
    mmd_mixture,
    mode_report,
    ratio,
    w2,
)
from allmodes.metrics._evaluate import plain
from allmodes.metrics.floor import summary
from allmodes.metrics.mode_weights import mode_floor
from allmodes.metrics.modes import low_beyond_chance
from allmodes.metrics.quantities import quantities
from allmodes.metrics.sliced import LINES, sliced_w2
from allmodes.target import Modes, Target
from allmodes.targets import get

RNG = np.random.default_rng


# W2


def test_w2_of_a_map_that_is_the_gradient_of_a_convex_function():
    x = RNG(0).normal(size=(300, 3))
    shift = np.array([1.0, -2.0, 2.0])
    assert w2(x, x + shift) == pytest.approx(3.0, rel=1e-12)
    matrix = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 3.0]])  # positive definite, so x -> A x is optimal
    mapped = x @ matrix + shift
    cost = np.sqrt(np.mean(np.sum((mapped - x) ** 2, axis=1)))
    assert w2(x, mapped[RNG(1).permutation(300)]) == pytest.approx(cost, rel=1e-12)
    assert w2(x, -x) < np.sqrt(np.mean(np.sum((2 * x) ** 2, axis=1))) - 0.5  # x -> -x is not


def test_w2_in_one_dimension_is_the_distance_of_sorted_points():
    x, y = RNG(2).normal(size=(400, 1)), RNG(3).exponential(size=(400, 1))
    assert w2(x, y) == pytest.approx(np.sqrt(np.mean((np.sort(x, 0) - np.sort(y, 0)) ** 2)), rel=1e-10)


def test_w2_does_not_see_order_and_is_zero_only_on_equal_sets():
    x, y = RNG(4).normal(size=(200, 2)), RNG(5).normal(size=(200, 2))
    assert w2(x, x[::-1]) == 0.0
    assert w2(x[RNG(6).permutation(200)], y) == pytest.approx(w2(x, y), rel=1e-12)
    assert w2(y, x) == pytest.approx(w2(x, y), rel=1e-12)
    assert w2(x, y) > 0.1


def test_w2_of_float32_draws_far_from_the_origin_loses_nothing():
    x, y = (RNG(s).normal(size=(300, 2)) for s in (7, 8))
    far_x, far_y = (jnp.asarray(z + 1e4, jnp.float32) for z in (x, y))
    near_x, near_y = (np.asarray(z, np.float64) - 1e4 for z in (far_x, far_y))  # the same rounded points
    assert w2(far_x, far_y) == pytest.approx(w2(near_x, near_y), rel=1e-9)
    for scale in (1e-4, 1e4):
        assert w2(scale * x, scale * y) == pytest.approx(scale * w2(x, y), rel=1e-9)


def test_w2_weights_are_multiplicities():
    x, y = RNG(9).normal(size=(60, 2)), RNG(10).normal(size=(150, 2))
    counts = RNG(11).integers(0, 4, size=60)
    assert w2(x, y, 1.0 * counts) == pytest.approx(w2(np.repeat(x, counts, axis=0), y), rel=1e-9)
    assert w2(x, y, 7.0 * counts) == pytest.approx(w2(x, y, 1.0 * counts), rel=1e-12)
    for bad in (np.zeros(60), np.full(60, np.nan), np.where(np.arange(60) == 0, -1.0, 1.0)):
        with pytest.raises(ValueError, match="weights"):
            w2(x, y, bad)


def test_w2_says_when_the_solver_did_not_converge():
    x, y = RNG(12).normal(size=(100, 2)), RNG(13).normal(size=(100, 2))
    with pytest.warns(UserWarning, match="numItermax"), pytest.raises(AllmodesError, match="did not converge in 3"):
        w2(x, y, max_iterations=3)


def test_w2_to_a_point_that_is_not_finite_is_infinite_unless_it_has_no_weight():
    x, y = RNG(14).normal(size=(50, 2)), RNG(15).normal(size=(50, 2))
    bad = x.copy()
    bad[3, 1] = np.nan
    assert w2(bad, y) == np.inf
    weights = np.where(np.arange(50) == 3, 0.0, 1.0)
    assert w2(bad, y, weights) == pytest.approx(w2(np.delete(x, 3, axis=0), y), rel=1e-9)


# Sliced W2


def test_sliced_w2_of_gaussians_in_closed_form():
    n, dim, std, mean = 10_000, 20, 1.5, np.r_[3.0, np.zeros(19)]
    x, y = RNG(16).normal(size=(n, dim)), mean + std * RNG(17).normal(size=(n, dim))
    # Along u they are N(0, 1) and N(u . mean, std^2); (u . mean)^2 has mean |mean|^2 / dim over
    # lines and about twice the square of that as variance. The floor adds about 6 / n.
    expected = mean @ mean / dim + (std - 1.0) ** 2
    error = np.sqrt(2 / LINES) * (mean @ mean) / dim + 4 * std / np.sqrt(n) * np.sqrt(expected)
    assert abs(sliced_w2(x, y) ** 2 - expected) < 3 * error < 0.5 * expected
    assert sliced_w2(x, std * x) ** 2 == pytest.approx((std - 1.0) ** 2, rel=0.02)  # |u . x|^2 is 1 on average


def test_sliced_w2_in_one_dimension_is_w2():
    x, y = RNG(18).normal(size=(300, 1)), RNG(19).exponential(size=(300, 1))
    assert sliced_w2(x, y) == pytest.approx(w2(x, y), rel=1e-9)
    assert sliced_w2(np.where(x > 2.0, np.nan, x), y) == np.inf
    for a, b in ((x, y[1:]), (x[:0], y[:0])):
        with pytest.raises(ValueError, match="two sets of one size"):
            sliced_w2(a, b)


def test_sliced_w2_sees_in_64_dimensions_what_w2_does_not():
    exact = lambda key, n: jax.random.normal(key, (n, 64))  # noqa: E731
    draws = np.asarray(exact(jax.random.key(20), 2000)) + np.r_[1.0, np.zeros(63)]
    plain, sliced = (ratio(m, draws, exact, jax.random.key(21), size=400, repeats=5) for m in (w2, sliced_w2))
    assert plain.ratio < 1.02
    assert sliced.ratio - 3 * sliced.ratio_se > 1.2


# MMD


def test_mmd_of_two_gaussians_in_closed_form():
    n, dim, h, repeats = 400, 2, 1.5, 30
    std_x, std_y, mean = 1.0, 1.5, np.array([0.8, 0.0])
    rng = RNG(20)

    def kernel(variance, distance2):  # E k(a, b) for a - b ~ N(m, variance I), |m|^2 = distance2
        return (h**2 / (h**2 + variance)) ** (dim / 2) * np.exp(-0.5 * distance2 / (h**2 + variance))

    k_xx, k_yy, k_xy = kernel(2 * std_x**2, 0), kernel(2 * std_y**2, 0), kernel(std_x**2 + std_y**2, mean @ mean)
    # The V-statistic's diagonal adds (1 - E k) / n for each of the sets.
    expected = k_xx + k_yy - 2 * k_xy + (1 - k_xx) / n + (1 - k_yy) / n
    squares = [
        mmd(std_x * rng.normal(size=(n, dim)), mean + std_y * rng.normal(size=(n, dim)), h) ** 2 for _ in range(repeats)
    ]
    error = np.std(squares, ddof=1) / np.sqrt(repeats)
    assert abs(np.mean(squares) - expected) < 3 * error
    assert error < 0.05 * expected  # the bound is tight enough to fail


def test_mmd_bandwidth_is_the_median_distance_within_the_reference():
    y = np.array([[0.0], [1.0], [3.0]])  # distances 1, 2, 3
    x = 10.0 * RNG(21).normal(size=(20, 1))
    assert mmd(x, y) == pytest.approx(mmd(x, y, 2.0), rel=1e-12)
    assert mmd(y, x) != pytest.approx(mmd(x, y), rel=1e-3)
    assert mmd(x, x[::-1]) == pytest.approx(0.0, abs=1e-7)
    with pytest.raises(ValueError, match="bandwidth"):
        mmd(x, y, 0.0)


def test_mmd_is_the_plain_double_sum_and_the_mixture_sums_its_kernels():
    x, y = RNG(22).normal(size=(30, 2)), 0.5 + RNG(23).normal(size=(40, 2))

    def gram(a, b, h):
        return np.exp(-0.5 * np.sum((a[:, None] - b) ** 2, axis=-1) / h**2).mean()

    squares = {h: gram(x, x, h) + gram(y, y, h) - 2 * gram(x, y, h) for h in (0.01, 0.1, 1.0, 10.0, 100.0)}
    assert mmd(x, y, 1.0) == pytest.approx(np.sqrt(squares[1.0]), rel=1e-10)
    assert mmd_mixture(x, y) == pytest.approx(np.sqrt(sum(squares.values())), rel=1e-10)


def test_mmd_counts_points_that_are_not_finite_as_far_away():
    x, y = RNG(24).normal(size=(100, 2)), RNG(25).normal(size=(100, 2))
    bad, far = x.copy(), x.copy()
    bad[:10], far[:10] = np.nan, 1e6 * (1 + np.arange(10))[:, None]
    assert mmd(bad, y) == pytest.approx(mmd(far, y), rel=1e-12)
    assert mmd(bad, y) > mmd(x, y)


# Modes


def line_modes(weights):
    """Mode i at x = i on a line; everything beyond is off."""
    count = len(weights)

    def assign(x):
        index = np.rint(x[:, 0]).astype(int)
        return np.where((index >= 0) & (index < count), index, -1)

    return Modes(weights=np.asarray(weights), assign=assign)


def test_mode_report_on_constructed_counts():
    modes = line_modes([0.5, 0.3, 0.2])
    x = np.repeat([0.0, 1.0, 9.0], [4, 4, 2])[:, None]
    report = mode_report(modes, x)
    np.testing.assert_allclose(report.weights, [0.4, 0.4, 0.0])
    assert report.off == pytest.approx(0.2)
    assert report.total_variation == pytest.approx(0.5 * (0.1 + 0.1 + 0.2) + 0.5 * 0.2)
    assert report.worst == pytest.approx(1.0)
    assert (report.found, report.missed) == (2, (2,))
    assert report.emc == pytest.approx(np.log(2) / np.log(3))


def test_mode_report_thresholds():
    modes = line_modes([0.4, 0.6])
    for in_first, found in ((20, 2), (19, 1)):  # of a hundred draws: exactly half of its share, and less
        x = np.repeat([0.0, 1.0], [in_first, 100 - in_first])[:, None]
        assert mode_report(modes, x).found == found
    perfect = mode_report(modes, np.repeat([0.0, 1.0], [4, 6])[:, None])
    assert perfect.total_variation == pytest.approx(0.0, abs=1e-12)
    assert (perfect.off, perfect.found, perfect.missed) == (0.0, 2, ())
    assert perfect.worst == pytest.approx(0.0, abs=1e-12)
    assert mode_report(line_modes([1.0]), np.zeros((5, 1))).emc == 1.0


def test_a_mode_is_low_beyond_chance_where_exact_draws_would_not_be():
    """Of ten thousand draws 24 are to be in the smallest of 25 modes."""
    true = np.full(25, 0.9976 / 24)
    true[0] = 0.0024
    rng = np.random.default_rng(0)
    sets = rng.multinomial(10_000, true, size=20_000) / 10_000
    chance = np.array([low_beyond_chance(one, true, 10_000).any() for one in sets])
    below_half = (sets < 0.5 * true).any(axis=1)
    assert below_half.mean() > 1e-3  # of exact draws
    assert chance.mean() < 2e-4
    none, few = true.copy(), true.copy()
    none[0], few[3] = 0.0, 0.4 * few[3]
    assert low_beyond_chance(none, true, 10_000).tolist() == [True] + 24 * [False]
    assert low_beyond_chance(few, true, 10_000)[3]
    assert not low_beyond_chance(0.6 * true, true, 10**6).any()  # more than half of its share
    assert not low_beyond_chance(none, true, 4000).any()  # ten are to be there: none is rare, but no proof


def test_mode_report_with_log_weights_equals_repeated_draws():
    modes = line_modes([0.5, 0.3, 0.2])
    x, counts = np.array([[0.0], [1.0], [2.0], [7.0], [0.0]]), np.array([3, 2, 1, 1, 0])
    weighted = mode_report(modes, x, jnp.log(jnp.asarray(counts, jnp.float32)) + 500.0)
    repeated = mode_report(modes, np.repeat(x, counts, axis=0))
    np.testing.assert_allclose(weighted.weights, repeated.weights, rtol=1e-4)  # float32 at 500
    for name in ("total_variation", "worst", "off", "emc"):
        assert getattr(weighted, name) == pytest.approx(getattr(repeated, name), abs=1e-4)


def test_mode_report_without_mass_or_with_nan_is_off_every_mode():
    modes = line_modes([0.5, 0.5])
    x = np.array([[0.0], [1.0], [np.nan], [np.inf]])
    report = mode_report(modes, x)
    assert (report.off, report.total_variation, report.found) == (0.5, 0.5, 2)
    nothing = mode_report(modes, x, np.full(4, -np.inf))
    assert (nothing.off, nothing.total_variation, nothing.found, nothing.emc) == (1.0, 1.0, 0, 0.0)


# Weights


N, MU, S = 20_000, -3.0, 0.7  # log w ~ N(MU, S^2): E w^k = exp(k MU + k^2 S^2 / 2)
LOG_W = MU + S * RNG(30).normal(size=N)
EXACT_LOG_W = MU + S**2 + S * RNG(31).normal(size=N)  # the same weights on draws from the target


def test_log_z_of_lognormal_weights_and_its_standard_error():
    estimate = log_z(LOG_W)
    true_error = np.sqrt((np.exp(S**2) - 1) / N)
    assert abs(estimate.value - (MU + S**2 / 2)) < 3 * true_error
    assert estimate.std_error == pytest.approx(true_error, rel=0.1)
    shifted = log_z(LOG_W + 5000.0)
    assert shifted.value == pytest.approx(estimate.value + 5000.0)
    assert shifted.std_error == pytest.approx(estimate.std_error)
    half_zero = log_z(np.concatenate([LOG_W, np.full(N, -np.inf)]))
    assert half_zero.value == pytest.approx(estimate.value - np.log(2))


def test_log_z_standard_error_is_the_delta_method():
    w = np.exp(LOG_W[:50])
    assert log_z(LOG_W[:50]).std_error == pytest.approx(w.std(ddof=1) / w.mean() / np.sqrt(50))


def test_elbo_and_eubo_bracket_log_z():
    bound = 3 * S / np.sqrt(N)
    lower, upper = elbo(LOG_W), eubo(EXACT_LOG_W)
    assert abs(lower.value - MU) < bound
    assert abs(upper.value - (MU + S**2)) < bound
    assert lower.std_error == pytest.approx(S / np.sqrt(N), rel=0.05)
    assert lower.value < log_z(LOG_W).value < upper.value
    gap = bounds_gap({"elbo": lower._asdict(), "eubo": upper._asdict()})["gap"]
    assert abs(gap["value"] - S**2) < 4 * gap["std_error"]
    assert gap["std_error"] == pytest.approx(np.sqrt(2) * S / np.sqrt(N), rel=0.05)
    assert bounds_gap({"eubo": upper._asdict()}) == {}
    without_mass = elbo(np.array([0.0, -np.inf]))._asdict()  # a draw without mass: no bound at all
    assert bounds_gap({"elbo": without_mass, "eubo": upper._asdict()})["gap"]["value"] == np.inf


def test_ess_of_lognormal_weights():
    # Relative variance of m1^2 / m2 by the delta method, from the moments of the lognormal.
    v = np.exp(S**2)
    error = np.sqrt((4 * (v - 1) + (v**4 - 1) - 4 * (v**2 - 1)) / N)
    assert abs(ess(LOG_W) / N / np.exp(-(S**2)) - 1) < 3 * error < 0.1
    forward_error = np.sqrt((2 * (v - 1) + 2 * (1 / v - 1)) / N)
    assert abs(forward_ess(EXACT_LOG_W) / np.exp(-(S**2)) - 1) < 3 * forward_error < 0.1
    assert ess(LOG_W - 1e4) == pytest.approx(ess(LOG_W), rel=1e-6)
    assert forward_ess(EXACT_LOG_W + 1e4) == pytest.approx(forward_ess(EXACT_LOG_W), rel=1e-6)


def test_ess_of_constructed_weights():
    assert ess(np.full(100, -7.0)) == pytest.approx(100.0)
    assert ess(np.array([0.0] * 25 + [-np.inf] * 75)) == pytest.approx(25.0)
    assert ess(np.array([0.0, -1e6])) == pytest.approx(1.0)
    assert ess(np.log([1.0, 2.0, 3.0])) == pytest.approx(36 / 14)
    assert forward_ess(np.full(100, 3.0)) == pytest.approx(1.0)
    assert forward_ess(np.log([1.0, 4.0])) == pytest.approx(1 / (2.5 * 0.625))


@pytest.mark.parametrize("k", [0.2, 0.7, 1.5])
def test_khat_of_exactly_pareto_ratios(k):
    # log w = k E with E ~ Exp(1): w is Pareto, and its excesses over any threshold are GPD with
    # shape k.
    log_w = k * RNG(32).exponential(size=N) - 100.0
    tail = 3 * np.sqrt(N)
    error = (1 + k) / np.sqrt(tail)  # of the maximum-likelihood shape; the fit's prior moves it by 0.03 at most
    assert abs(khat(log_w) - k) < 3 * error + 0.03
    assert khat(-log_w) < 0.0  # turned round, the same weights are bounded


@pytest.mark.parametrize("k", [0.6, 0.75, 0.85])
def test_what_lies_beyond_the_largest_weight_is_about_what_the_sum_lacks(k):
    """Pareto weights, whose mean is `1 / (1 - k)`: single sums lack more in a minority of cases."""
    w = np.random.default_rng(3).random((200, 10_000)) ** -k
    lacking = 1.0 - w.mean(axis=1) * (1.0 - k)
    beyond = np.array([beyond_largest(np.log(row), k) for row in w])
    assert 0.2 < np.median(lacking) / np.median(beyond) < 1.0
    assert np.mean(lacking > 2.0 * beyond) < 0.3


def test_what_lies_beyond_the_largest_weight_in_closed_form():
    log_w = np.log([1.0, 2.0, 5.0])
    np.testing.assert_allclose(beyond_largest(log_w, 0.5), 5.0 / 8.0)
    np.testing.assert_allclose(beyond_largest(log_w + 700.0, 0.2), 5.0 / 8.0 / 4.0)
    assert beyond_largest(log_w, 0.9) == beyond_largest(log_w, 1.0) == beyond_largest(log_w, np.inf) == 1.0
    assert beyond_largest(log_w, np.nan) == 1.0
    assert beyond_largest(log_w, -0.3) == beyond_largest(log_w, 0.0) == 0.0


def test_khat_where_no_tail_can_be_fitted():
    rng = RNG(33)
    assert khat(np.full(1000, 2.5)) == 0.0
    assert khat(2.5 + np.float32(1e-5) * rng.integers(0, 3, 1000)) == 0.0  # equal but for rounding
    assert khat(np.minimum(rng.normal(size=1000), 0.0)) == 0.0  # a plateau of largest weights
    assert khat(rng.normal(size=24)) == np.inf
    assert khat(np.concatenate([rng.normal(size=50), np.full(950, -np.inf)])) == np.inf
    assert np.isfinite(khat(np.concatenate([rng.normal(size=500), np.full(500, -np.inf)])))
    # Spread so far that most of the tail vanishes beside the largest: never a small k^.
    assert min(khat(spread * rng.normal(size=2000)) for spread in (30, 100, 200, 300, 400, 1000, 1e5) * 5) > 2.0
    assert khat(np.concatenate([np.zeros(998), [5.0, 5.0]])) == np.inf


@pytest.mark.parametrize("dead", [np.full(50, -np.inf), np.full(50, np.nan), np.full(50, np.inf)])
def test_weights_without_any_mass(dead):
    assert ess(dead) == 0.0
    assert forward_ess(dead) == 0.0
    assert log_z(dead) == (-np.inf, np.inf)
    assert elbo(dead) == (-np.inf, np.inf)
    assert khat(dead) == np.inf


def test_weights_of_one_draw_of_none_and_of_some_not_finite():
    assert log_z(np.array([2.0])) == (2.0, np.inf)
    assert elbo(np.array([2.0])) == (2.0, np.inf)
    assert ess(np.zeros(0)) == 0.0
    assert log_z(np.zeros(0)) == (-np.inf, np.inf)
    assert np.isnan(elbo(np.zeros(0)).value)
    mixed = np.array([0.0, 0.0, -np.inf, np.nan])
    assert ess(mixed) == pytest.approx(2.0)
    assert log_z(mixed).value == pytest.approx(np.log(0.5))
    assert elbo(mixed) == (-np.inf, np.inf)
    assert eubo(np.array([0.0, np.inf])) == (np.inf, np.inf)
    assert np.isnan(eubo(np.array([-np.inf, np.inf])).value)
    assert forward_ess(np.array([0.0, np.inf])) == 0.0


# Floor


def normals(key, n):
    return jax.random.normal(key, (n, 2))


def fast_normals(key, n):
    return RNG(np.asarray(jax.random.key_data(key))).normal(size=(n, 2))


def mean_square(a, b):
    return float(np.mean(np.square(a)) + np.mean(np.square(b)))


def test_ratio_of_exact_draws_is_one_and_of_wrong_draws_is_not():
    draws = np.asarray(normals(jax.random.key(1), 200 * 40))
    right = ratio(w2, draws, normals, jax.random.key(2), size=200, repeats=30)
    assert abs(right.ratio - 1) < 3 * right.ratio_se
    assert right.ratio_se <= 0.06
    assert right.repeats == 30
    assert right.ratio == pytest.approx(right.value / right.floor)
    for wrong_draws in (draws + np.array([0.4, 0.0]), 0.6 * draws):
        wrong = ratio(w2, wrong_draws, normals, jax.random.key(2), size=200, repeats=30)
        assert wrong.ratio - 3 * wrong.ratio_se > 1.2


def test_ratio_standard_error_uses_the_covariance_of_the_pairs():
    floors = RNG(40).uniform(1, 2, size=30)
    twice = summary(2 * floors, floors, 10)
    assert twice.ratio == pytest.approx(2.0)
    assert twice.ratio_se == pytest.approx(0.0, abs=1e-12)
    assert twice.floor_se == pytest.approx(np.std(floors, ddof=1) / np.sqrt(30))
    values = 3.0 + RNG(41).normal(size=30)
    found = summary(values, floors, 10)
    covariance = np.cov(values, floors) / 30
    gradient = np.array([1 / floors.mean(), -values.mean() / floors.mean() ** 2])
    assert found.ratio_se == pytest.approx(np.sqrt(gradient @ covariance @ gradient))


def test_ratio_standard_error_is_calibrated():
    scores = []
    for seed in range(60):
        draws = RNG(1000 + seed).normal(size=(50 * 15, 2))  # 15 disjoint blocks for 15 repeats
        found = ratio(mean_square, draws, fast_normals, jax.random.key(seed), size=50, repeats=15)
        assert found.repeats == 15
        scores.append((found.ratio - 1) / found.ratio_se)
    # Student's t with 14 degrees of freedom has standard deviation 1.08; that of 60 scores has a
    # tenth of it as error.
    assert 1.08 * (1 - 0.3) < np.std(scores) < 1.08 * (1 + 0.3)
    assert abs(np.mean(scores)) < 3 * 1.08 / np.sqrt(60)


def test_ratio_takes_disjoint_blocks_first_and_fresh_exact_sets():
    draws, lock, seen, references = np.arange(100.0)[:, None], threading.Lock(), [], []

    def metric(a, b):
        with lock:
            if a[0, 0] >= 0:
                seen.append(tuple(a[:, 0]))
            references.append(b[0, 0])
        return 1.0 + float(a[0, 0] >= 0)

    def exact(key, n):
        return -1.0 - RNG(np.asarray(jax.random.key_data(key))).uniform(size=(n, 1))

    found = ratio(metric, draws, exact, jax.random.key(0), size=20, repeats=5)
    assert (found.ratio, found.repeats, found.size) == (2.0, 5, 20)
    assert sorted(sum(seen, ())) == list(range(100))
    assert len(set(references)) == 5  # one exact set for each pair, and each new


def test_ratio_repeats_as_often_as_told_and_gives_the_same_again():
    draws = np.asarray(normals(jax.random.key(3), 400))
    once = ratio(mmd, draws, normals, jax.random.key(4), size=50, repeats=5)
    again = ratio(mmd, draws, normals, jax.random.key(4), size=50, repeats=5)
    other = ratio(mmd, draws, normals, jax.random.key(5), size=50, repeats=5)
    assert once == again
    assert once != other
    assert once.repeats == 5
    rounds = []

    def recorded(key, n):
        rounds.append(np.asarray(normals(key, n)))
        return rounds[-1]

    longer = ratio(mmd, draws, recorded, jax.random.key(4), size=50, repeats=23)
    assert longer.repeats == 23
    assert [len(drawn) for drawn in rounds] == [500, 500, 500, 500, 300]
    assert len(np.unique(np.concatenate(rounds), axis=0)) == 2 * 50 * 23  # fresh in every round
    assert ratio(mmd, draws[:30], normals, jax.random.key(4), size=50, repeats=5).size == 30
    with pytest.raises(ValueError, match="no draws"):
        ratio(mmd, draws[:0], normals, jax.random.key(4), size=50)
    with pytest.raises(ValueError, match="repeats at least 2, got 50 and 1"):
        ratio(mmd, draws, normals, jax.random.key(4), size=50, repeats=1)


def test_two_sets_of_draws_share_what_is_of_exact_draws_alone(monkeypatch):
    target = get("gmm40")
    x, other = (np.asarray(target.sample(jax.random.key(i), 150)) for i in (66, 68))
    alone = evaluate(target, other, jax.random.key(67), size=60, repeats=4)
    shared = {}
    evaluate(target, x, jax.random.key(67), size=60, repeats=4, shared=shared)
    module = importlib.import_module("allmodes.metrics.mode_weights")
    monkeypatch.setattr(module, "mode_floor", None)  # not called again
    assert evaluate(target, other, jax.random.key(67), size=60, repeats=4, shared=shared) == alone


def test_judging_does_not_look_at_the_clock(monkeypatch):
    """On a machine a million times as slow the figures of a set of draws are the same, to the last
    bit."""
    target = get("gmm40")
    x = np.asarray(target.sample(jax.random.key(66), 150))
    judge = lambda: evaluate(target, x, jax.random.key(67), size=60)  # noqa: E731
    quick = judge()
    ticks = itertools.count(0.0, 1e6)
    for clock in ("monotonic", "perf_counter", "time", "process_time"):
        monkeypatch.setattr(time, clock, lambda: next(ticks))
    assert judge() == quick
    assert quick["metrics"]["w2"]["repeats"] == quick["metrics"]["mmd"]["repeats"] == 10


def test_ratio_of_draws_that_are_not_finite_is_told_as_missing():
    draws = np.full((100, 2), np.nan)
    found = ratio(w2, draws, normals, jax.random.key(6), size=50)
    assert found.repeats == 5
    entry = found.to_dict()
    assert entry["value"] is None
    assert entry["ratio"] is None
    assert entry["floor"] > 0
    assert set(entry) == {"value", "floor", "ratio", "ratio_std_error", "repeats", "size"}


# Quantities


def largest(shift=0.0, wide=1.0, n=1000, dim=4, sets=300):
    """The figure for sets of N(shift, 1) against N(0, 1); drawn `wide` times as wide and weighed
    back."""
    rng, found = RNG(60), []
    for _ in range(sets):
        z = wide * rng.normal(size=(n, dim))
        log_weight = None if wide == 1.0 else np.sum(0.5 * (z / wide) ** 2 - 0.5 * z**2, axis=1) + 300.0
        found.append(quantities(z + shift, rng.normal(size=(2 * n, dim)), log_weight))
    return found


@pytest.mark.parametrize("wide", [1.0, 1.3])
def test_quantities_of_exact_draws_are_the_largest_of_normal_variables(wide):
    found = largest(wide=wide)
    assert {entry["of"] for entry in found} == {8}
    # Means and deviations of Gaussian draws are independent: P(largest < v) = (2 Phi(v) - 1)^8,
    # which is uniform.
    uniform = np.array([erf(entry["value"] / np.sqrt(2)) ** 8 for entry in found])
    assert abs(uniform.mean() - 0.5) < 4 / np.sqrt(12 * len(found))
    assert abs(np.mean(uniform < 0.2) - 0.2) < 4 * np.sqrt(0.2 * 0.8 / len(found))
    assert all((entry["off"] > 0) == (entry["value"] > 3) for entry in found)


def test_quantities_find_a_shift_and_a_wrong_width():
    shifted = largest(shift=0.4, sets=50)
    expected = 0.4 / np.sqrt(1 / 1000 + 1 / 2000)  # in standard errors; the largest of four is a little more
    assert expected < np.mean([entry["value"] for entry in shifted]) < expected + 2
    assert all(entry["off"] >= 4 for entry in shifted)
    rng = RNG(61)
    wide = quantities(1.3 * rng.normal(size=(1000, 2)), rng.normal(size=(2000, 2)))
    assert wide["off"] == 2
    error = np.hypot(1.3 / np.sqrt(2 * 1000), 1 / np.sqrt(2 * 2000))
    assert abs(wide["value"] - 0.3 / error) < 4
    chained = quantities(0.4 + rng.normal(size=(1000, 1)), rng.normal(size=(10**6, 1)), independent=0.01)
    assert chained["value"] < 5  # worth ten draws
    assert np.isnan(quantities(np.full((9, 2), np.nan), rng.normal(size=(9, 2)))["value"])


def test_quantities_are_told_where_a_reference_stands_in_for_exact_draws():
    target = dataclasses.replace(two_gaussians(), modes=None, reference=5000)
    x = target.sample(jax.random.key(62), 2000)
    metrics = evaluate(target, x, jax.random.key(63), size=100, repeats=5)["metrics"]
    assert metrics["quantities"]["of"] == 4
    assert metrics["quantities"]["value"] < 5
    from allmodes.report.tables import metric_cells

    assert metric_cells({"value": 4.25, "of": 4, "off": 1}) == ("4.25 (1 of 4 beyond 3)", "", "")


# Evaluate


MEANS, SHARES = np.array([[-6.0, 0.0], [6.0, 0.0]]), np.array([0.75, 0.25])


def two_gaussians(shares=SHARES, exact=True):
    def sample(key, n):
        key_mode, key_noise = jax.random.split(key)
        mode = jax.random.choice(key_mode, 2, (n,), p=jnp.asarray(shares))
        return jnp.asarray(MEANS, jnp.float32)[mode] + jax.random.normal(key_noise, (n, 2))

    def log_prob(x):
        d2 = jnp.sum((x - jnp.asarray(MEANS, x.dtype)) ** 2, axis=-1)
        return jax.scipy.special.logsumexp(jnp.log(jnp.asarray(shares, x.dtype)) - 0.5 * d2) - jnp.log(2 * jnp.pi)

    def assign(x):
        d2 = np.sum((np.asarray(x)[:, None] - MEANS) ** 2, axis=-1)
        return np.where(d2.min(axis=1) < 6.0**2, d2.argmin(axis=1), -1)

    modes = Modes(weights=np.asarray(shares), assign=assign, means=MEANS)
    return Target(log_prob, 2, "two", sample=sample if exact else None, modes=modes)


def test_evaluate_exact_draws():
    target = two_gaussians()
    x = target.sample(jax.random.key(50), 6000)
    result = evaluate(target, x, jax.random.key(51), size=200, repeats=5)
    json.dumps(result, allow_nan=False)
    metrics = result["metrics"]
    for name in ("w2", "mmd", "mode_tv", "mode_worst"):
        entry = metrics[name]
        assert abs(entry["ratio"] - 1) < 3 * entry["ratio_std_error"], name
        assert entry["floor"] > 0
    assert metrics["modes_found"] == {"value": 2, "of": 2, "floor": 2.0}
    assert "quantities" not in metrics  # no reference stands in
    assert metrics["mode_off"] == {"value": 0.0, "floor": 0.0}
    assert metrics["emc"]["value"] == pytest.approx(-(SHARES @ np.log2(SHARES)), abs=0.03)
    assert result["mode_weights"]["true"] == [0.75, 0.25]
    assert sum(result["mode_weights"]["estimated"]) == pytest.approx(1.0)


def test_evaluate_finds_a_missing_mode():
    target = two_gaussians()
    x = two_gaussians(np.array([1.0, 0.0])).sample(jax.random.key(52), 2000)
    metrics = evaluate(target, x, jax.random.key(53), size=200, repeats=5)["metrics"]
    assert metrics["mode_tv"]["value"] == pytest.approx(0.25)
    assert metrics["mode_worst"]["value"] == pytest.approx(1.0)
    assert metrics["modes_found"]["value"] == 1
    assert metrics["emc"]["value"] == 0.0
    for name in ("w2", "mmd", "mode_tv"):
        assert metrics[name]["ratio"] - 3 * metrics[name]["ratio_std_error"] > 1, name


def test_evaluate_weighs_draws():
    target = two_gaussians()
    x = np.asarray(two_gaussians(np.array([0.5, 0.5])).sample(jax.random.key(54), 8000))
    log_weight = jnp.log(jnp.where(jnp.asarray(x[:, 0]) < 0, 1.5, 0.5)) + 300.0
    raw = evaluate(target, x, jax.random.key(55), size=200, repeats=5)["metrics"]
    fair = evaluate(target, x, jax.random.key(55), size=200, repeats=5, log_weight=log_weight)["metrics"]
    assert raw["mode_tv"]["value"] == pytest.approx(0.25, abs=0.03)
    # Weighted share: its error is sqrt(sum w^2 (indicator - share)^2) / n, 0.0048 here.
    assert fair["mode_tv"]["value"] < 3 * 0.0048
    assert raw["w2"]["ratio"] > 2
    assert abs(fair["w2"]["ratio"] - 1) < 3 * fair["w2"]["ratio_std_error"]
    dead = evaluate(target, x, jax.random.key(55), size=300, log_weight=np.full(len(x), -np.inf))
    json.dumps(dead, allow_nan=False)
    assert dead["metrics"]["w2"]["value"] is None
    assert dead["metrics"]["mode_tv"]["value"] == 1.0


def test_evaluate_draws_that_are_not_finite_and_targets_of_which_nothing_is_known():
    target = two_gaussians()
    x = np.asarray(target.sample(jax.random.key(56), 1000)).copy()
    x[:200] = np.nan
    result = evaluate(target, x, jax.random.key(57), size=200, repeats=5)
    json.dumps(result, allow_nan=False)
    assert result["metrics"]["w2"]["value"] is None
    assert result["metrics"]["mode_off"]["value"] == pytest.approx(0.2)
    assert evaluate(Target(target.log_prob, 2), x, jax.random.key(57)) == {"metrics": {}}


def test_plain_is_ready_for_json():
    value = {"a": [np.float32(1.5), np.nan, -np.inf], "b": np.array([1, 2]), "c": (jnp.float32(2.0), True, None, "x")}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "a": [1.5, None, None],
        "b": [1, 2],
        "c": [2.0, True, None, "x"],
    }


def test_mode_floors_of_exact_draws_and_of_counts_agree():
    n = 3000
    drawn, counted = (
        np.array([report.total_variation for report in mode_floor(two_gaussians(exact=exact), n, jax.random.key(58))])
        for exact in (True, False)
    )
    assert len(drawn) == len(counted) == 50
    # One binomial share: E |p^ - p| = sqrt(2 p (1 - p) / (pi n)), which is also the total variation
    # of two modes.
    expected = np.sqrt(2 * 0.75 * 0.25 / (np.pi * n))
    for floors in (drawn, counted):
        assert abs(floors.mean() - expected) < 3 * floors.std(ddof=1) / np.sqrt(50)
    assert len(mode_floor(two_gaussians(exact=False), 1_000_000, jax.random.key(59))) == 10
