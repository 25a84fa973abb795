"""The command line: the main job end to end, and one clear line with status 2 for all that is
wrong."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import call

from allmodes import IWSM, SMC, Target, __version__, agreement
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.draws.draws import Draws
from allmodes.files import lock
from allmodes.jobs import run_job as job
from allmodes.parts import Perceptron
from allmodes.sampler import Sampler
from allmodes.settings import settings_of

pytestmark = pytest.mark.trains

# As `helpers.SMALL`, so that what was compiled for one serves the other.
OPTIONS = (
    "--batch 128 --buffer 512 --cooldown 10 --enough None --network.width 16 --network.depth 1 --reweighting.every 20 "
    "--reweighting.path-steps 8"
).split()
QUICK = ["--quiet", "--judge-repeats", "2"]
TINY = ["--method", "iwsm-thorough", *OPTIONS, "-n", "300", *QUICK]

# The density is that of `helpers.pair`, so that what was compiled for one serves the other.
PAIR = """
import jax, jax.numpy as jnp, numpy as np
import allmodes as am

def log_prob(x):
    means = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
    return jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, -1) / 0.25)

def sample(key, n):
    k_mode, k_noise = jax.random.split(key)
    means = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
    return means[jax.random.randint(k_mode, (n,), 0, 2)] + 0.5 * jax.random.normal(k_noise, (n, 2))

def assign(x):
    return np.where(np.abs(np.abs(x[:, 0]) - 2.0) < 2.0, (x[:, 0] > 0).astype(int), -1)

modes = am.Modes(np.array([0.5, 0.5]), assign)
target = am.Target(log_prob, 2, name="pair", sample=sample, log_z=float(np.log(np.pi)), modes=modes)

def vector(x):
    return x

def everywhere_nan(x):
    return jnp.sum(x) * jnp.nan
"""
SPRINGS = """
import jax, jax.numpy as jnp
import allmodes as am

symmetry = am.ParticleSymmetry(3, 2)

def log_prob(x):
    p = x.reshape(3, 2)
    return -0.5 * jnp.sum((p - p.mean(axis=0)) ** 2)

def sample(key, n):
    return symmetry.embed(jax.random.normal(key, (n, 4)))

target = am.Target(log_prob, 6, name="springs", symmetry=symmetry, sample=sample)
"""
HOLE = """
import jax.numpy as jnp
def log_prob(x):  # NaN for x_0 < 0
    return jnp.log(x[0]) - x[0] - 0.5 * x[1] ** 2
