"""Every registered method keeps the protocol: to be registered is to be tested.

One small density for all; the settings of each are cut down here by its class.
"""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from helpers import Counting, pair_log_prob, same_bits

import allmodes as am
from allmodes import parts
from allmodes.files.run_folder import Run
from allmodes.files.saved import describe
from allmodes.method import Figure, Method
from allmodes.methods import METHODS
from allmodes.methods.paths import PathMethod
from allmodes.store.find import find_method

pytestmark = pytest.mark.trains

PAIR = am.Target(pair_log_prob, 2, name="pair")
LOG_Z = float(np.log(np.pi))
STEPS = 30
ALL = pytest.mark.parametrize("name", METHODS)
PLAIN = (am.SMC, am.Tempering, am.NUTS, am.Nested)
ONE_OF_EACH = {type(method): name for name, method in METHODS.items() if not isinstance(method, PLAIN)}.values()


def small(method):
    """The same method, with little to do."""
    if isinstance(method, am.IWSM):
        reweighting = dataclasses.replace(method.reweighting, every=10, path_steps=8)
        if isinstance(reweighting, parts.OwnDraws):
            reweighting = dataclasses.replace(reweighting, count=64)
        if isinstance(reweighting, parts.PathMoves):
            reweighting = dataclasses.replace(reweighting, points=0)
        estimator = method.estimator
        if isinstance(estimator, parts.FreshDraws):
            estimator = dataclasses.replace(estimator, count=8)
        network = dataclasses.replace(method.network, width=16, depth=1)
        return dataclasses.replace(
            method, steps=STEPS, cooldown=10, enough=None, ready=None, batch=64, buffer=256, reweighting=reweighting,
            estimator=estimator, network=network, start="broad" if method.start == "broad" else "search",
        )  # fmt: skip
    if isinstance(method, PathMethod):
        rounds = {
            am.TB: {"search_every": 10, "moves": 2}, am.TRLV: {"paths": 64, "every": 10},
            am.AdjointSampling: {"paths": 64, "every": 10},
        }.get(type(method), {})  # fmt: skip
        has_base = isinstance(method, am.LRDS)
        network = parts.MixturePerceptron(8, 8, 16, 1, 2) if has_base else parts.Perceptron(16, 1, 2)
        return dataclasses.replace(method, steps=STEPS, cooldown=10, batch=32, path_steps=8, network=network, **rounds)
    if isinstance(method, am.CMCD):
        network = parts.Perceptron(16, 1, 2)
        return dataclasses.replace(method, steps=STEPS, cooldown=10, batch=32, path_steps=8, network=network)
    if isinstance(method, am.FAB):
        flow = dataclasses.replace(method.flow, layers=4, width=16, depth=1)
        return dataclasses.replace(method, steps=STEPS, cooldown=10, batch=64, buffer=1280, moves=2, flow=flow)
    if isinstance(method, am.DiKL):
        network = parts.Perceptron(16, 1, 2)
        return dataclasses.replace(
            method, steps=STEPS, cooldown=10, batch=32, updates=2, draws=4, levels=4, moves=2, generator=network,
            network=network,
        )  # fmt: skip
    if isinstance(method, am.SMC):
        return dataclasses.replace(method, particles=128, populations=2)
    if isinstance(method, am.Tempering):
        return dataclasses.replace(method, steps=STEPS, systems=8, temperatures=4, sweeps=2)
    if isinstance(method, am.NUTS):
        return dataclasses.replace(method, chains=8, warmup=50)
    if isinstance(method, am.Nested):
        return dataclasses.replace(method, live=100)
    raise AssertionError(f"say here how {type(method).__name__} is made small")


@functools.cache
def fitted(name):
    """The sampler after a whole fit, the lines that progress was told, and its draws."""
    lines = []
    method = small(METHODS[name])
    sampler = am.fit(PAIR, method, key=jax.random.key(0), on_progress=lambda p: lines.append(p.line))
    return sampler, lines, sampler.sample(400, key=jax.random.key(1))


@ALL
def test_it_keeps_its_name_and_is_found_again_by_its_settings(name):
    method = METHODS[name]
    assert isinstance(method, Method)
    assert method.name == name
    about = describe(PAIR, method)["method"]
    assert find_method(about["name"], about["settings"]) == method
    assert hash(method) == hash(METHODS[name])
    changed = small(method)
    about = describe(PAIR, changed)["method"]
    assert find_method(about["name"], about["settings"]) == changed


