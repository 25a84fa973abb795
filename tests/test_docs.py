"""What the docs show runs, and the site builds without a warning."""

import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import pytest

import allmodes as am

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "docs" / "tutorials").glob("*.md"))]
BLOCKS = {
    f"{page.name}-{i}": code
    for page in PAGES
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))
}
TINY = am.IWSM(
    steps=60, cooldown=20, batch=64, width=16, depth=1, buffer=256, neighbours=16, refresh_every=30, refresh_steps=8,
    local_every=30, sample_steps=20,
)  # fmt: skip


def test_there_are_blocks_to_run():
    assert {"README.md-0", "index.md-0", "models.md-0"} <= set(BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_a_block_runs(name, tmp_path, monkeypatch):
    """As it stands, in a fresh namespace; only training is cut short."""
    if "numpyro" in BLOCKS[name]:
        pytest.importorskip("numpyro", reason="NumPyro is not installed: its block is not run")
    if "pymc" in BLOCKS[name]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its ArviZ about the next, of PyTensor without BLAS
            pytest.importorskip("pymc", reason="PyMC is not installed: its block is not run")
            import pytensor

            assert pytensor.config.blas__ldflags is not None
    fit = am.fit

    def short(target, method=None, *, key, **more):
        return fit(target, TINY if method is None else method, key=key, **more)

    monkeypatch.setattr(am, "fit", short)
    monkeypatch.chdir(tmp_path)
    exec(compile(BLOCKS[name], name, "exec"), {"__name__": "block"})
    jax.effects_barrier()


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs", reason="MkDocs is not installed: the site is not built")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )
    assert done.returncode == 0, done.stderr
    api = (tmp_path / "site" / "api" / "index.html").read_text()
    for name in ("Target", "Draws", "IWSM", "audit"):
        assert f'id="allmodes.{name}"' in api