"""


@pytest.fixture(autouse=True, scope="module")
def _quick():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("allmodes.training.budget.CHUNK", 10)
        patch.setattr("allmodes.jobs.evaluation.EXACT", 500)
        yield


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    (folder / "pair.py").write_text(PAIR)
    (folder / "hole.py").write_text(HOLE)
    (folder / "springs.py").write_text(SPRINGS)
    return folder


@pytest.fixture(scope="module")
def finished(models, tmp_path_factory):
    """A run of 60 steps, not to be changed."""
    run = tmp_path_factory.mktemp("cli") / "run"
    assert call("run", f"{models / 'pair.py'}:target", "--out", run, "--steps", 60, *TINY) == 0
    return run


@pytest.fixture
def copy(finished, tmp_path):
    """The same before its report, to be changed: `--resume` goes on with it."""
    run = tmp_path / "copy"
    shutil.copytree(finished, run)
    (run / "report.html").unlink()
    return run


# The main job.


def test_the_main_job_leaves_all_its_files(finished):
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "config.json",
        "metrics.jsonl",
        "checkpoint",
        "draws.npz",
        "corrected.npz",
        "result.json",
        "report.html",
    }
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert any((finished / "checkpoint").iterdir())
    with np.load(finished / "draws.npz", allow_pickle=False) as draws:
        assert {name: draws[name].shape for name in draws} == {
            "x": (300, 2), "log_prob": (300,), "log_weight": (300,), "about": (),
        }  # fmt: skip
        assert np.isfinite(draws["x"]).all()
    assert "<html" in (finished / "report.html").read_text()


def test_seconds_are_those_of_the_whole_job(models, tmp_path, capsys):
    """What comes after training is measured before it; a job that is done sooner ends where it
    would have ended."""
    words = ["run", f"{models / 'pair.py'}:target", "--out", tmp_path / "run"]
    assert call(*words, "--steps", 30, "--seconds", 1000, *TINY) == 0
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["steps"] == 30
    assert result["correction"] == "mcmc"
    capsys.readouterr()
    assert call(*words[:2], "--out", tmp_path / "other", "--method", "smc", "--seconds", 5, *QUICK) == 2
    assert "method smc trains nothing" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_too_few_repeats_are_refused_before_any_work(models, tmp_path, capsys):
    run = tmp_path / "run"
    assert call("run", f"{models / 'pair.py'}:target", "--out", run, "--judge-repeats", 1) == 2
    assert "--judge-repeats must be at least 2, for a standard error, got 1" in capsys.readouterr().err
    assert not run.exists()


def test_particles_get_their_own_method_metrics_and_pictures(models, tmp_path):
    options = ["--start", "search", "--reweighting.points", 0, "--steps", 30]
    assert call("run", f"{models / 'springs.py'}:target", "--out", tmp_path / "run", *TINY[2:], *options) == 0
    settings = json.loads((tmp_path / "run" / "config.json").read_text())["method"]["settings"]
    assert settings["local_every"] == IWSM.few_particles().local_every != IWSM().local_every
    assert (settings["steps"], settings["reweighting"]["points"], settings["batch"]) == (30, 0, 128)
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["correction"] == "mcmc"
    assert result["evaluations"]["correct"] == 303 * 300
    for group in ("metrics", "metrics_corrected"):
        assert {"w2", "w2_geometric", "energy_w2", "distance_tv", "broken"} <= set(result[group])
        assert result[group]["energy_w2"]["ratio"] > 0.0
        assert result[group]["broken"]["value"] == 0.0
    with np.load(tmp_path / "run" / "corrected.npz") as corrected:
        np.testing.assert_allclose(corrected["x"].reshape(300, 3, 2).mean(axis=1), 0.0, atol=1e-5)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "Interatomic distances" in page
    assert "Configurations" in page


def test_a_plain_method_leaves_the_same_files(models, tmp_path, capsys):
    run = tmp_path / "run"
    few = ["--particles", 200, "--populations", 2, "-n", 400]
    assert call("run", f"{models / 'pair.py'}:target", "--method", "smc", *few, "--out", run, *QUICK) == 0
    out = capsys.readouterr().out
    assert "pair · smc" in out
    assert "R^" in out
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == 0
    assert result["evaluations"]["correct"] == 0
    assert result["evaluations"]["train"] > 0 < result["evaluations"]["sample"]
    assert abs(result["log_z"]["error"]) < 0.5
    assert "forward_ess" not in result["metrics"]
    assert {"rhat", "virial", "score"} <= set(result["metrics"])
    assert (run / "report.html").exists()
    assert call("sample", run, "-n", 50, "--steps", 10, "--out", tmp_path / "x.npz") == 2
    assert "the sampler of smc declares no option --steps" in capsys.readouterr().err
    assert call("sample", run, "-n", 50, "--out", tmp_path / "x.npz") == 0
    assert np.load(tmp_path / "x.npz")["x"].shape == (50, 2)


def test_a_sampler_of_ones_own_draws_with_the_options_that_it_declares(monkeypatch, tmp_path, capsys):
    """Signatures are not looked at: `**options` may take anything."""
    given, target = [], Target(lambda x: -jax.numpy.sum(x**2), 2)

    class Own(Sampler):
        def sample(self, n, *, key, **options):
            given.append(options)
            return Draws(jax.numpy.zeros((n, 2)), jax.numpy.zeros(n), jax.numpy.zeros(n))

    class Declared(Own):
        options = frozenset({"correct"})

    class Inherited(DiffusionSampler):
        sample = Own.sample

    words = ["sample", tmp_path, "-n", 5, "--correct", "snis", "--out", tmp_path / "x.npz"]
    for kind in (Declared, Inherited):
        monkeypatch.setattr("allmodes.command.sample.load", lambda _, kind=kind: kind(target, SMC(), None))
        assert call(*words) == 0
    assert given == [{"correct": "snis"}] * 2
    monkeypatch.setattr("allmodes.command.sample.load", lambda _: Own(target, SMC(), None))
    assert call(*words) == 2
    assert "the sampler of smc declares no option --correct" in capsys.readouterr().err
    assert len(given) == 2


def test_two_runs_of_one_density_agree(finished, monkeypatch, capsys):
    seen, module = [], importlib.import_module("allmodes.audits.agreement")

    def spied(*samplers, **options):
        seen.append(agreement(*samplers, **options))
        return seen[-1]

    monkeypatch.setattr(module, "agreement", spied)
    code = call("agree", finished, finished, "-n", 400)
    (found,) = seen
    assert code == int(not found.agree)
    out = capsys.readouterr().out
    assert out.startswith("they agree: " if found.agree else "they disagree: ")
    assert f"cross ESS {found.cross_ess[0]:.2f}, cross ESS {found.cross_ess[1]:.2f}" in out
    assert all(reason in out for reason in found.reasons)


def test_config_is_enough_to_repeat_the_run(finished, models):
    config = json.loads((finished / "config.json").read_text())
    assert len(config["target"].pop("fingerprint")) == 8
    assert config["target"] == {"origin": f"{models / 'pair.py'}:target", "name": "pair", "dim": 2}
    assert config["method"]["name"] == "iwsm-thorough"
    settings = config["method"]["settings"]
    assert (settings["batch"], settings["enough"], settings["steps"]) == (128, None, 60)
    assert settings["network"] == {"kind": "Perceptron", **settings_of(Perceptron(16, 1))}
    assert settings["reweighting"] == {"kind": "PathMoves", "every": 20, "path_steps": 8, "points": 0}
    assert (config["seed"], config["draws"]) == (0, 300)
    assert config["command"].startswith("allmodes run ")
    assert "--steps 60" in config["command"]


def test_the_result_keeps_the_contract(finished):
    result = json.loads((finished / "result.json").read_text())
    assert (result["target"], result["method"], result["seed"], result["steps"]) == ("pair", "iwsm-thorough", 0, 60)
    assert {"allmodes", "jax", "python"} <= set(result["versions"])
    assert {"compile", "train", "sample"} <= set(result["seconds"])
    assert all(value >= 0.0 for value in result["seconds"].values())
    assert result["evaluations"]["sample"] == 300
    assert result["log_prob_evaluations"] == result["evaluations"]["train"] + 300
    assert 512 < result["gradient_evaluations"] < result["log_prob_evaluations"]
    assert result["nonfinite"] == {"nan": 0, "zero": 0}
    assert result["verdict"]["word"] in ("trusted", "use with correction", "do not use")
    assert result["verdict"]["reasons"]
    for name in ("w2", "mmd", "mode_tv"):
        entry = result["metrics"][name]
        assert entry["ratio"] == pytest.approx(entry["value"] / entry["floor"])
    assert result["metrics"]["modes_found"]["of"] == 2
    assert result["log_z"]["truth"] == pytest.approx(np.log(np.pi))
    assert abs(result["log_z"]["error"]) < 5.0 * result["log_z"]["std_error"]
    assert 0.0 < result["metrics"]["reverse_ess"]["value"] <= 1.0
    with np.load(finished / "draws.npz") as draws:
        log_weight = draws["log_weight"].astype(float)
    assert result["log_z"]["value"] == pytest.approx(np.logaddexp.reduce(log_weight) - np.log(300))


def test_a_finished_run_is_not_done_again(finished, capsys):
    before = contents(finished)
    assert call("run", "--resume", finished) == 0
    assert contents(finished) == before
    out = capsys.readouterr().out
    assert json.loads((finished / "result.json").read_text())["verdict"]["word"] in out
    assert str(finished / "report.html") in out.replace("\n", "")


def test_a_second_run_of_one_seed_interrupted_and_resumed_gives_the_same_but_for_times_and_memory(
    finished, models, tmp_path, monkeypatch, capsys
):
    def interrupt(self, *, step, **_):
        if step == 30:
            raise KeyboardInterrupt

    run = tmp_path / "run of mine"
    with monkeypatch.context() as patch:
        patch.setattr(job.Bar, "update", interrupt)
        assert call("run", f"{models / 'pair.py'}:target", "--out", run, "--steps", 60, *TINY) == 130
    assert capsys.readouterr().err == f"interrupted; go on with: allmodes run --resume '{run}'\n"
    assert not (run / "draws.npz").exists()
    assert call("run", "--resume", run, *QUICK) == 0
    results = [json.loads((folder / "result.json").read_text()) for folder in (finished, run)]
    for result in results:
        assert result.pop("seconds")
        assert result.pop("peak_memory_mb")
        assert result.pop("command")  # names the folder
    assert results[0] == results[1]
    for name in ("draws.npz", "corrected.npz"):
        with np.load(finished / name) as first, np.load(run / name) as second:
            assert all(first[k].tobytes() == second[k].tobytes() for k in first)


def test_strict_fails_a_run_that_cannot_be_trusted(copy, capsys):
    run = copy
    (run / "result.json").unlink()
    assert call("run", "--resume", run, "--strict", *QUICK) == 1
    result = json.loads((run / "result.json").read_text())
    assert result["verdict"]["word"] != "trusted"
    assert (run / "report.html").exists()
    # It is the verdict that decides, and only when asked.
    assert call("run", "--resume", run) == 0
    assert call("run", "--resume", run, "--strict") == 1
    result["verdict"]["word"] = "trusted"
    (run / "result.json").write_text(json.dumps(result))
    assert call("run", "--resume", run, "--strict") == 0


def test_a_hole_in_the_density_is_counted_and_reported(models, tmp_path):
    run = tmp_path / "run"
    assert call("run", f"{models / 'hole.py'}:log_prob", "--dim", 2, "--out", run, "--steps", 30, *TINY) == 0
    result = json.loads((run / "result.json").read_text())
    assert result["nonfinite"]["nan"] > 0
    assert result["nonfinite"]["zero"] == 0
    assert f"{result['nonfinite']['nan']:,}" in (run / "report.html").read_text()
    assert np.isfinite(result["log_z"]["value"])
    assert "without exact draws" in result["verdict"]["reasons"][-1]
    with np.load(run / "draws.npz") as draws:
        assert np.isfinite(draws["x"]).all()
        np.testing.assert_array_equal(draws["log_weight"] == -np.inf, draws["x"][:, 0] <= 0.0)


def test_two_commands_at_once_get_folders_of_their_own(models, tmp_path, monkeypatch):
    from allmodes.files.lock import InUseError

    done = []
    monkeypatch.chdir(tmp_path)

    def meanwhile(folder, **_):
        done.append(str(folder.path))
        with pytest.raises(InUseError, match=f"process {os.getpid()} on .* is at work in"):
            lock._acquire(folder.path / lock.NAME)  # as another process would
        return {"verdict": {"word": ""}}

    monkeypatch.setattr(job, "run_job", meanwhile)
    words = ["run", f"{models / 'pair.py'}:target", "--method", "idem", "--quiet"]
    (tmp_path / "runs" / "pair-idem-0").mkdir(parents=True)
    other = lock._acquire(tmp_path / "runs" / "pair-idem-0" / lock.NAME)  # which has not written config.json yet
    assert call(*words) == 0
    os.close(other)
    assert call(*words) == 0
    assert done == ["runs/pair-idem-0-2", "runs/pair-idem-0"]


def test_a_folder_is_chosen_that_is_free(models, tmp_path, monkeypatch):
    done = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(job, "run_job", lambda folder, **_: done.append(str(folder.path)) or {"verdict": {"word": ""}})
    for seed in (0, 0, 1):
        assert call("run", f"{models / 'pair.py'}:target", "--seed", seed, "--method", "idem", "--quiet") == 0
    assert done == ["runs/pair-idem-0", "runs/pair-idem-0-2", "runs/pair-idem-1"]
    config = json.loads((tmp_path / "runs" / "pair-idem-1" / "config.json").read_text())
    assert (config["seed"], config["method"]["name"], config["draws"]) == (1, "idem", 10_000)


# Draws and reports of a finished run.


def test_more_draws_of_a_run(finished, tmp_path, capsys):
    before, out = contents(finished), tmp_path / "draws.npz"
    assert call("sample", finished, "-n", 250, "--steps", 10, "--out", out) == 0
    said = capsys.readouterr().out
    assert "of 250 effective" in said
    assert str(out) in said
    with np.load(out, allow_pickle=False) as draws:
        assert {name: draws[name].shape for name in draws} == {
            "x": (250, 2), "log_prob": (250,), "log_weight": (250,),
        }  # fmt: skip
        assert np.ptp(draws["log_weight"]) > 0.0
        weighted = {tuple(row) for row in draws["x"].tolist()}
    fair = tmp_path / "fair.npz"
    assert call("sample", finished, "-n", 250, "--steps", 10, "--fair", "--out", fair) == 0
    with np.load(fair) as draws:
        assert draws["x"].shape == (250, 2)
        np.testing.assert_array_equal(draws["log_weight"], np.zeros(250))
        chosen = {tuple(row) for row in draws["x"].tolist()}
    assert chosen < weighted
    assert call("sample", finished, "-n", 250, "--steps", 10, "--seed", 2, "--out", fair) == 0
    with np.load(fair) as draws:
        assert weighted.isdisjoint(tuple(row) for row in draws["x"].tolist())
    assert contents(finished) == before


def test_the_report_is_written_again(copy, capsys):
    before = contents(copy)
    assert call("report", copy) == 0
    after = contents(copy)
    assert [path.name for path in after.keys() - before.keys()] == ["report.html"]
    assert {path: after[path] for path in before} == before
    assert "log Z" in capsys.readouterr().out


# Wrong use.


def refused(capsys, *words):
    """The line that it is refused with."""
    capsys.readouterr()
    code = call(*words)
    streams = capsys.readouterr()
    assert code == 2, (words, code)
    assert streams.err.startswith("allmodes: ")
    assert streams.err.endswith("\n")
    assert streams.err.count("\n") == 1
    assert len(streams.err) < 700
    return streams.err


WRONG = {
    "unknown command": ("rum", "unknown command 'rum': there are run, sample"),
    "no target": ("run", "say what to run"),
    "unknown target": ("run gmm41", "no target called 'gmm41'.*gmm40"),
    "unknown method": ("run gmm40 --method iwms", "unknown method 'iwms'.*Did you mean iwsm?"),
    "method without a name": ("run gmm40 --method", "--method"),
    "unknown option": ("run gmm40 --foo 3", "--foo"),
    "option of another method": ("sample RUN --network.width 3", "--network.width"),
    "unreadable number": ("run gmm40 --steps many", "--steps.*many"),
    "unreadable word": ("run gmm40 --estimator Chian", "one of Neighbours, Chain, FreshDraws, got 'Chian'"),
    "bad setting": ("run gmm40 --batch 33", "batch must be a multiple of 32.*33"),
    "contradiction": ("run gmm40 --estimator FreshDraws --estimator.count 1", "at least 2, got 1"),
    "no draws": ("run gmm40 -n 0", "-n must be at least 1, got 0"),
    "wrong dim of a name": ("run gmm40 --dim 3", "gmm40 has dimension 2, not 3"),
    "no file": ("run none.py:f --dim 2", "there is no file none.py"),
    "no function": ("run PAIR:nothing --dim 2", "has no function 'nothing'"),
    "no dimension": ("run PAIR:log_prob", "add --dim"),
    "dimension zero": ("run PAIR:log_prob --dim 0", "at least 1, got 0"),
    "wrong dimension": ("run PAIR:log_prob --dim 3 --out NEW", "cannot be traced .*dim is right"),
    "wrong shape": ("run PAIR:vector --dim 2 --out NEW", r"to a scalar \(\), but returned shape \(2,\)"),
    "sample steps": ("run gmm40 --sample-steps 1 --out NEW", "sample_steps must be at least 2, got 1"),
    "folder in use": ("run PAIR:target --out RUN", "holds a run already.*--resume"),
    "unwritable folder": ("run PAIR:target --out FILE/run", "cannot write the run folder FILE/run: Not a directory"),
    "folder is a file": ("run PAIR:target --out FILE", "cannot write the run folder FILE"),
    "resume nothing": ("run --resume NEW", "NEW/config.json is missing"),
    "resume and target": ("run gmm40 --resume RUN", "leave 'gmm40' out"),
    "sample of nothing": ("sample NEW", "NEW/config.json is missing"),
    "sample without a run": ("sample", "run"),
    "sample none": ("sample RUN -n 0", "n of at least 1"),
    "sample in one step": ("sample RUN --steps 1", "steps of at least 2"),
    "sample without moves": ("sample RUN --correct mcmc --moves 0", "moves must be at least 1, got 0"),
    "sample to nowhere": ("sample RUN -n 9 --steps 3 --out FILE/d.npz", "cannot write FILE/d.npz: Not a directory"),
    "sample to another kind": ("sample RUN --out d.txt", r"saved as .npz or .nc, got d.txt"),
    "sample to a folder that is not there": ("sample RUN --out none/d.npy", "cannot write none/d.npy: No such file"),
    "an option of targets": ("targets --foo", "--foo"),
    "an option of methods": ("methods --foo", "--foo"),
    "report of nothing": ("report NEW", "NEW/result.json is missing"),
    "report of a file": ("report FILE", "FILE/result.json"),
    "unknown suite": ("benchmark all", "unknown suite 'all': there are mixtures"),
    "no such method": ("compare gmm40 --methods smc,hmc", "unknown method 'hmc'"),
    "no evaluations": ("run gmm40 --evaluations 0 --out NEW", "evaluations must be at least 1, got 0"),
    "no seeds": ("benchmark mixtures --seeds 0 --out NEW", "seeds must be at least 1"),
}


@pytest.mark.parametrize(("words", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_use_is_one_line_and_status_2(finished, models, tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text("kept")
    before = contents(finished)
    words = words.replace("RUN", str(finished)).replace("PAIR", str(models / "pair.py"))
    line = refused(capsys, *words.split())
    assert re.search(message, line), line
    assert contents(finished) == before
    assert [path.name for path in tmp_path.iterdir()] == ["FILE"]  # and no folder was begun
    assert (tmp_path / "FILE").read_text() == "kept"


def test_a_density_of_nan_is_refused(models, tmp_path, capsys):
    words = ["run", f"{models / 'pair.py'}:everywhere_nan", "--dim", 2, "--out", tmp_path / "run", *TINY]
    assert "no finite value at any of" in refused(capsys, *words)


def test_a_refused_budget_begins_no_folder(models, tmp_path, capsys):
    words = ["run", f"{models / 'pair.py'}:target", "--out", tmp_path / "run", *TINY]
    assert "seconds must be positive" in refused(capsys, *words, "--seconds", 0)
    assert not (tmp_path / "run").exists()


# Settings with a value that no run could use.
UNUSABLE = {
    "depth": ["--network.depth", -1],
    "width": ["--network.width", -3],
    "rate": ["--optimiser.learning-rate", "nan"],
    "seed": ["--seed", 10**20],
}


@pytest.mark.parametrize("option", UNUSABLE.values(), ids=UNUSABLE.keys())
def test_settings_that_cannot_be_are_refused(models, tmp_path, capsys, option):
    words = ["run", f"{models / 'pair.py'}:target", "--out", tmp_path / "run", *TINY, *option]
    assert option[0].strip("-").split(".")[-1].replace("-", "_") in refused(capsys, *words)


@pytest.mark.parametrize("option", [["--steps", 7], ["--seed", 3], ["-n", 5]])
def test_resuming_with_other_settings_is_refused(finished, capsys, option):
    assert option[0] in refused(capsys, "run", "--resume", finished, *option)


# Damage.


@pytest.mark.parametrize("text", ["", '{"target": {', "[]", '{"seed": 0}'])
def test_a_damaged_config_is_one_line(copy, capsys, text):
    (copy / "config.json").write_text(text)
    before = contents(copy)
    for words in (["run", "--resume", copy], ["sample", copy], ["report", copy]):
        line = refused(capsys, *words)
        assert f"{copy / 'config.json'} is damaged" in line
    assert contents(copy) == before


@pytest.mark.parametrize("key", ["seed", "draws", "command", "versions", "machine"])
def test_a_config_without_a_part_is_one_line(copy, capsys, key):
    config = json.loads((copy / "config.json").read_text())
    del config[key]
    (copy / "config.json").write_text(json.dumps(config))
    assert f"{copy / 'config.json'} is damaged" in refused(capsys, "run", "--resume", copy, "--quiet")


def test_resuming_a_saved_sampler_is_one_line(finished, tmp_path, capsys):
    import allmodes as am

    am.load(finished).save(tmp_path / "saved")
    refused(capsys, "run", "--resume", tmp_path / "saved", "--quiet")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_one_line(copy, capsys):
    for path in (copy / "checkpoint").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    for words in (["run", "--resume", copy, "--quiet"], ["sample", copy]):
        assert "Delete the folder `checkpoint`" in refused(capsys, *words)


def test_a_checkpoint_that_cannot_be_read_is_one_line_in_a_shell(copy, tmp_path):
    """In a process of its own: what the tasks of Orbax leave on stderr comes late, and past
    `capsys`."""
    other = tmp_path / "other"
    shutil.copytree(copy, other)
    config = json.loads((other / "config.json").read_text())
    config["method"]["settings"]["network"]["width"] += 1
    (other / "config.json").write_text(json.dumps(config))
    for path in (copy / "checkpoint").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    code = f"""
