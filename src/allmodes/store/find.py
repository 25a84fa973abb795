"""A target by its name or its file, a method by its name."""

import dataclasses
import difflib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from allmodes import targets
from allmodes.errors import ConfigError, TargetError
from allmodes.method import Method
from allmodes.methods import METHODS
from allmodes.settings import with_settings
from allmodes.target import Target


def find_target(spec: str, dim: int | None = None) -> Target:
    """A target by its registered name (`gmm40`), or a user's function by its file
    (`model.py:log_prob`, with `dim`).

    The function may also be a `Target` itself, which then needs no `dim`.

    **Raises** `TargetError` when there is no such name, file or function, the file fails, or `dim`
    is missing or wrong.
    """
    if ":" not in spec:
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
    return with_settings(METHODS[name], settings)


def _is_target(origin: str) -> bool:
    try:
        find_target(origin)
    except TargetError:
        return False
    return True
