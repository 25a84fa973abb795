"""`allmodes methods`: tables of their settings."""

import dataclasses

from allmodes.command.parse import parse
from allmodes.methods import METHODS
from allmodes.report.tables import print_table
from allmodes.settings import settings_of


@dataclasses.dataclass(frozen=True)
class Methods:
    """List the methods with their settings, which are options of `allmodes run --method NAME`, and
    their defaults.
    """


def command(argv: list[str]) -> int:
    """`allmodes methods`: tables of their settings."""
    parse(Methods, argv, "methods")
    for name, method in METHODS.items():
        rows = [[name, str(getattr(method, name))] for name in settings_of(method)]
        print_table(["setting", "default"], rows, title=f"{name}: {type(method).__doc__.splitlines()[0]}")
    return 0
