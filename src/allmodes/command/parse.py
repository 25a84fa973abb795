"""tyro, asked once for each command, with its errors in one line."""

import contextlib
import io
import re
import shlex
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from allmodes.errors import ConfigError
from allmodes.files import interrupt


def option_of(argv: list[str], name: str) -> str | None:
    """The value of an option before the parser is built, for those that decide which other options
    there are.
    """
    for i, text in enumerate(argv):
        if text == name and i + 1 < len(argv):
            return argv[i + 1]
        if text.startswith(name + "="):
            return text.split("=", 1)[1]
    return None


_NUMBERS = ConstructorRegistry()


@_NUMBERS.primitive_rule
def _whole(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """Whole numbers, which may be written as 1e4."""
    if kind.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: _number(words[0]),
        is_instance=lambda value: isinstance(value, int) and not isinstance(value, bool),
        str_from_instance=lambda value: [str(value)],
    )


def _number(word: str) -> int:
    with contextlib.suppress(ValueError):
        return int(word)
    with contextlib.suppress(ValueError):
        if float(word).is_integer():
            return int(float(word))
    raise ValueError(f"{word} is not a whole number")


def parse(cls: type, argv: list[str], command: str) -> Any:
    """tyro, with its boxed errors folded into one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=argv, prog=f"allmodes {command}", registry=_NUMBERS)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = " ".join("".join(c for c in errors.getvalue() if c not in "╭╮╰╯│─").split())
        refused = re.search(r"Error parsing settings\.?([\w.]*): (.*?)(?: For full helptext.*)?$", text)
        if refused:  # by the settings themselves
            text = ": ".join(part for part in refused.groups() if part)
        raise ConfigError(text or "wrong use") from None


def going_on(command: str, argv: list[str]) -> None:
    """From now on an interruption says that the same command goes on."""
    interrupt.say(f"interrupted; go on with: allmodes {shlex.join([command, *argv])}")