@ALL
def test_a_template_has_the_shapes_of_a_state(name):
    sampler, _, _ = fitted(name)
    template = sampler.method.template(PAIR)
    assert jax.tree.structure(template) == jax.tree.structure(sampler.state)
    for a, b in zip(jax.tree.leaves(template), jax.tree.leaves(sampler.state), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)


@ALL
def test_its_figures_are_what_it_tells_and_counts_grow(name):
    sampler, lines, draws = fitted(name)
    method = sampler.method
    assert all(isinstance(figure, Figure) for figure in method.figures.values())
    assert bool(lines) == bool(method.steps)
    for line in lines:
        assert set(method.figures) <= set(line)
    spent = [line["log_prob_evaluations"] for line in lines]
    assert spent == sorted(spent)
    assert sampler.evaluations["log_prob"] >= (spent[-1] if spent else 1)
    assert draws.evaluations >= 400
    assert method.points(sampler.state).shape[1] == 2


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_counts_are_exact_and_a_later_chunk_compiles_nothing(name, monkeypatch):
    """One of each class; the plain ones are counted by the host in `test_plain.py`."""
    method, traces, seen = small(METHODS[name]), [], []
    monkeypatch.setattr("allmodes.training.budget.CHUNK", 10)

    def log_prob(x):
        traces.append(x)
        return pair_log_prob(x)

    target = Counting(log_prob, 2)
    sampler = am.fit(target, method, key=jax.random.key(0), on_progress=lambda p: seen.append(len(traces)))
    assert len(seen) == 3
    assert seen[0] == seen[-1]
    assert sampler.evaluations["log_prob"] == target.total
    before = target.total
    draws = sampler.sample(100, key=jax.random.key(1))
    assert draws.evaluations == target.total - before


@ALL
def test_log_z_of_an_untrained_or_hardly_trained_sampler_is_right(name):
    """What a method leaves of 30 steps is no sampler to speak of, and its weights are exact."""
    _, _, draws = fitted(name)
    value, error = draws.log_z
    if np.isnan(value):  # chains and generators do not know it
        assert draws.chains or isinstance(METHODS[name], am.DiKL)
        return
    assert abs(value - LOG_Z) < 5.0 * error + 0.02


@ALL
def test_interrupted_and_resumed_it_is_the_same_to_the_last_bit(name, tmp_path):
    method = small(METHODS[name])
    whole, _, _ = fitted(name)
    run = Run(tmp_path / "run").create()
    if method.steps:

        def stop(p):
            if p.step >= 10:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("allmodes.training.budget.CHUNK", 10)
            with pytest.raises(KeyboardInterrupt):
                am.fit(PAIR, method, key=jax.random.key(0), run=run, on_progress=stop)
    again = am.fit(PAIR, method, key=jax.random.key(0), run=run, resume=True)
    assert same_bits(again.state, whole.state)


@ALL
def test_a_saved_sampler_is_the_same_to_the_last_bit(name, tmp_path):
    sampler, _, _ = fitted(name)
    sampler.save(tmp_path / "saved")
    again = am.load(tmp_path / "saved")
    assert same_bits(again.state, sampler.state)
    assert again.method == sampler.method
    assert len(again.sample(400, key=jax.random.key(1))) == 400


@ALL
def test_a_collapse_is_not_trusted(name):
    """All weight on a few draws, as a sampler far from the target has it."""
    _, _, draws = fitted(name)
    few = jax.numpy.where(jax.numpy.arange(400) < 3, 0.0, -50.0)
    assert dataclasses.replace(draws, log_weight=few).verdict().word == "do not use"


def test_the_density_of_a_network_that_sees_the_gradient_is_refused():
    """Its flow would otherwise be that of the network alone."""
    sampler, _, _ = fitted("dds")
    with pytest.raises(am.ConfigError, match="dds has no log_density: its network sees the density's gradient"):
        sampler.log_density(jax.numpy.zeros((3, 2)))


def test_a_method_that_lies_in_no_file_is_not_stored(tmp_path):
    """Of a notebook, say: no other process would find it."""
    space = {"__name__": "notebook"}
    exec("import dataclasses, allmodes as am\n@dataclasses.dataclass(frozen=True)\nclass Mine(am.SMC): pass\n", space)
    with pytest.raises(am.ConfigError, match="method smc cannot be stored: put Mine in a file"):
        describe(PAIR, space["Mine"]())
