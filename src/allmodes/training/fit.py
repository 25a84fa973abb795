"""The training loop: compiled chunks of steps, budgets, progress and checkpoints. It knows no
method by name.
"""

import contextlib
import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from allmodes.devices.memory import give_back
from allmodes.devices.mesh import gather
from allmodes.devices.precision import single
from allmodes.devices.processes import agreed, leads
from allmodes.errors import ConfigError, TargetError
from allmodes.files.run_folder import Run
from allmodes.methods import METHODS, Info, Method, default_for
from allmodes.progress.bar import Progress as Bar
from allmodes.progress.stages import heard, stage
from allmodes.sampler import Sampler
from allmodes.target import Target
from allmodes.training.budget import Budget
from allmodes.training.pace import Pace
from allmodes.training.placement import Placement

CHECKPOINT_SECONDS = 15.0
WIND_DOWN = 1 / 3  # of what training has, over which the method comes to an end


def _alone(fit: Callable[..., Sampler]) -> Callable[..., Sampler]:
    """Hold the lock of the run folder while fitting; of several processes the leading one does."""

    @functools.wraps(fit)
    def locked(*args: Any, run: Run | None = None, **options: Any) -> Sampler:
        with run.locked() if run is not None and leads() else contextlib.nullcontext():
            return fit(*args, run=run, **options)

    return locked


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a caller of `fit` is told after each chunk of steps."""

    step: int
    steps: int
    seconds: float
    line: dict  # what `metrics.jsonl` gets
    left: float | None = None  # seconds of training that are left, where that can be told


@_alone
@single
def fit(
    target: Target,
    method: Method | None = None,
    *,
    key: Array,
    steps: int | None = None,
    seconds: float | None = None,
    evaluations: int | None = None,
    run: Run | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    progress: bool = True,
    reserve: Callable[[Pace, dict[str, float]], float] | None = None,
) -> Sampler:
    """Train a sampler on a density, with no data; or prepare one of the plain methods, which train
    nothing.

    **Arguments**

    - `target`: the density; `method`: its configuration, `IWSM()` when not given,
      `IWSM.particles()` for particles.
    - `key`: a JAX key; the same key gives the same sampler, bit for bit, on the same machine.
    - `steps`: at most so many, instead of the method's own number.
    - `seconds`: for all of it, about: the search, compilation and training. The method winds down
      over the last third of what training gets, so that what it ends with is whole; where it ends
      depends on the speed of the machine. The search is made whole whatever it takes: where it
      leaves nothing, nothing is trained, with a warning.
    - `evaluations`: the same by evaluations of the density, those of the search included.
    - `run`: a folder to keep `metrics.jsonl` and checkpoints in; with `resume`, go on from its
      newest checkpoint.
    - `on_progress`: called after each chunk of steps.
    - `progress`: show a bar on stderr where that is a terminal, and nothing where it is not.
    - `reserve`: how many of the `seconds` to leave for what comes after, by the `Pace` of the steps
      so far and the seconds of each part; training keeps a seventh of what the search and
      compilation leave.

    Interrupted (Ctrl-C), it saves a checkpoint if there is a run folder, and raises
    `KeyboardInterrupt`.

    **Raises** `TargetError` when the density cannot be used, `ConfigError` for a budget below 1, or
    one of seconds for a method that trains nothing, `RunError` when the run folder is damaged,
    cannot be written, or another process is at work in it.
    """
    if not isinstance(target, Target):
        raise TargetError(
            f"fit needs a Target, got a {type(target).__name__}: wrap it, as in am.Target(log_prob, dim=2)"
        )
    method = METHODS[default_for(target)] if method is None else method
    if steps is not None:
        if steps < 1:
            raise ConfigError(f"steps must be at least 1, got {steps}")
        if method.steps == 0:
            raise ConfigError(f"method {method.name} trains nothing: leave steps={steps} out")
        method = dataclasses.replace(method, steps=steps)
    if seconds is not None and method.steps == 0:
        raise ConfigError(
            f"method {method.name} trains nothing that could end sooner: leave seconds={seconds:g} out, or bound its "
            "work by evaluations"
        )
    for name, limit in (("seconds", seconds), ("evaluations", evaluations)):
        if limit is not None and not limit > 0:
            raise ConfigError(f"{name} must be positive, got {limit}")
    target.check()
    with _shown(progress, on_progress) as told:
        state, clock = _trained(target, method, key, Budget(method, seconds, evaluations, reserve), run, resume, told)
    return method.sampler(target, state, clock)


def _trained(
    target: Target,
    method: Method,
    key: Array,
    budget: "Budget",
    run: Run | None,
    resume: bool,
    told: Callable[[Progress], None],
) -> tuple[Any, dict[str, float]]:
    """The state that training ends with, and the seconds that each part has taken."""
    placement = Placement(method)
    keeps, run = run is not None, run if leads() else None  # of several processes one writes
    k_init, k_steps = jax.random.split(key)

    clock = {"start": 0.0, "compile": 0.0, "train": 0.0}
    state = None
    if run is not None and resume:
        restored = run.load_state(method.template(target))
        if restored is not None:
            state, clock = restored[0], {**clock, **restored[1]}
    if run is not None and not resume:
        run.forget_states()
    if run is not None:
        run.cut_metrics(int(state.step) if state is not None else -1)
    if not agreed(state is not None):
        begin = time.monotonic()
        stage("searching" if method.steps else method.name)
        state = jax.block_until_ready(method.init(target, k_init))
        clock["start"] += time.monotonic() - begin
        _save(run, int(state.step), state, clock)  # a search may have taken longer than all that follows
        give_back()
    elif state is None:  # the leading process has read it
        state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), method.template(target))
    state, clock = placement.put(agreed(state)), _told(clock)

    step, end = int(state.step), int(method.end(state))
    advance, winding, whole, last_save = None, False, False, time.monotonic()
    seen = _renewals(run)
    budget.begin(state, clock)
    try:
        while step < end and budget.used < 1.0:
            if advance is None:
                begin = time.monotonic()
                stage("compiling")
                advance = _compile(method, target, placement, state, k_steps)
                clock["compile"] += time.monotonic() - begin
                give_back()
                clock = _told(clock)
                budget.begin(state, clock)
                if budget.used >= 1.0:
                    break
            size = min(end - step, budget.chunk(state))
            begin = time.monotonic()
            state, mean, last = jax.block_until_ready(advance(state, k_steps, size))
            step, end = int(state.step), int(method.end(state))
            clock["train"] += time.monotonic() - begin
            clock = _told(clock)
            budget.update(state, clock)
            if not winding and budget.used > 1.0 - WIND_DOWN:
                winding, state = True, placement.put(method.wind_down(state, budget.steps_left))
                end = int(method.end(state))
            line = _line(method, state, mean, last, clock)
            if run is not None:
                run.append_metrics(line)
            if keeps and agreed(time.monotonic() - last_save > CHECKPOINT_SECONDS and step < end):
                _save(run, step, gather(state), clock)
                last_save = time.monotonic()
            _see(seen, line)
            told(Progress(step, end, sum(clock.values()), line, _left(method, state, seen, budget)))
        whole = True
    finally:
        # An interruption too leaves a checkpoint of the last whole chunk. One of several processes
        # cannot: to read a spread state takes all of them.
        if whole or jax.process_count() == 1:
            state = gather(state)
            _save(run, step, state, clock)
    budget.warn(step, clock)
    return state, clock


def _save(run: Run | None, step: int, state: Any, clock: dict) -> None:
    if run is not None:
        run.save_state(step, state, clock)


def _told(clock: dict[str, float]) -> dict[str, float]:
    """The clock of the leading process: all must come to the same decisions by it."""
    return {name: float(seconds) for name, seconds in agreed(clock).items()}


@contextlib.contextmanager
def _shown(progress: bool, on_progress: Callable[[Progress], None] | None) -> Iterator[Callable[[Progress], None]]:
    """What to tell progress to: the caller, and a bar of our own on a terminal where nobody shows
    one yet.
    """
    callers = [] if on_progress is None else [on_progress]
    with contextlib.ExitStack() as stack:
        if progress and leads() and not heard() and sys.stderr is not None and sys.stderr.isatty():
            callers.append(stack.enter_context(Bar(transient=True)).trained)
        yield lambda state: [caller(state) for caller in callers] and None


def _renewals(run: Run | None) -> list[tuple[int, float]]:
    """Steps and effective shares of the renewals that a resumed run has seen."""
    seen: list[tuple[int, float]] = []
    for line in [] if run is None else run.read_metrics():
        _see(seen, line)
    return seen


def _see(seen: list[tuple[int, float]], line: dict) -> None:
    ess = line["refresh_ess"]
    if ess is not None and math.isfinite(ess) and (not seen or seen[-1][1] != ess):
        seen.append((line["step"], ess))


def _left(method: Method, state: Any, seen: list[tuple[int, float]], budget: "Budget") -> float | None:
    """Seconds until training ends, by the pace so far and by where the method expects its end, if
    it does.
    """
    expected = getattr(method, "expected_end", lambda state, seen: int(method.end(state)))(state, seen)
    limits = [] if expected is None else [budget.pace.seconds(int(state.step), expected - int(state.step))]
    limits += [] if budget.seconds_left is None else [max(0.0, budget.seconds_left)]
    return min(limits, default=None)


def _compile(method: Method, target: Target, placement: Placement, state: Any, key: Array) -> Callable:
    """A compiled `(state, key, steps) -> state, mean Info, last Info`: one program for chunks of
    any length.

    The old state is not given up to the new one: an interruption in the midst of a chunk saves it.
    """

    def step(state, key):
        return method.step(target, state, jax.random.fold_in(key, state.step))

    def advance(state, key, steps):
        def one(_, carry):
            state, total, _ = carry
            state, info = step(state, key)
            return state, jax.tree.map(jnp.add, total, info), info

        nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, state, key)[1])
        state, total, last = jax.lax.fori_loop(0, steps, one, (state, nothing, nothing))
        return state, jax.tree.map(lambda a: a / steps, total), last

    return placement.compile(advance, state, key, 1)


def _line(method: Method, state: Any, mean: Info, last: Info, clock: dict) -> dict:
    """One line of `metrics.jsonl`: averages over the chunk, counters at its end."""
    mean, e = jax.tree.map(np.asarray, mean), method.evaluations(state)
    return {
        "step": int(state.step),
        "loss": float(mean.loss),
        "ess": float(mean.weight_ess),
        "refresh_ess": float(last.refresh_ess),
        "refresh_rate": float(last.refresh_rate),
        "log_prob_evaluations": int(e.log_prob),
        "gradient_evaluations": int(e.gradient),
        "seconds": round(clock["train"], 3),
        "level_loss": [float(f"{v:.4g}") for v in mean.level_loss],
        "level_ess": [float(f"{v:.4g}") for v in mean.level_ess],
        "level_gate": [float(f"{v:.4g}") for v in mean.level_gate],
    }
