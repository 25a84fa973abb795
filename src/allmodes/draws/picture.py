"""The corner plot of draws, and its file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from allmodes.errors import ConfigError
from allmodes.files.atomic import write_atomically
from allmodes.pictures.corner import Columns, chosen, named, plot_corner, varying
from allmodes.pictures.style import drawn
from allmodes.ranges import Range

SUFFIXES = (".png", ".pdf", ".svg")


def picture(
    columns: Columns,
    log_weight: Float[np.ndarray, " n"],
    ranges: Mapping[str, Range],
    parameters: Sequence[str] | None,
    path: str | os.PathLike | None,
) -> Any:
    """What `Draws.plot` says."""
    kind = None if path is None else Path(path).suffix.lower()
    if kind is not None and kind not in SUFFIXES:
        raise ConfigError(f"a picture is written as {', '.join(SUFFIXES)}, got {path}")
    free = varying(columns)
    names = chosen(free, log_weight) if parameters is None else named(columns, parameters)
    figure = plot_corner({name: columns[name] for name in names}, log_weight, ranges)
    if len(names) < len(free) and parameters is None:
        said = f"{len(names)} of {len(free)} parameters: those whose marginals are least like a normal's"
        figure.text(0.99, 0.985, said, ha="right", va="top", fontsize=9, color="#5b6470")
    if path is not None:
        written = drawn(figure, kind[1:])
        write_atomically(Path(path), lambda file: file.write(written), mode="wb")
    return figure
