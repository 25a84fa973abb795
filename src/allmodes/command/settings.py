"""The settings of a method as options: `--batch 512`, `--estimator Chain`, `--estimator.moves 4`.

Of a part there are several kinds, each with options of its own: which one is meant is read before
the parser is built.
"""

import dataclasses
import typing
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from allmodes.command.parse import option_of
from allmodes.errors import ConfigError
from allmodes.settings import parts_of


def choices_of(settings: Any, prefix: str = "") -> dict[str, dict[str, Any]]:
    """Parts that are of one kind or another, by their options: the kinds by name, None among
    them where there need be none.
    """
    found: dict[str, dict[str, Any]] = {}
    for field, hint in _fields(settings):
        kinds: dict[str, Any] = dict(parts_of(hint))
        if kinds and type(None) in typing.get_args(hint):
            kinds["None"] = type(None)
        if len(kinds) > 1:
            found[prefix + field.name] = kinds
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            found |= choices_of(value, f"{prefix}{field.name}.")
    return found


def with_chosen(settings: Any, argv: list[str], prefix: str = "") -> Any:
    """The settings with each part of the kind that the options name, as it is by default.

    **Raises** `ConfigError` for a kind that there is not.
    """
    changes = {}
    for field, _ in _fields(settings):
        name, value = prefix + field.name, getattr(settings, field.name)
        kinds = choices_of(settings, prefix).get(name)
        chosen = option_of(argv, "--" + name.replace("_", "-")) if kinds else None
        if chosen is not None and chosen not in kinds:
            raise ConfigError(f"{name} must be one of {', '.join(kinds)}, got {chosen!r}")
        if chosen is not None and chosen != (type(value).__name__ if value is not None else "None"):
            value = kinds[chosen]()
        if dataclasses.is_dataclass(value):
            value = with_chosen(value, argv, name + ".")
        changes[field.name] = value
    return dataclasses.replace(settings, **changes)


def options_of(settings: Any) -> Any:
    """The same settings in classes that tyro has options for: of each part its kind alone."""
    fields = [("name", Annotated[str, Suppress], dataclasses.field(default=settings.name))] if _named(settings) else []
    for field, hint in _fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            value = options_of(value)
            fields.append((field.name, type(value), dataclasses.field(default=value)))
        elif parts_of(hint):  # none of them
            fields.append((field.name, Annotated[None, Suppress], dataclasses.field(default=None)))
    kind = dataclasses.make_dataclass(type(settings).__name__, fields, bases=(type(settings),), frozen=True)
    made = {field.name: getattr(settings, field.name) for field, _ in _fields(settings)}
    return kind(**made | {name: field.default for name, _, field in fields})


def settings_from(options: Any) -> Any:
    """The settings that options of `options_of` stand for."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    values = {name: settings_from(v) if dataclasses.is_dataclass(v) else v for name, v in values.items()}
    return type(options).__mro__[1](**values)


def choice_fields(settings: Any) -> list[tuple[str, Any, Any]]:
    """Fields of a dataclass that has an option for the kind of each part."""
    fields = []
    for name, kinds in choices_of(settings).items():
        value = settings
        for part in name.split("."):
            value = getattr(value, part)
        default = "None" if value is None else type(value).__name__
        what = " of ".join(reversed(name.split(".")))
        option = arg(name=name.replace("_", "-"), help=f"The kind of {what}; each has options of its own.")
        field = dataclasses.field(default=default, kw_only=True)
        # pyrefly: ignore[invalid-literal] -- the words are known at run time alone
        fields.append((name.replace(".", "_") + "_kind", Annotated[Literal[tuple(kinds)], option], field))
    return fields


def _fields(settings: Any) -> list[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(type(settings))
    return [(field, hints[field.name]) for field in dataclasses.fields(settings) if field.name != "name"]


def _named(settings: Any) -> bool:
    return any(field.name == "name" for field in dataclasses.fields(settings))
