"""A target by its name or its file, a method by its name."""

import dataclasses
import difflib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allmodes import targets
from allmodes.devices.modules import import_file
from allmodes.errors import AllmodesError, ConfigError, TargetError
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
    found, origin = _imported(spec, TargetError)
    if isinstance(found, Target):
        if dim is not None and dim != found.dim:
            raise TargetError(f"{spec} has dimension {found.dim}, not {dim}: leave --dim out")
        return dataclasses.replace(found, origin=origin)
    if not callable(found):
        raise TargetError(f"log_prob must be a function of one point, but {spec} is a {type(found).__name__}")
    if dim is None:
        raise TargetError(f"the dimension of {spec} is needed: add --dim")
    return Target(found, dim, name=Path(spec.rpartition(":")[0]).stem, origin=origin)


def _imported(spec: str, error: type[AllmodesError]) -> tuple[Any, str]:
    """What FILE.py:NAME names, and the same with the whole path of the file.

    **Raises** `error` when there is no such file or name, or the file fails.
    """
    file, _, name = spec.rpartition(":")
    path = Path(file).resolve()
    if not path.is_file():
        kind = "target as FILE.py:FUNCTION" if error is TargetError else "method as FILE.py:NAME"
        raise error(f"there is no file {file}: name a {kind} or by its registered name")
    try:
        module = import_file(path)
    except (Exception, SystemExit) as failure:
        raise error(f"{file} cannot be imported: {type(failure).__name__}: {failure}") from failure
    if not hasattr(module, name):
        raise error(f"{file} has no {'function' if error is TargetError else 'method'} {name!r}")
    return getattr(module, name), f"{path}:{name}"


def find_method(name: str, settings: Mapping[str, Any] = types.MappingProxyType({})) -> Method:
    """A method by its registered name (`iwsm`), or one of the user's own by its file
    (`mine.py:Mine`, a class or an instance), with the given settings.

    **Raises** `ConfigError` for an unknown name or setting, or where the file fails.
    """
    if ":" in name:
        found, _ = _imported(name, ConfigError)
        method = found() if isinstance(found, type) else found
        if not isinstance(method, Method) or not dataclasses.is_dataclass(method):
            raise ConfigError(f"{name} is no method: it must be a frozen dataclass, a subclass of am.extend.Method")
    elif name in METHODS:
        method = METHODS[name]
    else:
        close = difflib.get_close_matches(name, METHODS, 1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(
            f"unknown method {name!r}: there are {', '.join(METHODS)}, or one of your own as FILE.py:NAME.{hint}"
        )
    return with_settings(method, settings)
