"""All corrections by one standard, over samplers that have learned nothing: a diffusion, one whose
network is shown the density's gradient, and plain importance sampling. To be registered is to be
tested; nothing is trained."""

import dataclasses
import functools
import math
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import (
    CENTRES,
    LOG_Z,
    SHARES,
    TARGETS,
    WIDTHS,
    Guided,
    check_mixture,
    counting,
    draw_mixture,
    make_process,
)

import allmodes as am
from allmodes.diffusion.corrections import CORRECTIONS, Chains, Correction, PathSMC
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate
from allmodes.draws.verdict import ORDER
from allmodes.extend import DiffusionSampler, Frame, Sampler
from allmodes.points.buffer import Buffer
from allmodes.points.normal import log_normal

pytestmark = pytest.mark.trains

N, SIGMAS = 2000, 4.0
WIDTH = 1.6  # of the normal that importance sampling draws from
# Populations are weighted by all that was resampled away: they need no record of raw draws.
SHOW_THEMSELVES = {"smc"}
ALL = pytest.mark.parametrize("name", CORRECTIONS)


class Untrained:
    """A method whose network is as it was initialised; `guide` makes another denoiser of it."""

    name = "untrained"

    def __init__(self, sample_steps=16, guide=lambda target, denoiser: denoiser, **process):
        self.sample_steps, self.guide, self.about = sample_steps, guide, process

    def process(self, target, state):
        process = make_process(**self.about)
        frame = Frame.of(target, np.zeros(2), np.ones(2))
        return frame, dataclasses.replace(process, denoiser=self.guide(target, process.denoiser))

    def findings(self, state):
        return ()


def diffusion(target, **about):
    z = draw_mixture(5, 2048)
    state = types.SimpleNamespace(buffer=Buffer.of(z, TARGETS["mixture"].evaluate(z)))
    return DiffusionSampler(target, Untrained(**about), state)


class Importance(Sampler):
    """Draws of a normal, weighted."""

    def sample(self, n, *, key):
        x = WIDTH * jax.random.normal(key, (n, 2))
        log_prob = self.target.values(x)
        return Draws(x, log_prob, log_prob - log_normal(x, jnp.zeros_like(x), jnp.full(2, WIDTH**2)), n)


