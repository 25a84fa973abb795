"""Coordinates that are exchanged: between points of a search, and within the modes that it has."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counting

from allmodes import Target
from allmodes.mcmc.mala import Moved
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.search.base import fit_base
from allmodes.search.crossover import CHILDREN, CLIMBERS, ROUNDS, STEPS, crossed
from allmodes.search.effort import Search
from allmodes.search.exchanges import AT_A_TIME, IMAGES, MOST, Exchanges, with_exchanged
from allmodes.search.fitting import fit_mixture
from allmodes.search.search import search
from allmodes.targets import random_mixture

pytestmark = pytest.mark.trains

WIDTH = 0.05
FIRST = np.array([1.5, 3.0, -1.0, -2.0, 0.5, 4.0])


def of_modes(means):
    """Equal normals at these means."""
    means = jnp.asarray(means, jnp.float32)

    def log_prob(x):
        return jax.nn.logsumexp(-0.5 * jnp.sum(((x - means) / WIDTH) ** 2, axis=1))

    return Counting(log_prob, dim=means.shape[1])


def known(target, means, n=256):
    """What a search has found that has met these modes alone, and the mixture of them."""
    means, dim = np.atleast_2d(means), target.dim
    frame, k = Frame.of(target, np.zeros(dim), np.ones(dim)), len(means)
    z = np.repeat(means, n, axis=0) + WIDTH * np.random.default_rng(0).normal(size=(k * n, dim))
    z = jnp.asarray(z, jnp.float32)
    points, none = Buffer.of(z, frame.evaluate(target, z)), Evaluations.none()
    found = SearchResult(frame, points, jnp.asarray(0.1), jnp.ones(dim), jnp.zeros(()), none)
    log_share = jnp.where(jnp.arange(32) < k, -jnp.log(k), -jnp.inf)
    alike = (
        jnp.asarray(np.broadcast_to(a, (32, *np.shape(a))), jnp.float32) for a in (np.eye(dim), np.full(dim, WIDTH**2))
    )
    return found, GaussianMixture(log_share, jnp.asarray(means[np.arange(32) % k], jnp.float32), *alike)


def shares_at(mixture, means):
    """Of the components at each mean."""
    share = np.exp(np.asarray(mixture.log_share, float))
    near = (
        np.linalg.norm(np.asarray(mixture.mean)[:, None] - np.asarray(means), axis=2) < 3 * WIDTH * len(means[0]) ** 0.5
    )
    return share @ near


ORDERS = {
    "by component": [[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]],
    "by kind": [[0, 1, 2, 3, 4, 5], [1, 0, 3, 2, 5, 4]],
    "some of them": [[0, 1, 2, 3, 4, 5], [2, 3, 0, 1, 4, 5]],
    "labels of three": [[a, a + 1, b, b + 1, c, c + 1] for a, b, c in
                        [(0, 2, 4), (0, 4, 2), (2, 0, 4), (2, 4, 0), (4, 0, 2), (4, 2, 0)]],
}  # fmt: skip


@pytest.mark.parametrize("orders", ORDERS.values(), ids=ORDERS)
def test_modes_that_differ_in_the_order_of_coordinates_are_found_from_one(orders):
    means = FIRST[np.asarray(orders)]
    target = of_modes(means)
    found, mixture = known(target, means[0])
    before = target.total
    mixture, found = with_exchanged(target, found, mixture, jax.random.key(0))
    assert np.all(shares_at(mixture, means) > 0.0)
    assert target.total - before == int(found.evaluations.log_prob) < 3000
    np.testing.assert_allclose(found.points.log_prob, target.values(found.points.z), atol=0.01)


def test_what_exchanges_one_pair_of_modes_is_tried_on_a_third():
    """The highest mode has its twin already."""
    others = FIRST[::-1] + 1.0
    means = np.stack([FIRST, FIRST[ORDERS["by kind"][1]], others, others[ORDERS["by kind"][1]]])
    target = of_modes(means)
    found, mixture = known(target, means[:3])
    found = found._replace(points=dataclasses.replace(found.points, log_prob=found.points.log_prob.at[0].add(1.0)))
    mixture, _ = with_exchanged(target, found, mixture, jax.random.key(0))
    assert np.all(shares_at(mixture, means) > 0.0)


@pytest.mark.parametrize("signs", [[-1, -1, -1, -1, -1, -1], [1, 1, -1, 1, 1, 1]])
def test_modes_that_differ_in_signs_are_found_from_one(signs):
    means = np.stack([FIRST, np.asarray(signs) * FIRST])
    target = of_modes(means)
    found, mixture = known(target, means[0])
    mixture, _ = with_exchanged(target, found, mixture, jax.random.key(0))
    assert np.all(shares_at(mixture, means) > 0.0)


def test_where_an_exchange_leads_nowhere_nothing_is_added():
    target = of_modes([FIRST])
    found, mixture = known(target, FIRST)
    before = target.total
    new, after = with_exchanged(target, found, mixture, jax.random.key(0))
    assert new is mixture
    assert after.points is found.points
    tried = len(Exchanges.of(6).index)
    assert target.total - before == int(after.evaluations.log_prob) <= tried + AT_A_TIME


def test_the_base_of_a_search_that_has_met_one_order_has_both():
    """Whichever order the climbs have met, the other one is left out."""
    means = FIRST[np.asarray(ORDERS["by kind"])]
    target = of_modes(means)
    found, _ = known(target, means[1], 1024)
    base, _ = fit_base(target, found, 32, jax.random.key(0))
    np.testing.assert_allclose(shares_at(base.mixture, means), 0.5, atol=0.02)
    assert base.share > 0.95


@pytest.mark.parametrize("dim", [2, 6, 7, 16, 40])
def test_exchanges_undo_themselves_and_no_two_are_alike(dim):
    index, sign = Exchanges.of(dim)
    assert len(index) <= MOST
    both = np.concatenate([index, sign], axis=1)
    assert len(np.unique(both, axis=0)) == len(both)
    np.testing.assert_array_equal(np.take_along_axis(index, index, axis=1), np.tile(np.arange(dim), (len(index), 1)))
    assert np.all(np.abs(sign) == 1)
    assert not np.any(np.all(index == np.arange(dim), axis=1) & np.all(sign == 1, axis=1))


def in_parts(x):
    """Two parts of three coordinates: a ball in each, with a slope of next to no mass around."""
    away = jnp.sum((x.reshape(2, 3) - jnp.asarray([[2.0], [-1.0]])) ** 2, axis=1)
    return jnp.sum(jnp.logaddexp(-0.5 * away / 0.1**2, -25.0 - 0.5 * away / 5.0**2))


def population(target, z):
    dim = z.shape[1]
    box = Frame.of(target, np.zeros(dim), np.ones(dim))
    points = Buffer.of(jnp.asarray(z, jnp.float32), box.evaluate(target, jnp.asarray(z, jnp.float32)))
    passed = jax.tree.map(lambda a: jnp.concatenate([a, a]), points)
    square = points.grad**2 + 1.0
    return box, Moved(points, jnp.full(len(z), 0.01), jnp.ones(()), 0, 0, points.log_prob, square, passed)


def test_points_with_one_part_right_make_one_with_both():
    target, rng = Counting(in_parts, dim=6), np.random.default_rng(0)
    z = 4.0 * rng.normal(size=(2048, 6))
    z[:20, :3], z[20:40, 3:] = 2.0 + 0.1 * rng.normal(size=(20, 3)), -1.0 + 0.1 * rng.normal(size=(20, 3))
    box, moved = population(target, z)
    assert float(jnp.max(moved.points.log_prob)) < -20.0
    before = target.total
    new, rounds, spent = crossed(target, box, moved, 4, 2, jax.random.key(0))
    assert 1 <= rounds < ROUNDS
    assert target.total - before == int(spent.log_prob) == int(spent.gradient)
    is_new = np.asarray(new.points.log_prob) > -10.0
    assert 0 < is_new.sum() <= rounds * CLIMBERS
    both = np.tile(np.repeat([2.0, -1.0], 3), (is_new.sum(), 1))
    np.testing.assert_allclose(new.points.z[is_new], both, atol=0.5)
    last = jax.tree.map(lambda a: a[-2048:], new.passed)
    np.testing.assert_array_equal(last.z, new.points.z)
    np.testing.assert_array_equal(last.log_prob, new.points.log_prob)
    kept = ~np.all(np.asarray(new.points.z) == np.asarray(moved.points.z), axis=1)
    assert kept.sum() <= rounds * CLIMBERS  # all others stay


def test_where_no_child_stands_out_the_points_stay():
    target = Counting(lambda x: -0.5 * jnp.sum(x**2), dim=4)
    box, moved = population(target, np.random.default_rng(0).normal(size=(1024, 4)))
    before = target.total
    new, rounds, spent = crossed(target, box, moved, 4, 2, jax.random.key(0))
    assert rounds == 0
    assert new is moved
    assert int(spent.log_prob) == int(spent.gradient) == target.total - before == CHILDREN + CLIMBERS * STEPS


def waves(x):
    """Two waves in 60 data: `log p` of two amplitudes, frequencies and phases, listed by kind."""
    t = jnp.asarray(np.sort(np.random.default_rng(0).uniform(0, 10, 60)), jnp.float32)
    data = jnp.sin(7.3 * t + 0.4) + 0.7 * jnp.sin(11.9 * t + 2.0)
    amplitude, frequency, phase = x.reshape(3, 2)
    off = data - amplitude @ jnp.sin(frequency[:, None] * t + phase[:, None])
    return -0.5 * jnp.sum((off / 0.3) ** 2)


def test_two_waves_are_found_in_either_order(monkeypatch):
    bounds = [(0, 3), (0, 3), (0, 20), (0, 20), (0, 2 * np.pi), (0, 2 * np.pi)]
    target = Target(waves, dim=6, bounds=bounds, periodic=[4, 5])
    k_search, k_base = jax.random.split(jax.random.key(0))
    found = search(target.free, k_search, 16384, Search())
    base, _ = fit_base(target.free, found, 128, k_base)
    x = jax.vmap(target.chart.to_x)(found.frame.to_x(base.mixture.sample(jax.random.key(1), 4096)))
    low, high = np.sort(np.asarray(x)[:, 2:4], axis=1).T
    assert np.median(low) == pytest.approx(7.3, abs=0.1)
    assert np.median(high) == pytest.approx(11.9, abs=0.1)
    assert np.mean(x[:, 2] < x[:, 3]) == pytest.approx(0.5, abs=0.05)
    # Climbs alone end with one of them, far below.
    monkeypatch.setattr("allmodes.search.search.FEWEST_DIM", 100)
    alone = search(target.free, k_search, 16384, Search())
    best = [float(jnp.max(f.frame.log_prob(f.points.log_prob))) for f in (found, alone)]
    assert best[0] > best[1] + 20.0


def test_a_mixture_without_such_modes_costs_little_more():
    target = Counting(random_mixture(seed=0, modes=8, dim=6).log_prob, dim=6, scale=40.0)
    found = search(target, jax.random.key(0), 4096, Search())
    mixture = fit_mixture(found.passed, 32, jax.random.key(1))
    before = target.total
    new, after = with_exchanged(target, found, mixture, jax.random.key(2))
    assert new is mixture
    at_most = len(Exchanges.of(6).index) + AT_A_TIME + IMAGES
    assert target.total - before == int(after.evaluations.log_prob) - int(found.evaluations.log_prob) <= at_most
