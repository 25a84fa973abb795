"""`allmodes report`: the page again, and the result printed."""

import dataclasses
from pathlib import Path

from tyro.conf import Positional

from allmodes.command.parse import parse
from allmodes.files.run_folder import Run as Folder
from allmodes.report.page import write_report
from allmodes.report.tables import print_result
from allmodes.store.load import load


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html of a run folder again, and print its result."""

    run: Positional[Path]
    """The run folder."""


def command(argv: list[str]) -> int:
    """`allmodes report`: the page again, and the result printed."""
    args = parse(Report, argv, "report")
    folder = Folder(args.run)
    result = folder.read_json("result.json")
    target = load(folder.path).target  # raises where the verdict is that of another state than the one there
    path = write_report(folder.path, target=target)
    print_result(result)
    print(path)
    return 0
