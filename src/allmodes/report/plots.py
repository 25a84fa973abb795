"""Figures of a run: mode weights, training, energies and log weights. Each returns a Matplotlib
figure.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from allmodes.pictures.style import (
    ACCENT,
    COLOURS,
    CORRECTED,
    EXACT,
    GROUNDS,
    NARROW,
    RAW,
    SOFT,
    WIDE,
    ground_of,
    new_figure,
    png,
    style,
)
from allmodes.report.scatter import plot_draws, plot_marginals

__all__ = [
    "plot_draws",
    "plot_energies",
    "plot_levels",
    "plot_log_weights",
    "plot_marginals",
    "plot_mode_weights",
    "plot_training",
    "png",
]

_ROW, _ROWS = 44, 3  # modes in one row of a narrow figure, so that dots stay apart; rows at most


def plot_mode_weights(
    true: Float[np.ndarray, " modes"],
    samples: dict[str, Float[np.ndarray, " modes"]],
    *,
    draws: int,
    off: float | None = None,
    wide: bool = False,
) -> Any:
    """Each mode's share of the draws as a dot, over a band of two standard deviations of `draws`
    exact draws.

    `samples` by kind: raw, corrected. Modes go by falling true weight; many modes take several
    rows; an empty mode is a cross on the floor. `off` is the share of draws off every mode.
    """
    order = np.argsort(-true, kind="stable")
    rows = min(-(-len(true) // (2 * _ROW if wide else _ROW)), _ROWS)
    size = -(-len(true) // rows)
    width, dot = (WIDE, 3.6) if wide else (NARROW, 3.2)
    dot = dot if size <= 2 * _ROW else 1.5
    positive = true[true > 0]
    logarithmic = len(positive) > 0 and positive.max() > 20 * positive.min()
    spread = 2 * np.sqrt(true * (1 - true) / max(draws, 1))
    top = 1.12 * max((true + spread).max(), *(weights.max() for weights in samples.values()))
    floor = positive.min() / 10 if logarithmic else 0.0
    with style():
        figure, axes = new_figure(0.9 + (2.1 if rows == 1 else 1.35 * rows), rows, width=width, squeeze=False)
        for row, axis in enumerate(axes[:, 0]):
            part = order[row * size : (row + 1) * size]
            place = np.arange(row * size, row * size + len(part)) + 1
            low, high = np.maximum(true[part] - spread[part], floor), true[part] + spread[part]
            axis.bar(place, high - low, 0.8, low, color=SOFT, label="exact, ± 2 sd", zorder=1)
            axis.hlines(true[part], place - 0.4, place + 0.4, color=EXACT, linewidth=1, zorder=2)
            for shift, (kind, weights) in zip(_shifts(len(samples)), samples.items(), strict=True):
                gone = weights[part] <= floor
                options = {"color": COLOURS[kind], "zorder": 3, "clip_on": False}
                axis.plot(place + shift, np.where(gone, np.nan, weights[part]), "o", ms=dot, label=kind, **options)
                if gone.any():
                    axis.plot(place[gone] + shift, np.full(gone.sum(), floor), "x", ms=1.5 * dot, **options)
            if logarithmic:
                axis.set_yscale("log")
            axis.set(xlim=(row * size + 0.2, row * size + size + 0.8), ylim=(floor, top))
            axis.grid(False, axis="x")
            axis.xaxis.get_major_locator().set_params(integer=True)
        axes[-1, 0].set_xlabel("mode, by falling true weight")
        figure.supylabel("share of the draws", fontsize=10, color="#3f4650")
        said = f"{len(true):,} modes" + ("" if off is None else f"; {100 * off:.3g}% of the draws off every mode")
        figure.suptitle(said, x=0.02 * NARROW / width, ha="left", fontsize=10.5, color="#1d232b")
        axes[0, 0].legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, columnspacing=1.2)
    return figure


def plot_training(step: Float[np.ndarray, " k"], curves: dict[str, Float[np.ndarray, " k"]]) -> Any:
    """Curves against the step, one panel each: the values faint, their running median over them.

    NaN is a step without a value; a curve with few values is shown as joined dots.
    """
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    with style():
        figure, axes = new_figure(_stack(len(curves)), max(len(curves), 1), squeeze=False, sharex=True)
        for axis, (name, values) in zip(axes[:, 0], curves.items(), strict=True):
            there = np.isfinite(values)
            known, window = values[there], max(1, int(there.sum()) // 25)
            if window > 1:
                axis.plot(step[there], known, color=SOFT, linewidth=0.9)
            marker = "o" if len(known) <= 25 else ""
            axis.plot(step[there], _running_median(known, window), color=CORRECTED, marker=marker, markersize=3)
            axis.set_ylabel(name)
            if known.min() > 0 and known.max() > 10 * known.min():
                axis.set_yscale("log")
            else:
                axis.ticklabel_format(axis="y", useOffset=False)
        axes[-1, 0].set_xlabel("step")
    return figure


def plot_levels(sigma: Float[np.ndarray, " k"], curves: dict[str, Float[np.ndarray, " k"]]) -> Any:
    """Curves against the noise level, one panel each. Those between 0 and 1 (ESS, gate) keep that
    range.
    """
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    with style():
        figure, axes = new_figure(_stack(len(curves)), max(len(curves), 1), squeeze=False, sharex=True)
        for axis, (name, values), colour in zip(axes[:, 0], curves.items(), (CORRECTED, ACCENT, EXACT), strict=False):
            axis.plot(sigma, values, color=colour, marker="o", markersize=3)
            axis.set_ylabel(name)
            axis.set_xscale("log")
            if name != "loss":
                axis.set_ylim(-0.04, 1.04)
        axes[-1, 0].set_xlabel("noise level \u03c3")
    return figure


def plot_energies(samples: dict[str, Float[np.ndarray, " _"]]) -> Any:
    """Histograms of the energy, \u2212log_prob, by kind of sample: raw, corrected, exact or
    reference.
    """
    finite = {kind: energy[np.isfinite(energy)] for kind, energy in samples.items()}
    finite = {kind: energy for kind, energy in finite.items() if len(energy)}
    reference = ground_of(finite)
    if reference is None:
        reference = finite.get("corrected", next(iter(finite.values()), np.zeros(1)))
    low, high = np.quantile(reference, [0.001, 0.995])
    pad = max(0.15 * (high - low), 1e-3)
    low, high = low - pad, high + 2 * pad
    beyond = []
    with style():
        figure, axes = new_figure(2.9)
        for kind, energy in finite.items():
            inside = energy[(energy >= low) & (energy <= high)]
            share = np.full(len(inside), 60 / (len(samples[kind]) * (high - low)))
            look = {"histtype": "stepfilled", "color": SOFT, "zorder": 1}
            if kind not in GROUNDS:
                look = {"histtype": "step", "color": COLOURS[kind], "linewidth": 1.5, "zorder": 2}
            axes.hist(inside, 60, range=(low, high), weights=share, label=kind, **look)
            missing = 1 - len(inside) / len(samples[kind])
            if missing > 0.01:
                beyond.append(f"{100 * missing:.2g}% of {kind}")
        axes.set(xlim=(low, high), xlabel="energy, \u2212log_prob", yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_title(f"beyond the frame: {', '.join(beyond)}" if beyond else "")
        axes.legend(loc="upper right")
    return figure


def plot_log_weights(log_weight: Float[np.ndarray, " n"], *, khat: float | None = None) -> Any:
    """Histogram of the log weights about their mean weight, so that 0 is a draw that needs no
    correction.
    """
    known = log_weight[np.isfinite(log_weight)].astype(float)
    with style():
        figure, axes = new_figure(2.9)
        if len(known):
            weight = np.exp(known - known.max())
            ess = weight.sum() ** 2 / np.sum(weight**2) / len(log_weight)
            relative = known - known.max() - np.log(weight.sum() / len(log_weight))
            low, high = np.quantile(relative, 0.005) - 0.5, relative.max() + 0.3
            axes.hist(relative[relative >= low], 60, range=(low, high), color=RAW, alpha=0.85)
            axes.axvline(0, color=EXACT, linewidth=1, linestyle=(0, (4, 3)))
            tail = "" if khat is None else rf", $\hat{{k}}$ = {khat:.2f}"
            axes.set_title(f"ESS = {100 * ess:.3g}% of {len(log_weight):,} draws{tail}")
        axes.spines["left"].set_visible(False)
        axes.set(xlabel="log weight (0: needs no correction)", yticks=[])
    return figure


def _shifts(kinds: int) -> list[float]:
    return [0.0] if kinds < 2 else [0.36 * (index / (kinds - 1) - 0.5) for index in range(kinds)]


def _stack(panels: int) -> float:
    """Choose the height of a stack of panels: two or three come out alike, so that figures side by
    side do.
    """
    return 4.65 if panels > 1 else 2.9


def _running_median(values: np.ndarray, window: int) -> np.ndarray:
    half = window // 2
    return np.array([np.median(values[max(0, i - half) : i + half + 1]) for i in range(len(values))])
