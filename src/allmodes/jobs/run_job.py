"""The main job: train, draw, correct, evaluate, report, all into one run folder."""

import contextlib
import importlib.metadata
import os
import platform
import resource
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.devices.memory import give_back
from allmodes.devices.mesh import on_devices
from allmodes.devices.processes import agreed, leads
from allmodes.draws import kept
from allmodes.draws import verdict as trust
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import elbo, ess, eubo
from allmodes.errors import RunError, RunWarning
from allmodes.files import interrupt
from allmodes.files.run_folder import Run, digest_of
from allmodes.files.saved import describe, export
from allmodes.interop import numpy
from allmodes.jobs.afterwards import Afterwards, measured
from allmodes.methods import Method
from allmodes.metrics import evaluate, forward_ess
from allmodes.metrics.floor import REPEATS
from allmodes.metrics.identities import identities
from allmodes.progress.bar import Progress as Bar
from allmodes.progress.stages import stage
from allmodes.report.page import write_report
from allmodes.sampler import Sampler
from allmodes.store.load import parse
from allmodes.target import Target
from allmodes.targets import reference
from allmodes.training.fit import Progress, fit

SECONDS = "seconds.json"  # what drawing and correcting took, while there is no result yet
EXACT = 5000  # exact draws noised for the EUBO and the forward ESS; at most half as many as draws


def start(
    run: Run, target: Target, method: Method, seed: int, draws: int, command: str, evaluations: int | None = None
) -> dict:
    """Make the folder of a new run and write its `config.json`.

    `evaluations` bounds those of training and raw draws together.

    **Raises** `RunError` when the folder holds a run already, or cannot be written.
    """
    run.create()
    if (run / "config.json").exists():
        raise RunError(f"{run.path} holds a run already: go on with it by --resume {run.path}, or choose another --out")
    if not target.origin:
        export(target, run)
    config = {**describe(target, method, seed), "draws": draws, "command": command, **_versions()}
    config |= {} if evaluations is None else {"evaluations": evaluations}
    run.write_json("config.json", config)
    return config


