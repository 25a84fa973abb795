"""Pictures of particle systems: interatomic distances, and a few configurations."""

from typing import Any

import numpy as np
from jaxtyping import Float

from allmodes.metrics.distances import distances
from allmodes.pictures.style import ACCENT, COLOURS, EDGE, GROUNDS, NARROW, SOFT, WIDE, ground_of, new_figure, style
from allmodes.symmetry import ParticleSymmetry

_SHOWN = 2000  # configurations whose distances are counted
_BONDED = 1.35  # times the most common short distance: pairs drawn as joined


def plot_distances(samples: dict[str, Float[np.ndarray, "_ dim"]], symmetry: ParticleSymmetry) -> Any:
    """Histograms of all interatomic distances; `samples` holds configurations by kind: raw,
    corrected, reference.
    """
    values = {kind: distances(x[:_SHOWN], symmetry).ravel() for kind, x in samples.items()}
    reference = ground_of(values)
    reference = next(iter(values.values())) if reference is None else reference
    low, high = reference.min(), np.quantile(reference, 0.9999)
    with style():
        figure, axes = new_figure(2.9)
        for kind, found in values.items():
            look = {"histtype": "stepfilled", "color": SOFT, "zorder": 1}
            if kind not in GROUNDS:
                look = {"histtype": "step", "color": COLOURS[kind], "linewidth": 1.5, "zorder": 2}
            inside = found[(found >= low) & (found <= high)]
            share = np.full(len(inside), 100 / (len(found) * (high - low)))
            axes.hist(inside, 100, range=(low, high), weights=share, label=kind, **look)
        axes.set(xlim=(low, high), ylim=(0, None), xlabel="distance between two particles", yticks=[])
        axes.spines["left"].set_visible(False)
        axes.legend(loc="best")
    return figure


def plot_configurations(
    x: Float[np.ndarray, "n dim"], symmetry: ParticleSymmetry, *, count: int = 3, kind: str = "raw", wide: bool = False
) -> Any:
    """The first few configurations, in 2-D or 3-D, with near pairs joined; in one dimension, as
    dots on a line.
    """
    n, d = symmetry.particles, symmetry.dim
    particles = x[:count].reshape(-1, n, d)
    i, j = np.triu_indices(n, 1)
    apart = distances(x[:_SHOWN], symmetry)
    bond = _BONDED * np.median(apart.min(axis=1))
    reach = 1.05 * np.abs(particles - particles.mean(axis=1, keepdims=True)).max()
    with style():
        options = {"subplot_kw": {"projection": "3d"}} if d == 3 else {}
        width = WIDE if wide else NARROW
        figure, axes = new_figure(width / len(particles), 1, len(particles), width, squeeze=False, **options)
        for axis, points in zip(axes[0], particles - particles.mean(axis=1, keepdims=True), strict=True):
            shown = points[:, :3] if d != 1 else np.concatenate([points, np.zeros_like(points)], axis=1)
            for a, b in zip(i, j, strict=True):
                if np.linalg.norm(points[a] - points[b]) < bond:
                    axis.plot(*shown[[a, b]].T, color=EDGE, linewidth=0.8, zorder=1)
            axis.plot(*shown.T, "o", color=COLOURS.get(kind, ACCENT), markersize=5 if n < 30 else 3.5, zorder=2)
            limits = {f"{name}lim": (-reach, reach) for name in "xyz"[: shown.shape[1]]}
            axis.set(**limits)
            axis.set_aspect("equal")
            axis.set_axis_off()
    return figure
