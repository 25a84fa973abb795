"""`allmodes judge`: draws of any library get the line of a run; weights in closed form."""

import dataclasses
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import call

from allmodes import metrics, targets
from allmodes.errors import ConfigError
from allmodes.jobs.judge import Foreign, judge, read
from allmodes.target import Modes, Target

N, REPEATS = 400, 2


@pytest.fixture(scope="module")
def gmm40():
    return targets.get("gmm40")


@pytest.fixture(scope="module")
def exact(gmm40):
    return np.asarray(gmm40.sample(jax.random.key(1), N))


def wide_draws(n=20_000, variance=2.0, dim=2, log_z=1.5):
    """Draws of N(0, variance) with the weights of `exp(log_z) N(0, 1)`, and that density."""
    x = np.sqrt(variance) * np.random.default_rng(0).normal(size=(n, dim))
    square = np.sum(x**2, axis=1)
    log_weight = log_z - 0.5 * square + 0.5 * square / variance + 0.5 * dim * np.log(variance)

    def log_prob(x):
        return log_z - 0.5 * jax.numpy.sum(x**2) - 0.5 * dim * np.log(2 * np.pi)

    target = Target(log_prob, dim, name="normal", sample=lambda key, n: jax.random.normal(key, (n, dim)), log_z=log_z)
    return target, x, log_weight


def test_the_metrics_are_those_of_the_library_used_alone(gmm40, exact):
    line = judge(gmm40, Foreign(exact), seed=3, repeats=REPEATS, name="theirs")
    alone = metrics.evaluate(gmm40, exact, jax.random.key(3), repeats=REPEATS)
    assert line["metrics"] == alone["metrics"]
    assert line["mode_weights"]["raw"] == alone["mode_weights"]["estimated"]
    assert (line["target"], line["method"], line["draws"]) == ("gmm40", "theirs", N)
    assert not {"log_z", "ess"} & set(line)
    assert not {"reverse_ess", "elbo", "log_z_error"} & set(line["metrics"])


def test_exact_draws_are_at_the_floor_and_those_of_half_of_the_modes_are_not(gmm40):
    x = np.asarray(gmm40.sample(jax.random.key(1), 4000))
    good = judge(gmm40, Foreign(x), repeats=REPEATS)["metrics"]
    bad = judge(gmm40, Foreign(x[gmm40.modes.assign(x) % 2 == 0]), repeats=REPEATS)["metrics"]
    assert good["mode_tv"]["ratio"] < 2.0
    assert good["modes_found"]["value"] == 40
    assert bad["modes_found"]["value"] == 20
    assert bad["mode_tv"]["value"] == pytest.approx(0.5, abs=0.05)


def test_weights_in_closed_form():
    """Of normal draws with twice the variance, Kish's share is `(sqrt(3) / 2)^2` in the plane, and
    the ELBO is log Z less `KL = (v - 1 - log v) d / 2`."""
    target, x, log_weight = wide_draws()
    line = judge(target, Foreign(x, log_weight, normalised=True), repeats=REPEATS)
    n, share = len(x), 0.75
    told = line["log_z"]
    assert told["by"] == "the weights"
    assert told["std_error"] == pytest.approx(np.sqrt((1 / share - 1) / n), rel=0.05)
    assert abs(told["value"] - 1.5) < 4 * told["std_error"]
    assert line["metrics"]["reverse_ess"]["value"] == pytest.approx(share, abs=0.01)
    assert line["ess"] == pytest.approx(n * share, rel=0.02)
    bound = line["metrics"]["elbo"]
    assert abs(bound["value"] - (1.5 - (2.0 - 1.0 - np.log(2.0)))) < 4 * bound["std_error"]
    assert line["metrics"]["log_z_error"]["value"] == pytest.approx(told["value"] - 1.5)
    # Weighted draws are near exact ones, and the same without their weights are not.
    raw = judge(target, Foreign(x), repeats=REPEATS)
    assert line["metrics"]["mmd"]["ratio"] < 2.0 < raw["metrics"]["mmd"]["ratio"]


def test_log_z_is_left_out_unless_the_file_says_what_weights_are_or_states_it():
    target, x, log_weight = wide_draws()
    one = Modes(np.ones(1), lambda x: np.zeros(len(x), int), np.zeros((1, 2)))
    target = dataclasses.replace(target, sample=None, modes=one)  # no sets to compare: other tests have them
    shifted = judge(target, Foreign(x, log_weight + 7.0), repeats=REPEATS)
    assert "log_z" not in shifted
    assert not {"log_z_error", "elbo"} & set(shifted["metrics"])
    assert shifted["metrics"]["reverse_ess"]["value"] == pytest.approx(0.75, abs=0.01)
    stated = judge(target, Foreign(x, log_weight + 7.0, log_z=1.4, log_z_error=0.2), repeats=REPEATS)
    assert stated["log_z"] == {"value": 1.4, "std_error": 0.2, "by": "the file", "truth": 1.5, "error": 1.4 - 1.5}
    assert stated["metrics"]["log_z_error"]["std_error"] == 0.2


