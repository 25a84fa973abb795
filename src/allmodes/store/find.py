"""A target by its name or its file, a method by its name."""

import dataclasses
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from allmodes import interop, targets
from allmodes.devices.modules import import_file
from allmodes.doors import asks_for_numbers, is_numpyro_model, is_pymc_model, nearest
from allmodes.errors import AllmodesError, ConfigError, TargetError
from allmodes.method import Method
from allmodes.methods import METHODS
from allmodes.settings import with_settings
from allmodes.target import Target


def find_target(spec: str, dim: int | None = None, **support: Any) -> Target:
    """A target by its registered name (`gmm40`), or what a user's file has (`model.py:log_prob`,
    with `dim`).

    That is a `Target`, a PyMC model, or a NumPyro model without arguments, which need no `dim`; or
    a function of JAX, or of NumPy, which is called on the host and has no gradient. `support`:
    `names`, `bounds` and `periodic`, as `Target` has them.

    **Raises** `TargetError` when there is no such name, file or function, the file fails, or `dim`
    is missing or wrong.
    """
    if ":" not in spec:
        if spec.endswith(".py"):
            raise TargetError(f"{spec!r} names a file: say which function of it, as {spec}:log_prob")
        target = targets.get(spec)
        if dim is not None and dim != target.dim:
            raise TargetError(f"{spec} has dimension {target.dim}, not {dim}: leave --dim out")
        return dataclasses.replace(target, origin=spec, **support)
    found, origin = _imported(spec, TargetError)
    name = Path(spec.rpartition(":")[0]).stem
    made = _of_model(found, spec, name)
    if made is not None:
        if dim is not None and dim != made.dim:
            raise TargetError(f"{spec} has dimension {made.dim}, not {dim}: leave --dim out")
        return dataclasses.replace(made, origin=origin, **support)
    if not callable(found):
        raise TargetError(f"log_prob must be a function of one point, but {spec} is a {type(found).__name__}")
    if dim is None:
        raise TargetError(f"the dimension of {spec} is needed: add --dim")
    target = Target(found, dim, name=name, origin=origin, **support)
    try:
        jax.eval_shape(found, jax.ShapeDtypeStruct((dim,), target.dtype))
    except Exception as error:
        if asks_for_numbers(error):
            return interop.numpy.target(found, dim, name=name, origin=origin, **support)
    return target  # what else is wrong with it is said where it is checked


def _of_model(found: Any, spec: str, name: str) -> Target | None:
    """The target that a file's object is, or that a model of another library is made into."""
    if isinstance(found, Target):
        return found
    if is_pymc_model(found):
        return interop.pymc.target(found, name)
    if not is_numpyro_model(found):
        return None
    try:
        return interop.numpyro.target(found, name=name)
    except TargetError as error:
        file, _, function = spec.rpartition(":")
        raise TargetError(
            f"{error}. Where it takes data, write target = am.interop.numpyro.target({function}, data) into {file}, "
            f"and name {file}:target"
        ) from error


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
        raise ConfigError(
            f"unknown method {name!r}: there are {', '.join(METHODS)}, or one of your own as FILE.py:NAME."
            f"{nearest(name, METHODS)}"
        )
    return with_settings(method, settings)
