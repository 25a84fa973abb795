"""Signals at any moment: status 130, the line that goes on, nothing lost; and one process at a time
in a folder."""

import json
import multiprocessing
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from allmodes.errors import RunError, RunWarning
from allmodes.files import interrupt, lock
from allmodes.files.lock import locked
from allmodes.files.run_folder import Run

MODEL = "import jax.numpy as jnp\ndef log_prob(x):\n    return -0.5 * jnp.sum(x**2)\n"


def started(code, *words):
    """A process of its own, which hears Ctrl-C and hang-ups even where this one ignores them."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=_hear)


def _hear():
    for number in (signal.SIGINT, signal.SIGHUP):  # a parent under nohup ignores these
        signal.signal(number, signal.SIG_DFL)


def until(true, process):
    deadline = time.monotonic() + 120
    while not true():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_during_the_search_ends_a_run_as_promised(tmp_path, number):
    (tmp_path / "model.py").write_text(MODEL)
    run = tmp_path / "run of mine"
    process = started(
        "from allmodes.command.main import main; main()",
        "run",
        f"{tmp_path / 'model.py'}:log_prob",
        "--dim",
        2,
        "--out",
        run,
    )
    until((run / "config.json").exists, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert err.splitlines()[-1] == f"interrupted; go on with: allmodes run --resume '{run}'"
    assert "Traceback" not in err
    assert not [path.name for path in run.iterdir() if path.name.startswith(".") or path.name == lock.NAME]


# What the main thread of each process does after the guard is there.
BUSY = {
    "at once": ("interrupt.at_once(); time.sleep(60)", ["interrupted: nothing was written"]),
    "asked": (
        "interrupt.say('go on')\ntry:\n while True: interrupt.wait(); time.sleep(.01)\n"
        "except KeyboardInterrupt:\n print('saved'); interrupt.speak(); sys.exit(130)",
        ["go on"],
    ),
    "never looks": (
        "interrupt.say('go on'); interrupt.wait(); time.sleep(60)",
        ["what came after the last checkpoint is lost, and is computed again", "go on"],
    ),
}


@pytest.mark.parametrize("name", BUSY)
def test_the_guard_ends_what_waits_and_asks_what_trains(tmp_path, name):
    does, lines = BUSY[name]
    half = tmp_path / "half"
    half.write_text("")
    code = (
        "import sys, time\nfrom allmodes.files import interrupt\ninterrupt.GRACE = 1.0\ninterrupt.install()\n"
        f"interrupt.temporary({str(half)!r})\nprint('ready', flush=True)\n{does}\n"
    )
    process = started(code)
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines() == lines
    assert out == ("saved\n" if name == "asked" else "")
    assert half.exists() == (name == "asked")  # else nobody is left to move it into place


def test_a_command_of_ours_ends_before_the_one_that_waits_for_it(tmp_path):
    child = (
        "import sys, time; from allmodes.files import interrupt; interrupt.install(); interrupt.say('child'); "
        f"open({str(tmp_path / 'ready')!r}, 'w'); time.sleep(60)"
    )
    process = started(
        "import sys\nfrom allmodes.files import interrupt\ninterrupt.install()\ninterrupt.say('parent')\n"
        f"try:\n interrupt.call([sys.executable, '-c', {child!r}])\n"
        "except KeyboardInterrupt:\n interrupt.speak(); sys.exit(130)"
    )
    until((tmp_path / "ready").exists, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "child\nparent\n")


def test_what_is_ignored_stays_ignored_and_all_is_put_back():
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        undo = interrupt.install()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
        undo()
        assert signal.getsignal(signal.SIGTERM) == before[signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# The lock.


def hold(path, ready):
    with locked(path):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process at work in the folder."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()  # not told to end by an event: to set one on which a killed process waits never returns
    process.join()


def test_a_second_process_is_told_which_one_is_at_work(tmp_path, holder):
    message = rf"process {holder.pid} on {re.escape(socket.gethostname())}, since 20.* is at work in .*: wait for it"
    with pytest.raises(RunError, match=message), Run(tmp_path).locked():
        pass
    holder.kill()
    holder.join()
    assert (tmp_path / lock.NAME).exists()
    with Run(tmp_path).locked():  # what it left binds no one
        assert json.loads((tmp_path / lock.NAME).read_text())["pid"] == os.getpid()
    assert not (tmp_path / lock.NAME).exists()


def test_the_holder_may_enter_again_and_what_others_left_half_written_goes(tmp_path):
    left = [tmp_path / ".draws.npz.abcd1234", tmp_path / "checkpoint" / "20.orbax-checkpoint-tmp"]
    left[0].write_text("half")
    left[1].mkdir(parents=True)
    (tmp_path / ".mine").write_text("kept")
    with Run(tmp_path).locked(), Run(tmp_path).locked():
        assert not any(path.exists() for path in left)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine", "checkpoint"]


@pytest.mark.parametrize(("pid", "taken"), [(2**22 + 1, True), (os.getppid(), False)])
def test_without_locks_of_the_file_system_the_names_decide(tmp_path, monkeypatch, pid, taken):
    import errno
    import fcntl

    def unknown(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unknown)
    (tmp_path / lock.NAME).write_text(json.dumps({"pid": pid, "host": socket.gethostname(), "since": "then"}))
    if taken:
        with pytest.warns(RunWarning, match="file system without locks"), locked(tmp_path):
            pass
    else:
        with pytest.raises(RunError, match=f"process {pid} on .*or delete .*lock if"), locked(tmp_path):
            pass


def test_a_signal_after_the_end_of_the_work_changes_nothing():
    code = (
        "import atexit, os, signal, sys, time\n"
        "atexit.register(lambda: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.5)))\n"
        "sys.argv = ['allmodes', '--version']\n"
        "from allmodes.command import main as cli\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
