"""Draws of several mixtures weighted together, and a mixture that they make better: Gaussians, of
which all is known."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import multivariate_normal

from allmodes.points.buffer import Buffer
from allmodes.search.parts import Parts
from allmodes.search.polish import _quadratic, polished
from allmodes.search.pool import HEAVIEST, Drawn, Pool, proposal_of

MOST = 8
LOG_Z = -2.5
MEANS = np.array([[-1.0, 0.5], [1.2, -0.3], [0.4, 2.0]])
CHOLS = np.array([[[0.5, 0.0], [0.2, 0.3]], [[0.3, 0.0], [-0.1, 0.4]], [[0.2, 0.0], [0.1, 0.2]]])
MASSES = np.array([0.5, 0.3, 0.2])


def parts(means=MEANS, chols=CHOLS, masses=MASSES):
    return Parts(np.array(means, float), np.array(chols, float), np.log(masses))


def draws(of, n, seed):
    """N draws of a mixture, in whose density only they are one of it."""
    rng = np.random.default_rng(seed)
    which = rng.choice(len(of.log_mass), n, p=np.exp(of.log_mass - np.logaddexp.reduce(of.log_mass)))
    return of.mean[which] + np.einsum("nij,nj->ni", of.chol[which], rng.normal(size=(n, of.mean.shape[1])))


def drawn(density, proposal, n=4000, seed=0):
    z = draws(proposal, n, seed)
    return Drawn(z, LOG_Z + density.log_density(z), proposal.log_density(z))


def points(density, proposal, n, seed):
    z = draws(proposal, n, seed)
    return Buffer(jnp.asarray(z), jnp.asarray(LOG_Z + density.log_density(z)), jnp.zeros_like(z))


def test_parts_have_the_density_of_their_mixture():
    z = draws(parts(), 50, 0)
    true = sum(w * multivariate_normal(m, c @ c.T).pdf(z) for w, m, c in zip(MASSES, MEANS, CHOLS, strict=True))
    np.testing.assert_allclose(parts().log_density(z), np.log(true), rtol=1e-10)
    again = Parts.of_mixture(parts().mixture(MOST))
    np.testing.assert_allclose(again.log_density(z), np.log(true), atol=1e-4)
    assert len(again.log_mass) == 3


def test_draws_of_several_proposals_count_as_those_of_all_together():
    one, other = parts(), parts(MEANS[:1], CHOLS[:1] * 2.0, [1.0])
    pool = Pool().plus(one, points(parts(), one, 400, 1)).plus(other, points(parts(), other, 400, 2))
    z = pool.drawn.z
    both = np.logaddexp(one.log_density(z), other.log_density(z)) - np.log(2.0)
    np.testing.assert_allclose(pool.drawn.log_proposal, both, atol=1e-5)
    np.testing.assert_allclose(pool.drawn.log_prob, LOG_Z + parts().log_density(z), atol=1e-5)


def test_the_density_itself_has_a_share_of_one_and_draws_of_another_tell_log_z():
    wide = parts(MEANS, CHOLS * 1.4)
    of_wide = drawn(parts(), wide, n=40_000)
    assert of_wide.share(parts()) == pytest.approx(1.0, abs=1e-9)
    assert of_wide.log_z == pytest.approx(LOG_Z, abs=0.02)
    # Of a normal density by one k times as wide in two dimensions: (2 k^2 - 1) / k^4.
    assert of_wide.share(wide) == pytest.approx((2 * 1.4**2 - 1) / 1.4**4, abs=0.02)
    assert of_wide.likelihood(parts()) > of_wide.likelihood(wide)


def test_a_mode_that_a_mixture_lacks_counts_in_its_share_as_much_as_a_draw_may_weigh():
    few = parts(MEANS[:2], CHOLS[:2], MASSES[:2] / 0.8)
    assert drawn(parts(), parts()).share(few) == pytest.approx(1.0 / (0.8 * 0.8 + 0.2 * HEAVIEST), rel=0.1)


def test_the_likeliest_of_mixtures_is_the_density_and_not_one_that_lacks_a_mode():
    tried = parts(), parts(MEANS[:2], CHOLS[:2], MASSES[:2] / 0.8), parts(chols=CHOLS * 3.0)
    pool = Pool()
    for i, some in enumerate(tried):
        pool = pool.plus(some, points(parts(), some, 2000, i))
    assert np.argmax([pool.drawn.likelihood(some) for some in tried]) == 0


def test_shares_are_those_of_the_density_and_exact_where_shapes_are():
    other = parts(masses=[0.2, 0.3, 0.5])
    right = drawn(parts(), proposal_of(other), n=500).with_shares(other)
    np.testing.assert_allclose(np.exp(right.log_mass), MASSES, atol=5e-3)


def test_every_component_of_any_share_is_drawn():
    masses = np.exp(proposal_of(parts(masses=[0.6, 0.4 - 1e-5, 1e-5])).log_mass)
    assert masses.sum() == pytest.approx(1.0)
    assert masses.min() > 1.9e-3


def test_shapes_places_and_shares_become_those_of_the_density():
    off = parts(MEANS + 0.1, CHOLS * 1.3, [0.4, 0.3, 0.3])
    seen = drawn(parts(), off, n=600)
    better = polished(off, seen, MOST)
    exact = drawn(parts(), parts(), seed=5)
    assert exact.share(off) < 0.75
    assert exact.share(better) > 0.995
    np.testing.assert_allclose(better.log_density(exact.z), parts().log_density(exact.z), atol=0.3)


def test_one_component_for_two_modes_becomes_two():
    two = parts([[-0.7, 0.0], [0.7, 0.0]], [0.5 * np.eye(2)] * 2, [0.7, 0.3])
    wide = np.sqrt(np.diag([0.25 + 0.7 * 0.3 * 1.4**2, 0.25]))
    one = parts([[-0.28, 0.0]], [wide], [1.0])
    better = polished(one, drawn(two, one), MOST)
    assert len(better.log_mass) == 2
    exact = drawn(two, two, seed=5)
    assert exact.share(one) < 0.98
    assert exact.share(better) > 0.995
    np.testing.assert_allclose(np.sort(np.exp(better.log_mass)), [0.3, 0.7], atol=0.05)
    np.testing.assert_allclose(np.sort(better.mean[:, 0]), [-0.7, 0.7], atol=0.1)
    assert len(polished(one, drawn(two, one), 1).log_mass) == 1  # no more than there may be


def test_a_normal_density_stays_one_component():
    one = parts(MEANS[:1], CHOLS[:1], [1.0])
    off = parts(MEANS[:1], CHOLS[:1] * 1.2, [1.0])
    assert len(polished(off, drawn(one, off), MOST).log_mass) == 1


def test_a_mixture_that_is_the_density_is_left_as_it_is():
    exact = parts()
    assert polished(exact, drawn(exact, exact), MOST) is exact


def test_draws_at_which_there_is_no_density_change_nothing():
    z = draws(parts(), 100, 0)
    nowhere = Drawn(z, np.full(100, -np.inf), parts().log_density(z))
    old = parts()
    assert polished(old, nowhere, MOST) is old
    assert nowhere.with_shares(old) is old
    assert nowhere.share(old) == 0.0
    assert not nowhere.weight.any()


def test_a_component_of_which_no_draw_is_changes_nothing_and_is_no_fault():
    """Over the sum of its parts of the draws, of 10^-310, any number is beyond float64."""
    near = drawn(parts(masses=[0.6, 0.2, 0.2]), parts())
    most = lambda one: np.max(one.log_joint(near.z)[:, 3] - one.log_density(near.z))  # noqa: E731
    at = (parts([*MEANS, [x, 0.5]], [*CHOLS, CHOLS[1]], [*MASSES, 0.1]) for x in np.linspace(10.0, 20.0, 1001))
    far = next(one for one in at if -708.0 < most(one) < -703.0)
    better = polished(far, near, MOST)
    assert np.isfinite(better.log_density(near.z)).all()


def test_few_draws_in_many_dimensions_do_no_harm():
    """In 12 dimensions a component has 91 numbers; the draws are 300."""
    rng = np.random.default_rng(3)
    chol = np.linalg.cholesky(np.cov(rng.normal(size=(40, 12)).T))
    true = parts(np.zeros((1, 12)), [chol], [1.0])
    off = parts(np.full((1, 12), 0.05), [chol * 1.05], [1.0])
    exact = drawn(true, true, seed=5)
    better = polished(off, drawn(true, off, n=300), MOST)
    assert exact.share(better) >= exact.share(off) - 0.01


def test_a_quadratic_function_is_the_same_by_draws_and_by_numbers():
    """With as many draws as numbers the equations change; a draw of no weight changes nothing."""
    rng = np.random.default_rng(0)
    dim, n = 4, 14  # 15 numbers
    y, scale, excess = rng.normal(size=(n, dim)), rng.uniform(0.2, 1.0, n), rng.normal(size=n)
    by_draws = _quadratic(y, scale, excess, 0.3)
    nothing = np.append(scale, 0.0), np.append(excess, 0.0)
    by_numbers = _quadratic(np.concatenate([y, np.ones((1, dim))]), *nothing, 0.3)
    for one, other in zip(by_draws, by_numbers, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("n", [60, 300])
def test_a_draw_far_out_in_a_tail_is_no_end_of_it(n):
    """It outweighs all others by more than digits hold, in the equations of the draws and in those
    of the numbers: no error ends a fit, and other draws tell whether what comes of it is better.
    """
    rng = np.random.default_rng(0)
    y = rng.normal(size=(n, 16))  # 153 numbers
    y[0] *= 1e5
    assert all(np.isfinite(part).all() for part in _quadratic(y, np.ones(n), rng.normal(size=n), 1e-3))


def test_a_quadratic_function_is_found():
    rng = np.random.default_rng(0)
    dim, n = 3, 40
    y, scale = rng.normal(size=(n, dim)), rng.uniform(0.5, 1.0, n)
    square, slope, height = np.diag([0.3, -0.2, 0.1]) + 0.05, np.array([1.0, -2.0, 0.5]), 0.7
    values = height + y @ slope + np.einsum("ni,ij,nj->n", y, square, y)
    found = _quadratic(y, scale, scale * values, 1e-10)
    for one, other in zip(found, (height, slope, square), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
