"""The mass that draws leave out, told by points of the target: closed forms."""

import numpy as np
import pytest

from allmodes.draws.doubt import SURE, doubt_of
from allmodes.draws.verdict import CORRECT, DO_NOT_USE, MAX_DOUBT, TRUSTED, Doubt, Seen, judge

POINTS, DRAWS = 2048, 10_000


def log_ratio(x, width):
    """Of N(0, 1) over N(0, width^2)."""
    return -0.5 * x**2 + 0.5 * (x / width) ** 2 + np.log(width)


def seen_by(rng, missed, width=1.2):
    """A target with a share in a mode where the sampler has 1e-8 of its draws, and elsewhere a
    normal that the sampler has too wide."""
    away = rng.random(POINTS) < missed
    forward = np.where(away, np.log(max(missed, 1e-30) / 1e-8), log_ratio(rng.normal(size=POINTS), width))
    own = log_ratio(width * rng.normal(size=DRAWS), width)
    return forward + np.where(away, 0.0, np.log1p(-missed)), own + np.log1p(-missed)


@pytest.mark.parametrize("width", [0.9, 1.0001, 1.2, 2.0])
def test_right_weights_leave_no_doubt(width):
    rng, found = np.random.default_rng(0), 0
    for _ in range(100):
        doubt = doubt_of(
            log_ratio(rng.normal(size=POINTS), width), log_ratio(width * rng.normal(size=DRAWS), width), POINTS
        )
        found += doubt.share > 0.0
        assert doubt.least < 0.01
    assert found <= 6


@pytest.mark.parametrize("missed", [0.02, 0.05, 0.3])
def test_a_missed_mode_is_the_share_of_the_mass_in_doubt(missed):
    rng = np.random.default_rng(1)
    for _ in range(20):
        doubt = doubt_of(*seen_by(rng, missed), POINTS)
        assert abs(doubt.share - missed) < 0.01 + 4.0 * (missed * (1.0 - missed) / POINTS) ** 0.5
        assert 0.0 < doubt.least < missed < doubt.most


def test_rounding_leaves_no_doubt():
    """Of a sampler that is the density all weights are one, to the grain of what they come from."""
    rng = np.random.default_rng(0)
    draws, forward = 1e-6 * rng.integers(0, 2, DRAWS), 1e-6 * rng.integers(0, 4, POINTS)
    assert doubt_of(forward, draws, POINTS).share == 0.0
    assert doubt_of(1e6 * forward, draws, POINTS).share > 0.4  # what is more than rounding


def test_what_is_drawn_at_half_of_its_share_is_not_left_out():
    """The draws tell a tenth of the mass in a region, points a fifth: where its weights are twice
    the mean there are draws of it, where they are ten times the mean some of it may be left out.
    """
    for ratio, is_doubted in ((2.0, False), (10.0, True)):
        draws = np.log(np.where(np.arange(DRAWS) < 0.1 * DRAWS / ratio, ratio, (1.0 - 0.1) / (1.0 - 0.1 / ratio)))
        forward = np.log(np.where(np.arange(POINTS) < 0.2 * POINTS, ratio, 0.9))
        assert (doubt_of(forward, draws, POINTS).share > 0.05) == is_doubted


def test_one_point_of_thousands_is_not_sure():
    forward, own = seen_by(np.random.default_rng(2), 0.0)
    forward[0] = 300.0
    doubt = doubt_of(forward, own, POINTS)
    assert doubt.share == 0.0
    assert doubt.most < 0.01


def test_copies_tell_less_than_points_of_their_own():
    rng = np.random.default_rng(3)
    forward, own = seen_by(rng, 0.02)
    assert doubt_of(forward, own, POINTS).least > 0.0
    assert doubt_of(forward, own, 64).least == 0.0


def test_weights_that_are_no_numbers_are_beyond_all_others():
    own = np.zeros(DRAWS)
    forward = np.where(np.arange(POINTS) < POINTS // 4, np.nan, 0.0)
    assert doubt_of(forward, own, POINTS).share == pytest.approx(0.25)
    assert doubt_of(np.where(np.isnan(forward), np.inf, 0.0), own, POINTS).share == pytest.approx(0.25)
    assert doubt_of(np.zeros(POINTS), np.full(DRAWS, -np.inf), POINTS) == Doubt(1.0, 0.0, POINTS)


def word(forward_ess, doubt, exact=True, ess=8500.0):
    """Of draws that are good but for what points see of them."""
    seen = Seen(
        n=DRAWS, ess=ess, khat=0.2, log_z_error=0.004, forward_ess=forward_ess, exact=exact, doubt=doubt
    )  # fmt: skip
    return judge(seen)


def test_the_word_goes_by_the_mass_and_not_by_one_point():
    none, some, much = Doubt(0.0, 0.002, POINTS), Doubt(0.02, 0.003, POINTS), Doubt(0.2, 0.01, POINTS)
    assert word(0.9, none).word == TRUSTED
    assert word(1e-7, none).word == CORRECT
    assert f"less than {SURE * 0.002:.1%} of the mass" in " ".join(word(1e-7, none).reasons)
    assert word(0.9, some).word == word(1e-7, some).word == CORRECT
    assert word(0.9, much).word == DO_NOT_USE
    assert "leave out 20.0% of the mass" in " ".join(word(0.9, much).reasons)
    # Points of training may have met just the brink of a region.
    assert word(1e-7, none, exact=False).word == word(1e-7, some, exact=False).word == DO_NOT_USE
    assert word(0.9, some, exact=False).word == CORRECT
    # Where nearly all draws are effective they are of a tail, unless they tell of mass.
    assert word(1e-7, none, exact=False, ess=9300.0).word == CORRECT
    assert word(1e-7, some, exact=False, ess=9300.0).word == DO_NOT_USE
    # Few points that show a region hardly reached can hide much of the mass.
    assert word(1e-7, Doubt(0.0, MAX_DOUBT, 30)).word == DO_NOT_USE
