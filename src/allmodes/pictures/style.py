"""One look for every figure: colours, settings, and figures that leave no state behind."""

import contextlib
import io
from collections.abc import Iterator
from typing import Any

# Okabe and Ito's colours, which a colour-blind reader can tell apart. A colour means the same in
# every figure.
RAW, CORRECTED, EXACT = "#d55e00", "#0072b2", "#3f4650"
ACCENT, SOFT, EDGE = "#009e73", "#c9cdd3", "#a7aeb8"
GROUNDS = ("exact", "reference")  # what draws are compared with: exact ones, or where none can be had, a reference
COLOURS = {"raw": RAW, "corrected": CORRECTED, **dict.fromkeys(GROUNDS, EXACT)}


def ground_of(samples: dict[str, Any]) -> Any:
    """What of the samples the others are compared with, or None."""
    return next((samples[kind] for kind in GROUNDS if kind in samples), None)


NARROW, WIDE = 4.6, 9.4  # inches: a narrow figure is 330 px wide on a phone, where 10 points are then still 10 px

_RC: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#8a919b",
    "axes.grid": True,
    "axes.labelcolor": "#3f4650",
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": "#1d232b",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.titlesize": 10.5,
    "axes.unicode_minus": True,
    "figure.facecolor": "white",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "grid.color": "#eceef1",
    "grid.linewidth": 0.8,
    "legend.borderaxespad": 0.2,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "lines.linewidth": 1.5,
    "lines.solid_capstyle": "round",
    "savefig.facecolor": "white",
    "xtick.color": "#8a919b",
    "xtick.labelcolor": "#3f4650",
    "xtick.labelsize": 9,
    "xtick.major.size": 3,
    "xtick.minor.size": 0,
    "ytick.color": "#8a919b",
    "ytick.labelcolor": "#3f4650",
    "ytick.labelsize": 9,
    "ytick.major.size": 3,
    "ytick.minor.size": 0,
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """Apply the settings to what is drawn inside, whatever the user's own are, and put the user's
    back.
    """
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_RC)
        yield


def new_figure(
    height: float, rows: int = 1, columns: int = 1, width: float = NARROW, **options: Any
) -> tuple[Any, Any]:
    """Make a figure (inches) on the Agg canvas, outside pyplot, with its axes (one, or an array of
    them).
    """
    figure = empty_figure(height, width, layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def empty_figure(height: float, width: float, **options: Any) -> Any:
    """Make a figure without axes. A notebook shows it, though no pyplot knows it."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            return png(self)

    figure = Shown(figsize=(width, height), **options)
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any, dpi: int = 180) -> bytes:
    """Draw the figure into the bytes of a PNG file."""
    return drawn(figure, "png", dpi)


def drawn(figure: Any, kind: str, dpi: int = 180) -> bytes:
    """Draw the figure into the bytes of a file of a kind that Matplotlib knows: png, pdf, svg."""
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=kind, dpi=dpi)
    return buffer.getvalue()
