"""`kill -9` at random moments, `--resume`, and the end is that of a run that nobody killed, to the
last bit."""

import json
import random
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import call

from allmodes.files.run_folder import Run
from allmodes.jobs import evaluation
from allmodes.store import load as store

pytestmark = pytest.mark.trains

MODEL = """
import jax, jax.numpy as jnp, numpy as np
import allmodes as am

means = np.array([[-2.0, 0.0], [2.0, 1.0], [0.0, -3.0]], np.float32)

def log_prob(x):
    return jax.nn.logsumexp(-2.0 * jnp.sum((x - means) ** 2, -1))

def sample(key, n):
    k_mode, k_noise = jax.random.split(key)
    return means[jax.random.randint(k_mode, (n,), 0, 3)] + 0.5 * jax.random.normal(k_noise, (n, 2))

target = am.Target(log_prob, 2, name="three", sample=sample, log_z=float(np.log(1.5 * np.pi)))
"""
# A checkpoint after every chunk, so that a kill falls between two, or into the writing of one. The
# package's attribute `fit` is the function: its module must be asked for by name.
COMMAND = """
import sys
from allmodes.training import budget, fit
budget.CHUNK, fit.CHECKPOINT_SECONDS = 10, 0.0
from allmodes.command import main as cli
from allmodes.jobs import evaluation
evaluation.EXACT = 500
cli.main(sys.argv[1:])
"""
CHUNKS = 40
SETTINGS = (
    "--method iwsm-thorough --batch 64 --buffer 512 --network.width 16 --network.depth 1 --reweighting.every 20 "
    "--reweighting.path-steps 8 --local-every 30 "
    f"--cooldown 10 --enough None --steps {10 * CHUNKS} -n 300 --quiet --judge-repeats 2"
).split()


def start(*words):
    """The command in a process of its own."""
    command = [sys.executable, "-c", COMMAND, "run", *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(process):
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr


def written(run):
    try:
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0


def kill_after(process, run, lines, delay):
    """Kill -9 some time after so many lines of metrics; returns how many there were then."""
    deadline = time.monotonic() + 300
    while written(run) < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    return written(run)


def facts(run):
    """What must be equal: all of `result.json` but times, places, and figures that take as long as
    they are given."""
    result = json.loads((run / "result.json").read_text())
    for name in ("seconds", "peak_memory_mb", "command"):
        del result[name]
    for group in ("metrics", "metrics_corrected"):
        for name in ("w2", "mmd"):
            assert result[group].pop(name)["value"] > 0.0
    return result


def test_killed_twice_and_resumed_is_as_if_never_killed(tmp_path, monkeypatch):
    seed = time.time_ns()
    print("seed of the moments:", seed)
    rng = random.Random(seed)
    (tmp_path / "model.py").write_text(MODEL)
    target = [f"{tmp_path / 'model.py'}:target", *SETTINGS]
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    monkeypatch.setattr("allmodes.training.budget.CHUNK", 10)
    monkeypatch.setattr("allmodes.training.fit.CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(evaluation, "EXACT", 500)
    # In this process, and first: so all is compiled, and none is killed while it keeps a program.
    assert call("run", *target, "--out", whole.path) == 0

    resume = ["--resume", killed.path, "--quiet", "--judge-repeats", 2]
    for words, (least, most) in (([*target, "--out", killed.path], (1, 8)), (resume, (14, 24))):
        lines = kill_after(start(*words), killed.path, rng.randint(least, most), rng.uniform(0.0, 0.05))
        print("killed after", lines, "lines of", CHUNKS)
        assert lines < CHUNKS
        assert not (killed.path / "draws.npz").exists()
    finish(start(*resume))

    described, method, _ = store.parse(whole)
    state, _ = whole.load_state(method.template(described))
    draws, metrics = whole.read_draws(), whole.read_metrics()
    assert len(metrics) == CHUNKS
    assert method.end(state) == state.step == 10 * CHUNKS
    resumed, _ = killed.load_state(method.template(described))
    for (path, a), (_, b) in zip(*(leaves(tree) for tree in (resumed, state)), strict=True):
        assert a.tobytes() == b.tobytes(), path
    assert {name: array.tobytes() for name, array in killed.read_draws().items()} == {
        name: array.tobytes() for name, array in draws.items()
    }
    assert [line | {"seconds": 0} for line in killed.read_metrics()] == [line | {"seconds": 0} for line in metrics]
    assert facts(killed) == facts(whole)
    assert not [path for path in killed.path.iterdir() if path.name.startswith(".")]


def leaves(tree):
    return [(jax.tree_util.keystr(path), np.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]
