"""Modes of weighted draws: exact draws of mixtures with known shares, on lines, between bounds and
around circles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL, Counting, pair
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm, vonmises

import allmodes as am
from allmodes import targets
from allmodes.draws.estimates import Estimate
from allmodes.modes.links import links, roots
from allmodes.modes.table import table_of

N = 4000


def gaussian_mixture(means):
    return targets.gaussian_mixture(np.asarray(means, float), np.ones(np.shape(means)))


def drawn(target, n=N, log_weight=None, seed=0, **more):
    """Exact draws of a target without bounds, all of weight Z."""
    x = target.sample(jax.random.key(seed), n)
    log_weight = jnp.full(n, 0.0 if target.log_z is None else target.log_z) if log_weight is None else log_weight
    return am.Draws(x, target.values(x), log_weight, parameters=target.parameters, **more)


def table(target, draws):
    return table_of(target, draws, key=jax.random.key(1))


MEANS = np.array([[-30.0, 0.0], [20.0, 25.0], [10.0, -40.0], [60.0, 60.0]])
WIDTHS = np.array([1.0, 3.0, 0.2, 10.0])
SHARES = np.array([0.4, 0.3, 0.2, 0.1])


def four(scale=1.0):
    """Four normals whose widths differ fifty times; Z = 5."""

    def log_prob(x):
        parts = norm.logpdf(x, jnp.asarray(MEANS), jnp.asarray(WIDTHS)[:, None]).sum(1)
        return logsumexp(parts + jnp.log(5.0 * jnp.asarray(SHARES)))

    def sample(key, n):
        k_which, k_normal = jax.random.split(key)
        which = jax.random.choice(k_which, 4, (n,), p=jnp.asarray(SHARES))
        x = jax.random.normal(k_normal, (n, 2))
        return jnp.asarray(MEANS, jnp.float32)[which] + jnp.asarray(WIDTHS, jnp.float32)[which, None] * x

    return am.Target(log_prob, 2, names=["a", "b"], sample=sample, log_z=float(np.log(5.0)))


def test_shares_evidence_places_and_widths_are_those_of_the_mixture():
    target = four()
    draws = drawn(target)
    modes = table(target, draws)
    assert len(modes) == 4
    np.testing.assert_array_less(np.abs(modes.share - SHARES), 3 * modes.share_error)
    np.testing.assert_allclose(modes.share_error, np.sqrt(SHARES * (1 - SHARES) / N), rtol=0.1)
    np.testing.assert_array_less(np.abs(modes.log_z - np.log(5.0 * SHARES)), 3 * modes.log_z_error)
    np.testing.assert_allclose(modes.log_z_error, np.sqrt((1 / SHARES - 1) / N), rtol=0.1)
    error = WIDTHS[:, None] / np.sqrt(modes.ess[:, None])
    assert np.all(np.abs(modes.mean - MEANS) < 4 * error)
    assert np.all(np.abs(modes.sd - WIDTHS[:, None]) < 4 * error)
    assert np.all(np.abs(modes.peak - MEANS) < 0.1 * WIDTHS[:, None])
    np.testing.assert_allclose(modes.log_prob, np.log(5.0 * SHARES / (2 * np.pi * WIDTHS**2)), atol=2e-3)
    np.testing.assert_array_equal(modes.draws, np.bincount(modes.label))
    log_parts = norm.logpdf(draws.x[:, None], MEANS, WIDTHS[:, None]).sum(2) + np.log(SHARES)
    assert np.mean(np.argmax(log_parts, axis=1) == modes.label) > 0.998
    assert modes.misplaced == 0
    assert logsumexp(modes.log_z) == pytest.approx(np.log(5.0), abs=1e-6)


def test_shares_are_those_of_the_weights_with_the_errors_of_repeated_draws():
    """Draws of equal shares, weighted to others: over 40 sets they deviate as they say."""
    wanted, made = jnp.log(jnp.asarray([0.8, 0.2])), gaussian_mixture([[-5.0], [5.0]])

    def log_prob(x):
        return logsumexp(wanted + norm.logpdf(x[0], jnp.array([-5.0, 5.0]), 1.0))

    target, found = am.Target(log_prob, 1), []
    for seed in range(40):
        draws = drawn(made, 500, seed=seed)
        noise = 0.5 * jax.random.normal(jax.random.key(100 + seed), (500,))
        log_weight = target.values(draws.x) - made.values(draws.x) + noise - 0.125
        modes = table(target, am.Draws(draws.x, target.values(draws.x), log_weight))
        found.append([modes.share[0], modes.share_error[0], modes.log_z[0], modes.log_z_error[0]])
    share, share_error, log_z, log_z_error = np.array(found).T
    for value, error, truth in ((share, share_error, 0.8), (log_z, log_z_error, np.log(0.8))):
        assert abs(value.mean() - truth) < 3.5 * error.mean() / 40**0.5 + error.mean() ** 2
        assert value.std(ddof=1) == pytest.approx(error.mean(), rel=3.5 / 78**0.5)


def test_one_mode_has_it_all():
    target = am.Target(lambda x: -0.5 * jnp.sum(x**2), 3, log_z=1.5 * np.log(2 * np.pi))
    x = jax.random.normal(jax.random.key(0), (N, 3))
    modes = table(target, am.Draws(x, target.values(x), jnp.full(N, target.log_z)))
    assert len(modes) == 1
    assert modes.share[0] == pytest.approx(1.0)
    assert modes.draws[0] == N
    assert modes.log_z[0] == pytest.approx(target.log_z, abs=1e-5)
    assert modes.evaluations < 4000


@pytest.mark.parametrize("dim", [2, 16])
def test_forty_modes_are_forty(dim):
    means = 50.0 * np.random.default_rng(0).uniform(-1, 1, (40, dim))
    if dim == 2:  # on a grid, so that none overlaps another
        means = 12.0 * np.stack(np.divmod(np.arange(40), 7), axis=1)
    target = gaussian_mixture(means)
    modes = table(target, drawn(target, 10_000))
    assert len(modes) == 40
    np.testing.assert_array_less(np.abs(modes.share - 1 / 40), 4 * modes.share_error)
    assert modes.evaluations < 10_000
    assert modes.misplaced == 0


def test_what_no_barrier_parts_is_one_mode():
    """A ring, whose ridge is level, and two normals 2 widths apart, whose sum has one peak."""
    ring = am.find_target("ring")
    assert len(table(ring, drawn(ring))) == 1
    close = gaussian_mixture([[-0.9, 0.0], [0.9, 0.0]])
    assert len(table(close, drawn(close))) == 1


def test_copies_and_draws_without_mass_do_no_harm():
    target = four()
    draws = drawn(target)
    chosen = draws.resample(jax.random.key(2), N)
    x = jnp.concatenate([chosen.x[:500], chosen.x[:500], jnp.full((10, 2), 1e6)])
    log_prob = jnp.concatenate([chosen.log_prob[:500], chosen.log_prob[:500], jnp.full(10, -jnp.inf)])
    modes = table(target, am.Draws(x, log_prob, jnp.where(log_prob > -jnp.inf, 0.0, -jnp.inf)))
    assert len(modes) == 4
    assert np.all(modes.label[:500] == modes.label[500:1000])
    assert np.all(modes.label[1000:] == -1)
    assert modes.draws.sum() == 1000


def test_modes_that_lie_close_beside_the_width_of_other_coordinates_are_told_apart():
    """Six widths apart in one of six coordinates: beside the spread of all draws less than in the
    others, where the nearest higher draw is as likely of the other mode."""
    means, widths = np.zeros((2, 6)), np.full(6, 100.0)
    means[:, 0], widths[0] = (-3.0, 3.0), 1.0
    target = targets.gaussian_mixture(means, np.broadcast_to(widths**2, (2, 6)))
    draws = drawn(target)
    modes = table(target, draws)
    assert len(modes) == 2
    own = np.asarray(draws.x)[:, 0] > 0.0
    agree = np.mean(own == (modes.label == np.argmax(modes.mean[:, 0])))
    assert agree > 0.99
    assert np.all(np.abs(modes.share - 0.5) < 3 * modes.share_error)


# Bounds and circles.


def on_bounds():
    """A rate with a peak at 0 or one at 5, an angle at the seam or opposite to it: four modes of
    shares .3 x .6, ..; Z = 1."""

    def log_prob(x):
        rate = logsumexp(
            jnp.array([jnp.log(0.6) + jnp.log(20.0) - 20.0 * x[0], jnp.log(0.4) + norm.logpdf(x[0], 5.0, 0.3)])
        )
        angle = logsumexp(jnp.log(jnp.array([0.3, 0.7])) + vonmises.logpdf(x[1] - jnp.array([jnp.pi, 0.0]), 30.0))
        return rate + angle

    return am.Target(log_prob, 2, names=["rate", "angle"], bounds={"rate": (0, None)}, periodic=["angle"])


def exact_on_bounds(target, n=N):
    rng = np.random.default_rng(0)
    rate = np.where(rng.uniform(size=n) < 0.6, rng.exponential(0.05, n), 5.0 + 0.3 * rng.normal(size=n))
    place = np.where(rng.uniform(size=n) < 0.3, np.pi, 0.0)
    angle = np.mod(place + rng.vonmises(0.0, 30.0, n) + np.pi, 2 * np.pi) - np.pi
    x = jnp.asarray(np.stack([rate, angle], axis=1), jnp.float32)
    z = jax.vmap(target.chart.to_free)(jax.random.split(jax.random.key(0), n), x)
    told = {"parameters": target.parameters, "flats": target.flats, "ranges": target.ranges}
    return am.Draws(x, target.values(x), jnp.zeros(n), free=z, **told)


def test_modes_at_a_bound_and_at_a_seam_are_found_once_and_said_in_the_users_parameters():
    target = on_bounds()
    modes = table(target, exact_on_bounds(target))
    truth = np.array([0.6 * 0.7, 0.4 * 0.7, 0.6 * 0.3, 0.4 * 0.3])
    assert len(modes) == 4
    assert modes.names == ("rate", "angle")
    np.testing.assert_array_less(np.abs(modes.share - truth), 3 * modes.share_error)
    np.testing.assert_array_less(np.abs(modes.log_z - np.log(truth)), 3 * modes.log_z_error)
    rate, angle = modes.names.index("rate"), modes.names.index("angle")
    np.testing.assert_allclose(modes.mean[:, rate], [0.05, 5.0, 0.05, 5.0], atol=0.05)
    np.testing.assert_allclose(np.cos(modes.mean[:, angle]), [1.0, 1.0, -1.0, -1.0], atol=1e-3)
    np.testing.assert_allclose(modes.sd[:, angle], 0.184, atol=0.02)  # of von Mises with concentration 30
    np.testing.assert_allclose(np.cos(modes.peak[:, angle]), [1.0, 1.0, -1.0, -1.0], atol=1e-3)
    np.testing.assert_allclose(
        modes.log_prob, target.values(jnp.asarray(modes.peak[:, [rate, angle]], jnp.float32)), atol=1e-3
    )


def test_a_density_without_a_gradient_has_modes_by_its_values():
    smooth = four()
    target = am.Target(smooth.log_prob, 2, differentiable=False)
    draws = drawn(smooth)
    modes = table(target, draws)
    assert len(modes) == 4
    np.testing.assert_array_less(np.abs(modes.share - SHARES), 3 * modes.share_error)


# What draws know of log Z, and what cannot be.


def test_evidence_from_elsewhere_is_divided_by_the_shares():
    target = four()
    modes = table(target, drawn(target, log_weight=jnp.zeros(N), evidence=Estimate(2.0, 0.3)))
    np.testing.assert_allclose(modes.log_z, 2.0 + np.log(modes.share))
    np.testing.assert_allclose(modes.log_z_error, np.hypot(0.3, modes.share_error / modes.share))
    chains = table(target, drawn(target, log_weight=jnp.zeros(N), evidence=Estimate(np.nan, np.inf), chains=4))
    assert np.all(np.isnan(chains.log_z))
    assert "nan" not in str(chains)


def test_related_draws_have_larger_errors():
    target = four()
    one, quarter = (table(target, drawn(target, independent=share)) for share in (1.0, 0.25))
    np.testing.assert_allclose(quarter.share_error, 2.0 * one.share_error)


def test_evaluations_are_counted():
    plain = four()
    target = Counting(plain.log_prob, 2)
    modes = table(target, drawn(plain))
    assert modes.evaluations == target.total


def test_points_in_a_mode_that_no_draw_has_met_are_told_apart():
    both = gaussian_mixture([[-8.0, 0.0], [8.0, 0.0]])
    draws, points = drawn(gaussian_mixture([[-8.0, 0.0]]), 1000), drawn(both, 400).x
    modes = table_of(both, draws, key=jax.random.key(1), points=points)
    there = int(np.sum(np.asarray(points)[:, 0] > 0))
    assert (len(modes), modes.elsewhere) == (1, there)
    assert modes.points.tolist() == [400 - there]
    assert str(modes).endswith(f", {there} points of training lie near no draw")


def test_misuse_is_said():
    target = four()
    draws = drawn(target, 100)
    with pytest.raises(am.ConfigError, match="modes of particles are not told apart"):
        table(am.find_target("dw4"), draws)
    with pytest.raises(am.ConfigError, match="draws have 2 coordinates, the target 3"):
        table(am.Target(lambda x: -jnp.sum(x**2), 3), draws)
    with pytest.raises(am.ConfigError, match="no draw has any mass"):
        table(target, am.Draws(draws.x, jnp.full(100, -jnp.inf), jnp.full(100, -jnp.inf)))
    with pytest.raises(am.ConfigError, match="need their free coordinates"):
        table(on_bounds(), draws)


# The parts.


def test_links_hang_each_draw_on_the_nearest_higher_one():
    places = np.random.default_rng(0).normal(size=(700, 3))
    link = links(places)
    distance = np.linalg.norm(places[:, None] - places, axis=2)
    for i in (1, 5, 699):
        parent = np.argmin(distance[i, :i])
        assert link.parent[i] == parent
        assert link.far[i] == pytest.approx(distance[i, parent])
        assert link.lower[i] == np.sum(distance[i] < distance[i, parent]) - 1
        assert link.near[i] == pytest.approx(np.sort(distance[i])[8])
    assert link.parent[0] == -1
    assert 0 in roots(link, 16, 4, 4)


# Where they are shown.


def test_a_table_shows_the_first_modes_and_says_how_many_more():
    target = gaussian_mixture(12.0 * np.stack(np.divmod(np.arange(25), 5), axis=1))
    modes = table(target, drawn(target))
    lines = str(modes).splitlines()
    assert lines[0].split()[:4] == ["mode", "share", "log", "Z"]
    assert len(lines) == 1 + 20 + 2
    assert lines[-2] == "and 5 more"
    assert lines[-1] == f"25 modes by {modes.evaluations:,} evaluations"
    assert set(modes.as_dict()) >= {"names", "share", "log_z", "peak", "evaluations"}


def test_of_many_parameters_a_table_shows_those_that_tell_modes_apart():
    means = np.zeros((2, 8))
    means[1, [2, 5, 6, 7]] = 12.0
    modes = table_of(target := gaussian_mixture(means), drawn(target), key=jax.random.key(1))
    assert modes.columns()[4:] == ["x[2]", "x[5]", "x[6]", "x[7]", "and 4 more"]
    first = modes.rows(1)[0][4:]
    assert first[-1] == ".."
    assert first[0] == f"{modes.mean[0, 2]:.4g} \u00b1 {modes.sd[0, 2]:.2g}"


@pytest.mark.trains
def test_a_sampler_tells_its_modes_and_how_many_points_of_training_lie_in_each():
    sampler = am.fit(pair(), am.IWSM(**{**SMALL, "steps": 20}), key=jax.random.key(0))
    modes = sampler.modes(key=jax.random.key(1), n=2000)
    assert len(modes) == 2
    assert np.all(np.abs(modes.log_z - np.log(np.pi / 2)) < 3.5 * modes.log_z_error)
    assert modes.points.sum() + modes.elsewhere == 512
    assert np.all(modes.points > 100)
    draws = sampler.sample(1000, key=jax.random.key(2))
    assert len(sampler.modes(draws, key=jax.random.key(3)).label) == 1000