from allmodes.command.main import main
from allmodes.diffusion.sampler import DiffusionSampler
for run in {[str(copy), str(other)]!r}:
    try:
        main(["run", "--resume", run, "--quiet"])
    except SystemExit as stop:
        assert stop.code == 2
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert [line[:24] for line in done.stderr.splitlines()] == ["allmodes: no checkpoint "] * 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_finished_run_insists_on_its_last_state_and_trains_to_it_again(finished, copy, tmp_path, capsys):
    shutil.copy(finished / "report.html", copy)
    for data in (copy / "checkpoint" / "60" / "state").rglob("d/*"):  # not all of them are read
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    before = contents(copy)
    for words in (["sample", copy, "--out", tmp_path / "d.npz"], ["report", copy], ["audit", copy],
                  ["agree", finished, copy]):  # fmt: skip
        line = refused(capsys, *words)
        assert "finished run of 60 steps, and the newest readable checkpoint is of step 0" in line
        assert f"allmodes run --resume {copy}" in line
    assert contents(copy) == before
    assert call("run", "--resume", copy, "--judge-repeats", 2) == 0
    said = capsys.readouterr().err
    assert re.search(r"allmodes: .*checkpoint 60 cannot be read \(.*\); taken instead: step 0", said)
    again, whole = contents(copy), contents(finished)
    assert again.keys() == whole.keys() - {path for path in whole if "checkpoint" in path.parts} | {
        path for path in again if "checkpoint" in path.parts
    }
    for name in ("draws.npz", "corrected.npz"):
        assert (copy / name).read_bytes() == (finished / name).read_bytes()
    assert call("sample", copy, "-n", 9, "--steps", 3, "--out", tmp_path / "d.npz") == 0


