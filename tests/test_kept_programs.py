"""Compiled programs that the next process finds on disk."""

import json
import os
import subprocess
import sys

import pytest

SCRIPT = """
import json, jax
from allmodes.command.kept_programs import keep_programs
keep_programs()
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # however fast the machine
jax.block_until_ready(jax.jit(lambda x: jax.numpy.linalg.eigh(x @ x.T)[0].sum())(jax.numpy.ones((9, 9))))
print(json.dumps(jax.config.jax_compilation_cache_dir))
"""


def folder_of(tmp_path, **chosen):
    """The folder of programs that a process ends with."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    environment = {**mine, "ALLMODES_CACHE": str(tmp_path / "cache"), **chosen}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def test_they_are_kept_in_the_users_cache(tmp_path):
    assert folder_of(tmp_path) == str(tmp_path / "cache" / "jax")
    assert any((tmp_path / "cache" / "jax").iterdir())


def test_a_folder_that_the_user_has_chosen_stays(tmp_path):
    assert folder_of(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(os.name == "nt", reason="a file in the place of a folder is told otherwise there")
def test_where_none_can_be_written_all_goes_on(tmp_path):
    (tmp_path / "cache").write_text("in the way")
    assert folder_of(tmp_path) is None
