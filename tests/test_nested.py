"""Nested sampling: weights and errors against runs whose volumes are drawn exactly, then the slice
moves, on densities of which all is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import pair_log_prob

import allmodes as am
from allmodes.draws.shrinkage import alive, log_weights, log_z_error, of_insertions, of_parents
from allmodes.draws.verdict import DO_NOT_USE, TRUSTED
from allmodes.methods.nested import EXPANSIONS, Normal, insertion_ranks, stepping_out
from allmodes.points.frame import Frame
from allmodes.priors.posterior import posterior
from allmodes.targets import gaussian

SIGMAS = 4.5
LIVE = 50


def level_of(volume):
    """A log-likelihood that falls as the prior mass above it rises: Z is the integral of 1 - X."""
    return np.log1p(-volume)


def exact_run(rng, removed, rounds=40):
    """Births and deaths of a run whose new points are exact draws of what is left."""
    volume, birth = rng.uniform(size=LIVE), np.full(LIVE, -np.inf)
    births, deaths = [], []
    for _ in range(rounds):
        lowest = np.argsort(-volume)[:removed]
        births.append(birth[lowest])
        deaths.append(level_of(volume[lowest]))
        edge = volume[lowest].min()
        volume[lowest], birth[lowest] = edge * rng.uniform(size=removed), level_of(edge)
    return np.concatenate([*births, birth]), np.concatenate([*deaths, level_of(volume)])


@pytest.mark.parametrize("removed", [1, 10, 25])
def test_the_mean_weight_is_unbiased_for_z_however_many_die_at_a_time(removed):
    rng = np.random.default_rng(0)
    z = np.array([np.mean(np.exp(log_weights(*exact_run(rng, removed)))) for _ in range(1500)])
    assert abs(z.mean() - 0.5) < SIGMAS * z.std() / np.sqrt(len(z))
    assert z.std() / np.sqrt(len(z)) < 0.01 * 0.5


def test_the_error_of_simulated_volumes_is_the_spread_of_log_z():
    rng = np.random.default_rng(1)
    runs = [exact_run(rng, 10) for _ in range(400)]
    log_z = [np.log(np.mean(np.exp(log_weights(*run)))) for run in runs]
    errors = [log_z_error(*run, seed=0) for run in runs[:20]]
    spread = np.std(log_z)
    # Of the spread by its 400 runs, and of each error by its simulations.
    assert np.mean(errors) == pytest.approx(spread, rel=SIGMAS / np.sqrt(2 * 400) + 0.03)
    weight = np.exp(log_weights(*runs[0]))
    information = np.sum(weight * runs[0][1]) / weight.sum() - log_z[0]
    assert np.mean(errors) == pytest.approx(np.sqrt(information / LIVE), rel=0.25)


def test_points_alive_at_each_death():
    birth = np.array([-np.inf, -np.inf, -np.inf, -3.0, -3.0])
    death = np.array([-4.0, -3.0, -1.0, -0.5, -2.0])
    order, m = alive(birth, death)
    np.testing.assert_array_equal(order, [0, 1, 4, 2, 3])
    np.testing.assert_array_equal(m, [3, 2, 3, 2, 1])


def test_a_plateau_takes_its_whole_share():
    """Half of the prior has no mass: 5 of 10 live points are there, and leave before others are."""
    birth = np.array([-np.inf] * 10 + [-1e30] * 5)
    death = np.concatenate([np.full(5, -1e30), np.zeros(10)])
    assert np.mean(np.exp(log_weights(birth, death))) == pytest.approx(0.5)


def test_ranks_of_exact_draws_are_uniform_and_of_others_are_not():
    """A broken kernel does not reach the innermost tenth of what is left."""

    def finding(least, rng):
        ranks, volume = [], rng.uniform(size=LIVE)
        for i in range(200):
            lowest = np.argsort(-volume)[:5]
            edge = volume[lowest].min()
            volume[lowest] = edge * rng.uniform(least, 1.0, size=5)
            old = np.ones(LIVE, bool)
            old[lowest] = False
            level = jnp.asarray(level_of(volume))
            ranks.append(np.asarray(ranked(jax.random.key(i), level, jnp.asarray(old), level[jnp.asarray(lowest)])))
        return of_insertions(np.concatenate(ranks))

    ranked = jax.jit(insertion_ranks)
    right, wrong = finding(0.0, np.random.default_rng(2)), finding(0.1, np.random.default_rng(2))
    assert right.word == TRUSTED
    assert "1,000 new points are uniform" in right.reason
    assert wrong.word == DO_NOT_USE
    assert "are not uniform" in wrong.reason


def test_a_bracket_leaves_the_slice_at_both_ends_and_counts_its_steps():
    half = 1.7
    keys = jax.random.split(jax.random.key(0), 500)
    in_slice = lambda t: jnp.abs(t) < half  # noqa: E731
    bracket = jax.vmap(lambda key: stepping_out(key, in_slice, 1.0, EXPANSIONS)[:3])
    left, right, steps = map(np.asarray, bracket(keys))
    capped = (left > -half) | (right < half)  # where one end had too few steps
    assert capped.mean() < 0.5
    np.testing.assert_array_less(left[~capped], -half)
    np.testing.assert_array_less(half, right[~capped])
    taken = np.round(right - left - 1.0)  # of both ends together
    assert np.all((taken <= 2 * steps) & (steps <= taken))


# Whole runs.

METHOD, SEEDS = am.Nested(live=200), 12
FRAME = Frame(jnp.zeros(2), jnp.ones(2))


def prior_of(dim, width=2.0):
    return Normal(jnp.zeros(dim), jnp.full(dim, width))


@functools.cache
def runs(seeds):
    """Runs of a Gaussian in a prior that is known: log Z is 1.3."""
    target = gaussian(2, mean=0.5, covariance=0.09 * np.eye(2), log_z=1.3)
    return [METHOD.run(target, FRAME, prior_of(2), METHOD.live, jax.random.key(seed)) for seed in range(seeds)]


@pytest.mark.trains
def test_log_z_is_right_within_its_error_over_seeds():
    seen = runs(SEEDS)
    log_z = np.array([np.log(np.mean(np.exp(run.log_weight))) for run in seen])
    errors = np.array([log_z_error(run.birth, run.log_likelihood, seed=0) for run in seen])
    assert np.all(np.abs(log_z - 1.3) < SIGMAS * errors)
    assert abs(np.mean((log_z - 1.3) / errors)) < SIGMAS / np.sqrt(SEEDS)
    # Of 12 values the spread over the error is the root of a chi^2 over its degrees.
    assert 0.4 < np.std((log_z - 1.3) / errors) < 1.8
    assert all(of_insertions(run.ranks).word == TRUSTED for run in seen)


@pytest.mark.trains
def test_weighted_moments_are_those_of_the_density():
    means, squares = [], []
    for run in runs(SEEDS):
        w = np.exp(run.log_weight - run.log_weight.max())
        means.append(w @ run.z / w.sum())
        squares.append(w @ (run.z - 0.5) ** 2 / w.sum())
    for values, truth in ((means, 0.5), (squares, 0.09)):
        values = np.asarray(values)
        assert np.all(np.abs(values.mean(axis=0) - truth) < SIGMAS * values.std(axis=0, ddof=1) / np.sqrt(SEEDS))
    assert np.std(means) < 0.1


@pytest.mark.trains
def test_too_few_moves_are_seen_by_kinship_and_not_by_insertion_ranks():
    """One slice in one direction, in 8 dimensions, leaves a point near the one it came from."""
    target = gaussian(8, covariance=0.04 * np.eye(8))
    frame = Frame(jnp.zeros(8), jnp.ones(8))
    lazy = am.Nested(live=200, moves=1).run(target, frame, prior_of(8), 200, jax.random.key(0))
    assert of_parents(lazy.ranks, lazy.parents).word == DO_NOT_USE
    assert of_insertions(lazy.ranks).word == TRUSTED
    run = runs(SEEDS)[0]
    assert of_parents(run.ranks, run.parents).word == TRUSTED


@pytest.mark.trains
def test_evaluations_are_those_of_every_lane():
    calls = []

    @jax.custom_jvp
    def count(x):
        jax.debug.callback(lambda _: calls.append(1), x)
        return x

    count.defjvp(lambda primals, tangents: (count(*primals), tangents[0]))
    target = am.Target(lambda x: pair_log_prob(x) + 0.0 * count(x[0]), 2)
    run = am.Nested(live=30, moves=2).run(target, FRAME, prior_of(2, 4.0), 30, jax.random.key(0))
    jax.effects_barrier()
    assert run.evaluations == len(calls)


@pytest.mark.trains
def test_half_of_the_prior_without_mass_and_no_gradient():
    """Log Z of a half-normal, by a density that JAX cannot differentiate."""
    target = am.Target(
        lambda x: jnp.where(x[0] > 0.0, -0.5 * jnp.sum(x**2), -jnp.inf), 2, differentiable=False, name="half"
    )
    run = METHOD.run(target, FRAME, prior_of(2), 200, jax.random.key(3))
    log_z = np.log(np.mean(np.exp(run.log_weight)))
    assert abs(log_z - np.log(np.pi)) < SIGMAS * log_z_error(run.birth, run.log_likelihood, seed=0)


def test_the_prior_of_a_posterior_is_its_own():
    target = posterior(lambda p: -0.5 * (p["a"] / 0.1) ** 2, {"a": (-1.0, 3.0)}).free
    prior = Normal.of(target, Frame(jnp.array([0.4]), jnp.array([2.0])))
    np.testing.assert_allclose(prior.mean, -0.2, rtol=1e-5)
    np.testing.assert_allclose(prior.spread, 0.5, rtol=1e-5)
    broad = Normal.of(gaussian(2), FRAME)
    np.testing.assert_allclose(broad.spread, 2.0)


def test_settings_are_checked():
    with pytest.raises(am.ConfigError, match=r"removed must be at most 0\.5, got 0\.7"):
        am.Nested(removed=0.7)
    with pytest.raises(am.ConfigError, match="remainder must be below 1"):
        am.Nested(remainder=2.0)
