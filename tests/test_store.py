"""Targets and samplers that are found again: by name, by file, or as a stored computation."""

import dataclasses
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import pair_log_prob, same_bits, small

import allmodes as am
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.files.run_folder import Run
from allmodes.files.saved import describe, export
from allmodes.store.find import find_method, find_target
from allmodes.store.load import parse

pytestmark = pytest.mark.trains

MODEL = """
import jax.numpy as jnp, allmodes as am
from beside import CENTRE  # what lies beside it
def log_prob(x):
    return -0.5 * jnp.sum((x - CENTRE) ** 2)
whole = am.Target(log_prob, 3, name="mine", log_z=1.5)
"""


@pytest.fixture
def model(tmp_path):
    (tmp_path / "beside.py").write_text("CENTRE = 2.0\n")
    path = tmp_path / "model.py"
    path.write_text(MODEL)
    return path


# Finding targets and methods.


def test_a_registered_name():
    target = find_target("gmm40")
    assert (target.name, target.dim, target.origin) == ("gmm40", 2, "gmm40")
    assert target.sample is not None
    assert find_target("gmm40", 2).dim == 2


def test_a_function_in_a_file(model, monkeypatch):
    path = list(sys.path)
    target = find_target(f"{model}:log_prob", 2)
    assert (target.name, target.dim, target.origin) == ("model", 2, f"{model}:log_prob")
    assert float(target.log_prob(jnp.zeros(2))) == -4.0
    assert sys.path == path
    monkeypatch.chdir(model.parent)
    assert find_target("model.py:log_prob", 2).origin == f"{model}:log_prob"  # it is found from anywhere later


def test_a_target_in_a_file_needs_no_dimension(model):
    for dim in (None, 3):
        target = find_target(f"{model}:whole", dim)
        assert (target.name, target.dim, target.log_z) == ("mine", 3, 1.5)
        assert target.origin == f"{model}:whole"


NOT_THERE = {
    "unknown name": ("gmm41", None, "no target called 'gmm41'.*gmm40"),
    "nothing like it": ("zzz", None, "no target called 'zzz'.*`allmodes targets` lists them"),
    "wrong dim of a name": ("gmm40", 3, "gmm40 has dimension 2, not 3: leave --dim out"),
    "no file": ("FOLDER/none.py:log_prob", 2, r"there is no file .*none\.py"),
    "a folder": ("FOLDER:log_prob", 2, "there is no file"),
    "no function said": ("FOLDER/model.py", 2, r"say which function of it, as .*model\.py:log_prob"),
    "no such function": ("FOLDER/model.py:logprob", 2, r"model\.py has no function 'logprob'"),
    "no name of a function": ("FOLDER/model.py:", 2, "has no function ''"),
    "no dim": ("FOLDER/model.py:log_prob", None, r"dimension of .*model\.py:log_prob is needed: add --dim"),
    "wrong dim of a target": ("FOLDER/model.py:whole", 2, "has dimension 3, not 2: leave --dim out"),
    "dim of zero": ("FOLDER/model.py:log_prob", 0, "dim must be a whole number of at least 1, got 0"),
    "import fails": ("FOLDER/fails.py:log_prob", 2, r"fails\.py cannot be imported: ZeroDivisionError"),
    "syntax": ("FOLDER/syntax.py:log_prob", 2, r"syntax\.py cannot be imported: SyntaxError"),
    "needs a module": ("FOLDER/needs.py:log_prob", 2, r"needs\.py cannot be imported: ModuleNotFoundError.*nowhere"),
    "not Python": ("FOLDER/model.txt:log_prob", 2, r"model\.txt is not a Python file"),
}


@pytest.mark.parametrize(("spec", "dim", "message"), NOT_THERE.values(), ids=NOT_THERE.keys())
def test_targets_that_are_not_there(model, spec, dim, message):
    folder, path = model.parent, list(sys.path)
    (folder / "fails.py").write_text("1 / 0")
    (folder / "syntax.py").write_text("def log_prob(x:\n")
    (folder / "needs.py").write_text("import nowhere")
    (folder / "model.txt").write_text(MODEL)
    with pytest.raises(am.TargetError, match=message):
        find_target(spec.replace("FOLDER", str(folder)), dim)
    assert sys.path == path


def test_a_script_that_leaves_is_refused(tmp_path):
    (tmp_path / "leaves.py").write_text("import sys; sys.exit('usage: leaves.py DATA')")
    with pytest.raises(am.TargetError, match=r"leaves\.py cannot be imported: SystemExit"):
        find_target(f"{tmp_path / 'leaves.py'}:log_prob", 2)


