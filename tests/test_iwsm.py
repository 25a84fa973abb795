"""IWSM: its configuration, what each part of a step costs and leaves, and that it learns."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import Counting, little

import allmodes as am
from allmodes import IDEM, IWSM, ConfigError, Target
from allmodes.diffusion.paths import reverse
from allmodes.methods import METHODS, Method, default_for
from allmodes.methods.iwsm import method as module
from allmodes.methods.iwsm.training import train
from allmodes.parts import (
    Adam,
    AnchoredPerceptron,
    Chain,
    Equivariant,
    FreshDraws,
    MixturePerceptron,
    MixtureRatio,
    Neighbours,
    NoiseRange,
    OwnDraws,
    PathMoves,
    PathResampling,
    Perceptron,
    Search,
)  # fmt: skip
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.weights import ess_fraction
from allmodes.search.search import search
from allmodes.targets import gaussian_mixture

# Configuration.


WRONG = {
    "steps": (0, "a whole number, at least 1, got 0"),
}
WRONG_PARTS = {
    "depth": (Perceptron, -1, "a whole number, at least 0, got -1"),
    "learning_rate": (Adam, float("nan"), "a finite number above 0, got nan"),
    "sigma_max": (NoiseRange, 0.0, "a finite number above 0, got 0.0"),
    "dwell": (NoiseRange, 1.0, "must lie in [0, 1), got 1.0"),
    "ema": (Adam, -0.1, "a finite number of at least 0, got -0.1"),
    "clip": (FreshDraws, float("inf"), "a finite number above 0, got inf"),
    "strata": (MixtureRatio, 0, "a whole number, at least 1, got 0"),
    "moves": (Chain, 0, "a whole number, at least 1, got 0"),
    "count": (Neighbours, -1, "a whole number, at least 0, got -1"),
    "every": (PathMoves, 0, "a whole number, at least 1, got 0"),
    "min_ess": (PathResampling, 0.0, "a finite number above 0, got 0.0"),
    "anchors": (AnchoredPerceptron, 0, "a whole number, at least 1, got 0"),
    "width": (Equivariant, 0, "a whole number, at least 1, got 0"),
}


@pytest.mark.parametrize("field", WRONG_PARTS)
def test_parts_out_of_range_are_refused(field):
    kind, value, words = WRONG_PARTS[field]
    with pytest.raises(ConfigError, match=f"{field} .*{re.escape(words)}"):
        kind(**{field: value})


@pytest.mark.parametrize("field", WRONG)
@pytest.mark.parametrize("method", [IWSM, IDEM])
def test_settings_out_of_range_are_refused(method, field):
    value, words = WRONG[field]
    with pytest.raises(ConfigError, match=f"{field} must be {words}"):
        method(**{field: value})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 100}, "batch must be a multiple of 32"),
        (
            {"batch": 96, "estimator": FreshDraws(8, weights=MixtureRatio(strata=9))},
            "of 32 and of strata, got 96",
        ),
        ({"reweighting": OwnDraws(broad_share=1.5)}, r"broad_share must lie in \[0, 1\], got 1.5"),
        (
            {"reweighting": PathMoves(2000), "buffer": 1000},
            r"points of a renewal must not exceed the buffer \(1000\), got 2000",
        ),
        (
            {"reweighting": OwnDraws(2000), "buffer": 1000},
            r"draws of a renewal must not exceed the buffer \(1000\), got 2000",
        ),
    ],
)
def test_contradictions_are_refused(changes, words):
    with pytest.raises(ConfigError, match=words) as error:
        IWSM(**changes)
    assert "\n" not in str(error.value)


def test_changes_are_checked_too():
    with pytest.raises(ConfigError):
        dataclasses.replace(IWSM(), batch=33)
    with pytest.raises(ConfigError):
        IDEM(batch=33)
    with pytest.raises(ConfigError):
        FreshDraws(1)


def test_paper_has_the_parts_of_the_paper():
    paper = IWSM.paper()
    assert type(paper) is IWSM
    assert paper.estimator.score == "tsi"  # the estimator of iDEM, no blend
    assert paper.estimator.weights == MixtureRatio(strata=1, truncate=False)  # SNIS over the whole batch
    assert not paper.estimator.move_buffer
    assert paper.estimator.count > 1
    assert 0 < paper.reweighting.broad_share < 1
    assert paper.start == "broad"
    assert paper.local_every == 0
    assert IWSM.paper(batch=64, steps=7) == dataclasses.replace(paper, batch=64, steps=7)


def test_idem_is_the_published_method_without_weights():
    idem, paper = IDEM(), IWSM.paper()
    assert isinstance(idem, IWSM)
    assert idem.name == "idem"
    assert isinstance(METHODS["idem"], IDEM)
    differs = {f.name for f in dataclasses.fields(IWSM) if getattr(idem, f.name) != getattr(paper, f.name)}
    assert differs == {"name", "estimator", "reweighting"}
    # All that only weights use, and where from.
    assert dataclasses.replace(paper.estimator, weights=None) == idem.estimator
    assert dataclasses.replace(paper.reweighting, broad_share=0.0) == idem.reweighting


def test_the_default_is_the_same_in_all_dimensions():
    for dim in (2, 15, 16, 200):
        assert METHODS[default_for(Target(lambda x: -jnp.sum(x**2), dim))] == IWSM()


def test_a_network_without_a_base_keeps_no_points_of_the_search():
    """Where no mixture is fitted, the search ends with its rounds towards more mass."""
    seen = []

    def seeing(target, key, size, spent):
        seen.append(spent.keep)
        return search(target, key, size, spent)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "search", seeing)
        for network in (NETWORK, MixturePerceptron(4, 8, 16, 1, 1)):
            fields = dict(search=Search(64, 256, 4, keep=4), buffer=256, reweighting=PathMoves(64))
            IWSM(network=network, **fields).init(MIXTURE, jax.random.key(0))
    assert seen == [0, 4]


def test_methods_keep_the_protocol():
    assert isinstance(IWSM(), Method)
    assert isinstance(IDEM(), Method)
    assert hash(IWSM()) == hash(IWSM())


# A few steps of each choice, on a target that counts.


MIXTURE = gaussian_mixture(np.array([[-2.0, 0.0], [2.0, 1.0]]), np.array([0.25, 0.5]), [0.3, 0.7], log_z=1.3)
NETWORK = Perceptron(width=16, depth=1, frequencies=1)
TURN = dict(every=5, path_steps=4)
SMALL = dict(
    batch=64, buffer=256, local_every=3, steps=40, enough=None, network=NETWORK, reweighting=PathMoves(**TURN),
    estimator=Neighbours(16),
)  # fmt: skip
STEPS = 12  # renewals before steps 5 and 10; local moves before steps 0, 3, 6, 9
RATIO = FreshDraws(4, weights=MixtureRatio(strata=2), move_buffer=True)
CHOICES = {
    "path-dsi": IWSM.thorough(**SMALL | dict(
        reweighting=PathResampling(**TURN), estimator=Neighbours(16, score="dsi"),
    )),
    "kde-blend": IWSM.thorough(**SMALL | dict(estimator=RATIO, reweighting=OwnDraws(32, 0.25, **TURN), start="broad")),
    "idem": IDEM(**SMALL | dict(
        estimator=FreshDraws(3, score="tsi", clip=70.0), reweighting=OwnDraws(32, **TURN), local_every=0,
        network=dataclasses.replace(NETWORK, predicts="score"), optimiser=IDEM().optimiser,
    )),
    "chain": IWSM.thorough(**SMALL | dict(estimator=Chain(4))),
    "anchors": IWSM.thorough(**SMALL | dict(network=AnchoredPerceptron(4, 8, 16, 1, 1))),
}  # fmt: skip
# By hand: two renewals, four local moves of 256 points, draws in each of 12 steps.
COSTS = {
    "path-dsi": 2 * (256 + 5 * 256) + 4 * 256,
    "kde-blend": 2 * 32 + 4 * 256 + 12 * 4 * 64,
    "idem": 2 * 32 + 12 * 3 * 64,
    "chain": 2 * 256 + 4 * 256 + 12 * 4 * 64,
    "anchors": 2 * 256 + 4 * 256,
}
every_choice = pytest.mark.parametrize("choice", CHOICES)


@functools.cache
def advance(choice):
    """The states before and after, what was reported, how many points were evaluated, and the
    compiled steps."""
    target = Counting(MIXTURE.log_prob, 2)
    method = CHOICES[choice]

    @jax.jit
    def steps(state, key):
        return jax.lax.scan(lambda s, k: method.step(target, s, k), state, jax.random.split(key, STEPS))

    start = method.init(target, jax.random.key(0))
    jax.effects_barrier()
    at_start = dict(target.counts)
    end, info = steps(start, jax.random.key(1))
    jax.effects_barrier()
    return method, start, end, info, at_start, dict(target.counts), steps


@pytest.mark.trains
@every_choice
def test_evaluations_are_counted_exactly(choice):
    method, start, end, _, at_start, at_end, _ = advance(choice)
    first, last = method.evaluations(start), method.evaluations(end)
    # What the state says, what the target saw, and what the configuration implies.
    assert int(first.gradient) == at_start["gradient"] > 256
    assert int(last.gradient) == at_end["gradient"]
    assert at_start["value"] == at_end["value"] == 2 * 64  # of the rays along which the density must fall off
    assert int(first.log_prob) - int(first.gradient) == int(last.log_prob) - int(last.gradient) == 2 * 64
    assert int(last.log_prob) - int(first.log_prob) == COSTS[choice]


@every_choice
def test_everything_stays_finite(choice):
    _, _, end, info, _, _, _ = advance(choice)
    late = {name: value[5:] if name.startswith("refresh") else value for name, value in info.items()}
    for leaf in jax.tree.leaves((end, late)):
        assert np.all(np.isfinite(leaf))
    assert np.all(np.isnan(info["refresh_ess"][:5]))  # before the first renewal
    assert np.all((info["refresh_ess"][5:] > 0) & (info["refresh_ess"][5:] <= 1 + 1e-5))
    assert np.all((info["refresh_rate"][5:] >= 0) & (info["refresh_rate"][5:] <= 1))
    assert np.all((info["ess"] > 0) & (info["ess"] <= 1 + 1e-5))
    assert np.all((info["level_weight_ess"] >= 0) & (info["level_weight_ess"] <= 1 + 1e-5))
    assert info["level_loss"].shape == (STEPS, 32)
    assert int(end.step) == STEPS


@every_choice
def test_stored_values_belong_to_the_points(choice):
    # Through local moves, renewals and, for kde, posterior moves.
    _, start, end, _, _, _, _ = advance(choice)
    assert not np.array_equal(start.buffer.z, end.buffer.z)
    e = jax.jit(lambda s: s.frame.evaluate(MIXTURE, s.buffer.z))(end)
    np.testing.assert_allclose(end.buffer.log_prob, e.log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(end.buffer.grad, e.grad, rtol=1e-3, atol=1e-3)


@every_choice
def test_weights_and_gate_are_those_of_the_choice(choice):
    _, _, end, info, _, _, _ = advance(choice)
    weighted = choice == "kde-blend"
    assert np.all(np.asarray(info["ess"]) < 0.999) == weighted
    np.testing.assert_allclose(info["ess"], 1.0, atol=1.0 if weighted else 1e-5)
    gate = np.asarray(info["level_gate"])
    if choice == "path-dsi":
        assert np.all(gate == 0)
    elif choice == "idem":
        assert np.all(gate == 1)
    else:  # TSI at low noise, DSI at high noise
        assert np.all(gate[:, 0] > gate[:, -1])
        assert np.all((gate >= 0) & (gate <= 1))
    assert bool(end.smooth)


@every_choice
def test_the_network_learns_and_its_average_lags(choice):
    _, start, end, _, _, _, _ = advance(choice)

    def distance(a, b):
        return sum(float(jnp.sum((x - y) ** 2)) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))

    assert distance(start.denoiser, end.denoiser) > 0
    if choice == "idem":  # no average
        assert distance(end.average, end.denoiser) == 0
    else:
        assert 0 < distance(end.average, start.denoiser) < distance(end.denoiser, start.denoiser)


def test_a_step_is_deterministic_in_the_key():
    _, start, end, _, _, _, steps = advance("idem")
    again, _ = steps(start, jax.random.key(1))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(end), jax.tree.leaves(again), strict=True))
    other, _ = steps(start, jax.random.key(2))
    assert not np.array_equal(other.buffer.z, end.buffer.z)
    assert not np.array_equal(jax.tree.leaves(other.denoiser)[0], jax.tree.leaves(end.denoiser)[0])


@every_choice
def test_template_has_the_shapes_of_a_state(choice):
    method, start, *_ = advance(choice)
    template = method.template(MIXTURE)
    assert jax.tree.structure(template) == jax.tree.structure(start)
    for a, b in zip(jax.tree.leaves(template), jax.tree.leaves(start), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_own_draws_replace_the_oldest_points_in_turn():
    # Two renewals of 32 of 256 points, without local moves: counted from the second block on.
    _, start, end, *_ = advance("idem")
    changed = np.any(np.asarray(start.buffer.z) != np.asarray(end.buffer.z), axis=1)
    assert np.array_equal(np.flatnonzero(changed), np.arange(32, 96))


@functools.cache
def renewed():
    """The kde choice before and after one renewal, a quarter of it spread over the box, that is
    enough to end on."""
    method, start, *_ = advance("kde-blend")
    method = dataclasses.replace(method, enough=1e-6)
    start = dataclasses.replace(start, step=jnp.asarray(5, jnp.int32), cooldown=jnp.asarray(3, jnp.int32))

    @jax.jit
    def renew(state, key):
        _, process = method.process(MIXTURE, state)
        path = reverse(process, jax.random.split(key, 4)[0], 32, 4)
        return method.renew(MIXTURE, state, key), path.log_ratio + state.frame.values(MIXTURE, path.z), path.z

    return method, start, *renew(start, jax.random.key(3))


def test_refresh_ess_is_of_the_sampler_alone():
    # Spread points are no draws of the sampler, and have no path weight.
    _, _, state, log_w, z = renewed()
    added = np.asarray(state.buffer.z)[32:64]
    assert np.all(np.abs(added[:8]) <= 1)
    np.testing.assert_allclose(added[8:], z[8:], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state.refresh_ess, ess_fraction(log_w[8:]), rtol=1e-3)
    np.testing.assert_allclose(state.refresh_log_z, np.log(np.mean(np.exp(log_w[8:], dtype=float))), atol=1e-3)


def rate(method, state, step):
    """The learning rate at another step of the same state."""
    return float(method.optimiser.rate(jnp.asarray(step, jnp.int32), state.end, state.cooldown))


def test_enough_begins_the_cooldown():
    method, start, state, *_ = renewed()
    assert int(method.end(start)) == method.steps == 40
    assert int(method.end(state)) == 5 + 3

    rates = [rate(method, state, 5), rate(method, state, 8)]
    assert rates[1] < 0.02 * rates[0]


def test_time_that_runs_out_begins_the_cooldown():
    method, start, *_ = advance("kde-blend")
    at = dataclasses.replace(start, step=jnp.asarray(10, jnp.int32))
    state = method.wind_down(at, 4)
    assert (int(method.end(state)), int(state.cooldown)) == (14, 4)
    assert rate(method, state, 14) < 0.02 * 2e-3
    # It neither lengthens a training nor the cooldown.
    far = method.wind_down(at, 1000)
    assert (int(method.end(far)), int(far.cooldown)) == (40, 20)
    assert (int(method.end(method.wind_down(state, 1000))), int(method.wind_down(state, 1000).cooldown)) == (14, 4)


def test_a_part_of_the_buffer_is_renewed_in_turn():
    method = IWSM.thorough(**SMALL | dict(local_every=0, reweighting=PathMoves(32, **TURN)))
    state = method.init(MIXTURE, jax.random.key(0))
    refresh = jax.jit(lambda s, k: method.renew(MIXTURE, s, k))
    for turn in (1, 2, 9):
        before = dataclasses.replace(state, step=jnp.asarray(5 * turn, jnp.int32))
        after = refresh(before, jax.random.key(turn))
        changed = np.flatnonzero(np.any(np.asarray(before.buffer.z) != np.asarray(after.buffer.z), axis=1))
        block = 32 * (turn % 8)
        assert 0 < len(changed) <= 32
        assert block <= changed.min() <= changed.max() < block + 32
        np.testing.assert_allclose(after.refresh_rate, len(changed) / 32, rtol=1e-6)
        assert int(after.evaluations.log_prob) - int(before.evaluations.log_prob) == 32


def test_a_hard_edge_switches_the_target_score_identity_off():
    method, start, *_ = advance("kde-blend")

    @jax.jit
    def gate(edges):
        zero = jnp.zeros(())
        found = SearchResult(start.frame, start.buffer, zero + 0.1, zero + jnp.full(2, 0.3), edges, Evaluations.none())
        state = method.build(MIXTURE, found, (), jax.random.key(1))
        return state.smooth, train(method, MIXTURE, state, jax.random.key(2))[1]["level_gate"]

    smooth, level_gate = gate(jnp.asarray(0.01))  # of the proposals met zero density
    assert not smooth
    assert np.all(level_gate == 0)
    smooth, level_gate = gate(jnp.asarray(0.0))
    assert smooth
    assert np.any(level_gate > 0.1)


# It learns.


@functools.cache
def trained():
    method = little(
        steps=600, cooldown=200, enough=None, batch=256, width=32, frequencies=2, buffer=1024, every=100,
        path_steps=16, neighbours=64,
    )  # fmt: skip
    target, lines = Counting(MIXTURE.log_prob, 2), []
    sampler = am.fit(target, method, key=jax.random.key(0), on_progress=lambda progress: lines.append(progress.line))
    jax.effects_barrier()
    return sampler, dict(target.counts), lines


@pytest.mark.trains
def test_default_learns_a_mixture():
    sampler, *_ = trained()
    draws = sampler.sample(4000, key=jax.random.key(1), steps=60)
    assert draws.ess / 4000 > 0.7
    log_z = draws.log_z
    assert abs(log_z.value - MIXTURE.log_z) < 5 * log_z.std_error
    assert log_z.std_error < 0.02
    # Weighted, the share of a mode is right within its standard error.
    w = np.exp(np.asarray(draws.log_weight, float) - float(np.max(draws.log_weight)))
    first = MIXTURE.modes.assign(np.asarray(draws.x)) == 0
    share = w @ first / w.sum()
    error = np.sqrt(np.sum(w**2 * (first - share) ** 2)) / w.sum()
    assert abs(share - MIXTURE.modes.weights[0]) < 5 * error


@pytest.mark.trains
def test_evaluations_of_a_fit():
    sampler, counts, lines = trained()
    gradients, total = counts["gradient"], counts["gradient"] + counts["value"]
    assert sampler.evaluations == {"log_prob": total, "gradient": gradients, "nan": 0, "zero": 0}
    assert counts["value"] == 2 * 64  # of the rays along which the density must fall off
    # After the first chunk of a hundred steps, each has one renewal and one local move of the
    # buffer.
    assert [line["step"] for line in lines] == [100, 200, 300, 400, 500, 600]
    assert np.array_equal(np.diff([line["log_prob_evaluations"] for line in lines]), [2 * 1024] * 5)
    assert (lines[-1]["log_prob_evaluations"], lines[-1]["gradient_evaluations"]) == (total, gradients)


def test_state_of_a_fit():
    sampler, _, lines = trained()
    state = sampler.state
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(state))
    e = jax.jit(lambda s: s.frame.evaluate(MIXTURE, s.buffer.z))(state)
    np.testing.assert_allclose(state.buffer.log_prob, e.log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(state.buffer.grad, e.grad, rtol=1e-3, atol=1e-3)
    gate = np.array(lines[-1]["level_gate"])  # TSI at low noise, DSI at high noise
    assert bool(state.smooth)
    assert gate[0] > 0.8 > 0.2 > gate[-1]
    # Renewals accept more and more.
    assert lines[-1]["refresh_rate"] > 0.5
    assert lines[-1]["loss"] < lines[0]["loss"]
