"""`allmodes targets`: a table of the registered densities."""

import dataclasses

from allmodes import targets
from allmodes.command.parse import parse
from allmodes.report.tables import print_table


@dataclasses.dataclass(frozen=True)
class Targets:
    """List the registered densities: dimension, what is known of each, where it comes from."""


def command(argv: list[str]) -> int:
    """`allmodes targets`: a table of the registered densities."""
    parse(Targets, argv, "targets")
    rows = [
        [name, str(entry.dim), entry.missing or entry.known, entry.summary, entry.source]
        for name, entry in targets.entries().items()
    ]
    print_table(["name", "dim", "known", "what", "source"], rows, title="targets")
    return 0
