"""Samplers and targets in run folders: a target by its name, by its file, or as an exported
computation.
"""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from allmodes.bounded import sampler_of
from allmodes.chart import Support
from allmodes.devices.batched import log_prob_of
from allmodes.devices.precision import single
from allmodes.errors import AllmodesError, RunError
from allmodes.files.fingerprint import differing, fingerprint
from allmodes.files.run_folder import Run
from allmodes.files.saved import CHART, EXPORTED, FREE, PARAMETERS
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
    support = {name: hints[name] for name in ("names", "bounds", "periodic") if name in hints}
    if not origin:
        target = _imported(run, name, dim, about.get("chart"))
    elif ":" in origin:
        target = dataclasses.replace(find_target(origin, dim, **support), name=name)
    else:
        target = find_target(origin)
    target = dataclasses.replace(target, double=hints["double"], **support)
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


@dataclasses.dataclass(frozen=True, eq=False)
class StoredSupport(Support):
    """One that was exported, with the density over its free coordinates; the way back to these is
    lost.
    """

    both: Any
    log_prob: Any
    free_dim: int
    spread: Any
    periods: Any

    def to_x(self, z: Array) -> Array:
        """As the support that was stored."""
        return self.both(z)[0]

    def log_volume(self, z: Array) -> Array:
        """As the support that was stored."""
        return self.both(z)[1]

    def over(self, log_prob: Any) -> Any:
        """The density that was stored with it."""
        return self.log_prob


def _of_one(call: Any) -> Any:
    """A function of one point that JAX can batch, of an exported one of many."""
    one = jax.custom_batching.custom_vmap(lambda z: jax.tree.map(lambda a: a[0], call(z[None])))
    one.def_vmap(lambda size, batched, z: ((made := call(z)), jax.tree.map(lambda _: True, made)))
    return one


def _log_prob(path: Path) -> Any:
    call = jax.jit(_stored(path).call)
    return log_prob_of(lambda x: call(x)[0], call)


def _imported(run: Run, name: str, dim: int, chart: dict | None) -> Target:
    parameters = _stored(run / PARAMETERS).call if (run / PARAMETERS).exists() else None
    log_prob = _log_prob(run / EXPORTED)
    stored = None
    if chart is not None:
        spread = None if chart["spread"] is None else np.asarray(chart["spread"], float)
        periods = np.asarray(chart.get("periods", np.zeros(int(chart["free_dim"]))), float)
        both = _of_one(jax.jit(_stored(run / CHART).call))
        stored = StoredSupport(both, _log_prob(run / FREE), int(chart["free_dim"]), spread, periods)
    return Target(log_prob, dim, name=name, parameters=parameters, chart=stored)
