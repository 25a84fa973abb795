"""Samplers and targets in run folders: a target by its name, by its file, or as an exported
computation.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from allmodes.bounded import sampler_of
from allmodes.devices.batched import log_prob_of
from allmodes.devices.precision import single
from allmodes.errors import AllmodesError, RunError
from allmodes.files.fingerprint import differing, fingerprint
from allmodes.files.run_folder import Run
from allmodes.files.saved import EXPORTED, PARAMETERS
from allmodes.methods import Method
from allmodes.sampler import Sampler
from allmodes.store.find import find_method, find_target
from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Target


def parse(run: Run) -> tuple[Target, Method, dict]:
    """The target, the method and the whole `config.json` of a run folder.

    **Raises** `RunError` when it is damaged or of an unknown form, or the target is no longer the
    density that the run was begun with; `TargetError` when the target's file is gone.
    """
    config = run.read_json("config.json")
    try:
        about, method = config["target"], config["method"]
        name, dim, origin = str(about["name"]), int(about["dim"]), str(about["origin"])
        is_flat = "refresh_every" in method["settings"]
        method = None if is_flat else _method(method)
        hints: dict[str, Any] = {k: np.asarray(about[k], float) for k in ("location", "scale") if k in about}
        if "symmetry" in about:
            hints["symmetry"] = ParticleSymmetry(**about["symmetry"])
        if about.get("differentiable") is False:
            hints["differentiable"] = False
        hints |= {k: about[k] for k in ("names", "bounds", "periodic") if k in about}
        hints["double"] = about.get("double") is True  # whatever jax_enable_x64 is now
        was = [None if v is None else float(v) for v in about.get("fingerprint", [])]
        Target(abs, dim, **hints)  # for its checks of dim and hints
    except (AllmodesError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"{run / 'config.json'} is damaged: {reason}. Restore it, or start again in a new folder"
        ) from error
    if method is None:
        raise RunError(
            f"{run.path} was made by allmodes 0.1.0, whose methods had other settings: read it with that version, or "
            "train again in a new folder"
        )
    if not origin:
        target = _imported(run, name, dim)
    elif ":" in origin:
        target = dataclasses.replace(find_target(origin, dim), name=name)
    else:
        target = find_target(origin)
    target = dataclasses.replace(target, double=hints["double"])
    other = differing(was, fingerprint(target)) if was else None
    if other is not None:
        raise RunError(
            f"{run.path} was made from another density: at a test point the log_prob of {origin} was {other[0]:.6g}, "
            f"and is {other[1]:.6g} now. Bring back what it was, or start again in a new folder"
        )
    return dataclasses.replace(target, **hints), method, config


def _method(about: dict) -> Method:
    """The method that `config.json` tells of: registered, or of a file."""
    name = str(about["name"])
    if "origin" not in about:
        return find_method(name, about["settings"])
    return dataclasses.replace(find_method(str(about["origin"]), about["settings"]), name=name)


def load(path: str | os.PathLike) -> Sampler:
    """The sampler of a run folder: that of a finished run as it ended, of another as its newest
    checkpoint holds it.

    Where the newest one cannot be read, a `RunWarning` says which was taken instead. Nothing in the
    folder is changed.

    **Raises** `RunError` when the folder is missing or damaged, a finished run's last checkpoint
    among it, with what to do; `TargetError` when the target's file is gone.
    """
    run = Run(path)
    target, method, _ = parse(run)
    restored = single(lambda: run.load_state(method.template(target.free), insist=True))()
    if restored is None:
        raise RunError(f"{run / 'checkpoint'} holds no checkpoint: the run stopped before its first; start it again")
    return sampler_of(method, target, *restored)


def _stored(path: Path) -> Any:
    from jax import export

    try:
        return export.deserialize(bytearray(path.read_bytes()))
    except Exception as error:
        raise RunError(f"{path} cannot be read ({error}): the target of this run lived in memory") from error


def _imported(run: Run, name: str, dim: int) -> Target:
    parameters = _stored(run / PARAMETERS).call if (run / PARAMETERS).exists() else None
    call = jax.jit(_stored(run / EXPORTED).call)

    log_prob = log_prob_of(lambda x: call(x)[0], call)
    return Target(log_prob, dim, name=name, parameters=parameters)
