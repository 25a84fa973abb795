"""The page of a sampler that was fitted in Python: the same as of a run."""

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from allmodes.devices.keys import Key, key_of
from allmodes.draws import kept
from allmodes.draws.draws import Draws
from allmodes.errors import ConfigError
from allmodes.files.atomic import check_writable, write_atomically
from allmodes.files.run_folder import Run
from allmodes.jobs.evaluation import Keys, evaluation
from allmodes.jobs.machine import versions
from allmodes.metrics.floor import REPEATS
from allmodes.report import page
from allmodes.sampler import Sampler
from allmodes.settings import settings_of


def write_report(
    sampler: Sampler,
    path: str | os.PathLike,
    *,
    key: Key,
    draws: Draws | None = None,
    n: int = 10_000,
    repeats: int = REPEATS,
) -> Path:
    """Write the page that `allmodes run` ends with, for a sampler that `fit` or `load` gave: one
    HTML file that can be opened offline.

    - `path`: of the file, ending in `.html`.
    - `key`: a JAX key or a seed, for draws and for what they are compared with.
    - `draws`: what to judge, where it is there already. When not given, `n` draws are made, and
      corrected where the method has a correction, both at the usual cost in evaluations.
    - `repeats`: how often each metric between sets of draws is taken, where exact draws are known.

    Returns the path.

    **Raises** `ConfigError` for another kind of file, n below 1, or draws of another density;
    `RunError` when the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"a report is an .html file, got {path}")
    if draws is not None and draws.x.shape[1] != sampler.target.dim:
        raise ConfigError(f"draws are of {draws.x.shape[1]} dimensions, the sampler's of {sampler.target.dim}")
    check_writable(path)
    k_draw, k_correct, *judging = jax.random.split(key_of(key), 7)
    clock = {"compile": sampler.seconds.get("compile", 0.0)}
    clock["train"] = sum(sampler.seconds.values()) - clock["compile"]
    corrected, begin = None, time.monotonic()
    if draws is None:
        draws = sampler.sample(n, key=k_draw)
        clock["sample"], begin = time.monotonic() - begin, time.monotonic()
        corrected = sampler.corrected(n, key=k_correct)
        clock["correct"], begin = time.monotonic() - begin, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run, config = Run(folder), _config(sampler)
        for line in sampler.history:
            run.append_metrics(line)
        result = evaluation(sampler, draws, corrected, run, Keys(*judging), config, repeats)
        clock["evaluate"] = time.monotonic() - begin
        result["seconds"] = {name: round(seconds, 2) for name, seconds in clock.items()}
        run.write_json("result.json", result)
        run.write_json("config.json", config)
        kept.write(run, "draws.npz", draws, "")
        if corrected is not None:
            kept.write(run, "corrected.npz", corrected, "")
        html = page.write_report(run.path, target=sampler.target).read_bytes()
    write_atomically(path, lambda file: file.write(html), mode="wb")
    return path


def _config(sampler: Sampler) -> dict[str, Any]:
    """What a page says of the settings."""
    target, method = sampler.target, sampler.method
    about = {"name": method.name, "settings": settings_of(method)}
    return {"target": {"name": target.name, "dim": int(target.dim)}, "method": about, **versions()}