def test_an_unfinished_run_without_its_newest_checkpoint_says_which_it_took(copy, tmp_path, capsys):
    (copy / "result.json").unlink()
    for path in (copy / "checkpoint" / "60" / "about").rglob("*"):
        path.write_bytes(b"")
    assert call("sample", copy, "-n", 9, "--steps", 3, "--out", tmp_path / "d.npz") == 0
    first = capsys.readouterr().err.splitlines()[0]
    assert re.match(r"allmodes: .*checkpoint 60 cannot be read \(.*\); taken instead: step 0$", first)
    assert (copy / "checkpoint" / "60").exists()


def test_what_was_drawn_is_not_drawn_again(finished, copy, monkeypatch, capsys):
    """As after `kill -9` in evaluating."""
    (copy / "result.json").unlink()

    def never(*_, **__):
        raise AssertionError("drawn again")

    with monkeypatch.context() as patch:
        for name in ("sample", "corrected"):
            patch.setattr(DiffusionSampler, name, never)
        assert call("run", "--resume", copy, "--judge-repeats", 2) == 0
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "pair: going on from step 60 of at most 60", "going on: trained, drawn, corrected", "evaluating",
        "telling modes apart", "writing the report",
    ]  # fmt: skip
    results = [json.loads((run / "result.json").read_text()) for run in (copy, finished)]
    for key in ("log_z", "verdict", "evaluations", "state"):
        assert results[0][key] == results[1][key]


