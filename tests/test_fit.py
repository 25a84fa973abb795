"""The training loop: misuse, densities with holes, budgets, determinism, interruption and
resumption."""

import importlib
import inspect
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import CHUNK, SMALL, pair, same_bits, small

import allmodes as am
from allmodes.files.run_folder import Run

pytestmark = pytest.mark.trains

fit_module = importlib.import_module("allmodes.training.fit")  # `allmodes.fit` itself is the function


@pytest.fixture(autouse=True)
def _short_chunks(monkeypatch):
    monkeypatch.setattr("allmodes.training.budget.CHUNK", CHUNK)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 60 steps in a folder: the sampler, the folder, and what was told on
    the way."""
    run, told = Run(tmp_path_factory.mktemp("whole") / "run").create(), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("allmodes.training.budget.CHUNK", CHUNK)
        sampler = am.fit(pair(), small(60), key=jax.random.key(3), run=run, on_progress=told.append)
    return sampler, run, told


# Misuse.


@pytest.mark.parametrize("steps", [0, -5])
def test_no_steps_are_refused(steps):
    with pytest.raises(am.ConfigError, match=rf"steps must be at least 1, got {steps}"):
        am.fit(pair(), small(60), key=jax.random.key(0), steps=steps)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_no_time_is_refused(seconds):
    with pytest.raises(am.ConfigError, match=rf"seconds must be positive, got {seconds}"):
        am.fit(pair(), small(60), key=jax.random.key(0), seconds=seconds)


UNUSABLE = {
    "converts to a float": (lambda x: -float(x[0]) ** 2, r"cannot be traced by JAX.*jax\.numpy"),
    "branches on a value": (lambda x: -x[0] if x[0] > 0 else x[0], r"cannot be traced by JAX.*jax\.numpy"),
    "uses NumPy": (lambda x: -np.linalg.norm(np.asarray(x)), r"cannot be traced by JAX"),
    "another dimension": (lambda x: -jnp.sum((x - jnp.zeros(3)) ** 2), r"cannot be traced .*\(2,\).*check that dim"),
    "a vector": (lambda x: -(x**2), r"must map one point of shape \(2,\) to a scalar \(\), but returned shape \(2,\)"),
    "a tuple": (lambda x: (-jnp.sum(x**2), x), r"but returned a tuple"),
    "nothing": (lambda x: None, r"but returned a NoneType"),
    "a whole number": (lambda x: jnp.asarray(3), r"floating-point number, but returned int32"),
    "no gradient": (
        lambda x: jax.lax.while_loop(lambda s: s < 3.0, lambda s: s + 1.0, jnp.sum(x)), r"cannot be differentiated"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log_prob", "message"), UNUSABLE.values(), ids=UNUSABLE.keys())
def test_a_function_that_cannot_be_used_is_refused_before_any_work(log_prob, message, tmp_path):
    with pytest.raises(am.TargetError, match=message) as caught:
        am.fit(am.Target(log_prob, 2), small(60), key=jax.random.key(0), run=Run(tmp_path))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "counted"),
    [(jnp.nan, r"\(\d{4,} NaN or \+inf, 0 -inf\)"), (-jnp.inf, r"\(0 NaN or \+inf, \d{4,} -inf\)")],
)
def test_a_density_without_a_finite_value_is_refused(value, counted):
    target = am.Target(lambda x: jnp.sum(x) * 0.0 + value, 2)
    with pytest.raises(am.TargetError, match="no finite value at any of") as caught:
        am.fit(target, small(60), key=jax.random.key(0))
    assert caught.match(counted)
    assert caught.match("location=.., scale=..")
    assert "\n" not in str(caught.value)


# Densities with holes, each with its log Z in closed form.


def gamma_of_nan(x):
    """`x_0 exp(-x_0)` for x_0 > 0, times a normal; NaN, as is its gradient, for x_0 < 0."""
    return jnp.log(x[0]) - x[0] - 0.5 * x[1] ** 2


def cut_normal(x):
    """A normal on x_0 >= 0 and x_1 <= 1 alone: -inf on one side, +inf on the other."""
    return jnp.where(x[0] < 0.0, -jnp.inf, jnp.where(x[1] > 1.0, jnp.inf, -0.5 * jnp.sum(x**2)))


HOLES = {  # log Z, then mean and standard deviation of x_0
    "NaN on half the space": (gamma_of_nan, 0.5 * math.log(2.0 * math.pi), (2.0, math.sqrt(2.0)), (True, False)),
    "-inf on half, +inf in a region": (
        cut_normal, math.log(math.pi * 0.5 * (1.0 + math.erf(1.0 / math.sqrt(2.0)))),
        (math.sqrt(2.0 / math.pi), math.sqrt(1.0 - 2.0 / math.pi)), (True, True),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("log_prob", "log_z", "moments", "counted"), HOLES.values(), ids=HOLES.keys())
def test_holes_carry_no_mass_and_are_counted(log_prob, log_z, moments, counted):
    n = 2000
    sampler = am.fit(am.Target(log_prob, 2), small(200), key=jax.random.key(0))
    spent = sampler.evaluations
    assert (spent["nan"] > 0, spent["zero"] > 0) == counted
    assert spent["nan"] + spent["zero"] < spent["log_prob"]
    draws = sampler.sample(n, key=jax.random.key(1), steps=100)
    assert np.isfinite(draws.x).all()
    assert not np.isnan(draws.log_weight).any()
    assert np.max(draws.log_weight) < np.inf
    # Outside of the support the weight is zero, inside it is not.
    outside = ~np.isfinite(jax.vmap(log_prob)(draws.x))
    np.testing.assert_array_equal(np.asarray(draws.log_weight) == -np.inf, outside)
    np.testing.assert_array_equal(np.asarray(draws.log_prob) == -np.inf, outside)
    assert draws.ess > 0.4 * n
    estimate = draws.log_z
    assert estimate.std_error < 0.03
    assert abs(estimate.value - log_z) < 5.0 * estimate.std_error
    fair = draws.resample(jax.random.key(2))
    assert np.isfinite(fair.log_prob).all()
    mean, deviation = moments
    assert abs(float(jnp.mean(fair.x[:, 0])) - mean) < 5.0 * deviation / math.sqrt(draws.ess)


# Programs, which are kept for the next fit.


def test_a_second_fit_of_a_density_compiles_nothing_and_a_changed_one_does():
    """What it closes over may change, as a global of a notebook does."""
    traces, at = [], {"place": 0.0}

    def log_prob(x):
        traces.append(x)
        return -0.5 * jnp.sum((x - at["place"]) ** 2)

    target, places = am.Target(log_prob, 2), []
    for place in (0.0, 0.0, 50.0):
        at["place"] = place
        before = len(traces)
        sampler = am.fit(target, small(10), key=jax.random.key(0))
        places.append((float(jnp.mean(sampler.method.points(sampler.state))), len(traces) - before))
    (first, compiled), (second, again), (third, anew) = places
    assert second == first
    assert again <= 3 < compiled  # it is traced to be checked: its value, its gradient, what it computes
    assert abs(first) < 0.5
    assert abs(third - 50.0) < 0.5
    assert anew > 3


# Budgets and progress.


def test_progress_is_told_after_each_chunk(whole):
    sampler, run, told = whole
    assert [p.step for p in told] == [10, 20, 30, 40, 50, 60]
    assert {p.steps for p in told} == {60}
    seconds = [p.seconds for p in told]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert int(sampler.state.step) == 60
    assert [json.dumps(p.line) for p in told[-1:]] == (run / "metrics.jsonl").read_text().splitlines()[-1:]
    assert [line["step"] for line in run.read_metrics()] == [10, 20, 30, 40, 50, 60]


def test_a_line_of_metrics_is_complete(whole):
    sampler, run, _ = whole
    first, *_, last = run.read_metrics()
    levels = ("level_loss", "level_weight_ess", "level_gate")
    assert {"step", "loss", "ess", "refresh_ess", "log_prob_evaluations", "gradient_evaluations", *levels} <= set(last)
    assert first["refresh_ess"] is None  # there was no renewal yet
    assert 0.0 < last["refresh_ess"] <= 1.0
    assert last["log_prob_evaluations"] == sampler.evaluations["log_prob"] > first["log_prob_evaluations"]
    assert last["gradient_evaluations"] == sampler.evaluations["gradient"]
    for name in levels:
        assert len(last[name]) == 32
        assert np.isfinite(last[name]).all()
    assert all(0.0 <= gate <= 1.0 for gate in last["level_gate"])


def test_seconds_wind_training_down():
    """By a clock on which the search takes 15 s, compilation 5 and a step one: 60 of 80 s are left
    for training.

    A step to see the pace, then a 20th of that time at once; before the first renewal, which may
    take as long as the 20 steps before it, single steps; the last third is a cooldown.
    """

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock, told, advanced = Clock(), [], []
    compiled, searched = fit_module.compiled, am.IWSM.init

    def slow(*arguments):
        clock.now += 15.0
        return searched(*arguments)

    def timed(*arguments):
        advance = compiled(*arguments)
        clock.now += 5.0

        def step(state, key, steps):
            clock.now += steps
            advanced.append((steps, int(state.end), int(state.cooldown)))
            return advance(state, key, steps)

        return step

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit_module, "time", clock)
        patch.setattr(fit_module, "compiled", timed)
        patch.setattr(am.IWSM, "init", slow)
        method = small(1_000_000, cooldown=100_000)
        sampler = am.fit(pair(), method, key=jax.random.key(3), seconds=80.0, on_progress=told.append)
    assert [steps for steps, *_ in advanced] == [1, *[3] * 6, 1, 1, *[3] * 13]
    assert advanced[15][1:] == (1_000_000, 100_000)
    assert advanced[16][1:] == (60, 18)  # after 42 of 60 seconds
    assert int(sampler.state.step) == told[-1].step == 60
    assert [p.steps for p in told[-3:]] == [60, 60, 60]
    assert [p.left for p in told[-3:]] == [6.0, 3.0, 0.0]
    assert sampler.seconds == {"start": 15.0, "compile": 5.0, "train": 60.0, "opinion": 0.0}


def test_seconds_that_the_search_takes_train_nothing_and_say_so():
    with pytest.warns(UserWarning, match=r"nothing was trained: the search .* of the 0.001 s allowed"):
        sampler = am.fit(pair(), small(60), key=jax.random.key(3), seconds=1e-3)
    assert int(sampler.state.step) == 0


def test_seconds_are_refused_where_nothing_is_trained():
    with pytest.raises(am.ConfigError, match=r"method smc trains nothing .* leave seconds=5 out"):
        am.fit(pair(), am.SMC(), key=jax.random.key(0), seconds=5.0)


def test_evaluations_wind_training_down():
    """Of what a run of 60 steps takes beyond its first ten, half is allowed: training ends near it,
    wound down."""
    method, told = small(100_000, cooldown=50_000, local_every=5), []
    am.fit(pair(), small(60, local_every=5), key=jax.random.key(3), on_progress=told.append)
    begun, whole = (p.line["log_prob_evaluations"] for p in (told[0], told[-1]))
    limit = begun + (whole - begun) // 2
    sampler = am.fit(pair(), method, key=jax.random.key(3), evaluations=limit)
    spent = sampler.evaluations["log_prob"]
    assert begun < spent
    assert abs(spent - limit) < 0.5 * (whole - begun)
    assert int(sampler.state.end) < 100_000
    assert int(sampler.state.cooldown) < 50_000


def test_a_budget_below_the_search_trains_nothing():
    sampler = am.fit(pair(), small(60), key=jax.random.key(3), evaluations=10)
    assert int(sampler.state.step) == 0


@pytest.mark.parametrize("limit", ["seconds", "evaluations"])
def test_no_budget_is_refused(limit):
    with pytest.raises(am.ConfigError, match=f"{limit} must be positive, got 0"):
        am.fit(pair(), small(60), key=jax.random.key(0), **{limit: 0.0 if limit == "seconds" else 0})


def test_steps_replace_the_methods_own_number_and_are_not_made_more_by_a_budget():
    sampler = am.fit(pair(), small(60), key=jax.random.key(3), steps=20, seconds=1e6)
    assert sampler.method == small(20)
    assert int(sampler.state.step) == int(sampler.state.end) == 20
    assert int(sampler.state.cooldown) == 10


def test_enough_ends_training_early():
    """The first renewal, at step 20, finds a sampler that is good enough: the cooldown follows, and
    the end."""
    told = []
    sampler = am.fit(pair(), small(1000, enough=0.01), key=jax.random.key(3), on_progress=told.append)
    assert int(sampler.state.step) == 20 + SMALL["cooldown"]
    assert [p.steps for p in told] == [1000, 1000, 30]


# Determinism, interruption, resumption.


def test_the_same_key_gives_the_same_sampler_to_the_bit(whole):
    sampler, _, _ = whole
    again = am.fit(pair(), small(60), key=jax.random.key(3))  # with no folder, and nobody told
    assert same_bits(again.state, sampler.state)


def lines_without_time(run):
    return [{k: v for k, v in line.items() if k != "seconds"} for line in run.read_metrics()]


@pytest.mark.parametrize("checkpoint_seconds", [0.0, 1e9])
def test_an_interrupted_run_goes_on_to_the_same_end(whole, tmp_path, monkeypatch, checkpoint_seconds):
    monkeypatch.setattr(fit_module, "CHECKPOINT_SECONDS", checkpoint_seconds)
    run, method = Run(tmp_path / "run").create(), small(60)

    def interrupt(progress):
        if progress.step == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        am.fit(pair(), method, key=jax.random.key(3), run=run, on_progress=interrupt)
    saved, clock = run.load_state(method.template(pair()))
    assert int(saved.step) == 30
    assert clock["train"] > 0
    # As after a crash in the middle of a later line.
    run.append_metrics({"step": 40, "loss": 1.0})
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 50, "lo')

    told = []
    resumed = am.fit(pair(), method, key=jax.random.key(3), run=run, resume=True, on_progress=told.append)
    sampler, uninterrupted, _ = whole
    assert [p.step for p in told] == [40, 50, 60]
    assert same_bits(resumed.state, sampler.state)
    assert lines_without_time(run) == lines_without_time(uninterrupted)
    assert same_bits(run.load_state(method.template(pair()))[0], sampler.state)
    # The clocks go on, they do not start again; the warm start is not made twice.
    assert resumed.seconds["train"] > clock["train"]
    assert resumed.seconds["start"] == clock["start"]


def test_a_finished_run_is_not_trained_again(whole):
    sampler, run, told = whole
    before, count = (run / "metrics.jsonl").read_text(), len(told)
    again = am.fit(pair(), small(60), key=jax.random.key(3), run=run, resume=True, on_progress=told.append)
    assert len(told) == count
    assert same_bits(again.state, sampler.state)
    assert (run / "metrics.jsonl").read_text() == before


def test_a_fresh_start_in_a_used_folder_leaves_nothing_of_the_old_run(whole, tmp_path):
    old, used, _ = whole
    run = Run(tmp_path / "run")
    shutil.copytree(used.path, run.path)
    fresh = am.fit(pair(), small(60), key=jax.random.key(4), run=run)
    saved, _ = run.load_state(small(60).template(pair()))
    assert same_bits(saved, fresh.state)
    assert [line["step"] for line in run.read_metrics()] == [10, 20, 30, 40, 50, 60]
    assert not same_bits(fresh.state.average, old.state.average)  # of another key


def test_a_bare_function_is_not_a_target():
    with pytest.raises(
        am.TargetError, match=r"got a function. For a function say its dimension: am.fit\(log_prob, dim=2\)"
    ):
        inspect.unwrap(am.fit)(lambda x: -jnp.sum(x**2), key=jax.random.key(0))  # without the types of tests
