"""What dimension does to mode weights and to log Z: two modes, 40 modes, many wells; IWSM and the
plain methods.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from allmodes.errors import ConfigError
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import machine
from allmodes.metrics import forward_ess
from allmodes.metrics.modes import mode_report
from allmodes.points.weighted import normalised
from allmodes.store.find import find_method
from allmodes.targets import many_well, random_mixture, two_modes
from allmodes.targets.manywell import right_share
from allmodes.training.fit import fit
from studies.dimension_report import write
from studies.jobs import measured, medians

DRAWS = 10_000
PLAIN = ("smc", "tempering", "nuts")

# Cases -> family, dimension, separation or spread. IWSM first; the plain methods get the
# evaluations that it took.
CASES: dict[str, tuple[str, int, Any]] = {
    **{f"two modes, {d}-D, a = {a:g}": ("two", d, a) for a in (0.5, 1.0, 2.0) for d in (2, 8, 32, 64, 128)},
    **{f"40 modes, {d}-D, equal shapes": ("modes", d, (1.3, 1.3)) for d in (2, 16, 32, 64)},
    **{f"40 modes, {d}-D, unequal shapes": ("modes", d, (0.7, 2.0)) for d in (2, 16, 32, 64)},
    **{f"ManyWell-{d}": ("wells", d, None) for d in (32, 64, 128)},
}
QUICK = ("two modes, 2-D, a = 1",)


def known(case: str) -> None:
    """**Raises** `ConfigError` for an unknown case."""
    if case not in CASES:
        raise ConfigError(f"unknown case {case!r}: there are {'; '.join(CASES)}")


def target_of(case: str) -> Any:
    """The density of a case. **Raises** `ConfigError` for an unknown one."""
    known(case)
    family, dim, more = CASES[case]
    if family == "two":
        return two_modes(dim, more)
    return random_mixture(7, 40, dim, spread=more) if family == "modes" else many_well(dim)


def run(
    out: Path,
    *,
    quick: bool = False,
    progress: Callable[[str], None] | None = None,
    seeds: int = 3,
    cases: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """Measure what is not there yet, each job in a process of its own; write `dimension.json` and a
    table.
    """
    say = progress or (lambda text: None)
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    for case in cases or ():
        known(case)
    seeds, cases = (1, QUICK) if quick else (seeds, cases or tuple(CASES))
    folder = Run(out).create()
    table: dict[str, Any] = {}
    for case in cases:
        table[case] = {}
        trained: list[dict] = []
        for method in ("iwsm", *PLAIN):
            rows = []
            for seed in range(seeds):
                budget = None if method == "iwsm" else trained[seed]["evaluations"]
                begin = time.monotonic()
                name = "".join(c if c.isalnum() else "-" for c in f"{case}-{method}-{seed}")
                script = ["-m", __name__]
                rows.append(measured(folder / "jobs" / f"{name}.json", script, [case, method, seed, budget, quick]))
                say(f"{case}, {method}, seed {seed}: {time.monotonic() - begin:.0f} s")
            trained = rows if method == "iwsm" else trained
            table[case][method] = medians(rows)
        result = {
            "command": f"python -m studies dimension --seeds {seeds} --cases '{'; '.join(cases)}'",
            "seeds": seeds, "draws": DRAWS, "table": table, "machine": machine(),
        }  # fmt: skip
        folder.write_json("dimension.json", result)
    write(result, out)
    return result


def one(case: str, method: str, seed: int, budget: int | None, quick: bool) -> dict[str, Any]:
    """Fit one method and judge what it delivers; runs in a process of its own."""
    target = target_of(case)
    changes = {"steps": 300, "cooldown": 100} if quick and method == "iwsm" else {}
    name = "iwsm-many-dimensions" if method == "iwsm" else method
    k_fit, k_draw, k_correct, k_exact, k_noise = jax.random.split(jax.random.key(seed), 5)
    begin = time.monotonic()
    sampler = fit(target, find_method(name, changes), key=k_fit)
    spent = sampler.evaluations["log_prob"]
    if budget is None:
        raw = sampler.sample(DRAWS, key=k_draw)
    else:
        raw = sampler.sample_within(DRAWS, max(0, budget - spent), key=k_draw)
    spent += raw.evaluations
    corrected = sampler.corrected(DRAWS, key=k_correct)
    seconds = time.monotonic() - begin
    forward = sampler.log_weights(target.sample(k_exact, 2000), key=k_noise)
    delivered, evidence = (raw, raw.log_z) if corrected is None else (corrected, corrected.log_z)
    spent += 0 if corrected is None else corrected.evaluations
    return {
        "evaluations": spent, "seconds": seconds, "log_z_error": evidence.value - target.log_z,
        "log_z_std_error": evidence.std_error, "ess": raw.ess / DRAWS,
        "forward_ess": None if forward is None else forward_ess(forward),
        **{f"raw_{name}": value for name, value in weights_of(case, target, raw).items()},
        **weights_of(case, target, delivered),
    }  # fmt: skip


def weights_of(case: str, target: Any, draws: Any) -> dict[str, Any]:
    """How wrong the weights of modes are: total variation, its floor, modes missed; of wells the
    worst balance.
    """
    family = CASES[case][0]
    if family == "wells":
        right = normalised(draws.log_weight) @ (np.asarray(draws.x)[:, 0::2] > 0)
        return {"worst_balance": float(np.abs(right - right_share()).max())}
    report = mode_report(target.modes, draws.x, draws.log_weight)
    true, n = np.asarray(target.modes.weights, np.float64), len(draws)
    rng = np.random.default_rng(0)
    floor = np.mean([0.5 * np.abs(rng.multinomial(n, true / true.sum()) / n - true).sum() for _ in range(50)])
    tv = 0.5 * float(np.abs(report.weights - true).sum())  # of the weights alone, as the floor is
    figures = {"tv": tv, "floor": float(floor), "missed": len(report.missed)}
    figures["ratio"] = figures["tv"] / figures["floor"]
    if family == "two":
        figures["heavy"] = float(report.weights[np.argmax(true)])
    return figures


if __name__ == "__main__":
    print(json.dumps(one(*json.loads(sys.argv[1]))))
