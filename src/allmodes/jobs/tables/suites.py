"""Which densities the field's tables are of."""

from typing import NamedTuple

from allmodes.targets import entries

DRAWS = 10_000  # of a cell, where the table says nothing else


class Suite(NamedTuple):
    """A table of the field: its title and its targets, with fewer draws where a target has fewer
    reference draws to judge them by.
    """

    title: str
    targets: tuple[str, ...]


SUITES: dict[str, Suite] = {
    "iwsm": Suite("IWSM's benchmark", ("gmm40", "gmm80", "gmm120", "dw4", "lj13", "lj55")),
    "idem": Suite("iDEM's benchmark (arXiv 2402.06121)", ("gmm40", "dw4", "lj13", "lj55")),
    "sgds": Suite("SGDS's benchmark (arXiv 2505.19552)", ("gmm40", "manywell-32", "manywell-64", "manywell-128")),
    "trlv": Suite("TR-LV's table of dimensions (2508.12511)", ("five-wells-50", "five-wells-100", "five-wells-200")),
    "asbs": Suite("ASBS's benchmark (arXiv 2506.22565)", ("dw4", "lj13", "lj55")),
}


def draws_of(target: str) -> int:
    """Draws of a cell: 10,000, or half of what a reference has, in whose place it stands."""
    reference = entries()[target].reference
    return DRAWS if reference is None else min(DRAWS, reference // 2)
