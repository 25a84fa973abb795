"""What each ingredient of the default is worth: it is taken away, or exchanged for the paper's, in
turn.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.errors import ConfigError
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import machine
from allmodes.metrics import evaluate, forward_ess
from allmodes.parts import FreshDraws, MixtureRatio, Neighbours, OwnDraws, PathResampling
from allmodes.store.find import find_method, find_target
from allmodes.training.fit import fit
from studies.ablation_report import write
from studies.jobs import measured, medians

TARGETS = {"gmm40": 20.0, "gmm80": 20.0, "gmm120": 20.0}  # seconds of training that each variant may take
FEW = {"gmm80": ("default", "paper", "iDEM")}  # variants, where not all are run
DRAWS = 5000
REVERSE_STEPS = 100
EQUAL_EVALUATIONS = 10_000_000  # the other comparison: those that spend more per second stop here

# Variant -> (method, changed settings, what it shows).
VARIANTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "default": ("iwsm-thorough", {}, "everything"),
    "paper": ("iwsm-paper", {}, "the published method"),
    "iDEM": ("idem", {}, "w = 1, buffer of own draws"),
    "iDEM, the paper's buffer": (
        "idem",
        {"reweighting": OwnDraws(1000, 0.2, every=100, path_steps=1000)},
        "w = 1, the same broad draws: what the weights add",
    ),
    "TSI alone": ("iwsm-thorough", {"estimator": Neighbours(score="tsi")}, "no blend: single-draw target scores"),
    "no neighbours": (
        "iwsm-thorough",
        {"estimator": Neighbours(1)},
        "targets from one draw of the buffer and one other",
    ),
    "path weights": (
        "iwsm-thorough",
        {"reweighting": PathResampling()},
        "renewal by tempered path weights, not by Metropolis moves",
    ),
    "no weights": ("iwsm-thorough", {"reweighting": OwnDraws()}, "own draws, w = 1, else the default"),
    "kde weights": (
        "iwsm-thorough",
        {"estimator": FreshDraws(64, weights=MixtureRatio()), "reweighting": OwnDraws(), "batch": 512},
        "the paper's ratio in strata, blended K = 64",
    ),
    "SMC start": ("iwsm-thorough", {"start": "smc"}, "tempered SMC instead of the search"),
    "broad start": ("iwsm-thorough", {"start": "broad"}, "no warm start"),
}


def run(
    out: Path, *, quick: bool = False, progress: Callable[[str], None] | None = None, seeds: int = 3
) -> dict[str, Any]:
    """Train every variant on each target and seed, for an equal time, and judge it; what is there
    already is kept.

    Those that spend more than 10^7 evaluations in that time are trained a second time up to that
    number. Each job is a process of its own. Writes `ablation.json`, `ablation.md` and
    `ablation.png`.
    """
    say = progress or (lambda text: None)
    if seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {seeds}")
    folder = Run(out).create()
    seeds, targets = (1, {"gmm40": 5.0}) if quick else (seeds, TARGETS)
    table: dict[str, Any] = {}
    for target, seconds in targets.items():
        table[target] = {}
        for name in FEW.get(target, VARIANTS):
            rows = []
            for seed in range(seeds):
                begin = time.monotonic()
                rows.append(_job(folder, target, name, seed, seconds, None))
                say(f"{target}, {name}, seed {seed}: {time.monotonic() - begin:.0f} s")
            table[target][name] = {"equal time": medians(rows)}
            if min(row["evaluations"] for row in rows) > EQUAL_EVALUATIONS:
                rows = [_job(folder, target, name, seed, seconds, EQUAL_EVALUATIONS) for seed in range(seeds)]
                table[target][name]["equal evaluations"] = medians(rows)
    result = {
        "command": "python -m studies ablation", "seeds": seeds, "seconds": targets, "draws": DRAWS,
        "variants": {name: what for name, (_, _, what) in VARIANTS.items()}, "table": table,
        "equal_evaluations": EQUAL_EVALUATIONS, "machine": machine(),
    }  # fmt: skip
    folder.write_json("ablation.json", result)

    write(result, out)
    return result


def _job(folder: Run, target: str, name: str, seed: int, seconds: float, evaluations: int | None) -> dict:
    kind = "time" if evaluations is None else "evaluations"
    file = f"{target}-{name.replace(' ', '-').replace(',', '')}-{seed}-{kind}.json"
    return measured(folder / "jobs" / file, ["-m", __name__], [target, name, seed, seconds, evaluations])


def one(target_name: str, variant: str, seed: int, seconds: float, evaluations: int | None) -> dict[str, Any]:
    """Train one variant and judge its raw draws; runs in a process of its own."""
    method_name, changes, _ = VARIANTS[variant]
    method = find_method(method_name, changes)
    if evaluations is not None:
        per_step = method.batch * (method.estimator.count if isinstance(method.estimator, FreshDraws) else 1)
        method = find_method(method_name, {**changes, "steps": max(1, evaluations // per_step)})
    target = find_target(target_name)
    k_fit, k_draw, k_exact, k_noise, k_judge = jax.random.split(jax.random.key(seed), 5)
    history: list[dict] = []
    begin = time.monotonic()
    sampler = fit(target, method, key=k_fit, on_progress=lambda p: history.append(p.line), **training_for(seconds))
    wall = time.monotonic() - begin
    draws = sampler.sample(DRAWS, key=k_draw, steps=REVERSE_STEPS)
    forward = sampler.log_weights(target.sample(k_exact, 2000), key=k_noise, steps=REVERSE_STEPS)
    judged = evaluate(target, draws.x, k_judge, repeats=5)["metrics"]
    return {
        "steps": int(sampler.state.step), "seconds": wall, "evaluations": sampler.evaluations["log_prob"],
        "w2_ratio": judged["w2"]["ratio"], "tv_ratio": judged["mode_tv"]["ratio"], "tv": judged["mode_tv"]["value"],
        "modes": judged["modes_found"]["value"], "off": judged["mode_off"]["value"],
        "forward_ess": forward_ess(forward), "reverse_ess": draws.ess / DRAWS, "log_z_error": draws.log_z.value,
        "sigma": np.asarray(sampler.process.noise.sigma((jnp.arange(32) + 0.5) / 32)).tolist(),
        "level_ess": np.mean([line["level_weight_ess"] for line in history[-5:]], axis=0).tolist(),
    }  # fmt: skip


def training_for(seconds: float) -> dict[str, Any]:
    """Options of `fit` by which training alone gets so long, whatever search and compilation
    take.
    """
    return {"seconds": 6 * seconds, "reserve": lambda _, clock: 5 * seconds - clock["start"] - clock["compile"]}


if __name__ == "__main__":
    print(json.dumps(one(*json.loads(sys.argv[1]))))
