"""What tests of samplers of other packages share: a small fit, which trains however good the search
was, and a run that is killed."""

import subprocess
import sys
from pathlib import Path

TINY = {
    "method": "iwsm",
    "settings": {
        "search": {"kind": "Search", "scouts": 128, "starts": 1024, "moves": 8}, "steps": 40, "cooldown": 10,
        "batch": 64, "buffer": 512, "enough": None, "ready": None,
        "reweighting": {"kind": "PathMoves", "every": 20, "path_steps": 8},
    },
    "draws": 1000,
}  # fmt: skip

# By itself, once a checkpoint of step 20 is written.
KILLED = """
import importlib, os, pathlib, signal, sys
sys.path.insert(0, sys.argv[1])
import conftest
from allmodes.training import budget, fit
from allmodes.files.run_folder import Run
budget.CHUNK, fit.CHECKPOINT_SECONDS = 10, 0.0
save = Run.save_state
def kill(run, step, *rest):
    save(run, step, *rest)
    if step >= 20:
        os.kill(os.getpid(), signal.SIGKILL)
Run.save_state = kill
importlib.import_module(sys.argv[2]).run(pathlib.Path(sys.argv[3]))
"""


def kill_in_training(module, folder):
    """Call `run(folder)` of a module of tests in a process that is killed in training."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, Path(__file__).parent, module, folder]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600)
    assert done.returncode == -9, done.stderr