def test_methods_by_name():
    assert find_method("idem", {"batch": 64}) == am.IDEM(batch=64)
    assert find_method("iwsm-paper", {}) == am.IWSM.paper()
    with pytest.raises(am.ConfigError, match=r"unknown method 'iwms'.*iwsm.*Did you mean iwsm\?"):
        find_method("iwms", {})
    with pytest.raises(am.ConfigError, match="IWSM has no setting bach, stepz: it has batch, buffer, "):
        find_method("iwsm", {"stepz": 3, "batch": 64, "bach": 64})
    with pytest.raises(am.ConfigError, match="batch must be a multiple of 32"):
        find_method("iwsm", {"batch": 33})


# What a process without run-time type checks makes of a wrong type: all in one.


@pytest.fixture(scope="module")
def unchecked():
    cases = {
        "number": "am.Target(3, 2)",
        "text": "am.Target('log_prob', 2)",
        "half a dimension": "am.Target(abs, 2.5)",
        "kdee": "am.IWSM(estimator=am.parts.Neighbours(score='kdee'))",
        "serach": "am.IWSM(start='serach')",
        "tsl": "am.parts.FreshDraws(score='tsl')",
        "noise": "am.parts.Perceptron(predicts='noise')",
        "a whole number, at least 1, got 32.0": "am.IWSM(batch=32.0)",
        "a whole number, at least 1, got True": "am.parts.FreshDraws(True)",
        "True or False, got 1": "am.parts.MixtureRatio(truncate=1)",
        "one of Neighbours, Chain, FreshDraws, got PathMoves(every=400, path_steps=40, points=0)": (
            "am.IWSM(estimator=am.parts.PathMoves())"
        ),
        "one of Perceptron, AnchoredPerceptron, MixturePerceptron, Equivariant, got None": "am.IWSM(network=None)",
        "a finite number above 0, got 'soon'": "am.IDEM(enough='soon')",
    }
    code = f"""
import allmodes as am
from allmodes.diffusion.sampler import DiffusionSampler
for case in {list(cases.values())!r}:
    try:
        eval(case); print('accepted')
    except Exception as error:
        print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return dict(zip(cases, done.stdout.splitlines(), strict=True))


def test_a_target_of_a_wrong_type_is_refused(unchecked):
    assert unchecked["number"] == "TargetError log_prob must be a function of one point, got int"
    assert unchecked["text"] == "TargetError log_prob must be a function of one point, got str"
    assert unchecked["half a dimension"] == "TargetError dim must be a whole number of at least 1, got 2.5"


@pytest.mark.parametrize("word", ["kdee", "serach", "tsl", "noise"])
def test_a_word_that_a_setting_does_not_know_is_refused(unchecked, word):
    assert unchecked[word].startswith("ConfigError ")
    assert unchecked[word].endswith(f"got '{word}'")


def test_settings_of_a_wrong_type_are_refused(unchecked):
    messages = [message for message in unchecked if ", got " in message]
    assert len(messages) == 6
    for message in messages:
        assert unchecked[message].startswith("ConfigError ")
        assert unchecked[message].endswith(f" must be {message}")


# config.json.


def test_config_describes_target_and_method(tmp_path, model):
    found = find_target(f"{model}:log_prob", 2)
    target = am.Target(
        found.log_prob, 2, name="other", location=[1e4, -2.5], scale=np.float32(0.1), origin=found.origin
    )
    run, method = (
        Run(tmp_path),
        am.IWSM.paper(steps=7, optimiser=am.parts.Adam(1e-3), enough=None, estimator=am.parts.FreshDraws(9)),
    )
    run.write_json("config.json", describe(target, method, 5))
    text = (tmp_path / "config.json").read_text()
    again, same_method, config = parse(run)
    assert (again.name, again.dim, again.origin) == ("other", 2, target.origin)
    assert float(again.log_prob(jnp.ones(2))) == -1.0
    np.testing.assert_array_equal(again.location, [1e4, -2.5])
    np.testing.assert_array_equal(np.float32(again.scale), np.float32(0.1))
    assert same_method == method
    assert config["seed"] == 5
    run.write_json("config.json", describe(again, same_method, 5))
    assert (tmp_path / "config.json").read_text() == text  # nothing drifts


@pytest.mark.parametrize("spec", ["gmm40", "FOLDER/model.py:whole"])
@pytest.mark.parametrize("method", [am.IDEM(batch=64), am.IWSM.thorough(start="smc")])
def test_what_config_names_is_found_again(tmp_path, model, spec, method):
    target = find_target(spec.replace("FOLDER", str(model.parent)))
    run = Run(tmp_path)
    run.write_json("config.json", describe(target, method))
    again, same_method, _ = parse(run)
    assert same_method == method
    assert type(same_method) is type(method)
    assert (again.name, again.dim, again.log_z, again.location) == (target.name, target.dim, target.log_z, None)


def changed(config, *path, value=None):
    config = json.loads(json.dumps(config))
    *folders, last = path
    inner = config
    for name in folders:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return config


DAMAGES = {
    "no target": (["target"], None),
    "no method": (["method"], None),
    "no dim": (["target", "dim"], None),
    "no origin": (["target", "origin"], None),
    "no settings": (["method", "settings"], None),
    "target is text": (["target"], "gmm40"),
    "dim is text": (["target", "dim"], "two"),
    "unknown method": (["method", "name"], "iwms"),
    "method is a list": (["method"], ["iwsm"]),
    "unknown setting": (["method", "settings", "bach"], 64),
    "setting is text": (["method", "settings", "steps"], "many"),
    "bad setting": (["method", "settings", "batch"], 33),
}
HINTS = {"hint is text": (["target", "scale"], "wide"), "hint of another shape": (["target", "location"], [1, 2, 3])}


@pytest.mark.parametrize(("path", "value"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_config_is_named(tmp_path, path, value):
    run = Run(tmp_path)
    run.write_json("config.json", changed(describe(find_target("gmm40"), am.IWSM(), 0), *path, value=value))
    with pytest.raises(am.RunError, match=r"(?s)config\.json is damaged: .+ Restore it, or start again"):
        parse(run)


def test_a_density_that_is_another_now_is_named(tmp_path, model):
    run, target = Run(tmp_path / "run").create(), find_target(f"{model}:log_prob", 2)
    run.write_json("config.json", describe(target, am.IWSM()))
    parse(run)
    model.write_text(model.read_text().replace("jnp.sum(", "2.0 * jnp.sum("))
    with pytest.raises(am.RunError, match=r"was made from another density: at a test point .* start again"):
        parse(run)


@pytest.mark.parametrize(("path", "value"), HINTS.values(), ids=HINTS.keys())
def test_a_damaged_hint_is_named(tmp_path, path, value):
    test_a_damaged_config_is_named(tmp_path, path, value)


def test_a_config_that_is_not_json_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"target": ')
    for read in (lambda: parse(Run(tmp_path)), lambda: am.load(tmp_path)):
        with pytest.raises(am.RunError, match=r"config\.json is damaged"):
            read()


# Saving and loading.


def load_elsewhere(folder, out, key):
    """Load and draw in a process of its own, which has not got the function."""
    code = (
        "import sys, jax, numpy as np, allmodes as am\n"
        f"draws = am.load({str(folder)!r}).sample(64, key=jax.random.key({key}), steps=10)\n"
        f"np.savez({str(out)!r}, x=draws.x, log_prob=draws.log_prob, log_weight=draws.log_weight)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with np.load(out) as file:
        return dict(file)


@pytest.fixture(scope="module")
def sampler():
    found = am.fit(am.Target(lambda x: pair_log_prob(x), 2, name="memory"), small(20), key=jax.random.key(0))
    hinted = dataclasses.replace(found.target, location=[0.5, 0.0], scale=2.0)
    return dataclasses.replace(found, target=hinted)


@pytest.fixture
def saved(sampler, tmp_path):
    sampler.save(tmp_path / "run")
    return tmp_path / "run"


def test_a_sampler_of_a_function_in_memory_is_whole_in_another_process(sampler, saved, tmp_path):
    there = load_elsewhere(saved, tmp_path / "draws.npz", 7)
    here = sampler.sample(64, key=jax.random.key(7), steps=10)
    loaded = am.load(saved).sample(64, key=jax.random.key(7), steps=10)
    for name in ("x", "log_prob", "log_weight"):
        assert there[name].tobytes() == np.asarray(getattr(loaded, name)).tobytes()
        np.testing.assert_allclose(there[name], getattr(here, name), atol=2e-5)
    assert there["x"].tobytes() == np.asarray(here.x).tobytes()


def test_the_stored_function_is_the_function(sampler, saved):
    stored, own = am.load(saved).target, sampler.target
    x = 3.0 * jax.random.normal(jax.random.key(1), (20, 2))
    np.testing.assert_allclose(stored.values(x), own.values(x), rtol=1e-6)
    np.testing.assert_allclose(
        jax.vmap(jax.grad(stored.log_prob))(x), jax.vmap(jax.grad(own.log_prob))(x), rtol=1e-5, atol=1e-6
    )
    got, wanted = jax.jit(stored.evaluate)(x), own.evaluate(x)
    np.testing.assert_allclose(got.log_prob, wanted.log_prob, rtol=1e-6)
    np.testing.assert_allclose(got.grad, wanted.grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.grad(stored.log_prob)(x[0]), wanted.grad[0], rtol=1e-5, atol=1e-6)
    stored.check()


@pytest.mark.parametrize("correct", ["snis", "smc", "mcmc"])
def test_draws_of_a_stored_function_can_be_corrected(saved, correct):
    draws = am.load(saved).sample(100, key=jax.random.key(8), steps=10, correct=correct)
    assert draws.x.shape == (100, 2)
    assert np.all(np.isfinite(draws.log_prob))


def test_a_loaded_sampler_is_the_saved_one(sampler, saved):
    loaded = am.load(saved)
    assert same_bits(loaded.state, sampler.state)
    assert loaded.method == sampler.method
    assert loaded.seconds == sampler.seconds
    assert loaded.evaluations == sampler.evaluations
    assert (loaded.target.name, loaded.target.dim) == ("memory", 2)
    np.testing.assert_array_equal(loaded.target.location, [0.5, 0.0])
    np.testing.assert_array_equal(loaded.target.scale, 2.0)


def test_a_loaded_sampler_can_be_saved_again_and_moved(sampler, saved, tmp_path):
    am.load(saved).save(tmp_path / "second")
    shutil.rmtree(saved)
    (tmp_path / "second").rename(tmp_path / "third")
    loaded = am.load(tmp_path / "third")
    here = sampler.sample(8, key=jax.random.key(7), steps=10)
    assert same_bits(loaded.sample(8, key=jax.random.key(7), steps=10).x, here.x)


def test_saving_another_sampler_in_the_folder_is_refused_or_done(sampler, saved):
    state = dataclasses.replace(sampler.state, average=jax.tree.map(lambda a: a + 1, sampler.state.average))
    other = dataclasses.replace(sampler, state=state)
    try:
        other.save(saved)
    except am.RunError:
        return
    assert same_bits(am.load(saved).state, other.state)


def test_a_target_file_that_moved_is_named(sampler, tmp_path, model):
    dataclasses.replace(sampler, target=find_target(f"{model}:log_prob", 2)).save(tmp_path / "run")
    assert not (tmp_path / "run" / "target.stablehlo").exists()
    assert am.load(tmp_path / "run").target.name == "model"
    model.rename(tmp_path / "moved.py")
    with pytest.raises(am.TargetError, match=r"there is no file .*model\.py"):
        am.load(tmp_path / "run")


@pytest.mark.parametrize("damage", ["deleted", "emptied", "nonsense"])
def test_a_damaged_stored_function_is_named(saved, damage):
    file = saved / "target.stablehlo"
    file.unlink()
    if damage != "deleted":
        file.write_bytes(b"" if damage == "emptied" else b"nonsense" * 100)
    with pytest.raises(am.RunError, match=r"target\.stablehlo cannot be read"):
        am.load(saved)


def test_load_says_what_is_missing(tmp_path):
    with pytest.raises(am.RunError, match=r"config\.json is missing"):
        am.load(tmp_path / "nowhere")
    Run(tmp_path).write_json("config.json", describe(find_target("gmm40"), small(20), 0))
    with pytest.raises(am.RunError, match="no checkpoint"):
        am.load(tmp_path)


def test_a_place_that_cannot_be_written_is_named(sampler, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(am.RunError, match="cannot write"):
        sampler.save(tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "kept"


def test_a_function_that_cannot_be_stored_is_said(tmp_path):
    def log_prob(x):
        return jax.pure_callback(lambda x: np.float32(-0.5 * np.sum(x**2)), jax.ShapeDtypeStruct((), jnp.float32), x)

    with pytest.raises(
        am.RunError, match=r"log_prob cannot be stored in .*am\.find_target\('FILE\.py:FUNCTION', dim\)"
    ):
        DiffusionSampler(am.Target(log_prob, 2), small(20), None).save(tmp_path / "run")


def test_a_density_without_a_gradient_comes_back_without_one(tmp_path):
    target = am.Target(lambda x: -jnp.sum(jnp.abs(x)), 2, name="flat", differentiable=False)
    run = Run(tmp_path)
    export(target, run)
    run.write_json("config.json", describe(target, am.IWSM()))
    again, _, _ = parse(run)
    assert not again.differentiable
    x = jnp.asarray([[1.0, -2.0], [0.5, 0.0]])
    e = again.evaluate(x)
    np.testing.assert_allclose(e.log_prob, [-3.0, -0.5], rtol=1e-6)
    np.testing.assert_array_equal(e.grad, 0.0)
