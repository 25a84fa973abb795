"""The main job: train, draw, correct, evaluate, report, all into one run folder."""

import contextlib
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from allmodes.devices.callbacks import watched
from allmodes.devices.memory import release_memory
from allmodes.devices.mesh import on_devices
from allmodes.devices.processes import broadcast, is_main_process
from allmodes.draws import kept
from allmodes.draws.draws import Draws
from allmodes.errors import RunError, RunWarning
from allmodes.files import interrupt
from allmodes.files.run_folder import Run, digest_of
from allmodes.files.saved import describe, export
from allmodes.jobs.afterwards import Afterwards, measured
from allmodes.jobs.evaluation import Keys, evaluation
from allmodes.jobs.machine import versions
from allmodes.methods import Method
from allmodes.metrics.floor import REPEATS
from allmodes.progress.bar import Progress as Bar
from allmodes.progress.stages import stage
from allmodes.report.page import write_report
from allmodes.sampler import Sampler
from allmodes.store.load import parse
from allmodes.target import Target
from allmodes.training.fit import Progress, fit, keeping

SECONDS = "seconds.json"  # what drawing and correcting took, while there is no result yet


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
    config = {**describe(target, method, seed), "draws": draws, "command": command, **versions()}
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
    template = method.template(target.free)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RunWarning)  # training will say it
        try:
            return result if run.load_state(template, insist=True) is not None else None
        except RunError:
            older = run.load_state(template)
            if older is None or int(older[0].step) == result.get("steps"):  # then it is another training's
                raise
            return None


@watched
def run_job(run: Run, *, seconds: float | None = None, quiet: bool = False, repeats: int = REPEATS) -> dict:
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
    with (
        run.locked() if is_main_process() else contextlib.nullcontext(),
        Bar(quiet=quiet or not is_main_process()) as bar,
        keeping(target, run),
    ):
        result = _phases(run, target, method, config, seconds, repeats, bar)
        if is_main_process():
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
    n, limit, keys, told = config["draws"], config.get("evaluations"), _keys(config["seed"]), _Told(bar)
    seconds, after = _planned(target, method, n, repeats, seconds)
    evaluations = limit and max(1, limit - n)
    sampler, trained_before = _trained(run, target, method, keys.fit, seconds, evaluations, after, bar)
    told.begin("trained" if method.steps else "prepared", trained_before)
    phase = _Phase(run, target, digest_of(sampler.state), n)

    def correct() -> Draws | None:
        if after is None or seconds is None:
            return sampler.corrected(n, key=keys.correct)
        drawing = float(broadcast(phase.seconds.get("sample", 0.0)))
        left = seconds - sum(sampler.seconds.values()) - drawing
        return sampler.corrected(n, key=keys.correct, pool=after.pool(left, drawing, sampler.seconds))

    draw = lambda: _draw(sampler, n, limit, keys.draw)  # noqa: E731
    draws, before = phase.draws("draws.npz", "sample", draw, lambda: told(f"drawing {n:,}"))
    told.then("drawn", before)
    corrected, before = phase.draws("corrected.npz", "correct", correct, lambda: told(f"correcting {n:,}"))
    told.then("corrected", before)
    if not is_main_process():
        return {}
    release_memory()
    told("evaluating")
    begin = time.monotonic()
    with on_devices(None):  # the other processes are done
        result = evaluation(sampler, draws, corrected, run, keys.judging, config, repeats)
    result |= {"state": phase.state, **_costs(sampler, phase, time.monotonic() - begin)}
    run.write_json("result.json", result)
    return result


class _Keys(NamedTuple):
    """Of each phase, so that none depends on what was done before it in this process."""

    fit: jax.Array
    draw: jax.Array
    correct: jax.Array
    judging: Keys


def _keys(seed: int) -> _Keys:
    root = jax.random.key(seed)
    k_fit, k_draw, *judging = jax.random.split(root, 6)
    return _Keys(k_fit, k_draw, jax.random.fold_in(root, 6), Keys(*judging, jax.random.fold_in(root, 7)))


class _Told:
    """Tells which work begins; before the first, once, what had been done when the run went on."""

    def __init__(self, bar: Bar):
        self.bar = bar
        self.done: list[str] = []

    def begin(self, what: str, before: bool) -> None:
        """Note whether the first phase was done before."""
        self.done += [what] if before else []

    def then(self, what: str, before: bool) -> None:
        """Note whether a later phase was, as all of those ahead of it were."""
        self.done += [what] if before and self.done else []

    def __call__(self, work: str) -> None:
        if self.done:
            self.bar.message(f"going on: {', '.join(self.done)}")
            self.done.clear()  # said once
        stage(work)


def _planned(
    target: Target, method: Method, n: int, repeats: int, seconds: float | None
) -> tuple[float | None, Afterwards | None]:
    """The seconds that are left, and what comes after training; measured where training has to end
    in time.
    """
    if seconds is None or not method.steps:
        return seconds, None
    begin = time.monotonic()
    stage("measuring what comes after training")
    after = measured(target, method, n, repeats)
    return max(seconds - float(broadcast(time.monotonic() - begin)), 1e-3), after


def _draw(sampler: Sampler, n: int, limit: int | None, key: jax.Array) -> Draws:
    """Draws, within what is left of the evaluations."""
    if limit is None:
        return sampler.sample(n, key=key)
    return sampler.sample_within(n, max(0, limit - sampler.evaluations["log_prob"]), key=key)


def _costs(sampler: Sampler, phase: "_Phase", evaluating: float) -> dict[str, Any]:
    """Seconds of each phase, and the peak of memory."""
    seconds = {
        "compile": sampler.seconds["compile"],
        "train": sampler.seconds["start"] + sampler.seconds["train"],
        **{name: phase.seconds.get(name, 0.0) for name in ("sample", "correct")},
        "evaluate": evaluating,
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": {name: round(value, 2) for name, value in seconds.items()}, "peak_memory_mb": round(peak)}


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
    began, steps = False, int(broadcast(max(run.steps(), default=-1) if is_main_process() else -1))

    def show(p: Progress) -> None:
        nonlocal began
        if not began and is_main_process():  # of what training now goes beyond: no verdict of another state is left
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
        if (run / SECONDS).exists() and is_main_process():
            with contextlib.suppress(RunError):  # of times alone
                self.seconds = run.read_json(SECONDS)

    def draws(
        self, file: str, what: str, make: Callable[[], Draws | None], say: Callable[[], None]
    ) -> tuple[Draws | None, bool]:
        """The draws of a file, and whether they were there before; None where there are none of
        their kind.
        """
        before = kept.read(self.run, file, self.target, self.state, self.n) if is_main_process() else None
        if broadcast(before is not None):
            return before, True
        say()
        begin = time.monotonic()
        made = make()
        if made is None:
            return None, False
        jax.block_until_ready(made.x)
        self.seconds[what] = time.monotonic() - begin
        if not is_main_process():
            return made, False
        kept.write(self.run, file, made, self.state)
        self.run.write_json(SECONDS, self.seconds)
        # As they are read, so that what follows is the same where it is done by another process,
        # later.
        return kept.read(self.run, file, self.target, self.state, self.n) or made, False
