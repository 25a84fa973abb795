"""Raw draws in wrong proportions are told by their weights, region by region."""

import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.draws.draws import Draws
from allmodes.draws.shares import LOOKS, uneven
from allmodes.draws.verdict import CORRECT, TRUSTED

N = 10_000


def two_modes(share, drawn, dim=5, seed=0):
    """Draws of two modes, `drawn` of them in one that has this share, with exact weights."""
    rng = np.random.default_rng(seed)
    there = rng.random(N) < drawn
    x = rng.standard_normal((N, dim)) + np.where(there, 6.0, -6.0)[:, None]
    return x, np.where(there, np.log(share / drawn), np.log((1 - share) / (1 - drawn)))


def test_draws_in_the_right_proportions_pass():
    x, log_weight = two_modes(0.3, 0.3)
    assert uneven(x, log_weight) is None
    noise = 0.3 * np.random.default_rng(1).standard_normal(N)  # weights that vary, but not by region
    assert uneven(x, log_weight + noise) is None


@pytest.mark.parametrize(("share", "drawn"), [(0.3, 0.39), (0.3, 0.21), (0.1, 0.07)])
def test_a_mode_in_the_wrong_proportion_is_told(share, drawn):
    x, log_weight = two_modes(share, drawn)
    assert 1.0 / np.mean(np.exp(2 * log_weight)) > 0.9  # which the effective share hardly tells
    found = uneven(x, log_weight)
    assert abs(found.mass - share) < 0.1 * share
    assert abs(found.draws - drawn) < 0.1 * drawn


def test_next_to_no_mass_is_not_told():
    assert uneven(*two_modes(0.03, 0.021)) is None
    assert LOOKS[0][1] > 0.009


def test_few_draws_or_none_with_mass_tell_nothing():
    x, log_weight = two_modes(0.3, 0.39)
    assert uneven(x[:200], log_weight[:200]) is None
    assert uneven(x, np.full(N, -np.inf)) is None


def test_the_verdict_asks_for_the_weights():
    def verdict(drawn):
        x, log_weight = two_modes(0.3, drawn)
        return Draws(jnp.asarray(x), jnp.zeros(N), jnp.asarray(log_weight), N).verdict()

    assert verdict(0.3).word == TRUSTED
    lowered = verdict(0.39)
    assert lowered.word == CORRECT
    assert "of the mass have" in lowered.reasons[0]  # what decides comes first
    assert "use their weights" in lowered.reasons[0]
