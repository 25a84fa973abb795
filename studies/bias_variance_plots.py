"""Figures of the study of bias and variance, drawn from what its JSON holds."""

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib import colormaps

from allmodes.pictures.style import ACCENT, CORRECTED, EXACT, RAW, SOFT, WIDE, new_figure, png, style

_HEIGHT = 3.7
_NOISE = r"noise $\sigma / \tau$"


def plot(result: dict[str, Any], out: pathlib.Path) -> list[pathlib.Path]:
    """Draw the four figures, `bias-variance-*.png`, and give their paths."""
    paths = []
    for name, draw in (("score", _score), ("density", _density), ("buffer", _buffer), ("loss", _loss)):
        with style():
            figure, axes = new_figure(_HEIGHT, 1, 2, WIDE)
            draw(result, *axes)
            paths.append(out / f"bias-variance-{name}.png")
            paths[-1].write_bytes(png(figure, dpi=110))
    return paths


def _array(values: list[Any]) -> np.ndarray:
    """Numbers, NaN for null."""
    return np.asarray([np.nan if v is None else v for v in values], float)


def _pick(rows: list[dict[str, Any]], **where: Any) -> list[dict[str, Any]]:
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


def _nearest(values: list[Any], wanted: float | int) -> Any:
    """The value of the study, full or quick, that is nearest on a log scale."""
    return min(values, key=lambda v: abs(np.log(v / wanted)))


def _ramp(n: int) -> list[Any]:
    """Colours for an ordered family of curves, dark to light, that differ in lightness."""
    return [colormaps["viridis"](v) for v in np.linspace(0.0, 0.85, n)]


def _axes(axis: Any, title: str, x: str, y: str, *, y_log: bool = True, label: str | None = None) -> None:
    axis.set(title=title, xlabel=x, ylabel=y, xscale="log")
    if y_log:
        axis.set_yscale("log")
    axis.legend(title=label, title_fontsize=9)


def _lines(axis: Any, rows: list[dict[str, Any]], text: Callable[[dict[str, Any]], str], x: str, y: str) -> None:
    """Measured values with two standard errors, and theory dashed, one colour a row."""
    for row, colour in zip(rows, _ramp(len(rows)), strict=True):
        value, se = np.abs(_array(row[y])), _array(row[f"{y}_se"])
        if f"{y}_clear" in row:
            value = np.where(row[f"{y}_clear"], value, np.nan)
        axis.errorbar(row[x], value, 2 * se, fmt="o-", ms=3.5, lw=1.3, elinewidth=1, color=colour, label=text(row))
        if row.get(f"{y}_theory"):
            axis.plot(row[x], np.abs(_array(row[f"{y}_theory"])), "--", color=colour, lw=1, zorder=1)


def _score(result: dict[str, Any], left: Any, right: Any) -> None:
    """Error of each estimate over the noise; where the 1/K law sets in."""
    rows = _pick(result["fresh"], target="two-modes")
    dim, sizes = _nearest(sorted({row["dim"] for row in rows}), 8), rows[0]["K"]
    at = sizes.index(_nearest(sizes, 256))
    for name, colour, mark in (("dsi", ACCENT, "s"), ("tsi", RAW, "^"), ("blend", CORRECTED, "o")):
        chosen = _pick(rows, dim=dim, estimator=name)
        sigma = [row["sigma"] for row in chosen]
        bias = np.nan_to_num(_array([row["bias"][at] for row in chosen]))
        error = np.sqrt(bias**2 + _array([row["variance"][at] for row in chosen]))
        left.plot(sigma, error, f"{mark}-", ms=4, color=colour, label=f"{name.upper() if name != 'blend' else name}")
        single = [row[name]["variance"] for row in _pick(result["stored"], target="two-modes", dim=dim)]
        left.plot(sigma, np.sqrt(_array(single)), ":", color=colour, lw=1.5)
    left.plot([], [], ":", color=EXACT, label="one stored draw")
    left.axhline(1.0, color=SOFT, zorder=0)
    title = f"Score of two modes in {dim}-D: {sizes[at]} fresh draws"
    _axes(left, title, _NOISE, "root mean square error, relative")
    left.set_ylim(1e-4, None)

    right.axhline(1.0, color=SOFT, zorder=0)
    for (name, bins), colour in zip(result["onset"].items(), (CORRECTED, RAW, ACCENT), strict=False):
        x, median, low, high = (_array([b[key] for b in bins]) for key in ("K_over_rho", "median", "low", "high"))
        right.plot(x, median, "o-", ms=3.5, color=colour, label=name)
        if name == "gaussian":
            right.fill_between(x, low, high, color=colour, alpha=0.18, lw=0, label="central 80 % of points")
    _axes(right, "Where the 1/K law sets in (TSI)", r"$K / \rho(x_t)$", r"variance over its $\rho / K$ law")


