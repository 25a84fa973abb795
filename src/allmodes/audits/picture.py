"""The picture of an audit: the basins where they lie, and the mass that each side gives them."""

from typing import Any

import numpy as np

from allmodes.audits.result import ELSEWHERE, Audit, Basin
from allmodes.pictures.style import EXACT, NARROW, RAW, WIDE, new_figure, style
from allmodes.report.scatter import draw_axes
from allmodes.target import Target

WRONG = "#cc79a7"  # Okabe and Ito's reddish purple: basins that differ
MOST = 30  # basins with a row of their own
MARKED = 200  # basins on the map


def plot_audit(audit: Audit, target: Target | None = None) -> Any:
    """Masses of the basins by both sides, those that differ first; of a density in the plane its
    map beside them.

    The map shows draws of the sampler over contours of `target`, a ring at each basin's peak.
    Returns a Matplotlib figure.
    """
    listed = audit.basins[:MOST]
    mapped = target is not None and target.dim == 2
    height = max(3.0 if not mapped else 4.4, 1.3 + 0.2 * len(listed))
    with style():
        options = {"width_ratios": [1.15, 1.0]} if mapped else {}
        figure, axes = new_figure(height, 1, 2 if mapped else 1, WIDE if mapped else NARROW, squeeze=False, **options)
        if mapped:
            _map(axes[0, 0], audit, target)
        _masses(axes[0, -1], listed)
        wrong = sum(basin.differs for basin in audit.basins)
        more = f", the first {MOST} shown" if len(audit.basins) > MOST else ""
        said = f"{audit.verdict.word}: {wrong} of {len(audit.basins)} basins differ{more}"
        figure.suptitle(said, x=0.01, ha="left", fontsize=10.5, color="#1d232b")
    return figure


def _map(axes: Any, audit: Audit, target: Target) -> None:
    there = [basin for basin in audit.basins if basin.peak is not None][:MARKED]
    peaks = np.array([basin.peak for basin in there], float).reshape(-1, 2)
    draws = audit.shown if audit.shown is not None and len(audit.shown) else peaks
    draw_axes(axes, draws, target=target, frame=np.concatenate([draws, np.repeat(peaks, 20, axis=0)]))
    for basin, peak in zip(there, peaks, strict=True):
        ring = {"color": WRONG, "markersize": 13, "markeredgewidth": 2.2}
        calm = {"color": EXACT, "markersize": 7, "markeredgewidth": 0.7}
        axes.plot(*peak, "o", fillstyle="none", **(ring if basin.differs else calm), zorder=4)
        if basin.differs:
            place = {"xytext": (8, 6), "textcoords": "offset points", "zorder": 5}
            axes.annotate(basin.name, peak, **place, fontsize=9, color=WRONG, fontweight="bold")


def _masses(axes: Any, listed: list[Basin]) -> None:
    """One row a basin: a bar of three standard errors of the audit each way, a dot with as much for
    the sampler.
    """
    place = np.arange(len(listed))
    mass, error = (np.array([getattr(b, name) for b in listed], float) for name in ("mass", "std_error"))
    theirs, their_error = (
        np.array([getattr(b, name) for b in listed], float) for name in ("sampler_mass", "sampler_error")
    )
    error = np.where(np.isfinite(error), error, 0.0)
    axes.hlines(place, np.maximum(mass - 3 * error, 0.0), mass + 3 * error, color="#c9cdd3", linewidth=6, zorder=1)
    axes.plot(mass, place, "|", color=EXACT, markersize=9, markeredgewidth=1.6, label="audit, ± 3 se", zorder=3)
    bars = np.stack([np.minimum(3 * their_error, theirs), 3 * their_error])
    axes.errorbar(
        theirs, place, xerr=bars, fmt="o", color=RAW, markersize=3.6, linewidth=1.0, label="sampler, ± 3 se", zorder=2
    )
    names = [basin.name if basin.name == ELSEWHERE else f"basin {basin.name}" for basin in listed]
    axes.set_yticks(place, names)
    for tick, basin in zip(axes.get_yticklabels(), listed, strict=True):
        if basin.differs:
            tick.set(color=WRONG, fontweight="bold")
    top = max((mass + 3 * error).max(), (theirs + bars[1]).max())
    axes.set(ylim=(len(listed) - 0.4, -0.6), xlim=(-0.02 * top, 1.04 * top), xlabel="share of the mass")
    axes.grid(False, axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, columnspacing=1.2)
