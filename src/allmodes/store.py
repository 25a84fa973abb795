"""Samplers and targets in run folders: a target by its name, by its file, or as an exported
computation.
"""

import dataclasses
import difflib
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from allmodes.batched import log_prob_of
from allmodes.errors import AllmodesError, ConfigError, RunError, TargetError
from allmodes.fingerprint import differing, fingerprint
from allmodes.methods import METHODS, Method, name_of
from allmodes.precision import double, single
from allmodes.runs import Run, write_atomically
from allmodes.sampler import Sampler
from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Target

EXPORTED = "target.stablehlo"
PARAMETERS = "parameters.stablehlo"


def find_target(spec: str, dim: int | None = None) -> Target:
    """A target by its registered name (`gmm40`), or a user's function by its file
    (`model.py:log_prob`, with `dim`).

    The function may also be a `Target` itself, which then needs no `dim`.

    **Raises** `TargetError` when there is no such name, file or function, the file fails, or `dim`
    is missing or wrong.
    """
    if ":" not in spec:
        from allmodes import targets

        if spec.endswith(".py"):
            raise TargetError(f"{spec!r} names a file: say which function of it, as {spec}:log_prob")
        target = targets.get(spec)
        if dim is not None and dim != target.dim:
            raise TargetError(f"{spec} has dimension {target.dim}, not {dim}: leave --dim out")
        return dataclasses.replace(target, origin=spec)
    file, _, function = spec.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        raise TargetError(f"there is no file {file}: name a target as FILE.py:FUNCTION or by its registered name")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    if module_spec is None or module_spec.loader is None:
        raise TargetError(f"{file} is not a Python file: name a target as FILE.py:FUNCTION")
    module = importlib.util.module_from_spec(module_spec)
    sys.path.insert(0, str(path.parent))  # so that it can import what lies beside it
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise TargetError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(path.parent))
    if not hasattr(module, function):
        raise TargetError(f"{file} has no function {function!r}")
    found, origin = getattr(module, function), f"{path}:{function}"
    if isinstance(found, Target):
        if dim is not None and dim != found.dim:
            raise TargetError(f"{spec} has dimension {found.dim}, not {dim}: leave --dim out")
        return dataclasses.replace(found, origin=origin)
    if not callable(found):
        raise TargetError(f"log_prob must be a function of one point, but {spec} is a {type(found).__name__}")
    if dim is None:
        raise TargetError(f"the dimension of {spec} is needed: add --dim")
    return Target(found, dim, name=path.stem, origin=origin)


def find_method(name: str, settings: dict[str, Any]) -> Method:
    """A method by its name with the given settings.

    **Raises** `ConfigError` for an unknown name or setting.
    """
    if name not in METHODS:
        close = difflib.get_close_matches(name, METHODS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"unknown method {name!r}: there are {', '.join(METHODS)}.{hint}")
    method = METHODS[name]
    known = {field.name for field in dataclasses.fields(method)}
    unknown = sorted(set(settings) - known)
    if unknown:
        raise ConfigError(f"method {name} has no setting {', '.join(unknown)}: it has {', '.join(sorted(known))}")
    return dataclasses.replace(method, **settings)


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
    if target.origin:  # else it lies in the folder itself
        hints["fingerprint"] = fingerprint(target)
    return {
        "target": {"origin": target.origin, "name": target.name, "dim": int(target.dim), **hints},
        "method": {"name": name_of(method), "settings": dataclasses.asdict(method)},
        "seed": seed,
    }


def parse(run: Run) -> tuple[Target, Method, dict]:
    """The target, the method and the whole `config.json` of a run folder.

    **Raises** `RunError` when it is damaged or of an unknown form, or the target is no longer the
    density that the run was begun with; `TargetError` when the target's file is gone.
    """
    config = run.read_json("config.json")
    try:
        about, method = config["target"], config["method"]
        name, dim, origin = str(about["name"]), int(about["dim"]), str(about["origin"])
        method = find_method(method["name"], method["settings"])
        hints: dict[str, Any] = {k: np.asarray(about[k], float) for k in ("location", "scale") if k in about}
        if "symmetry" in about:
            hints["symmetry"] = ParticleSymmetry(**about["symmetry"])
        if about.get("differentiable") is False:
            hints["differentiable"] = False
        hints["double"] = about.get("double") is True  # whatever jax_enable_x64 is now
        was = [None if v is None else float(v) for v in about.get("fingerprint", [])]
        Target(abs, dim, **hints)  # for its checks of dim and hints
    except (AllmodesError, KeyError, TypeError, ValueError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise RunError(
            f"{run / 'config.json'} is damaged: {reason}. Restore it, or start again in a new folder"
        ) from error
    if not origin:
        target = _imported(run, name, dim)
    elif ":" in origin:
        target = dataclasses.replace(find_target(origin, None if _is_target(origin) else dim), name=name)
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


def _is_target(origin: str) -> bool:
    try:
        find_target(origin)
    except TargetError:
        return False
    return True


def save(sampler: Sampler, path: str | os.PathLike) -> None:
    """Write a sampler to a run folder. A target that has no name or file is stored as an exported
    computation.

    A sampler that was saved there before is replaced, once the new one is whole.

    **Raises** `RunError` when the folder cannot be written, or holds anything else than a saved
    sampler.
    """
    path = Path(path)
    old = set(os.listdir(path)) if path.is_dir() else set()
    if not old <= {"config.json", "checkpoint", EXPORTED, PARAMETERS}:
        raise RunError(f"{path} holds more than a saved sampler: choose another folder")
    Run(path).create()
    with tempfile.TemporaryDirectory(dir=path.absolute().parent, prefix=f".{path.name}.") as temporary:
        run = Run(Path(temporary) / "new").create()
        if not sampler.target.origin:
            export(sampler.target, run)
        run.write_json("config.json", describe(sampler.target, sampler.method))
        run.save_state(int(sampler.state.step), sampler.state, sampler.seconds)
        os.replace(path, Path(temporary) / "old")
        os.replace(run.path, path)


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
    restored = single(lambda: run.load_state(method.template(target), insist=True))()
    if restored is None:
        raise RunError(f"{run / 'checkpoint'} holds no checkpoint: the run stopped before its first; start it again")
    return method.sampler(target, *restored)


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
