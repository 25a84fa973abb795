"""Checks of a method's settings against their own annotations, so that a wrong one is met before
any work is done.
"""

import dataclasses
import math
import types
import typing
from typing import Any, Literal

from allmodes.errors import ConfigError


def check(method: Any, *, zero: tuple[str, ...] = ()) -> None:
    """Each field of a frozen configuration must be of its type, finite and positive; 0 passes for
    those in `zero`.

    **Raises** `ConfigError` naming the field, what it may be, and its value.
    """
    hints = typing.get_type_hints(type(method))
    for field in dataclasses.fields(method):
        if field.name == "name":
            continue
        value, kind = getattr(method, field.name), hints[field.name]
        if isinstance(kind, types.UnionType):  # `float | None`
            if value is None:
                continue
            (kind,) = (k for k in typing.get_args(kind) if k is not type(None))
        wanted = _fault(value, kind, field.name in zero)
        if wanted:
            raise ConfigError(f"{field.name} must be {wanted}, got {value!r}")


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
