"""Whether error bars hold: how often 95 % intervals of log Z and of the modes' free energies cover the truth."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allmodes.job import machine
from allmodes.runs import Run, write_atomically
from allmodes.studies.jobs import measured

DRAWS = 10_000
TRAININGS, SETS = 4, 5  # seeds, and independent sets of draws of each
TARGETS = ("gmm40", "gmm120", "two-modes", "mixture-10d")
Z95 = 1.959964


def run(out: Path, *, quick: bool = False, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Train, draw and count, each training in a process of its own; write `free-energy.json` and a table."""
    say = progress or (lambda text: None)
    folder = Run(out).create()
    targets, trainings = (TARGETS[2:3], 1) if quick else (TARGETS, TRAININGS)
    table: dict[str, Any] = {}
    for target in targets:
        rows: list[dict] = []
        for seed in range(trainings):
            begin = time.monotonic()
            rows += measured(folder / "jobs" / f"{target}-{seed}.json", ["-m", __name__], [target, seed, quick])["sets"]
            say(f"{target}, seed {seed}: {time.monotonic() - begin:.0f} s")
        table[target] = summary(rows)
        result = {
            "command": "allmodes study free-energy", "draws": DRAWS, "trainings": trainings, "sets": SETS,
            "table": table, "machine": machine(),
        }  # fmt: skip
        folder.write_json("free-energy.json", result)
    write_atomically(out / "free-energy-table.md", lambda file: file.write(page(result)))
    return result


def summary(rows: list[dict]) -> dict[str, Any]:
    """Counts over the sets of draws."""
    off = np.array([row["log_z_error"] / row["log_z_std_error"] for row in rows])
    covered, modes = (np.array([row[name] for row in rows]) for name in ("covered", "modes"))
    return {
        "sets": len(rows), "log_z_covered": int(np.sum(np.abs(off) <= Z95)),
        "log_z_error": float(np.sqrt(np.mean([row["log_z_error"] ** 2 for row in rows]))),
        "log_z_std_error": float(np.mean([row["log_z_std_error"] for row in rows])),
        "free_energy_error": float(np.mean([row["free_energy_error"] for row in rows])),
        "free_energy_std_error": float(np.mean([row["free_energy_std_error"] for row in rows])),
        "free_energies_covered": float(covered.sum() / modes.sum()), "rows": rows,
    }  # fmt: skip


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
        lines.append(
            f"| {target} | {row['log_z_covered']} of {row['sets']} | {row['log_z_error']:.4f} "
            f"| {row['log_z_std_error']:.4f} | {row['free_energies_covered']:.1%} | {row['free_energy_error']:.3f} "
            f"| {row['free_energy_std_error']:.3f} |"
        )
    return "\n".join([*lines, ""])


def one(name: str, seed: int, quick: bool) -> dict[str, Any]:
    """Train once and judge several sets of draws; runs in a process of its own."""
    import jax

    from allmodes.fit import fit
    from allmodes.store import find_target

    target = find_target(name)
    k_fit, *keys = jax.random.split(jax.random.key(seed), SETS + 1)
    sampler = fit(target, key=k_fit, **({"steps": 300} if quick else {}))
    return {"sets": [judged(target, sampler.sample(DRAWS, key=key)) for key in keys]}


def judged(target: Any, draws: Any) -> dict[str, Any]:
    """Errors and coverage of log Z and of every mode's free energy, from weighted draws."""
    from allmodes.metrics.modes import normalised

    w = normalised(draws.log_weight)
    label = target.modes.assign(np.asarray(draws.x))
    true = np.asarray(target.modes.weights, np.float64)
    inside = label[:, None] == np.arange(len(true))
    share = w @ inside
    error = np.sqrt((w**2) @ (inside - share) ** 2)
    off = np.log(np.maximum(share, 1e-300)) - np.log(true)
    std = error / np.maximum(share, 1e-300)
    z = draws.log_z
    return {
        "log_z_error": z.value - target.log_z, "log_z_std_error": z.std_error, "modes": len(true),
        "covered": int(np.sum(np.abs(off) <= Z95 * std)), "free_energy_error": float(np.sqrt(np.mean(off**2))),
        "free_energy_std_error": float(np.sqrt(np.mean(std**2))),
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(one(*json.loads(sys.argv[1]))))