def test_the_command_prints_the_line_and_writes_it(exact, tmp_path, capsys):
    np.savez(tmp_path / "theirs.npz", x=exact, log_weight=np.zeros(N), evaluations=12_345, seconds=7.5, more="ignored")
    words = ["judge", tmp_path / "theirs.npz", "--target", "gmm40", "--judge-repeats", 2]
    assert call(*words, "--out", tmp_path / "line.json") == 0
    out = capsys.readouterr().out
    assert "gmm40: theirs" in out
    assert "Modes found" in out
    assert "12,345" in out
    line = json.loads((tmp_path / "line.json").read_text())
    assert line["method"] == "theirs"
    assert line["evaluations"] == {"train": 12_345}
    assert line["seconds"] == {"train": 7.5}
    assert read(tmp_path / "theirs.npz").x.shape == (N, 2)


def test_raw_leaves_the_weights_of_a_file_aside(exact, tmp_path, capsys):
    np.savez(tmp_path / "d.npz", x=exact, log_weight=np.linspace(0.0, 9.0, N), normalised=True)
    words = ["judge", tmp_path / "d.npz", "--target", "gmm40", "--judge-repeats", 2, "--out", tmp_path / "line.json"]
    assert call(*words) == 0
    assert (
        f"weighted: {json.loads((tmp_path / 'line.json').read_text())['ess']:,.0f} effective" in capsys.readouterr().out
    )
    assert call(*words, "--raw") == 0
    line = json.loads((tmp_path / "line.json").read_text())
    assert "weighted" not in capsys.readouterr().out
    assert line["metrics"] == judge(targets.get("gmm40"), Foreign(exact), repeats=2)["metrics"]
    assert not {"ess", "log_z"} & set(line)


ONE = np.zeros((5, 2))
WRONG = {
    "no x": ({"y": ONE}, "has no array x .*it has y"),
    "one dimension": ({"x": np.zeros(5)}, r"x must be numbers of shape \(n, 2\).*shape \(5,\)"),
    "other dimension": ({"x": np.zeros((5, 3))}, r"as gmm40 has it, got float64 of shape \(5, 3\)"),
    "one draw": ({"x": ONE[:1]}, "n at least 2"),
    "words": ({"x": np.full((5, 2), "a")}, "x must be numbers"),
    "NaN": ({"x": np.where(np.arange(5)[:, None] < 2, np.nan, ONE)}, "2 of 5 draws have a coordinate that is NaN"),
    "weights of others": ({"x": ONE, "log_weight": np.zeros(4)}, r"log_weight must be 5 numbers.*\(4,\)"),
    "weights NaN": ({"x": ONE, "log_weight": np.full(5, np.nan)}, "log_weight must be finite"),
    "no weight": ({"x": ONE, "log_weight": np.full(5, -np.inf)}, "no draw has any weight"),
    "normalised without": ({"x": ONE, "normalised": True}, "log_weight, which is missing"),
    "log Z of two": ({"x": ONE, "log_z": [1.0, 2.0]}, "log_z must be one finite number"),
    "log Z NaN": ({"x": ONE, "log_z": np.nan}, "log_z must be one finite number"),
}


@pytest.mark.parametrize(("arrays", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_judged_is_refused_in_one_line(arrays, message, gmm40, tmp_path, capsys):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(ConfigError, match=message):
        judge(gmm40, read(tmp_path / "d.npz"), repeats=REPEATS)
    assert call("judge", tmp_path / "d.npz", "--target", "gmm40") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_other_wrong_use_is_refused(tmp_path, capsys):
    (tmp_path / "text.npz").write_text("no arrays")
    np.save(tmp_path / "array.npy", ONE)
    np.savez(tmp_path / "d.npz", x=ONE)
    (tmp_path / "plain.py").write_text("def log_prob(x):\n    return -(x**2).sum()\n")
    for words, message in [
        ("judge NONE --target gmm40", "there is no file NONE"),
        (f"judge {tmp_path / 'text.npz'} --target gmm40", "cannot be read"),
        (f"judge {tmp_path / 'array.npy'} --target gmm40", "no named arrays"),
        (f"judge {tmp_path / 'd.npz'} --target gmm41", "no target called 'gmm41'"),
        (f"judge {tmp_path / 'd.npz'}", "--target"),
        (f"judge {tmp_path / 'd.npz'} --target {tmp_path / 'plain.py'}:log_prob", "add --dim"),
        (f"judge {tmp_path / 'd.npz'} --target gmm40 --judge-repeats 1", "at least 2"),
        (f"judge {tmp_path / 'd.npz'} --target gmm40 --out {tmp_path / 'none' / 'a.json'}", "cannot write"),
    ]:
        assert call(*words.split()) == 2, words
        assert message in capsys.readouterr().err, words
    with pytest.raises(ConfigError, match="nothing to judge draws by"):
        judge(Target(lambda x: -(x**2).sum(), 2, name="plain"), Foreign(ONE))


def test_targets_and_metrics_are_enough(tmp_path):
    """Neither needs a run, or anything else to be imported first."""
    code = (
        "import sys, jax\nfrom allmodes import metrics, targets\n"
        "target = targets.get('two-moons')\nx = target.sample(jax.random.key(0), 50)\n"
        "print(metrics.evaluate(target, x, jax.random.key(1), repeats=2)['metrics']['w2']['size'])\n"
        "print([name for name in ('allmodes.jobs', 'allmodes.command') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["50", "[]"]
