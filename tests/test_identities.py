"""Identities of exact draws, and the agreement of two samplers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate
from allmodes.draws.verdict import CORRECT, TRUSTED, Seen, judge
from allmodes.metrics.identities import Check, identities
from allmodes.sampler import Sampler
from allmodes.targets import gaussian, gaussian_mixture
from allmodes.targets.particles import double_well

SIGMAS = 4.5
FAR = gaussian_mixture(np.array([[-9.0, 0.0], [9.0, 1.0]]), np.array([0.5, 1.5]), [0.3, 0.7], 1.0)


def offs(target, x, *rest):
    return [check.off for check in identities(target, x, *rest)]


@pytest.mark.parametrize("target", [gaussian(5), FAR], ids=["gaussian", "mixture"])
def test_exact_draws_pass(target):
    assert max(offs(target, target.sample(jax.random.key(0), 4000))) < SIGMAS


def test_wrong_widths_break_the_virial_and_wrong_places_the_score():
    target = gaussian(5)
    x = target.sample(jax.random.key(0), 4000)
    mean = jnp.mean(x, axis=0)
    assert offs(target, mean + 1.1 * (x - mean))[0] > 6.0
    assert offs(target, x + 0.2)[1] > 6.0


def test_a_missing_mode_breaks_neither():
    x = FAR.sample(jax.random.key(0), 8000)
    assert max(offs(FAR, x[x[:, 0] > 0][:4000])) < SIGMAS


def test_weights_are_counted():
    target = gaussian_mixture(np.zeros((1, 2)), 1.0)
    x = 1.3 * jax.random.normal(jax.random.key(0), (4000, 2))
    log_w = target.values(x) + 0.5 * jnp.sum((x / 1.3) ** 2, axis=1)
    assert max(offs(target, x)) > 6.0
    assert max(offs(target, x, log_w)) < SIGMAS


def test_related_draws_have_larger_errors():
    x = gaussian(5).sample(jax.random.key(0), 1000)
    alone, kin = (identities(gaussian(5), x, None, share) for share in (1.0, 0.25))
    assert kin[0].std_error == pytest.approx(2.0 * alone[0].std_error)


def test_particles_count_their_free_dimensions():
    target = double_well()
    z = jax.random.normal(jax.random.key(0), (4000, 6))
    spring = am.Target(lambda x: -0.5 * jnp.sum((x.reshape(4, 2) - x.reshape(4, 2).mean(0)) ** 2), 8)
    spring = dataclasses.replace(spring, symmetry=target.symmetry)
    checks = identities(spring, target.symmetry.embed(z))
    assert checks[0].expected == -6.0
    assert max(check.off for check in checks) < SIGMAS


def test_an_edge_among_the_draws_voids_them():
    half = am.Target(lambda x: jnp.where(x[0] > 0, -x[0], -jnp.inf), 1)
    assert identities(half, jnp.array([[1.0], [-1.0]])) is None


def test_an_identity_that_fails_is_a_reason():
    figures = dict(n=1000, ess=990.0, khat=0.1, log_z_error=0.01, forward_ess=0.9, exact=True)
    good, bad = Check("virial", -5.1, -5.0, 0.1), Check("virial", -6.0, -5.0, 0.1)
    assert judge(Seen(**figures, identities=[good])).word == TRUSTED
    verdict = judge(Seen(**figures, identities=[bad]))
    assert verdict.word == CORRECT
    assert any("virial is -6, 10.0 standard errors from the -5" in reason for reason in verdict.reasons)


# Agreement.


class Fake(Sampler):
    """Draws exactly from `state`, a density that it knows, as if it were the target."""

    def sample(self, n, *, key):
        x = self.state.sample(key, n)
        log_prob = self.target.values(x)
        return Draws(x, log_prob, log_prob - self.state.values(x) + self.state.log_z, n)

    def log_weights(self, x, *, key):
        return self.target.values(x) - self.state.values(x) + self.state.log_z


class Silent(Fake):
    """The same, that knows neither log Z nor weights."""

    def sample(self, n, *, key):
        draws = super().sample(n, key=key)
        unknown = Estimate(float("nan"), float("inf"))
        return dataclasses.replace(draws, log_weight=jnp.zeros(n), evidence=unknown)

    def log_weights(self, x, *, key):
        return None


ONE = gaussian_mixture(np.array([[9.0, 1.0]]), 1.5)
WIDE = gaussian_mixture(np.array([[-9.0, 0.0], [9.0, 1.0]]), np.array([0.6, 1.8]), [0.4, 0.6])


def test_two_good_samplers_agree():
    found = am.agreement(Fake(FAR, None, WIDE), Fake(FAR, None, FAR), key=jax.random.key(0))
    assert found.agree
    assert found.reasons == []
    assert found.log_z_off < SIGMAS
    assert min(found.cross_ess) > 0.5


@pytest.mark.parametrize("turn", [False, True])
def test_one_that_misses_a_mode_is_found_out(turn):
    pair = [Fake(FAR, None, WIDE), Fake(FAR, None, ONE)]
    found = am.agreement(*(pair[::-1] if turn else pair), key=jax.random.key(0))
    assert not found.agree
    assert min(found.cross_ess) < 0.01
    assert any("hardly reaches where draws of the" in reason for reason in found.reasons)
    assert any("log Z differ" in reason for reason in found.reasons)


def test_those_that_know_nothing_are_compared_by_their_energies():
    good, bad = Silent(FAR, None, FAR), Silent(FAR, None, ONE)
    same = am.agreement(good, good, key=jax.random.key(0))
    assert same.agree
    assert same.log_z_off is None
    assert same.cross_ess == (None, None)
    other = am.agreement(good, bad, key=jax.random.key(0))
    assert not other.agree
    assert "mean log-densities differ" in other.reasons[0]


def test_wrong_use_of_agreement_is_refused():
    with pytest.raises(am.ConfigError, match="in 2 and 5 dimensions"):
        am.agreement(Fake(FAR, None, FAR), Fake(gaussian(5), None, gaussian(5)), key=jax.random.key(0))
    with pytest.raises(am.ConfigError, match="of different densities: at a draw of the first"):
        am.agreement(Fake(FAR, None, FAR), Fake(WIDE, None, FAR), key=jax.random.key(0))
    with pytest.raises(am.ConfigError, match="n of at least 100, got 10"):
        am.agreement(Fake(FAR, None, FAR), Fake(FAR, None, FAR), key=jax.random.key(0), n=10)
