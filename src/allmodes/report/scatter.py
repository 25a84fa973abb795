"""Pictures of the draws themselves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from allmodes.devices.precision import double
from allmodes.pictures.style import COLOURS, EDGE, EXACT, GROUNDS, NARROW, SOFT, WIDE, ground_of, new_figure, style
from allmodes.target import Target

_GRID = 200  # points a side at which the density is evaluated for its contours
_SHOWN = 3000  # dots a scatter shows at most


def plot_draws(
    x: Float[np.ndarray, "n dim"],
    *,
    target: Target | None = None,
    exact: Float[np.ndarray, "m dim"] | None = None,
    frame: Float[np.ndarray, "k dim"] | None = None,
    kind: str = "raw",
    names: Sequence[str] | None = None,
) -> Any:
    """Show the draws as dots: in 2-D over contours of the density, else in the two coordinates of
    largest variance.

    Contours follow the density's own units, one to five standard deviations of a Gaussian peak, and
    lower where the draws lie lower. Above two dimensions exact draws, where given, are the ground.
    The axes hold all but the wildest of the exact draws and of `frame` (the draws themselves, when
    not given). Returns a Matplotlib figure.
    """
    with style():
        figure, axes = new_figure(0.92 * NARROW)
        draw_axes(axes, x, target=target, exact=exact, frame=frame, kind=kind, names=names)
    return figure


def draw_axes(
    axes: Any,
    x: Float[np.ndarray, "n dim"],
    *,
    target: Target | None = None,
    exact: Float[np.ndarray, "m dim"] | None = None,
    frame: Float[np.ndarray, "k dim"] | None = None,
    kind: str = "raw",
    names: Sequence[str] | None = None,
) -> None:
    """`plot_draws` into axes that are there already."""
    frame = x if frame is None else frame
    first, second = sorted(_widest(frame, exact, 2))
    pairs = [points[:, [first, second]] for points in (x, frame, exact) if points is not None]
    low, high = _extent(pairs[1:])
    words = {"xlabel": label(target, first, names), "ylabel": label(target, second, names)}
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), **words)
    if target is not None and target.dim == 2:
        _contours(axes, target, low, high, pairs[-1])
    elif exact is not None:
        _ground(axes, pairs[-1], low, high)
    shown = pairs[0][:_SHOWN]
    axes.plot(*shown.T, ".", color=COLOURS[kind], markersize=3, markeredgewidth=0, alpha=0.45)
    outside = int(np.sum(~np.all((pairs[0] >= low) & (pairs[0] <= high), axis=1)))
    if outside:
        note = f"{outside:,} of {len(x):,} lie outside"
        below = {"xycoords": "axes fraction", "xytext": (0, -29), "textcoords": "offset points"}
        axes.annotate(note, (1, 0), **below, ha="right", fontsize=8.5, color="#5b6470")
    axes.grid(False)


def plot_marginals(
    samples: dict[str, Float[np.ndarray, "_ dim"]],
    *,
    target: Target | None = None,
    most: int = 3,
    wide: bool = False,
    names: Sequence[str] | None = None,
) -> Any:
    """Histograms of up to `most` coordinates, those of largest variance.

    `samples` are by kind: raw, corrected, exact or reference. They stand below one another, or side
    by side where `wide`. In one dimension the density itself, scaled to enclose the area 1, is
    drawn too. Returns a Matplotlib figure.
    """
    reference = next(iter(samples.values())) if ground_of(samples) is None else ground_of(samples)
    coordinates = sorted(_widest(reference, None, most))
    with style():
        shape = (2.9, 1, len(coordinates), WIDE) if wide else (0.6 + 1.5 * len(coordinates), len(coordinates))
        figure, axes = new_figure(*shape, squeeze=False)
        for axis, coordinate in zip(axes.flat, coordinates, strict=True):
            columns = {kind: points[:, [coordinate]] for kind, points in samples.items()}
            low, high = _extent(list(columns.values()))
            for kind, column in columns.items():
                filled = {"histtype": "stepfilled", "color": SOFT} if kind in GROUNDS else {"histtype": "step"}
                edge = {} if kind in GROUNDS else {"color": COLOURS[kind], "linewidth": 1.4}
                options = filled | edge | {"label": kind, "zorder": 1 if kind in GROUNDS else 2}
                inside = column[(column >= low) & (column <= high)]
                share = np.full(len(inside), 60 / (len(column) * (high[0] - low[0])))
                axis.hist(inside, 60, range=(low[0], high[0]), weights=share, **options)
            if target is not None and target.dim == 1:
                grid = np.linspace(low, high, 400)
                density = _density(target, grid)
                mass = np.trapezoid(density, grid[:, 0])
                if mass > 0:
                    axis.plot(grid, density / mass, color=EXACT, linewidth=1, label="density")
            axis.spines["left"].set_visible(False)
            axis.set(xlim=(low[0], high[0]), xlabel=label(target, coordinate, names), yticks=[])
        axes[0, -1].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=4, columnspacing=1.2)
    return figure


def _widest(x: np.ndarray, exact: np.ndarray | None, most: int) -> list[int]:
    """Find the coordinates of largest spread, largest first; robust to a few wild draws."""
    low, high = np.quantile(x if exact is None else exact, [0.02, 0.98], axis=0)
    order = np.argsort(low - high, kind="stable")[:most]
    return [0, 1] if x.shape[1] == 2 and most >= 2 else [int(index) for index in order]


def _extent(groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Find the corners of a frame around all but the wildest points; square where that is
    natural.
    """
    spans = np.array([np.quantile(points, [0.002, 0.998], axis=0) for points in groups], float)
    low, high = spans[:, 0].min(0), spans[:, 1].max(0)
    width = np.maximum(high - low, 1e-6 * np.maximum(1.0, np.abs(high)))
    if width.max() < 2.5 * width.min():
        width, middle = np.full_like(width, width.max()), (low + high) / 2
        low, high = middle - width / 2, middle + width / 2
    return low - 0.07 * width, high + 0.07 * width


