"""The page's pictures by the names of parameters: the corner plot, and draws of a model in its own
values.
"""

from collections.abc import Iterator

import jax.numpy as jnp
import numpy as np

from allmodes.devices.precision import double
from allmodes.draws.draws import Draws
from allmodes.pictures.corner import MOST, chosen, plot_corner, varying
from allmodes.pictures.style import NARROW, WIDE
from allmodes.report.folder import RunFiles
from allmodes.report.picture import Picture, png64
from allmodes.report.words import Word
from allmodes.target import Target

FEW = 3  # parameters on a narrow screen
TITLE = "Corner plot"
WORDS = (Word(TITLE, "What is known of each parameter, and of each two of them together."),)


def corner(files: RunFiles, target: Target | None) -> Iterator[Picture]:
    """Yield the corner plot of the best draws that there are, where they have several parameters
    and any weight.
    """
    draws = _draws(files.corrected or files.draws, target)
    columns, log_weight = varying(draws.columns()), np.asarray(draws.log_weight)
    if len(columns) < 2 or not np.any(log_weight > -np.inf):
        return

    def drawn(names: list[str], width: float, dpi: int) -> str:
        return png64(plot_corner({name: columns[name] for name in names}, log_weight, draws.ranges, width=width), dpi)

    few, many = (chosen(columns, log_weight, most) for most in (FEW, MOST))
    of = "corrected" if files.corrected else "weighted"
    caption = (
        f"The {of} draws: each parameter, with its median and the interval from 5% to 95%, and the smallest regions "
        "that hold 20, 50, 80 and 95% of the mass of each pair."
    )
    if len(many) < len(columns):
        some = f" Of {len(columns)} parameters the {MOST} whose marginals are least like a normal's"
        caption += f"{some} ({FEW} on a narrow screen)."
    elif len(few) < len(many):
        caption += f" On a narrow screen {FEW} of the {len(columns)} parameters."
    yield Picture("draws", TITLE, caption, drawn(few, NARROW, 180), drawn(many, WIDE, 140) if few != many else None)


def in_parameters(
    samples: dict[str, np.ndarray], target: Target | None
) -> tuple[dict[str, np.ndarray], Target | None, list[str] | None]:
    """Draws of a model as its own, constrained parameters, with their names; no contours are of a
    density over these. Of all else as they are.
    """
    if target is None or target.parameters is None or target.names is not None:
        return samples, target, None
    columns = {kind: _draws({"x": x}, target).columns() for kind, x in samples.items()}
    names = list(next(iter(columns.values())))
    return {kind: np.column_stack(list(of.values())) for kind, of in columns.items()}, None, names


def _draws(arrays: dict[str, np.ndarray], target: Target | None) -> Draws:
    """Draws by the names that their target gives them."""
    x, none = arrays["x"], np.zeros(len(arrays["x"]), np.float32)
    known = {} if target is None else {"parameters": target.parameters, "ranges": target.ranges}
    with double(x.dtype == np.float64):
        each = (jnp.asarray(a) for a in (x, arrays.get("log_prob", none), arrays.get("log_weight", none)))
        return Draws(*each, **known)
