"""Frozen settings and their parts: checked against their annotations, written as JSON, made again.

A part is a frozen dataclass in a field of another; which kinds of it there are is in the annotation
of the field, `Neighbours | Chain`.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from allmodes.doors import nearest
from allmodes.errors import ConfigError


def check(settings: Any, *, zero: tuple[str, ...] = ()) -> None:
    """Check that each field is of its type, finite and positive; 0 passes for those in `zero`.

    **Raises** `ConfigError` naming the field, what it may be, and its value.
    """
    hints = typing.get_type_hints(type(settings))
    for field in dataclasses.fields(settings):
        value, kinds = getattr(settings, field.name), _kinds(hints[field.name])
        if field.name == "name" or (value is None and type(None) in kinds):
            continue
        kinds = tuple(kind for kind in kinds if kind is not type(None))
        wanted = _fault_of_part(value, kinds) if parts_of(*kinds) else _fault(value, kinds[0], field.name in zero)
        if wanted:
            raise ConfigError(f"{field.name} must be {wanted}, got {value!r}")


def _kinds(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def parts_of(*hints: Any) -> dict[str, type]:
    """The dataclasses that annotations allow, by their names."""
    kinds = (kind for hint in hints for kind in _kinds(hint))
    return {kind.__name__: kind for kind in kinds if dataclasses.is_dataclass(kind)}


def _fault_of_part(value: Any, kinds: tuple[Any, ...]) -> str | None:
    known = parts_of(*kinds)
    return None if isinstance(value, tuple(known.values())) else f"one of {', '.join(known)}"


def _fault(value: Any, kind: Any, zero: bool) -> str | None:
    """What the value should have been, or None where it is that."""
    if typing.get_origin(kind) is Literal:
        words = typing.get_args(kind)
        return None if value in words else f"one of {', '.join(words)}"
    if kind is bool:
        return None if isinstance(value, bool) else "True or False"
    if kind is int:
        ok = isinstance(value, int) and not isinstance(value, bool) and value >= (0 if zero else 1)
        return None if ok else f"a whole number, at least {0 if zero else 1}"
    ok = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    ok = ok and (value >= 0 if zero else value > 0)
    return None if ok else f"a finite number {'of at least' if zero else 'above'} 0"


def settings_of(settings: Any) -> dict[str, Any]:
    """The fields by their names, but for `name`, as JSON can hold them: a part has its `kind`."""
    fields = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.name != "name"}
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    return {"kind": type(value).__name__, **settings_of(value)} if dataclasses.is_dataclass(value) else value


def with_settings(settings: Any, changes: Mapping[str, Any]) -> Any:
    """The same with some fields as `settings_of` gives them, or as they are.

    **Raises** `ConfigError` for a field, or a kind of part, that there is not, and as `check` does.
    """
    _known(type(settings), changes)
    hints = typing.get_type_hints(type(settings))
    return dataclasses.replace(settings, **{name: _made(name, hints[name], value) for name, value in changes.items()})


def _made(name: str, hint: Any, value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    kinds, fields = parts_of(hint), {key: part for key, part in value.items() if key != "kind"}
    if value.get("kind") not in kinds:
        raise ConfigError(f"{name} must be one of {', '.join(kinds)}, got {value.get('kind')!r}")
    kind = kinds[value["kind"]]
    _known(kind, fields)
    hints = typing.get_type_hints(kind)
    return kind(**{key: _made(key, hints[key], part) for key, part in fields.items()})


def _known(kind: type, fields: Mapping[str, Any]) -> None:
    known = [f.name for f in dataclasses.fields(kind) if f.name != "name"]
    unknown = sorted(set(fields) - set(known))
    if unknown:
        raise ConfigError(
            f"{kind.__name__} has no setting {', '.join(unknown)}: it has {', '.join(sorted(known))}."
            f"{nearest(unknown[0], known)}"
        )
