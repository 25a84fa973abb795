"""A target and a method in a run folder, so that both can be made again."""

import dataclasses
import inspect
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

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
CHART, FREE = "chart.stablehlo", "free.stablehlo"  # parameters of free coordinates, and the density over these


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
    elif target.chart is not None and not target.origin:
        chart, spread = target.chart, target.chart.spread
        hints["chart"] = {
            "free_dim": chart.free_dim, "spread": None if spread is None else spread.tolist(),
            "periods": chart.periods.tolist(),
        }  # fmt: skip
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
    if not old <= {"config.json", "checkpoint", EXPORTED, PARAMETERS, CHART, FREE}:
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
    exported = _exported(jax.value_and_grad(target.log_prob), target)
    if isinstance(exported, Exception):
        reason = str(exported).strip().split("\n")[0]
        raise RunError(
            f"log_prob cannot be stored in {run.path} ({type(exported).__name__}: {reason}). Put it in a file and use "
            "am.find_target('FILE.py:FUNCTION', dim), which a run folder finds again."
        ) from exported
    parts = {EXPORTED: exported}
    if target.chart is not None and target.bounds is None:  # no bounds tell what the support is
        chart, free = target.chart, target.free
        parts[CHART] = _exported(lambda z: (chart.to_x(z), chart.log_volume(z)), free)
        parts[FREE] = _exported(jax.value_and_grad(free.log_prob), free)
    if target.parameters is not None:
        parts[PARAMETERS] = _exported(lambda x: jax.tree.map(lambda a: a[0], target.parameters(x[None])), target)
    for name, part in parts.items():
        if not isinstance(part, Exception):  # a structure without a name that a file could hold: the draws are still x
            write_atomically(run / name, lambda file, part=part: file.write(bytes(part)), mode="wb")


def _exported(function: Callable[[Array], Any], target: Target) -> bytes | Exception:
    """A function of one point, over a symbolic batch of them; or why it cannot be stored."""
    from jax import export

    (n,) = export.symbolic_shape("n")
    try:
        with double(target.double):
            points = jax.ShapeDtypeStruct((n, target.dim), target.dtype)
            return bytes(export.export(jax.jit(jax.vmap(function)))(points).serialize())
    except Exception as error:
        return error
