"""The corner plot: each parameter's marginal on the diagonal, each pair's density below.

`corner` of the registry is not used: one width of bins and of smoothing for all panels melts narrow
modes far apart into one, and it knows no circles.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from allmodes.errors import ConfigError
from allmodes.pictures.density import density, levels
from allmodes.pictures.style import CORRECTED, WIDE, empty_figure, style
from allmodes.points.weighted import normalised, quantiles, resample
from allmodes.ranges import Range

MOST = 8  # parameters at once
HELD = (0.95, 0.8, 0.5, 0.2)  # of the mass, by the regions that are shown
ENDS = (0.05, 0.5, 0.95)  # quantiles on the diagonal
_BINS, _BARS = 100, 44  # along a side of a pair's panel, and of a marginal
_DOTS = 1500  # equally weighted draws that a panel shows at most
_DRAWS = 200_000  # that are looked at, the first ones
_LEFT, _BOTTOM, _TOP = 0.8, 0.62, 0.46  # inches around the panels
_EDGE = 0.09  # of a frame, at either end, without ticks: their labels would touch those of the next panel
_LONG = 17  # characters of a name that has room
_PALE, _FILLED = "#d5e5f0", "#8fbcd9"  # of `CORRECTED`, for what lies outside and inside of the interval

Columns = Mapping[str, Float[np.ndarray, " n"]]


class Axis(NamedTuple):
    """One parameter as it is shown: its values and the frame around them."""

    name: str
    values: Float[np.ndarray, " n"]
    low: float
    high: float
    range: Range

    def edges(self, bins: int) -> Float[np.ndarray, " _"]:
        """Of equal bins of the frame."""
        return np.linspace(self.low, self.high, bins + 1)


def plot_corner(
    columns: Columns, log_weight: Float[np.ndarray, " n"], ranges: Mapping[str, Range], *, width: float = WIDE
) -> Any:
    """Draw the marginals and the pairs of all `columns`, of draws with these log weights.

    Marginals are histograms, darker between the 5 % and the 95 % quantile, with a line at the
    median. Of each pair the smallest regions that hold 20, 50, 80 and 95 % of the mass are shown
    over equally weighted draws as dots. Frames hold all but the wildest of the mass, and end at the
    `ranges` that they come near to; that of a circle is its period. `width`: of the figure, in
    inches. Returns a Matplotlib figure.

    **Raises** `ConfigError` where there is no parameter, or no draw has any weight.
    """
    if not columns:
        raise ConfigError("there is no parameter to plot")
    table, w = _distinct(np.column_stack(list(columns.values())), log_weight)
    if not len(w):
        raise ConfigError("no draw has any mass under the target: there is nothing to plot")
    pairs = zip(columns, table.T, strict=True)
    axes_of = [_axis(name, values, w, ranges.get(name, Range())) for name, values in pairs]
    dots = resample(np.log(w))
    dots = dots[: min(_DOTS, len(dots))]
    k = len(axes_of)
    is_small = k > 3 and width / k < 1.9
    ticks = min(5, max(3, int(1.9 * width / k)))
    with style():
        high = width * (0.6 if k == 1 else 0.97)
        figure = empty_figure(high, width)
        # By hand: a constrained layout of so many panels takes seconds, and leaves rows of room for
        # titles, which have the empty half of the plot.
        grid = figure.add_gridspec(
            k, k, left=_LEFT / width, right=1 - 0.12 / width, bottom=_BOTTOM / high, top=1 - _TOP / high,
            wspace=0.09, hspace=0.09,
        )  # fmt: skip
        for row in range(k):
            for column in range(row + 1):
                panel = figure.add_subplot(grid[row, column])
                if column == row:
                    _marginal(panel, axes_of[row], w, is_small)
                else:
                    _pair(panel, axes_of[column], axes_of[row], w, dots)
                _frame(panel, axes_of[column], axes_of[row], row == k - 1, column == 0, is_small, ticks)
        side = (width - _LEFT - 0.12) / (k + 0.09 * (k - 1))  # of a panel
        for panel in figure.axes:
            panel.xaxis.set_label_coords(0.5, -(0.5 if is_small else 0.38) / side)
            panel.yaxis.set_label_coords(-(0.48 if is_small else 0.58) / side, 0.5)
    return figure


def varying(columns: Columns) -> Columns:
    """The columns that have several values, such as no coordinate does that a frame holds fixed;
    all, where none has.
    """

    def varies(values: Float[np.ndarray, " n"]) -> bool:
        known = values[np.isfinite(values)]
        return bool(len(known) and np.ptp(known) > 1e-12 * max(1.0, float(np.max(np.abs(known)))))

    return {name: values for name, values in columns.items() if varies(np.asarray(values))} or columns


def chosen(columns: Columns, log_weight: Float[np.ndarray, " n"], most: int = MOST) -> list[str]:
    """The names of at most so many columns, in their order: those whose marginals are furthest from
    a normal's (by the largest difference of the distribution functions), whatever their units.
    """
    if len(columns) <= most:
        return list(columns)
    w = normalised(log_weight)
    far = {name: _far_from_normal(np.asarray(values, np.float64), w) for name, values in columns.items()}
    kept = sorted(far, key=lambda name: -far[name])[:most]
    return [name for name in columns if name in kept]


def _far_from_normal(values: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]) -> float:
    from scipy.special import ndtr

    known = np.isfinite(values) & (w > 0)
    values, w = values[known], w[known]
    if not len(values):
        return 0.0
    mean = np.sum(w * values) / np.sum(w)
    spread = math.sqrt(np.sum(w * (values - mean) ** 2) / np.sum(w))
    if not spread > 1e-12 * max(1.0, abs(mean)):
        return 0.0
    order = np.argsort(values)
    after = np.cumsum(w[order]) / np.sum(w)
    return float(np.max(np.abs(after - 0.5 * w[order] / np.sum(w) - ndtr((values[order] - mean) / spread))))


def named(columns: Columns, parameters: Sequence[str]) -> list[str]:
    """The names of columns that are asked for, each by its own name or by that of an array of them.

    **Raises** `ConfigError` for a name that is not there.
    """
    found: list[str] = []
    for word in [parameters] if isinstance(parameters, str) else parameters:
        those = [name for name in columns if name == word or name.startswith((f"{word}[", f"{word}."))]
        if not those:
            raise ConfigError(f"there is no parameter {word!r}: there are {_some(list(columns))}")
        found += [name for name in those if name not in found]
    return found


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 20 else f"{', '.join(names[:20])} and {len(names) - 20} more"


def _distinct(
    table: Float[np.ndarray, "n k"], log_weight: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, "m k"], Float[np.ndarray, " m"]]:
    """Points that are finite and have weight, each once and with the weight of its copies."""
    table, log_weight = np.asarray(table[:_DRAWS], np.float64), log_weight[:_DRAWS]
    w = normalised(log_weight)
    known = (w > 0) & np.all(np.isfinite(table), axis=1)
    table, first, index = np.unique(table[known], axis=0, return_index=True, return_inverse=True)
    w = np.bincount(index.ravel(), w[known], len(table))
    order = np.argsort(first)  # as they were drawn: sorted, each half would be all over the place alike
    return table[order], w[order] / max(w.sum(), 1e-300)


def _axis(name: str, values: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"], range: Range) -> Axis:
    if range.periodic:
        return Axis(name, range.wound(values), range.low, range.high, range)
    least, most = quantiles(values, w, (0.001, 0.999))
    pad = max(0.08 * (most - least), 1e-6 * max(1.0, abs(most)))
    # No further than the draws, so that no empty bin lies beyond an edge that nobody has told of.
    low, high = max(least - pad, values.min()), min(most + pad, values.max())
    low = range.low if range.low is not None and range.low > low - pad else low
    high = range.high if range.high is not None and range.high < high + pad else high
    return Axis(name, values, *((low, high) if high > low else (low - pad, high + pad)), range)


def _marginal(panel: Any, axis: Axis, w: Float[np.ndarray, " n"], is_small: bool) -> None:
    from matplotlib.patches import Rectangle

    values = axis.range.unwound(axis.values, w) if axis.range.periodic else axis.values
    low, median, high = quantiles(values, w, ENDS)
    heights, edges = np.histogram(axis.values, axis.edges(_BARS), weights=w)
    top = max(heights.max(), 1e-300)
    panel.stairs(heights, edges, fill=True, color=_PALE, linewidth=0)
    turns = (-axis.range.period, 0.0, axis.range.period) if axis.range.periodic else (0.0,)
    for turn in turns:
        inside = panel.stairs(heights, edges, fill=True, color=_FILLED, linewidth=0)
        inside.set_clip_path(Rectangle((low + turn, 0), high - low, 2 * top, transform=panel.transData))
    panel.stairs(heights, edges, color=CORRECTED, linewidth=1)
    at = axis.range.wound(median) if axis.range.periodic else median
    panel.vlines(at, 0, top, color=CORRECTED, linewidth=1)
    panel.set_ylim(0, 1.06 * top)
    size = 7.5 if is_small else 9
    panel.set_title(f"{_word(axis.name)}\n{interval(low, median, high)}", fontsize=size, loc="center", pad=4)


def interval(low: float, median: float, high: float) -> str:
    """A median and how far away the ends of an interval are, to two digits of the smaller."""
    below, above = median - low, high - median
    least = min((part for part in (below, above) if part > 0), default=0.0)
    if not least:
        return f"{median:.4g}"
    digits = 1 - math.floor(math.log10(least))
    if digits > 6 or max(abs(median), below, above) >= 1e6:
        return f"${median:.4g}_{{-{below:.2g}}}^{{+{above:.2g}}}$".replace("e-0", "e-").replace("e+0", "e")
    digits = max(digits, 0)
    return f"${median:.{digits}f}_{{-{below:.{digits}f}}}^{{+{above:.{digits}f}}}$"


def _pair(panel: Any, x: Axis, y: Axis, w: Float[np.ndarray, " n"], dots: np.ndarray) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    panel.plot(x.values[dots], y.values[dots], ".", color=CORRECTED, markersize=1.6, markeredgewidth=0, alpha=0.6)
    edges = x.edges(_BINS), y.edges(_BINS)
    circles = x.range.periodic, y.range.periodic
    mass = density(np.column_stack([x.values, y.values]), w, edges, circles)
    steps = np.unique([*levels(mass, HELD), 1.01 * mass.max()])
    if mass.max() > 0 and len(steps) > 1:
        # To the edges of the frame, beyond the middles of the outermost bins.
        for i, is_circle in enumerate(circles):
            mass = np.pad(mass, [(1, 1) if i == j else (0, 0) for j in (0, 1)], "wrap" if is_circle else "edge")
        places = [np.concatenate([e[:1], (e[:-1] + e[1:]) / 2, e[-1:]]) for e in edges]
        ramp = LinearSegmentedColormap.from_list("blue", [_PALE, CORRECTED])(np.linspace(0, 1, len(steps) - 1))
        panel.contourf(*places, mass.T, steps, colors=ramp)
        panel.contour(*places, mass.T, steps[:1], colors=_FILLED, linewidths=0.6)
    panel.set_ylim(y.low, y.high)


def _frame(panel: Any, x: Axis, y: Axis, is_last: bool, is_first: bool, is_small: bool, ticks: int) -> None:
    """Limits, ticks and labels: of the last row and the first column alone."""
    size = 7 if is_small else 9
    panel.grid(False)
    panel.set_xlim(x.low, x.high)
    _ticks(panel.xaxis, x, ticks)
    panel.tick_params(labelsize=size, labelbottom=is_last, labelleft=is_first and x is not y)
    if is_last:
        panel.set_xlabel(_word(x.name), fontsize=size + 0.5)
        for tick in panel.get_xticklabels() if is_small else ():
            tick.set(rotation=40, ha="right", rotation_mode="anchor")
    if x is y:
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        return
    panel.spines[["right", "top"]].set_visible(True)
    _ticks(panel.yaxis, y, ticks)
    if is_first:
        panel.set_ylabel(_word(y.name), fontsize=size + 0.5)


def _ticks(axis: Any, of: Axis, most: int) -> None:
    from matplotlib.ticker import MaxNLocator

    if of.range.periodic and math.isclose(of.range.period, 2 * math.pi, rel_tol=1e-6):
        quarters = [k for k in range(-8, 9) if of.low - 1e-6 <= k * math.pi / 2 <= of.high + 1e-6]
        shown = quarters if most > 3 else [k for k in quarters if k % 2 == 0]
        axis.set_ticks([k * math.pi / 2 for k in shown], [_of_pi(k) for k in shown])
        return
    found, room = MaxNLocator(most, min_n_ticks=2).tick_values(of.low, of.high), _EDGE * (of.high - of.low)
    axis.set_ticks([value for value in found if of.low + room <= value <= of.high - room])


def _of_pi(halves: int) -> str:
    """A multiple of half of pi."""
    sign, n = "\u2212" if halves < 0 else "", abs(halves)
    if n % 2:
        return f"{sign}{n if n > 1 else ''}\u03c0/2"
    return "0" if n == 0 else f"{sign}{n // 2 if n > 2 else ''}\u03c0"


def _word(name: str) -> str:
    """A name that is no mathematics to Matplotlib, and not longer than there is room for."""
    short = name if len(name) <= _LONG else f"{name[: _LONG - 7]}\u2026{name[-6:]}"
    return short.replace("$", r"\$")
