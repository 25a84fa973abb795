"""Analyses that anyone can run again: `allmodes study NAME`."""

import importlib
from collections.abc import Callable
from pathlib import Path

from allmodes.errors import ConfigError

# Name -> module with `run(out, *, quick, progress)`. A new study is one file and one line here.
STUDIES = {
    "bias-variance": "allmodes.studies.bias_variance",
    "ablation": "allmodes.studies.ablation",
    "dimension": "allmodes.studies.dimension",
    "free-energy": "allmodes.studies.free_energy",
}


def run_study(name: str, out: Path, *, quick: bool = False, progress: Callable[[str], None] | None = None) -> dict:
    """Run a study into a folder.

    **Raises** `ConfigError` for an unknown name.
    """
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}: there are {', '.join(STUDIES)}")
    return importlib.import_module(STUDIES[name]).run(out, quick=quick, progress=progress)
