"""The plain methods: SMC, parallel tempering, nested sampling and NUTS give right draws and log Z,
and count what they cost."""

import dataclasses
import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate
from allmodes.mcmc import parallel_tempering as parallel
from allmodes.mcmc.hmc import kind_of
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.search import settle
from allmodes.targets import gaussian, gaussian_mixture
from allmodes.targets.particles import double_well

pytestmark = pytest.mark.trains

SMALL = {
    "smc": am.SMC(particles=500, populations=4),
    "tempering": am.Tempering(steps=12, temperatures=6, systems=8),
    "nuts": am.NUTS(chains=16, warmup=150),
    "nested": am.Nested(live=300),
}
SIGMAS = 4.5


def pair(log_z=1.5):
    return gaussian_mixture(np.array([[-4.0, 0.0], [4.0, 1.0]]), np.array([0.5, 1.5]), [0.3, 0.7], log_z)


# Chains of NUTS do not cross between the two: they have one Gaussian.
TARGETS = {"smc": pair(), "tempering": pair(), "nuts": gaussian(3, log_z=0.7), "nested": pair()}


@functools.cache
def fitted(name):
    return am.fit(TARGETS[name], SMALL[name], key=jax.random.key(0))


@functools.cache
def drawn(name, n=3000):
    return fitted(name).sample(n, key=jax.random.key(1))


def off(values, truth, draws):
    """Standard errors between the weighted mean of values and the truth, by the draws' own
    effective number."""
    w = np.exp(np.asarray(draws.log_weight, float) - np.max(draws.log_weight))
    w /= w.sum()
    mean = np.sum(w * values)
    return abs(mean - truth) / np.sqrt(np.sum(w * (values - mean) ** 2) / draws.ess)


@pytest.mark.parametrize("name", list(SMALL))
def test_moments(name):
    draws, exact = drawn(name), TARGETS[name]
    x, big = np.asarray(draws.x, float), np.asarray(exact.sample(jax.random.key(9), 400_000), float)
    for i in range(exact.dim):
        assert off(x[:, i], big[:, i].mean(), draws) < SIGMAS
        assert off(x[:, i] ** 2, (big[:, i] ** 2).mean(), draws) < SIGMAS
    np.testing.assert_allclose(draws.log_prob, exact.values(draws.x), rtol=1e-4, atol=1e-3)
    assert draws.x.shape == (3000, exact.dim)  # 16 chains do not divide it


@pytest.mark.parametrize("name", ["smc", "tempering", "nested"])
def test_log_z(name):
    z = drawn(name).log_z
    assert abs(z.value - 1.5) < SIGMAS * z.std_error + 0.01
    assert 0.0 < z.std_error < 0.2


@pytest.mark.parametrize("name", ["smc", "tempering", "nested"])
def test_mode_weights(name):
    draws = drawn(name)
    assert off(np.asarray(draws.x[:, 0] > 0, float), 0.7, draws) < SIGMAS
    assert not draws.chains or draws.rhat < 1.05


def test_chains_that_cannot_cross_say_so():
    far = gaussian_mixture(np.array([[-30.0], [30.0]]), 1.0)
    draws = am.fit(far, SMALL["nuts"], key=jax.random.key(0)).sample(2000, key=jax.random.key(1))
    assert np.isnan(draws.log_z.value)
    assert draws.rhat > 1.5
    verdict = draws.verdict()
    assert verdict.word == "do not use"
    assert any("disagree" in reason for reason in verdict.reasons)
    assert not any("log Z" in reason for reason in verdict.reasons)


@pytest.mark.parametrize("name", list(SMALL))
def test_the_same_key_gives_the_same_draws_and_another_key_others(name):
    again = fitted(name).sample(3000, key=jax.random.key(1))
    np.testing.assert_array_equal(again.x, drawn(name).x)
    assert not np.array_equal(fitted(name).sample(3000, key=jax.random.key(2)).x, again.x)


@pytest.mark.parametrize("name", list(SMALL))
def test_no_draws_are_refused(name):
    with pytest.raises(am.ConfigError, match="n of at least 1, got n=0"):
        fitted(name).sample(0, key=jax.random.key(1))