def log_density(target: Target, points: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
    """Evaluate the log-density, -inf where it is undefined or beyond its bounds; in pieces, so that
    memory stays small.
    """
    import jax

    with double(target.double):
        values, points = jax.jit(target.values), points.astype(target.dtype)
        pieces = [np.asarray(values(points[i : i + 5000]), float) for i in range(0, len(points), 5000)]
    low, high = np.array(target.bounds or [(None, None)] * target.dim, float).T  # NaN: no bound
    return np.where(np.any((points <= low) | (points >= high), axis=1), -np.inf, np.concatenate(pieces))


def label(target: Target | None, coordinate: int, names: Sequence[str] | None = None) -> str:
    """Call a coordinate by its name, or what its density does."""
    names = names or (None if target is None else target.names)
    return f"x[{coordinate}]" if names is None else names[coordinate].replace("$", r"\$")


def _density(target: Target, points: np.ndarray) -> np.ndarray:
    values = log_density(target, points)
    top = values.max()
    return np.exp(values - top) if np.isfinite(top) else np.zeros_like(values)


def _contours(axes: Any, target: Target, low: np.ndarray, high: np.ndarray, reference: np.ndarray) -> None:
    """Fill contours in units of Gaussian standard deviations below the peak."""
    sides = [np.linspace(low[i], high[i], _GRID) for i in (0, 1)]
    grid = np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)
    values = log_density(target, grid).reshape(_GRID, _GRID)
    top = values.max()
    if not np.isfinite(top) or values.min() == top:
        return
    there = log_density(target, reference[:2000])
    there = there[np.isfinite(there)]
    depth = np.clip(top - np.quantile(there, 0.005), 12.5, 200.0) if len(there) else 12.5
    levels = -0.5 * np.linspace(np.sqrt(2 * depth), 0, 6) ** 2
    levels[-1] = 1e-6  # the peak itself is inside
    relative = np.maximum(values - top, -2 * depth)  # flat where there is no mass: no -inf for the contour finder
    axes.contourf(*sides, relative, levels, colors=_ramp(5))
    if relative.min() < levels[0]:
        axes.contour(*sides, relative, levels[:1], colors=EDGE, linewidths=0.7, linestyles="solid")


def _ground(axes: Any, exact: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Show where exact draws lie: the smallest regions that hold 20, 40, 60, 80 and 96% of them."""
    from scipy.ndimage import gaussian_filter

    edges = [np.linspace(low[i], high[i], 101) for i in (0, 1)]
    density = gaussian_filter(np.histogram2d(*exact.T, bins=edges)[0].T, 1.0 + 6.0 * len(exact) ** (-1 / 6))
    falling = np.sort(density.ravel())[::-1]
    if falling[0] <= 0:
        return
    held = np.cumsum(falling) / falling.sum()
    levels = falling[np.minimum(np.searchsorted(held, [0.96, 0.8, 0.6, 0.4, 0.2]), len(falling) - 1)]
    levels = np.unique([*levels, 1.01 * falling[0]])
    middles = [(edge[:-1] + edge[1:]) / 2 for edge in edges]
    axes.contourf(*middles, density, levels, colors=_ramp(len(levels) - 1))
    axes.contour(*middles, density, levels[:1], colors=EDGE, linewidths=0.7)


def _ramp(steps: int) -> Any:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("ground", ["#f1f2f4", "#b4bac3"])(np.linspace(0, 1, steps))