def test_draws_of_another_state_or_not_whole_are_made_again(copy, capsys):
    (copy / "corrected.npz").write_bytes((copy / "corrected.npz").read_bytes()[:-100])
    with np.load(copy / "draws.npz") as draws:
        arrays = dict(draws)
    other = arrays | {"about": np.asarray(str(arrays["about"]).replace('"state": "', '"state": "0'))}
    np.savez(copy / "draws.npz", **other)
    assert call("run", "--resume", copy, "--judge-repeats", 2) == 0
    assert "going on: trained\ndrawing 300\n" in capsys.readouterr().err
    with np.load(copy / "draws.npz") as draws:
        assert {name: draws[name].tobytes() for name in draws} == {k: v.tobytes() for k, v in arrays.items()}


@pytest.mark.parametrize("name", ["result.json", "draws.npz"])
def test_a_lost_result_is_made_again(finished, copy, name):
    (copy / name).unlink()
    assert call("run", "--resume", copy, *QUICK) == 0
    with np.load(copy / "draws.npz") as again, np.load(finished / "draws.npz") as whole:
        assert again["log_weight"].tobytes() == whole["log_weight"].tobytes()
    results = [json.loads((run / "result.json").read_text()) for run in (copy, finished)]
    for key in ("log_z", "verdict", "levels", "log_prob_evaluations", "command"):
        assert results[0][key] == results[1][key]


