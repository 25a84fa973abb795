"""The training loop: compiled chunks of steps, budgets, progress and checkpoints. It knows no method by name."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from allmodes.devices import agreed, gather, leads
from allmodes.errors import ConfigError, TargetError
from allmodes.memory import give_back
from allmodes.methods import METHODS, Info, Method, default_for
from allmodes.placement import Placement
from allmodes.precision import single
from allmodes.runs import Run
from allmodes.sampler import Sampler
from allmodes.target import Target

CHUNK = 100  # most steps in one compiled call
FIRST = 5  # steps of the first call where time is limited: no more is known of their pace
CHECKPOINT_SECONDS = 15.0
WIND_DOWN = 1 / 3  # of a budget of seconds, over which the method comes to an end


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a caller of `fit` is told after each chunk of steps."""

    step: int
    steps: int
    seconds: float
    line: dict  # what `metrics.jsonl` gets


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
) -> Sampler:
    """Train a sampler on a density, with no data; or prepare one of the plain methods, which train nothing.

    **Arguments**

    - `target`: the density; `method`: its configuration, `IWSM()` when not given, `IWSM.particles()` for particles.
    - `key`: a JAX key; the same key gives the same sampler, bit for bit, on the same machine.
    - `steps`: at most so many, instead of the method's own number.
    - `seconds`: train for about so long at most, compilation apart. The method winds down over the last third, so that
      what it ends with is whole; where it ends depends on the speed of the machine.
    - `evaluations`: the same by evaluations of the density, the warm start included (which is made whole, whatever it
      takes).
    - `run`: a folder to keep `metrics.jsonl` and checkpoints in; with `resume`, go on from its newest checkpoint.
    - `on_progress`: called after each chunk of steps.

    Interrupted (Ctrl-C), it saves a checkpoint if there is a run folder, and raises `KeyboardInterrupt`.

    **Raises** `TargetError` when the density cannot be used, `ConfigError` for a budget below 1, `RunError` when the
    run folder is damaged or cannot be written.
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
    for name, limit in (("seconds", seconds), ("evaluations", evaluations)):
        if limit is not None and not limit > 0:
            raise ConfigError(f"{name} must be positive, got {limit}")
    target.check()
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
        state = jax.block_until_ready(method.init(target, k_init))
        clock["start"] += time.monotonic() - begin
        give_back()
    elif state is None:  # the leading process has read it
        state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), method.template(target))
    state, clock = placement.put(agreed(state)), _told(clock)

    step, end = int(state.step), int(method.end(state))
    advance, winding, whole, last_save = None, False, False, time.monotonic()
    budget = _Budget(method, seconds, evaluations, state, clock)
    try:
        while step < end and budget.used < 1.0:
            if advance is None:
                begin = time.monotonic()
                advance = _compile(method, target, placement, state, k_steps)
                clock["compile"] += time.monotonic() - begin
                give_back()
            size = min(CHUNK, end - step, budget.steps_left)
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
            if on_progress is not None:
                on_progress(Progress(step, end, sum(clock.values()), line))
        whole = True
    finally:
        # An interruption too leaves a checkpoint of the last whole chunk. One of several processes cannot: to read a
        # spread state takes all of them.
        if whole or jax.process_count() == 1:
            state = gather(state)
            _save(run, step, state, clock)
    return method.sampler(target, state, clock)


def _save(run: Run | None, step: int, state: Any, clock: dict) -> None:
    if run is not None:
        run.save_state(step, state, clock)


def _told(clock: dict[str, float]) -> dict[str, float]:
    """The clock of the leading process: all must come to the same decisions by it."""
    return {name: float(seconds) for name, seconds in agreed(clock).items()}


class _Budget:
    """What is left of seconds of training and of evaluations, where they are limited, by the pace so far."""

    def __init__(self, method: Method, seconds: float | None, evaluations: int | None, state: Any, clock: dict):
        self._method = method
        self._limits = tuple(None if limit is None else float(limit) for limit in (seconds, evaluations))
        self._first = self._now = self._spent(state, clock)
        self.used = self._used()
        self.steps_left = CHUNK if self._limits == (None, None) else FIRST

    def _spent(self, state: Any, clock: dict) -> tuple[int, tuple[float, float]]:
        return int(state.step), (clock["train"], float(int(self._method.evaluations(state).log_prob)))

    def _used(self) -> float:
        """The largest used share of a limit."""
        pairs = zip(self._now[1], self._limits, strict=True)
        return max((spent / limit for spent, limit in pairs if limit is not None), default=0.0)

    def update(self, state: Any, clock: dict) -> None:
        """Take note of where training stands."""
        self._now = self._spent(state, clock)
        self.used = self._used()
        steps = self._now[0] - self._first[0]
        left = [self._left(i, limit, steps) for i, limit in enumerate(self._limits) if limit is not None]
        self.steps_left = max(1, int(min(left, default=CHUNK)))

    def _left(self, i: int, limit: float, steps: int) -> float:
        spent = self._now[1][i]
        return (limit - spent) * steps / max(spent - self._first[1][i], 1e-9)


def _compile(method: Method, target: Target, placement: Placement, state: Any, key: Array) -> Callable:
    """A compiled `(state, key, steps) -> state, mean Info, last Info`: one program for chunks of any length.

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
