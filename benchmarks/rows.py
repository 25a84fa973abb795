"""Rows of benchmarks: lines of JSON while runs are made, one JSON file of results when a page is
written. For environments of other tools too: of the standard library alone."""

import json
from collections.abc import Sequence
from pathlib import Path

BEGIN, END = "<!-- rows -->", "<!-- end of rows -->"  # of what a command writes into a page


def tell(row: dict, out: Path | None) -> None:
    """Print a row, and add it to a file of lines."""
    print(json.dumps(row), flush=True)
    if out:
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def gathered(result: Path, lines: Sequence[Path]) -> list[dict]:
    """The rows of files of lines; those that the result holds where there is no such file."""
    if not lines:
        return json.loads(result.read_text())["rows"]
    return [json.loads(text) for path in lines for text in path.read_text().splitlines()]


def into_page(page: Path, text: str) -> None:
    """Put text between the two marks of a page, where there is one."""
    if page.exists():
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}")


def keep(result: Path, rows: list[dict]) -> None:
    """Write the result, a line for each row."""
    text = ",\n  ".join(json.dumps(row) for row in rows)
    result.write_text(f'{{"rows": [\n  {text}\n]}}\n')
