"""What an audit leaves behind: a table on the terminal, `audit.json` and `audit.png` in a
folder.
"""

from typing import Any

from allmodes.audits.picture import plot_audit
from allmodes.audits.result import COLUMNS, Audit
from allmodes.files.atomic import write_atomically
from allmodes.files.run_folder import Run
from allmodes.pictures.style import png
from allmodes.report.tables import print_table
from allmodes.target import Target

ROWS = 20  # of the table


def write(audit: Audit, folder: Run, target: Target, about: dict[str, Any]) -> None:
    """Write `audit.json`, with `about` beside the result, and `audit.png`, each whole or not at
    all.

    **Raises** `RunError` when the folder cannot be written.
    """
    folder.write_json("audit.json", about | audit.as_dict())
    image = png(plot_audit(audit, target))
    write_atomically(folder / "audit.png", lambda file: file.write(image), mode="wb")


def show(audit: Audit, *, file: Any = None) -> None:
    """Print the basins, those that differ first, and the verdict."""
    more = len(audit.basins) - ROWS
    title = f"{audit.target}: {len(audit.basins)} basins" + (f", the first {ROWS}" if more > 0 else "")
    print_table(COLUMNS, audit.rows(ROWS), title=title, file=file)
    for reason in audit.verdict.reasons:
        print(f"  - {reason}", file=file)
    z, spent = audit.log_z, audit.evaluations
    print(
        f"log Z by the audit {z.value:.4f} +- {z.std_error:.2g} · {spent['all']:,} evaluations, of which "
        f"{spent['sampler']:,} on the sampler's draws · {audit.seconds:.0f} s",
        file=file,
    )
    print(f"audit of the run against {audit.target}: {audit.verdict.word}", file=file)