class Populations(Sampler):
    """Exact draws as those of two populations, which know log Z by themselves."""

    def sample(self, n, *, key):
        k_mode, k_noise, k_z = jax.random.split(key, 3)
        mode = jax.random.choice(k_mode, 2, (n,), p=jnp.asarray(SHARES))
        x = jnp.asarray(CENTRES)[mode] + jnp.asarray(WIDTHS)[mode, None] * jax.random.normal(k_noise, (n, 2))
        two = lambda a: a.reshape(2, n // 2, *a.shape[1:])  # noqa: E731
        evidence = Estimate(LOG_Z + 0.02 * float(jax.random.normal(k_z)), 0.02)
        return Draws.of_chains(n, two(x), two(self.target.values(x)), jnp.zeros((2, n // 2)), n, evidence)


SAMPLERS = {
    "diffusion": lambda target: diffusion(target, perturbed=0.3, sigma_min=0.05),
    "guided": lambda target: diffusion(target, guide=Guided.of, perturbed=0.3, sigma_min=0.05),
    "importance": lambda target: Importance(target, types.SimpleNamespace(name="importance"), None),
    "populations": lambda target: Populations(target, types.SimpleNamespace(name="populations"), None),
}
WRONG = [kind for kind in SAMPLERS if kind != "populations"]


@functools.cache
def sampler(kind):
    return SAMPLERS[kind](TARGETS["mixture"])


def has_paths(kind):
    return sampler(kind).proposal() is not None


WITH_PATHS = [kind for kind in SAMPLERS if has_paths(kind)]
PAIRS = [
    (name, kind) for name in CORRECTIONS for kind in SAMPLERS if kind in WITH_PATHS or CORRECTIONS[name] is not PathSMC
]
EACH = pytest.mark.parametrize(("name", "kind"), PAIRS)


@functools.cache
def drawn(name, kind, seed=1, n=N):
    return CORRECTIONS[name]()(sampler(kind), n, key=jax.random.key(seed))


def off(draws):
    """Standard errors between weighted averages and the truth, by the effective number."""
    w = np.asarray(jax.nn.softmax(draws.log_weight), float)
    index = np.random.default_rng(0).choice(len(draws), size=200_000, p=w / w.sum())
    return check_mixture(np.asarray(draws.x)[index], draws.ess)


@EACH
def test_averages_are_those_of_the_target(name, kind):
    draws = drawn(name, kind)
    assert draws.x.shape == (N, 2)
    assert 100 < draws.ess <= N
    assert np.all(off(draws) < SIGMAS)
    np.testing.assert_allclose(draws.log_prob, TARGETS["mixture"].values(draws.x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", WRONG)
def test_draws_as_they_are_have_others(kind):
    raw = sampler(kind).sample(N, key=jax.random.key(1))
    assert np.max(check_mixture(raw.x)) > 2 * SIGMAS


@EACH
def test_evidence_is_unbiased_and_knows_its_error(name, kind):
    seen = [drawn(name, kind, seed).log_z for seed in range(1, 9)]
    z = np.exp([estimate.value - LOG_Z for estimate in seen])
    errors = np.array([estimate.std_error for estimate in seen])
    assert abs(z.mean() - 1.0) < SIGMAS * math.sqrt(np.mean(errors**2) / len(z))
    assert 0.25 < z.std() / np.sqrt(np.mean(errors**2)) < 2.5


@EACH
def test_draws_keep_what_the_raw_ones_showed(name, kind):
    draws = drawn(name, kind)
    pool, of_chains = draws.pool or draws, sampler(kind).sample(40, key=jax.random.key(0)).chains > 0
    assert (pool.forward_ess is None) == (not has_paths(kind))
    assert (draws.pool is None) == (name in SHOW_THEMSELVES or of_chains)
    if of_chains:  # R^ takes the place of k^
        assert any("R^" in reason for reason in draws.verdict().reasons)
    if draws.pool is not None:
        assert draws.pool.n >= N
        assert 0 < draws.pool.ess <= draws.pool.n
        assert draws.pool.log_z_error == pytest.approx(draws.log_z.std_error)
    assert draws.verdict().word in ORDER


@ALL
def test_no_correction_makes_a_hopeless_sampler_trusted(name):
    """The prior is far off, and narrow: what the network knows nothing of is not met."""
    far = diffusion(TARGETS["mixture"], mean=6.0, variance=0.01, sigma_min=0.05)
    draws = CORRECTIONS[name]()(far, N, key=jax.random.key(0))  # shapes that are compiled already
    assert draws.verdict().word != "trusted"


# The ways to ask for one.


@ALL
def test_a_name_and_an_object_give_the_same_bits(name):
    by_name = sampler("diffusion").sample(N, key=jax.random.key(1), correct=name)
    by_object = sampler("diffusion").sample(N, key=jax.random.key(1), correct=CORRECTIONS[name]())
    for field in ("x", "log_prob", "log_weight"):
        for other in (by_object, drawn(name, "diffusion")):
            np.testing.assert_array_equal(getattr(by_name, field), getattr(other, field))
    assert by_name.evaluations == by_object.evaluations


@ALL
def test_one_is_settings_with_defaults(name):
    correction = CORRECTIONS[name]()
    assert isinstance(correction, Correction)
    assert correction == CORRECTIONS[name]()
    for field in dataclasses.fields(correction):
        wrong = -1.0 if isinstance(field.default, float) else -1
        with pytest.raises(am.ConfigError, match=field.name):
            dataclasses.replace(correction, **{field.name: wrong})


def test_settings_belong_to_one_or_the_other():
    given = {"rounds": 2, "moves": 5, "pool": 1}
    few = sampler("diffusion").sample(N, key=jax.random.key(1), correct=Chains(**given))
    same = sampler("diffusion").sample(N, key=jax.random.key(1), correct="mcmc", **given)
    np.testing.assert_array_equal(few.x, same.x)
    assert few.evaluations < drawn("mcmc", "diffusion").evaluations
    with pytest.raises(am.ConfigError, match=r"moves belong into Chains"):
        sampler("diffusion").sample(20, key=jax.random.key(1), correct=Chains(), moves=3)
    with pytest.raises(am.ConfigError, match="'snis', 'smc', 'mcmc' or None, got 'magic'"):
        sampler("diffusion").sample(20, key=jax.random.key(1), correct="magic")


def test_what_needs_paths_says_so():
    with pytest.raises(am.ConfigError, match="needs a sampler with a diffusion"):
        PathSMC()(sampler("importance"), 20, key=jax.random.key(1))
    with pytest.raises(am.ConfigError, match=r"rounds of noising .* got rounds=2"):
        Chains(rounds=2)(sampler("importance"), 20, key=jax.random.key(1))


# Counts, against a density that counts.


@pytest.mark.parametrize("kind", SAMPLERS)
def test_evaluations_are_counted_exactly(kind):
    ways = [CORRECTIONS[name]() for name, other in PAIRS if other == kind]
    if has_paths(kind):
        ways += [PathSMC(levels=3, looks=2, populations=2, smallest=4), Chains(rounds=2, moves=1, pool=1)]
    target, calls = counting()
    one = SAMPLERS[kind](target)
    steps = {"steps": 5} if has_paths(kind) else {}
    for draw in (functools.partial(one.sample, **steps), *(functools.partial(way, one, **steps) for way in ways)):
        calls.clear()
        draws = draw(12, key=jax.random.key(3))
        jax.block_until_ready(draws.x)
        jax.effects_barrier()
        assert draws.evaluations == len(calls), draw