def finished(run: Run) -> dict | None:
    """What `result.json` holds, where the run is finished and its last state is there; None where
    work is left.

    Work is left, too, where that state is damaged and an older one is not: training from there ends
    in the same.

    **Raises** `RunError` when the folder is damaged otherwise.
    """
    if not (run / "report.html").exists():  # it is written last
        return None
    result = run.read_json("result.json")
    target, method, _ = parse(run)
    template = method.template(target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # training will say it
        try:
            return result if run.load_state(template, insist=True) is not None else None
        except RunError:
            older = run.load_state(template)
            if older is None or int(older[0].step) == result.get("steps"):  # then it is another training's
                raise
            return None


def carry_out(run: Run, *, seconds: float | None = None, quiet: bool = False, repeats: int = REPEATS) -> dict:
    """Do the job that `config.json` describes, from wherever it stands: returns what `result.json`
    holds.

    `seconds` is about what all of it may take, since it began; `repeats` how often each metric
    between sets is taken. Of several processes that work together, all call it; the leading one
    alone writes, evaluates and returns the result, the others nothing.

    **Raises** `RunError` when the folder is damaged, or another job is at work in it.
    """
    target, method, config = parse(run)
    missing = [name for name in ("seed", "draws", "command", "versions", "machine") if name not in config]
    if missing and config.get("seed") is None:
        raise RunError(
            f"{run / 'config.json'} is damaged or that of a saved sampler (no {', '.join(missing)}): only "
            "a folder that `allmodes run` began can be resumed"
        )
    if missing:
        raise RunError(
            f"{run / 'config.json'} is damaged: no {', '.join(missing)}. Restore it, or start again in a new folder"
        )
    with run.locked() if leads() else contextlib.nullcontext(), Bar(quiet=quiet or not leads()) as bar:
        result = _phases(run, target, method, config, seconds, repeats, bar)
        if leads():
            stage("writing the report")
            write_report(run.path, target=target)
            (run / SECONDS).unlink(missing_ok=True)
    return result


def _phases(
    run: Run, target: Target, method: Method, config: dict, seconds: float | None, repeats: int, bar: Bar
) -> dict:
    """Train, draw, correct, evaluate, as far as each is not done already; writes and returns the
    result.
    """
    root = jax.random.key(config["seed"])
    k_fit, k_draw, k_exact, k_forward, k_points, k_metrics = jax.random.split(root, 6)
    k_correct = jax.random.fold_in(root, 6)
    n, limit = config["draws"], config.get("evaluations")
    done: list[str] = []

    def say(work: str) -> None:
        if done:
            bar.message(f"going on: {', '.join(done)}")
            done.clear()  # said once
        stage(work)

    begin, after = time.monotonic(), None
    if seconds is not None and method.steps:
        stage("measuring what comes after training")
        after = measured(target, method, n, repeats)
        seconds = max(seconds - float(agreed(time.monotonic() - begin)), 1e-3)
    evaluations = limit and max(1, limit - n)
    sampler, trained_before = _trained(run, target, method, k_fit, seconds, evaluations, after, bar)
    done += [("trained" if method.steps else "prepared")] if trained_before else []
    phase = _Phase(run, target, digest_of(sampler.state), n)

    def draw() -> Draws:
        if limit is None:
            return sampler.sample(n, key=k_draw)
        return sampler.sample_within(n, max(0, limit - sampler.evaluations["log_prob"]), key=k_draw)

    def correct() -> Draws | None:
        if after is None or seconds is None:
            return sampler.corrected(n, key=k_correct)
        drawing = float(agreed(phase.seconds.get("sample", 0.0)))
        left = seconds - sum(sampler.seconds.values()) - drawing
        return sampler.corrected(n, key=k_correct, pool=after.pool(left, drawing, sampler.seconds))

    draws, before = phase.draws("draws.npz", "sample", draw, lambda: say(f"drawing {n:,}"))
    done += ["drawn"] if before and done else []
    corrected, before = phase.draws("corrected.npz", "correct", correct, lambda: say(f"correcting {n:,}"))
    done += ["corrected"] if before and done else []
    if not leads():
        return {}
    give_back()
    say("evaluating")
    begin = time.monotonic()
    keys = (k_exact, k_forward, k_points, k_metrics)
    with on_devices(None):  # the other processes are done
        result = _evaluated(sampler, draws, corrected, run, keys, config, repeats)
    result["state"] = phase.state
    result["seconds"] = {
        "compile": round(sampler.seconds["compile"], 2),
        "train": round(sampler.seconds["start"] + sampler.seconds["train"], 2),
        **{name: round(phase.seconds.get(name, 0.0), 2) for name in ("sample", "correct")},
        "evaluate": round(time.monotonic() - begin, 2),
    }
    result["peak_memory_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    run.write_json("result.json", result)
    return result


def _trained(
    run: Run,
    target: Target,
    method: Method,
    key: Any,
    seconds: float | None,
    evaluations: int | None,
    after: Afterwards | None,
    bar: Bar,
) -> tuple[Sampler, bool]:
    """The sampler, trained from wherever the run stands, and whether it was so before."""
    began, steps = False, int(agreed(max(run.steps(), default=-1) if leads() else -1))

    def show(p: Progress) -> None:
        nonlocal began
        if not began and leads():  # of what training now goes beyond: no verdict of another state is left
            for name in ("report.html", "result.json"):
                (run / name).unlink(missing_ok=True)
        began = True
        bar.trained(p)
        if jax.process_count() == 1:  # one of several cannot save by itself
            interrupt.wait()

    then = f"training for at most {method.steps:,} steps"
    if steps < 0:
        bar.message(f"{target.name}: {then}" if method.steps else target.name)
    elif steps == 0 and method.steps:
        bar.message(f"{target.name}: its mass is found; {then}")
    elif method.steps:
        bar.message(f"{target.name}: going on from step {steps:,} of at most {method.steps:,}")
    options = {"evaluations": evaluations, "on_progress": show}
    options |= {} if after is None else {"seconds": seconds, "reserve": after.seconds}
    sampler = fit(target, method, key=key, run=run, resume=True, **options)
    interrupt.at_once()  # all of it is in its last checkpoint
    return sampler, steps >= 0 and not began


class _Phase:
    """Draws of one state in a run folder: those that are there already, or made and kept."""

    def __init__(self, run: Run, target: Target, state: str, n: int):
        self.run, self.target, self.state, self.n = run, target, state, n
        self.seconds: dict[str, float] = {}
        if (run / SECONDS).exists() and leads():
            with contextlib.suppress(RunError):  # of times alone
                self.seconds = run.read_json(SECONDS)

    def draws(
        self, file: str, what: str, make: Callable[[], Draws | None], say: Callable[[], None]
    ) -> tuple[Draws | None, bool]:
        """The draws of a file, and whether they were there before; None where there are none of
        their kind.
        """
        before = kept.read(self.run, file, self.target, self.state, self.n) if leads() else None
        if agreed(before is not None):
            return before, True
        say()
        begin = time.monotonic()
        made = make()
        if made is None:
            return None, False
        jax.block_until_ready(made.x)
        self.seconds[what] = time.monotonic() - begin
        if not leads():
            return made, False
        kept.write(self.run, file, made, self.state)
        self.run.write_json(SECONDS, self.seconds)
        # As they are read, so that what follows is the same where it is done by another process,
        # later.
        return kept.read(self.run, file, self.target, self.state, self.n) or made, False


def _evaluated(
    sampler: Sampler, draws: Draws, corrected: Draws | None, run: Run, keys: tuple, config: dict, repeats: int
) -> dict[str, Any]:
    k_exact, k_forward, k_points, k_metrics = keys
    target, n = sampler.target, len(draws)
    spent = sampler.evaluations
    exact = min(EXACT, max(1, n // 2))
    related = max(draws.ess / max(ess(draws.log_weight), 1e-9), 1e-9)  # a share, beside what weights cost
    same: dict = {}  # of exact draws, for both
    first = evaluate(target, draws.x, k_metrics, repeats=repeats, independent=related, shared=same)
    if corrected is not None:
        correction = "mcmc"
        second = evaluate(target, corrected.x, k_metrics, repeats=repeats, shared=same)
    elif float(jnp.max(draws.log_weight)) > float(jnp.min(draws.log_weight)):
        correction = "weights"
        options = {"repeats": repeats, "shared": same, "log_weight": draws.log_weight, "independent": related}
        second = evaluate(target, draws.x, k_metrics, **options)
    else:
        correction, second = "none", {"metrics": {}}
    raw = first["metrics"]
    modes = {}
    if "mode_weights" in first:
        modes = {"true": first["mode_weights"]["true"], "raw": first["mode_weights"]["estimated"]}
        if "mode_weights" in second:
            modes["corrected"] = second["mode_weights"]["estimated"]
        modes = {"mode_weights": modes}

    known_exact = target.sample is not None
    forward, seen = None, draws.forward_ess
    if known_exact:
        forward = sampler.log_weights(target.sample(k_exact, exact), key=k_forward)
    elif seen is None:  # a sampler that does not tell with its draws
        forward = sampler.log_weights(sampler.method.points(sampler.state)[:exact], key=k_points)
    if forward is not None:
        seen = forward_ess(forward)
    if seen is not None:
        raw["elbo"] = elbo(draws.log_weight)._asdict()
    if forward is not None and known_exact:
        raw["eubo"], raw["forward_ess"] = eubo(forward)._asdict(), {"value": seen}
    raw["reverse_ess"] = {"value": draws.ess / n}
    if draws.chains:
        raw["rhat"] = {"value": draws.rhat}
    else:
        raw["khat"] = {"value": draws.khat}

    log_z, known, evidence = draws.log_z, "exact draws", {}
    told = not np.isnan(log_z.value)
    if told:
        evidence = {"value": log_z.value, "std_error": log_z.std_error}
        if corrected is not None:
            evidence["corrected"] = corrected.log_z._asdict()
        if target.log_z is not None:
            evidence |= {"truth": target.log_z, "error": log_z.value - target.log_z}
            raw["log_z_error"] = {"value": log_z.value - target.log_z, "std_error": log_z.std_error}
    reference = _reference(target)
    if reference is not None:
        known = "reference draws" if reference.passed else "reference draws, which fail checks of their own,"
        if told:
            error = float(np.hypot(reference.log_z_error, log_z.std_error))
            raw["log_z_difference"] = {"value": log_z.value - reference.log_z, "std_error": error}

    checks = identities(target, draws.x, draws.log_weight, related) or []
    for name, check in zip(("virial", "score"), checks, strict=False):
        raw[name] = {"value": check.value, "expected": check.expected, "std_error": check.std_error}

    found = raw.get("modes_found")
    verdict = trust.judge(
        n=n, ess=draws.ess, equal=draws.even, khat=None if draws.chains else draws.khat,
        log_z_error=log_z.std_error if told else None, findings=draws.findings,
        forward_ess=seen, exact=known_exact, known=known, rhat=draws.rhat, identities=checks,
        modes=None if found is None else (found["value"], found["of"]),
        broken=int(np.sum(np.asarray(draws.log_prob) == -np.inf)),
    )  # fmt: skip
    steps = sampler.steps
    return {
        "target": target.name, "dim": int(target.dim), "method": config["method"]["name"], "seed": config["seed"],
        "command": config["command"], "versions": config["versions"], "machine": config["machine"],
        **_host(target),
        "steps": int(sampler.state.step), "draws": n, **({} if steps is None else {"reverse_steps": steps}),
        "log_prob_evaluations": spent["log_prob"] + draws.evaluations, "gradient_evaluations": spent["gradient"],
        "evaluations": {
            "train": spent["log_prob"], "sample": draws.evaluations,
            "correct": 0 if corrected is None else corrected.evaluations,
        },
        "correction": correction, "nonfinite": {"nan": spent["nan"], "zero": spent["zero"]},
        "log_z": evidence, "metrics": raw, "metrics_corrected": second["metrics"], **modes,
        "levels": _levels(sampler, run), "verdict": trust.as_dict(verdict),
    }  # fmt: skip


def _host(target: Target) -> dict:
    """What calls of a function on the host have taken in this process, where the target is one."""
    return {"host": numpy.cost(target)._asdict()} if hasattr(target.log_prob, "host") else {}


def _reference(target: Target) -> Any:
    """The reference that stands in for exact draws, where there is one."""
    return None if target.reference is None else reference.load(target, target.reference)


def _levels(sampler: Sampler, run: Run) -> dict:
    """Loss, weight ESS and gate per noise level over the last tenth of training; sigma over the
    target's spread.
    """
    lines = run.read_metrics()
    lines = [line for line in lines[-max(1, len(lines) // 10) :] if line.get("level_loss")]
    if not lines:
        return {}
    mean = {
        name: np.mean([line[f"level_{name}"] for line in lines], axis=0).tolist()
        for name in ("loss", "weight_ess", "gate")
    }
    count = len(mean["loss"])
    if count == 0 or not hasattr(sampler, "process"):  # a method that has no noise levels
        return {}
    sigma = sampler.process.noise.sigma((jnp.arange(count) + 0.5) / count)
    return {
        "sigma": np.asarray(sigma).tolist(),
        "loss": mean["loss"],
        "weight_ess": mean["weight_ess"],
        "gate": mean["gate"],
    }


def _versions() -> dict:
    names = ("allmodes", "jax", "jaxlib", "equinox", "optax", "numpy")
    versions = {name: importlib.metadata.version(name) for name in names}
    return {"versions": {"python": platform.python_version(), **versions}, "machine": machine()}


def machine() -> str:
    """What this runs on, for the record beside each figure."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = jax.devices()
    return f"{platform.machine()} {sys.platform}, {len(devices)} x {devices[0].device_kind}, {cores} cores"