def test_training_that_ended_in_nan_still_has_a_result(copy):
    """As `fit` writes a chunk of steps whose losses are NaN: null in `metrics.jsonl`."""
    lines = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    lines[-1] |= {"loss": None, "level_loss": [None] * len(lines[-1]["level_loss"])}
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert call("run", "--resume", copy, *QUICK) == 0
    assert (copy / "report.html").exists()


# Help and lists.


def test_options_are_read_as_those_of_the_method_that_the_target_gets(capsys):
    assert call("run", "dw4", "--buffer", "2048", "--help") == 0  # less than what a renewal of the default takes
    assert "Steps between local moves of the whole buffer; 0 for" in (text := capsys.readouterr().out)
    assert f"(default: {IWSM.few_particles().local_every})" in text[text.index("--local-every") :][:300]


def test_help(capsys):
    assert call("--help") == 0
    usage = capsys.readouterr().out
    for command in ("run", "sample", "report", "benchmark", "judge", "compare", "agree", "targets", "methods"):
        assert f"allmodes {command}" in usage
    assert call() == 2
    assert "allmodes run" in "".join(capsys.readouterr())
    assert call("--version") == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_the_settings_of_a_method_are_options(capsys):
    assert call("run", "--help") == 0
    text = capsys.readouterr().out
    for option in ("--method", "--strict", "--resume", "--seconds", "--reweighting.every", "--estimator"):
        assert option in text
    assert "(default: 5000)" in text
    assert call("run", "--method", "iwsm-paper", "--help") == 0
    assert "(default: 500)" in capsys.readouterr().out  # its own defaults


def test_lists_of_targets_and_methods(capsys, monkeypatch):
    from allmodes import targets
    from allmodes.methods import METHODS

    for command in ("targets", "methods"):
        assert call(command, "--help") == 0
        assert f"usage: allmodes {command}" in capsys.readouterr().out
    with monkeypatch.context() as patch:
        patch.setattr(targets, "get", None)  # nothing is built for the list
        assert call("targets") == 0
    out = capsys.readouterr().out
    for name in targets.names():
        assert name in out
    assert "arXiv" in out
    assert call("methods") == 0
    out = capsys.readouterr().out
    for name in METHODS:
        assert f"{name}: " in out
    assert "reweighting" in out
    assert jax.config.values["jax_enable_x64"] is False  # nothing global was touched
