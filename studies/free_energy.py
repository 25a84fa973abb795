"""Whether error bars hold: how often 95 % intervals of log Z and of the modes' free energies cover
the truth.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from allmodes.draws.estimates import batch_log_z
from allmodes.errors import ConfigError
from allmodes.files.atomic import write_atomically
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import machine
from allmodes.methods import SMC
from allmodes.points.weighted import normalised
from allmodes.store.find import find_target
from allmodes.targets import get
from allmodes.training.fit import fit
from studies.jobs import measured

DRAWS = 10_000
TRAININGS, SETS = 4, 5  # seeds, and independent sets of draws of each
TARGETS = ("gmm40", "gmm120", "two-modes", "mixture-10d", "dw4")
TRUTH_SETS, TRUTH_DRAWS = 10, 40_000  # of SMC, four populations each, where log Z is not known in closed form
Z95 = 1.959964


def run(
    out: Path,
    *,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
    seeds: int = TRAININGS,
    cases: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Train, draw and count, each training in a process of its own; write `free-energy.json` and a
    table.

    `seeds` trainings of each of `cases`, which are among `TARGETS`. **Raises** `ConfigError` for
    others.
    """
    say = progress or (lambda text: None)
    if set(cases or ()) - set(TARGETS) or seeds < 1:
        raise ConfigError(f"the cases are {', '.join(TARGETS)}, with at least 1 seed; got {cases} and {seeds}")
    targets, trainings = (TARGETS[2:3], 1) if quick else (cases or TARGETS, seeds)
    folder = Run(out).create()
    table: dict[str, Any] = {}
    for target in targets:
        rows: list[dict] = []
        for seed in range(trainings):
            begin = time.monotonic()
            rows += measured(folder / "jobs" / f"{target}-{seed}.json", ["-m", __name__], [target, seed, quick])["sets"]
            say(f"{target}, seed {seed}: {time.monotonic() - begin:.0f} s")
        truth = None
        if get(target).log_z is None:
            truth = measured(folder / "jobs" / f"{target}-truth.json", ["-m", __name__], [target])
        table[target] = summary(rows, truth)
        result = {
            "command": f"python -m studies free-energy --seeds {trainings} --cases '{'; '.join(targets)}'",
            "draws": DRAWS, "trainings": trainings, "sets": SETS,
            "table": table, "machine": machine(),
        }  # fmt: skip
        folder.write_json("free-energy.json", result)
    write_atomically(out / "free-energy-table.md", lambda file: file.write(page(result)))
    return result


def summary(rows: list[dict], truth: dict[str, float] | None) -> dict[str, Any]:
    """Counts over the sets of draws; where log Z is not known exactly, the error of what stands for
    it counts too.
    """
    true, unsure = (0.0, 0.0) if truth is None else (truth["log_z"], truth["std_error"])
    errors = np.array([row["log_z"] for row in rows]) - true
    off = errors / np.hypot([row["log_z_std_error"] for row in rows], unsure)
    figures: dict[str, Any] = {
        "sets": len(rows), "log_z_covered": int(np.sum(np.abs(off) <= Z95)),
        "log_z_error": float(np.sqrt(np.mean(errors**2))),
        "log_z_std_error": float(np.mean([row["log_z_std_error"] for row in rows])), "truth": truth, "rows": rows,
    }  # fmt: skip
    if "modes" in rows[0]:
        covered, modes = (np.array([row[name] for row in rows]) for name in ("covered", "modes"))
        figures["free_energies_covered"] = float(covered.sum() / modes.sum())
        for name in ("free_energy_error", "free_energy_std_error"):
            figures[name] = float(np.mean([row[name] for row in rows]))
    return figures


def page(result: dict[str, Any]) -> str:
    """A table, a row a target."""
    lines = [
        f"`{result['command']}`, {result['machine']}: {result['trainings']} trainings, {result['sets']} sets of "
        f"{result['draws']:,} weighted draws of each. Nominal 95 % intervals; a free energy is minus the log of "
        "a mode's share.",
        "",
        "| target | log Z: intervals that cover | error, rms | standard error | free energies: share covered "
        "| error, rms | standard error |",
        "|---" * 7 + "|",
    ]
    for target, row in result["table"].items():
        cells = [target, f"{row['log_z_covered']} of {row['sets']}"]
        cells += [f"{row[name]:.4f}" for name in ("log_z_error", "log_z_std_error")]
        if "free_energies_covered" in row:
            cells.append(f"{row['free_energies_covered']:.1%}")
            cells += [f"{row[name]:.3f}" for name in ("free_energy_error", "free_energy_std_error")]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def one(name: str, seed: int, quick: bool) -> dict[str, Any]:
    """Train once and judge several sets of draws; runs in a process of its own."""
    target = find_target(name)
    k_fit, *keys = jax.random.split(jax.random.key(seed), SETS + 1)
    sampler = fit(target, key=k_fit, **({"steps": 300} if quick else {}))
    return {"sets": [judged(target, sampler.sample(DRAWS, key=key)) for key in keys]}


def truth_of(name: str) -> dict[str, float]:
    """Log Z by many populations of tempered SMC, and its standard error; runs in a process of its
    own.
    """
    k_fit, *keys = jax.random.split(jax.random.key(12345), TRUTH_SETS + 1)
    sampler = fit(find_target(name), SMC(), key=k_fit)
    value, error = batch_log_z(np.array([sampler.sample(TRUTH_DRAWS, key=key).log_z.value for key in keys]))
    return {"log_z": value, "std_error": error}


def judged(target: Any, draws: Any) -> dict[str, Any]:
    """Log Z (over its true value, where that is known) and every mode's free energy, from weighted
    draws.
    """
    z, known = draws.log_z, target.log_z or 0.0
    row = {"log_z": z.value - known, "log_z_std_error": z.std_error}
    if target.modes is None:
        return row
    w = normalised(draws.log_weight)
    label = target.modes.assign(np.asarray(draws.x))
    true = np.asarray(target.modes.weights, np.float64)
    inside = label[:, None] == np.arange(len(true))
    share = w @ inside
    error = np.sqrt((w**2) @ (inside - share) ** 2)
    off = np.log(np.maximum(share, 1e-300)) - np.log(true)
    std = error / np.maximum(share, 1e-300)
    return row | {
        "modes": len(true), "covered": int(np.sum(np.abs(off) <= Z95 * std)),
        "free_energy_error": float(np.sqrt(np.mean(off**2))), "free_energy_std_error": float(np.sqrt(np.mean(std**2))),
    }  # fmt: skip


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(one(*arguments) if len(arguments) > 1 else truth_of(*arguments)))
