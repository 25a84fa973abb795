"""Several devices give what one gives; several processes do one job, and say so when one of them
has gone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes.devices import blocks, processes
from allmodes.devices import mesh as devices

pytestmark = pytest.mark.trains

HERE = Path(__file__).parent
DENSITY = """
import jax.numpy as jnp

def two(x):
    return jnp.logaddexp(-jnp.sum((x - 2.0) ** 2), -jnp.sum((x + 2.0) ** 2))
"""
SMALL = (
    "--start broad --cooldown 10 --batch 64 --buffer 256 --reweighting.every 20 --reweighting.path-steps 5 "
    "--reweighting.points 256 "
    "--network.width 16 --network.depth 1"
)


@pytest.fixture(scope="module")
def seen():
    """What a process with eight forced devices saw."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    env = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, HERE / "eight_devices.py"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_eight_devices_train_what_one_trains(seen):
    assert seen["state"] < 2e-3
    assert max(seen["draws"]) < 2e-2


def test_what_eight_devices_return_lies_on_one(seen):
    assert seen["ordinary"]


def test_a_checkpoint_of_eight_devices_is_read_by_one(seen):
    assert seen["checkpoint"] == 0.0
    assert 0 < seen["half"] < 30
    assert seen["resumed"] < 2e-3


def test_each_device_has_its_share(seen):
    assert seen["rows"] == [64] * 8  # of a buffer of 512
    assert seen["copies"] == 8
    assert seen["share"] < 0.25  # of the arithmetic of a step; an eighth but for what all do alike


def test_numbers_of_devices_that_will_not_do(seen):
    said = seen["errors"]
    assert said[0].startswith("batch must be a multiple of the 5 devices, got 256")
    assert "between 1 and the 8 that JAX sees here, got 9" in said[1]
    assert "got 0" in said[2]
    assert "'all' or a number of them, got 'some'" in said[3]


def test_one_device_is_the_special_case_of_one():
    with am.on_devices(1):
        assert devices.mesh() is None
        assert devices.count() == 1
        assert devices.share_evenly(7) == 7
    x = jnp.arange(6.0)
    assert devices.gather({"x": x})["x"] is x
    assert processes.broadcast(3) == 3
    assert processes.broadcast_text("runs/ü") == "runs/ü"
    assert processes.is_main_process()


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_blocks_of_trees_are_what_all_at_once_is(size):
    x, y = jnp.arange(10.0), jnp.arange(20.0).reshape(10, 2)
    whole = jax.vmap(lambda p: {"sum": p[0] + p[1].sum()})((x, y))
    np.testing.assert_allclose(
        blocks.batched_map(lambda p: {"sum": p[0] + p[1].sum()}, (x, y), size)["sum"], whole["sum"]
    )


def test_options_of_processes_without_distributed(tmp_path):
    done = command(tmp_path, "--coordinator", "localhost:1").wait(120)
    assert done == 2


def command(folder, *more, **options):
    """`allmodes run` of the density, in the folder, as a process."""
    (folder / "density.py").write_text(DENSITY)
    line = [sys.executable, "-m", "allmodes", "run", *more]
    return subprocess.Popen(line, cwd=folder, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, **options)


def two_processes(folder, *more):
    """The same job as two processes that work together."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    start = [f"--coordinator=localhost:{port}", "--processes=2", "--distributed"]
    return [command(folder, *more, *start, f"--process-id={i}") for i in range(2)]


def test_two_processes_do_one_job(tmp_path):
    job = ["density.py:two", "--dim=2", "--steps=60", *SMALL.split(), "-n=500", "--judge-repeats=5", "--out=job"]
    leading, other = two_processes(tmp_path, *job)
    out, err = leading.communicate(timeout=300)
    assert leading.returncode == 0, err[-2000:]
    said = other.communicate(timeout=60)
    assert other.returncode == 0
    assert "log Z" in out
    assert "log Z" not in said[0]  # one of them speaks
    result = json.loads((tmp_path / "job" / "result.json").read_text())
    assert "2 x cpu" in result["machine"]
    assert abs(result["log_z"]["value"] - np.log(2 * np.pi)) < 5 * result["log_z"]["std_error"]
    assert len(np.load(tmp_path / "job" / "draws.npz")["x"]) == 500


@pytest.mark.slow
@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_process_ends_the_others_and_one_goes_on_alone(tmp_path, killed):
    job = ["density.py:two", "--dim=2", "--steps=20000", *SMALL.split(), "-n=500", "--judge-repeats=5", "--out=job"]
    processes = two_processes(tmp_path, *job)
    begin = time.monotonic()
    checkpoint = tmp_path / "job" / "checkpoint"
    while not (checkpoint.is_dir() and any(path.name.isdigit() for path in checkpoint.iterdir())):
        assert time.monotonic() - begin < 200
        time.sleep(0.5)
    os.kill(processes[killed].pid, signal.SIGKILL)
    left = processes[1 - killed]
    said = left.communicate(timeout=60)[1]
    assert left.returncode != 0
    assert "process" in said
    if killed == 1:  # where the first one goes, JAX itself ends the others, with words of its own
        assert left.returncode == 2
        assert "another process of this job has ended" in said
        assert "allmodes run --resume job" in said
    steps = max(int(path.name) for path in checkpoint.iterdir() if path.name.isdigit())
    assert 0 < steps < 20000
    alone = command(tmp_path, "--resume=job", "--seconds=1")
    assert alone.wait(300) == 0, alone.stderr.read()[-2000:]
    assert (tmp_path / "job" / "report.html").exists()
