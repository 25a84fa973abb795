"""A second opinion: a mode that a sampler lacks is met from fresh starts, and its mass is told."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import pair, small

import allmodes as am
from allmodes.devices.compiled import program
from allmodes.diffusion.second_opinion import FEWEST, Opinion, fresh_starts
from allmodes.draws.verdict import CORRECT, DO_NOT_USE, TRUSTED
from allmodes.methods.iwsm.training import measure
from allmodes.parts import MixturePerceptron
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.search.base import Base
from allmodes.search.told import Told
from allmodes.targets import gaussian_mixture

SPENT = 40_000  # evaluations before
METHOD = am.IWSM(buffer=4096, batch=128, network=MixturePerceptron(components=4, width=16, depth=1))
MEANS = np.array([[-6.0, 0.0], [6.0, 2.0]])


@functools.cache
def target_of(share):
    return gaussian_mixture(MEANS, [1.0, 0.5], [1.0 - share, share])


def opinion_of(share, *, lacks, method=METHOD, spent=SPENT):
    """Of a sampler whose base is the density, or the first of two modes; and its state before."""
    target = target_of(share)
    log_share = jnp.log(jnp.array([1.0, 0.0, 0.0, 0.0] if lacks else [1.0 - share, share, 0.0, 0.0]))
    which = jnp.array([0, 1, 0, 0])
    variance = jnp.array([1.0, 0.5])[which, None] * jnp.ones(2)
    base = GaussianMixture(log_share, jnp.asarray(MEANS, jnp.float32)[which], jnp.tile(jnp.eye(2), (4, 1, 1)), variance)
    z, frame = base.sample(jax.random.key(0), 4096), Frame.of(target, jnp.zeros(2), jnp.ones(2))
    evaluations = Evaluations.none().add_points(spent, 0, 0)
    points = Buffer.of(z, frame.evaluate(target, z))
    found = SearchResult(frame, points, jnp.asarray(0.1), jnp.ones(2), jnp.zeros(()), evaluations)
    state = method.build(target, found, Base(base, 1.0), jax.random.key(1))
    state = program(measure)(state, jax.random.key(2))
    return state, method.second_opinion(target, state, jax.random.key(3))


def test_a_right_sampler_explains_all_ends_at_a_tenth_of_the_evaluations():
    before, after = opinion_of(0.3, lacks=False)
    assert int(after.opinion.climbs) > 128
    assert int(after.opinion.lost) == 0
    assert [f.word for f in after.opinion.findings] == [TRUSTED]
    spent = after.evaluations.spent("training")
    assert 0 < spent["opinion"] <= 0.1 * SPENT
    assert int(after.evaluations.log_prob) == int(before.evaluations.log_prob) + spent["opinion"]


@pytest.mark.parametrize(("share", "word"), [(0.3, DO_NOT_USE), (0.02, DO_NOT_USE), (0.002, CORRECT), (1e-5, TRUSTED)])
def test_a_mode_that_is_missing_is_told_by_its_mass(share, word):
    opinion = opinion_of(share, lacks=True)[1].opinion
    assert int(opinion.lost) > 0
    assert abs(float(opinion.share) - share) < 5.0 * float(opinion.std_error) + 0.05 * share
    assert [f.word for f in opinion.findings] == [word]
    assert f"{int(opinion.lost):,} of {int(opinion.climbs):,} climbs" in opinion.findings[0].reason


def test_ends_that_stay_where_the_density_is_high_condemn_whatever_share_a_mixture_tells():
    """Those of a mode with three tenths of the mass stay; of one with next to none they are low."""
    assert int(opinion_of(0.3, lacks=True)[1].opinion.stay) > 0
    assert int(opinion_of(1e-5, lacks=True)[1].opinion.stay) == 0
    numbers = (jnp.asarray(n, jnp.int32) for n in (0, 100, 7, 2))
    opinion = Opinion(*numbers, jnp.asarray(1e-9), jnp.asarray(1e-9))
    assert [f.word for f in opinion.findings] == [DO_NOT_USE]
    assert "and 2 stay where the density is as high as elsewhere" in opinion.findings[0].reason


def test_an_opinion_is_formed_once():
    state = opinion_of(0.3, lacks=False)[1]
    assert METHOD.second_opinion(target_of(0.3), state, jax.random.key(9)) is state


def test_too_few_evaluations_make_no_opinion_and_cost_nothing():
    before, after = opinion_of(0.3, lacks=True, spent=10 * FEWEST)
    assert after.opinion.findings == Opinion.none().findings == ()
    assert int(after.evaluations.log_prob) == int(before.evaluations.log_prob)


def test_none_is_formed_where_none_is_wanted():
    before, after = opinion_of(0.3, lacks=True, method=dataclasses.replace(METHOD, opinion=0.0))
    assert after is before


def test_starts_lie_all_over_beyond_and_close_by():
    z = np.random.default_rng(0).normal(size=(4000, 3)) + np.array([5.0, 0.0, -5.0])
    starts, length = fresh_starts(z, 256, jax.random.key(4))
    assert starts.shape == (256, 3)
    assert np.all(length > 0.0)
    far = np.max(np.abs(starts - np.array([5.0, 0.0, -5.0])), axis=1)
    assert 0.1 < np.mean(far > 10.0) < 0.5  # beyond all of the points
    nearest = np.min(np.linalg.norm(starts[:, None] - z[None, ::10], axis=2), axis=1)
    assert np.all(nearest[-32:] < 6.0)
    again, _ = fresh_starts(z, 256, jax.random.key(4))
    np.testing.assert_array_equal(starts, again)


def test_a_quarter_of_the_starts_are_where_the_target_tells():
    z, told = np.random.default_rng(0).normal(size=(4000, 3)), Told(jnp.full(3, 100.0), jnp.full(3, 0.5))
    starts, length = fresh_starts(z, 256, jax.random.key(4), told)
    np.testing.assert_allclose(np.mean(starts[:64], 0), 100.0, atol=0.1)
    np.testing.assert_allclose(np.std(starts[:64], 0), 0.5, rtol=0.2)
    np.testing.assert_allclose(length[:64], 0.05 * 3**0.5 * 0.5, rtol=1e-5)
    np.testing.assert_array_equal(starts[64:], fresh_starts(z, 256, jax.random.key(4))[0][64:])


@pytest.mark.trains
def test_fit_forms_one_and_the_verdict_has_it():
    sampler = am.fit(pair(), small(20, opinion=0.1), key=jax.random.key(0))
    assert 0 < sampler.spent["opinion"] < 0.15 * sampler.evaluations["log_prob"]
    assert sum(sampler.spent.values()) == sampler.evaluations["log_prob"]
    assert int(sampler.state.opinion.step) == 20
    draws = sampler.sample(500, key=jax.random.key(1))
    assert any("climbs from fresh starts" in reason for reason in draws.verdict().reasons)
