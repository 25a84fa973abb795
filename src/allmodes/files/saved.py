"""A target and a method in a run folder, so that both can be made again."""

import dataclasses
import inspect
import os
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from allmodes.devices.precision import double
from allmodes.errors import ConfigError, RunError
from allmodes.files.atomic import write_atomically
from allmodes.files.fingerprint import fingerprint
from allmodes.files.run_folder import Run
from allmodes.method import Method
from allmodes.settings import settings_of
from allmodes.target import Target

EXPORTED = "target.stablehlo"
PARAMETERS = "parameters.stablehlo"


def describe(target: Target, method: Method, seed: int | None = None) -> dict:
    """`config.json`: all that is needed to make the target and the method again."""
    hints = {
        name: np.asarray(getattr(target, name), float).tolist()
        for name in ("location", "scale")
        if getattr(target, name) is not None
    }
    if target.symmetry is not None:
        hints["symmetry"] = dataclasses.asdict(target.symmetry)
    if not target.differentiable:
        hints["differentiable"] = False
    if target.double:
        hints["double"] = True
    if target.names is not None:
        hints["names"] = list(target.names)
    if target.bounds is not None or target.periodic:
        hints |= {"bounds": target.bounds, "periodic": target.periodic}
    if target.origin:  # else it lies in the folder itself
        hints["fingerprint"] = fingerprint(target)
    return {
        "target": {"origin": target.origin, "name": target.name, "dim": int(target.dim), **hints},
        "method": {"name": method.name, **_origin_of(method), "settings": settings_of(method)},
        "seed": seed,
    }


def _origin_of(method: Method) -> dict[str, str]:
    """The file and the class of a method that is not of this package.

    **Raises** `ConfigError` where it has none, as in a notebook.
    """
    kind = type(method)
    if kind.__module__.partition(".")[0] == "allmodes":
        return {}
    try:
        return {"origin": f"{Path(inspect.getfile(kind)).resolve()}:{kind.__qualname__}"}
    except (OSError, TypeError) as error:
        raise ConfigError(f"method {method.name} cannot be stored: put {kind.__name__} in a file") from error


def save(target: Target, method: Method, state: Any, seconds: dict[str, float], path: str | os.PathLike) -> None:
    """Write a sampler to a run folder. A target that has no name or file is stored as an exported
    computation.

    A sampler that was saved there before is replaced, once the new one is whole.

    **Raises** `RunError` when the folder cannot be written, or holds anything else than a saved
    sampler; `ConfigError` for a method that lies in no file.
    """
    path = Path(path)
    old = set(os.listdir(path)) if path.is_dir() else set()
    if not old <= {"config.json", "checkpoint", EXPORTED, PARAMETERS}:
        raise RunError(f"{path} holds more than a saved sampler: choose another folder")
    Run(path).create()
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as temporary:
        run = Run(Path(temporary) / "new").create()
        if not target.origin:
            export(target, run)
        run.write_json("config.json", describe(target, method))
        run.save_state(int(state.step), state, seconds)
        os.replace(path, Path(temporary) / "old")
        os.replace(run.path, path)


def export(target: Target, run: Run) -> None:
    """Store a function that lives only in memory as StableHLO, values and gradients over a symbolic
    batch.

    No pickle: the file holds a computation, not code. Constants are part of it.
    """
    from jax import export

    def both(x):
        return jax.vmap(jax.value_and_grad(target.log_prob))(x)

    (n,) = export.symbolic_shape("n")
    points = jax.ShapeDtypeStruct((n, target.dim), target.dtype)
    try:
        with double(target.double):
            exported = export.export(jax.jit(both))(points).serialize()
    except Exception as error:
        reason = str(error).strip().split("\n")[0]
        raise RunError(
            f"log_prob cannot be stored in {run.path} ({type(error).__name__}: {reason}). Put it in a file and use "
            "am.find_target('FILE.py:FUNCTION', dim), which a run folder finds again."
        ) from error
    write_atomically(run / EXPORTED, lambda file: file.write(bytes(exported)), mode="wb")
    if target.parameters is None:
        return
    try:
        with double(target.double):
            exported = export.export(jax.jit(target.parameters))(points).serialize()
    except Exception:  # its structure has no name that a file could hold: the draws are still x
        return
    write_atomically(run / PARAMETERS, lambda file: file.write(bytes(exported)), mode="wb")
