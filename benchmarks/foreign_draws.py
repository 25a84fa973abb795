"""Draws of gmm40 by another library, as `allmodes judge` takes them.

    python -m benchmarks.foreign_draws dynesty --seed 0 --out runs/dynesty-gmm40.npz
    allmodes judge runs/dynesty-gmm40.npz --target gmm40 --out runs/dynesty-gmm40.json

The tools and their settings are those of `benchmarks/tools`. Weights are to a common constant;
log Z and its error are the tool's own, for the density itself: the tool's evidence is under a prior
that is uniform in a box, so the log of the box's volume is added. An evaluation is a value without
a gradient, seconds are CPU seconds.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from benchmarks.tools.adapters import TOOLS, Counted
from benchmarks.tools.problems import gmm40


def drawn(tool: str, seed: int) -> dict:
    """The arrays of the file."""
    problem = gmm40()
    likelihood, begin = Counted(problem), time.process_time()
    found = TOOLS[tool](problem, likelihood, seed)
    return {
        "x": problem.transform(found.u), "log_weight": found.log_weight, "log_z": found.log_z + problem.log_volume,
        "log_z_error": found.std_error, "evaluations": likelihood.calls,
        "seconds": round(time.process_time() - begin, 1),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=[tool for tool in TOOLS if tool != "ours"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(given.out, **drawn(given.tool, given.seed))


if __name__ == "__main__":
    main()