def _density(result: dict[str, Any], left: Any, right: Any) -> None:
    """Bias of log p^_t against K; over the noise, by dimension."""
    rows = _pick(result["fresh"], target="gaussian", estimator="log_density")
    dims = sorted({row["dim"] for row in rows})
    dim = _nearest(dims, 8)
    chosen = [row for row in _pick(rows, dim=dim) if row["sigma"] >= 0.1]
    _lines(left, chosen, lambda row: f"{row['sigma']:g}", "K", "bias")
    _axes(
        left,
        f"Log-density from K draws, Gaussian in {dim}-D",
        "draws K",
        "|bias| (dashed: theory)",
        label=r"$\sigma / \tau$",
    )
    left.set_ylim(1e-9, 1e5)
    left.legend(title=r"$\sigma / \tau$", title_fontsize=9, loc="lower left", ncols=3)
    at = rows[0]["K"].index(_nearest(rows[0]["K"], 1024))
    for d, colour in zip(dims, _ramp(len(dims)), strict=True):
        sigma, bias = ([f(row) for row in _pick(rows, dim=d)] for f in (lambda r: r["sigma"], lambda r: -r["bias"][at]))
        right.plot(sigma, bias, "o-", ms=3.5, color=colour, label=str(d))
    right.axhline(1.0, color=SOFT, zorder=0)
    _axes(right, f"The same at K = {rows[0]['K'][at]}", _NOISE, "|bias|", label="dimension")


def _buffer(result: dict[str, Any], left: Any, right: Any) -> None:
    """Effective share of weights whose true value is one; variance of the log of the buffer's
    density.
    """
    rows = _pick(result["buffer"], target="gaussian")
    dims = sorted({row["dim"] for row in rows})
    for d, colour in zip(dims, _ramp(len(dims)), strict=True):
        chosen = _pick(rows, dim=d)
        sigma, ess, se = (_array([f(row) for row in chosen]) for f in (
            lambda r: r["sigma"], lambda r: r["ess"][-1], lambda r: r["ess_se"][-1]))  # fmt: skip
        left.errorbar(sigma, ess, 2 * se, fmt="o-", ms=3.5, lw=1.3, elinewidth=1, color=colour, label=str(d))
    batch, size = result["settings"]["buffer"]["batch"], rows[0]["L"][-1]
    title = f"kde weights, exact buffer of {size:,}, batch {batch}"
    _axes(left, title, _NOISE, "ESS / batch (1 is right)", y_log=False, label="dimension")
    left.set_ylim(0, 1.05)
    sigma = _nearest([row["sigma"] for row in rows], 1.0)
    _lines(right, _pick(rows, sigma=sigma), lambda row: str(row["dim"]), "L", "variance")
    title = rf"Buffer mixture, $\sigma = {sigma:g}\,\tau$"
    _axes(right, title, "points in the buffer L", "variance of its log (dashed: theory)", label="dimension")
    right.set_ylim(1e-4, 1e2)


def _loss(result: dict[str, Any], left: Any, right: Any) -> None:
    """Bias of the self-normalised loss against N; what K draws leave in the fitted score."""
    dims = sorted({row["dim"] for row in result["loss"]})
    dim = _nearest(dims, 8)
    _lines(left, _pick(result["loss"], dim=dim), lambda row: f"{row['broad']:g}   ({row['rho']:.3g})", "N", "bias")
    _axes(left, f"Self-normalised loss in {dim}-D", "batch N", "|bias|, relative (dashed: theory)",
          label=r"buffer width / $\tau$  ($\rho$)")  # fmt: skip
    marks = {"exact": ("o-", "exact weights"), "estimated": ("s:", "weights from the same draws")}
    for row, colour in zip(result["inherited_draws"], (CORRECTED, RAW), strict=False):
        for name, (mark, text) in marks.items():
            value, se = _array(row[f"factor_{name}"]), _array(row[f"factor_{name}_se"])
            value = np.where(np.abs(value) > 2 * se, np.abs(value), np.nan)
            right.errorbar(row["K"], value, 2 * se, fmt=mark, ms=4, lw=1.3, elinewidth=1, color=colour,
                           label=f"{row['dim']}-D, {text}")  # fmt: skip
    _axes(right, r"Factor fitted to the score, $\sigma = \tau$", "draws K", "|bias|, relative")
    right.set_ylim(2e-5, 2)
    right.legend(loc="lower left")