@pytest.mark.parametrize("name", list(SMALL))
def test_a_saved_one_draws_the_same(name, tmp_path):
    fitted(name).save(tmp_path / "run")
    draws = am.load(tmp_path / "run").sample(3000, key=jax.random.key(1))
    np.testing.assert_allclose(draws.x, drawn(name).x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", list(SMALL))
def test_a_state_of_particles_can_be_kept(name):
    """Checkpoints take no empty arrays."""
    assert all(leaf.size > 0 for leaf in jax.tree.leaves(SMALL[name].template(double_well())))


@pytest.mark.parametrize(("name", "low"), [("smc", 0.5), ("tempering", 0.5), ("nuts", 0.3), ("nested", 0.5)])
def test_a_budget_of_evaluations_is_spent(name, low):
    budget = 4 * drawn(name).evaluations
    draws = fitted(name).sample_within(1000, budget, key=jax.random.key(1))
    assert low * budget < draws.evaluations < 1.5 * budget
    assert len(draws) == 1000


def test_nothing_to_train_is_said():
    with pytest.raises(am.ConfigError, match="smc trains nothing"):
        am.fit(pair(), SMALL["smc"], key=jax.random.key(0), steps=10)


def test_settings_are_checked():
    with pytest.raises(am.ConfigError, match="temperatures must be at least 3, got 2"):
        am.Tempering(temperatures=2)
    with pytest.raises(am.ConfigError, match="particles must be a whole number"):
        am.SMC(particles=0)


# Counts, against a density that counts.


def counted(target):
    """The target, and a list that grows by one for each point at which it is computed."""
    calls = []

    @jax.custom_jvp
    def count(x):
        jax.debug.callback(lambda _: calls.append(1), x)
        return x

    count.defjvp(lambda primals, tangents: (count(*primals), tangents[0]))
    log_prob = lambda x: target.log_prob(x + 0.0 * jnp.sum(count(x[0])))  # noqa: E731
    return am.Target(log_prob, target.dim), calls


@pytest.mark.parametrize("name", list(SMALL))
def test_evaluations_are_counted(name):
    """Of a number of draws that populations and chains do not divide."""
    methods = {
        "smc": am.SMC(particles=20, populations=2),
        "tempering": am.Tempering(steps=2, sweeps=2, temperatures=3, systems=2, thin=1),
        # One chain: of many at once those that end a trajectory early go on being computed, in
        # vain.
        "nuts": am.NUTS(chains=1, warmup=20),
        "nested": am.Nested(live=10, moves=2),
    }
    n, (target, calls) = 7, counted(pair())
    state = am.fit(pair(), methods[name], key=jax.random.key(0)).state
    draws = methods[name].sampler(target, state, {}).sample(n, key=jax.random.key(1))
    jax.block_until_ready(draws.x)
    assert draws.x.shape == (n, 2)
    assert draws.log_prob.shape == draws.log_weight.shape == (n,)
    jax.effects_barrier()
    assert draws.evaluations == pytest.approx(len(calls), rel=0.02)


# Parallel tempering's parts.


def test_swaps_leave_every_temperature_invariant():
    """Replicas drawn exactly at each temperature (all Gaussian) stay so; swaps happen; the ladder
    evens out."""
    target, dim = gaussian(2, mean=0.0, covariance=0.25 * np.eye(2)), 2
    frame = Frame(jnp.zeros(dim), jnp.ones(dim))
    width, betas = 2.0, jnp.array([0.0, 0.1, 0.4, 1.0])
    variances = 1.0 / ((1.0 - betas) / width**2 + betas / 0.25)
    z = jnp.sqrt(variances)[None, :, None] * jax.random.normal(jax.random.key(0), (4000, 4, dim))
    ladder = parallel.Ladder(betas, 0.5 * jnp.sqrt(variances[1:]))
    replicas = parallel.start(target, frame, z)
    sweep = jax.jit(parallel.sweeper(target, frame, width))
    for i in range(3):
        replicas, seen = sweep(jax.random.key(i + 1), jnp.asarray(i), replicas, ladder)
    measured = np.asarray(jnp.mean(replicas.z**2, axis=(0, 2)))
    np.testing.assert_allclose(measured, variances, rtol=SIGMAS * np.sqrt(2.0 / 8000))
    e = frame.evaluate(target, replicas.z.reshape(-1, dim))
    np.testing.assert_allclose(replicas.log_prob.reshape(-1), e.log_prob, rtol=1e-4, atol=1e-4)
    assert np.all((np.asarray(seen.rejection) > 0.01) & (np.asarray(seen.rejection) < 0.9))


def test_the_ladder_moves_towards_equal_rejection():
    betas = jnp.array([0.0, 0.2, 0.6, 1.0])
    ladder = parallel.Ladder(betas, jnp.ones(3))
    even = parallel.adapt(ladder, jnp.full(3, 0.75), jnp.array([0.6, 0.1, 0.2]), jnp.ones(()), kind_of(True))
    np.testing.assert_allclose(even.betas, [0.0, 0.1, 0.2, 1.0], atol=1e-6)  # thirds of .9: .3, .6
    kept = parallel.adapt(ladder, jnp.full(3, 0.75), jnp.full(3, 0.3), jnp.ones(()), kind_of(True))
    np.testing.assert_allclose(kept.betas, betas, atol=1e-6)


def ideal_rounds(temperatures, rounds, systems):
    """Swaps of replicas that are drawn afresh at each temperature before each of them: Gaussians in
    two dimensions, of variance 4 to 0.04. Arrivals of each system and of all, rejection rates,
    log-ratios."""
    target, width = gaussian(2, mean=0.0, covariance=0.04 * np.eye(2), log_z=0.8), 2.0
    frame = Frame(jnp.zeros(2), jnp.ones(2))
    precision = jnp.linspace(np.log(1.0 / width**2), np.log(1.0 / 0.04), temperatures)
    betas = (jnp.exp(precision) - 1.0 / width**2) / (1.0 / 0.04 - 1.0 / width**2)

    def one(is_fresh, i):
        k_draw, k_swap = jax.random.split(jax.random.fold_in(jax.random.key(4), i))
        z = jnp.exp(-0.5 * precision)[:, None] * jax.random.normal(k_draw, (systems, temperatures, 2))
        replicas = parallel.start(target, frame, z, is_fresh)
        replicas, rejection, log_ratio = parallel.swapped(k_swap, i, replicas, betas, width)
        before = replicas.is_fresh[:, -1]
        replicas, arrived = parallel.arrivals(replicas)
        return replicas.is_fresh, (before, arrived, rejection, log_ratio)

    start = jnp.zeros((systems, temperatures), bool)
    return jax.jit(lambda: jax.lax.scan(one, start, jnp.arange(rounds))[1])()


def test_round_trips_are_as_many_as_theory_has_them():
    """Syed et al. 2022; and not the fewer of swaps at random, `1 / (2 N + 2 sum ..)`."""
    temperatures, burn = 9, 100
    before, arrived, rejection, _ = map(np.asarray, ideal_rounds(temperatures, 1100, 64))
    np.testing.assert_array_equal(before.sum(axis=1), arrived)
    rates = before[burn:].mean(axis=0)  # of each system
    r = rejection.mean(axis=0)
    expected = float(parallel.round_trip_rate(jnp.asarray(r)))
    assert expected == pytest.approx(1.0 / (2.0 + 2.0 * np.sum(r / (1.0 - r))))
    error = rates.std(ddof=1) / np.sqrt(len(rates))
    assert abs(rates.mean() - expected) < SIGMAS * error
    assert SIGMAS * error < 0.1 * expected
    at_random = 1.0 / (2.0 * (temperatures - 1) + 2.0 * np.sum(r / (1.0 - r)))
    assert rates.mean() > 2.0 * at_random


def test_stepping_stones_of_exact_draws_give_log_z():
    log_ratio = np.asarray(ideal_rounds(9, 1100, 64)[3], float)
    log_z = np.log(np.mean(np.exp(log_ratio), axis=0)).sum(axis=1)  # of each system
    assert abs(log_z.mean() - 0.8) < SIGMAS * log_z.std(ddof=1) / 8.0 + 1e-3
    assert log_z.std() < 0.2


def test_a_sweep_at_a_time_swaps_all_gaps_in_turn():
    """Draws one sweep apart: with the same gaps swapped each time, nothing came from the prior."""
    method = SMALL["tempering"]
    alone = dataclasses.replace(method, thin=1)
    sampler = alone.sampler(TARGETS["tempering"], fitted("tempering").state, {})
    said = sampler.sample(1600, key=jax.random.key(1)).findings[0]
    assert int(said.reason.split()[0]) > 100
    assert said.word == "trusted"
    assert 0.0 < sampler.ideal_round_trips < 0.5


# Draws of chains.


def test_draws_of_chains_come_in_turn_and_know_their_chain():
    x = jnp.arange(12.0).reshape(3, 4, 1)
    draws = Draws.of_chains(10, x, x[..., 0], jnp.zeros((3, 4)), 5, Estimate(0.0, 1.0))
    np.testing.assert_array_equal(draws.x[:, 0], [0, 4, 8, 1, 5, 9, 2, 6, 10, 3])
    np.testing.assert_array_equal(draws._by_chain(draws._figures())[:, :, 0], [[0, 1, 2], [4, 5, 6], [8, 9, 10]])


def test_relatives_count_as_fewer():
    z = jax.random.normal(jax.random.key(0), (4, 500, 1))
    flat = jnp.zeros((4, 500))
    alone = Draws.of_chains(2000, z, flat, flat, 0, None)
    kin = Draws.of_chains(2000, z, flat, flat, 0, None, 0.25)
    assert kin.ess == pytest.approx(0.25 * alone.ess)


def test_particles_are_scrambled_within_their_symmetry():
    target = double_well()
    x = jax.random.normal(jax.random.key(0), (6, 8))
    keys = jax.random.split(jax.random.key(1), 6)
    moved = jax.vmap(target.symmetry.scramble)(keys, x)
    np.testing.assert_allclose(target.values(moved), target.values(x), rtol=1e-4)
    assert not np.allclose(moved, x)


def test_states_are_pytrees_of_arrays():
    for name, method in SMALL.items():
        template = method.template(TARGETS[name])
        like = jax.tree.structure(template) == jax.tree.structure(fitted(name).state)
        assert like
        shapes = [a.shape for a in jax.tree.leaves(template)] == [
            a.shape for a in jax.tree.leaves(eqx.filter(fitted(name).state, eqx.is_array))
        ]
        assert shapes


# Tempering's frame.


def test_runs_together_gauge_a_frame_that_was_far_too_wide(monkeypatch):
    """Modes 60 times as far apart as they are wide, one of a quarter: a single run may well lose
    that one."""
    monkeypatch.setattr(settle, "PILOT", 256)
    means, covariance = np.array([[-3.0, 0.0], [3.0, 0.0]]), 0.01 * np.eye(2)
    target = gaussian_mixture(means, np.stack([covariance, covariance]), np.array([0.75, 0.25]))
    wide = Frame(jnp.asarray([20.0, -1.0]), jnp.asarray([40.0, 3.0]))
    z = jax.random.normal(jax.random.key(0), (64, 2))
    none = jnp.zeros(())
    found = SearchResult(
        wide, Buffer.of(z, wide.evaluate(target, z)), none + 1.0, jnp.ones(2), none, Evaluations.none()
    )
    gauge = settle.gauging(target, found)
    for seed in range(3):
        gauged = gauge(jax.random.key(seed))
        assert gauged.points.size == 64
        # The narrow one by 1536 points; the wide one by how they part among the modes.
        np.testing.assert_allclose(gauged.frame.scale, [3.0 * math.sqrt(0.75), 0.1], rtol=0.2)
        np.testing.assert_allclose(gauged.frame.location, [-1.5, 0.0], atol=1.0)
        np.testing.assert_allclose(gauged.points.log_prob, gauged.frame.values(target, gauged.points.z), atol=1e-2)
        assert int(gauged.evaluations.log_prob) > settle.PILOTS * 256 * 13
