"""Analyses that anyone can run again: `python -m studies NAME`."""

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from allmodes.errors import ConfigError

# Name -> module with `run(out, *, quick, progress)`. A new study is one file and one line here.
STUDIES = {
    "bias-variance": "studies.bias_variance",
    "ablation": "studies.ablation",
    "dimension": "studies.dimension",
    "free-energy": "studies.free_energy",
}


def run_study(
    name: str, out: Path, *, quick: bool = False, progress: Callable[[str], None] | None = None, **more: Any
) -> dict:
    """Run a study into a folder; `more`, where not None, are arguments that only some studies take
    (`seeds`, `cases`).

    **Raises** `ConfigError` for an unknown name, and for an argument that this study does not take.
    """
    if name not in STUDIES:
        raise ConfigError(f"unknown study {name!r}: there are {', '.join(STUDIES)}")
    run = importlib.import_module(STUDIES[name]).run
    more = {key: value for key, value in more.items() if value is not None}
    for key in more:
        if key not in inspect.signature(run).parameters:
            raise ConfigError(f"the study {name} takes no {key}")
    return run(out, quick=quick, progress=progress, **more)
