"""The README's picture, from the runs of `allmodes benchmark mixtures`: raw draws over contours of
the density.

python benchmarks/pictures.py runs/benchmark docs/results/mixtures.png
"""

import json
import sys
from pathlib import Path

import numpy as np

from allmodes import find_target
from allmodes.pictures.style import new_figure, png, style
from allmodes.report.scatter import draw_axes


def main(runs, out):
    names = ("gmm40", "gmm80", "gmm120")
    with style():
        figure, axes = new_figure(4.0, 1, len(names), width=12.0)
        for name, axis in zip(names, axes, strict=True):
            run = Path(runs) / f"{name}-iwsm-0"
            result = json.loads((run / "result.json").read_text())
            with np.load(run / "draws.npz") as file:
                x = file["x"]
            draw_axes(axis, x, target=find_target(name), kind="raw")
            metrics, seconds = result["metrics"], result["seconds"]
            cores = result["machine"].rsplit(", ", 1)[-1].replace("1 cores", "one core").replace("2 cores", "two cores")
            axis.set_title(
                f"{name}: {metrics['modes_found']['value']} of {metrics['modes_found']['of']} modes, "
                f"log Z {result['log_z']['value']:+.3f} (0)\n"
                f"{seconds['compile'] + seconds['train']:.0f} s on {cores}, "
                f"{result['log_prob_evaluations'] / 1e6:.1f} million evaluations"
            )
            axis.set(xlabel="", ylabel="")
        Path(out).write_bytes(png(figure, dpi=100))


if __name__ == "__main__":
    main(*sys.argv[1:])
