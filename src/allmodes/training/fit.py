"""The training loop: compiled chunks of steps, budgets, progress and checkpoints. It knows no
method by name.
"""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.bounded import sampler_of
from allmodes.devices.callbacks import watched
from allmodes.devices.keys import Key, keyed
from allmodes.devices.memory import release_memory
from allmodes.devices.mesh import gather
from allmodes.devices.precision import single
from allmodes.devices.processes import broadcast, is_main_process
from allmodes.doors import door_of
from allmodes.errors import ConfigError, TargetError
from allmodes.files.evaluations import NAME as KEPT
from allmodes.files.run_folder import Run
from allmodes.method import Method
from allmodes.methods import METHODS, default_for
from allmodes.progress.bar import Progress as Bar
from allmodes.progress.stages import heard, stage
from allmodes.sampler import Sampler
from allmodes.target import Target
from allmodes.training.budget import Budget
from allmodes.training.chunks import compiled, line_of, shown
from allmodes.training.pace import Pace
from allmodes.training.placement import Placement

CHECKPOINT_SECONDS = 15.0
WIND_DOWN = 1 / 3  # of what training has, over which the method comes to an end


def _alone(fit: Callable[..., Sampler]) -> Callable[..., Sampler]:
    """Hold the lock of the run folder while fitting; of several processes the leading one does."""

    @functools.wraps(fit)
    def locked(*args: Any, run: Run | None = None, **options: Any) -> Sampler:
        with run.locked() if run is not None and is_main_process() else contextlib.nullcontext():
            return fit(*args, run=run, **options)

    return locked


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a caller of `fit` is told after each chunk of steps."""

    step: int
    steps: int
    seconds: float
    line: dict  # what `metrics.jsonl` gets
    left: float | None = None  # seconds of training that are left, by where the method expects its end
    at_most: bool = False  # whether it does not, and `left` is up to the last step that there may be
    figures: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of the method, as they are to be read


@watched
@keyed
@_alone
@single
def fit(
    target: Target | Callable[..., Any],
    method: Method | None = None,
    *,
    key: Key,
    dim: int | None = None,
    names: Sequence[str] | None = None,
    bounds: Any = None,
    periodic: Sequence[int | str] = (),
    start: Sampler | None = None,
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

    - `target`: the density, or a `log_prob` with its `dim`, and with `names`, `bounds` and
      `periodic` as `Target` has them; `method`: its configuration. When it is not given, `IWSM()`;
      for particles `IWSM.particles()`, or its variant for few or many of them.
    - `key`: a JAX key, or a seed; the same gives the same sampler, bit for bit, on the same
      machine.
    - `start`: a sampler of another density in the same dimension, to begin with: one more datum,
      another prior, another temperature. Nothing is searched, which saves most of the evaluations,
      and a mode that the other density does not have is not found. The method is that of the
      sampler.
    - `steps`: at most so many, instead of the method's own number.
    - `seconds`: for all of it, about: the search, compilation and training. The method winds down
      over the last third of what training gets, so that what it ends with is whole; where it ends
      depends on the speed of the machine. The search is made whole whatever it takes: where it
      leaves nothing, nothing is trained, with a warning.
    - `evaluations`: the same by evaluations of the density, those of the search included; a second
      opinion comes on top (`IWSM.opinion`).
    - `run`: a folder to keep `metrics.jsonl` and checkpoints in, and every evaluation of a slow
      function that is called on the host (`evaluations.rows`); with `resume`, go on from its newest
      checkpoint, and evaluate nothing twice.
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
    target = _target_of(target, dim, {"names": names, "bounds": bounds, "periodic": periodic})
    method = method if start is None else _of_start(target, method, start)
    method = _checked(target, method, steps, seconds, evaluations)
    target.check()
    host = getattr(target.log_prob, "host", None)
    budget = Budget(method, seconds, evaluations, reserve, None if host is None else host.each)
    with _shown(progress, on_progress) as told, keeping(target, run, resume):
        training = _Training(target.free, method, key, budget, run, told)
        training.begin(resume, None if start is None else start.free)
        training.train()
    sampler = sampler_of(method, target, training.state, training.clock)
    return dataclasses.replace(sampler, history=tuple(training.lines))


def _target_of(given: Any, dim: int | None, support: dict[str, Any]) -> Target:
    """The target, or that of a function."""
    if isinstance(given, Target):
        said = [name for name, value in {"dim": dim, **support}.items() if value is not None and value != ()]
        if said:
            words = f"{', '.join(said)} {'is' if len(said) == 1 else 'are'} for a function"
            raise TargetError(f"{words}: a Target has its own, am.Target(log_prob, dim, ..)")
        return given
    if dim is None or not callable(given):
        door = door_of(given) or " For a function say its dimension: am.fit(log_prob, dim=2)."
        raise TargetError(f"fit needs a Target, got a {type(given).__name__}.{door}")
    return Target(given, dim, name=getattr(given, "__name__", "unnamed"), **support)


def _checked(
    target: Target, method: Method | None, steps: int | None, seconds: float | None, evaluations: int | None
) -> Method:
    """The method to train, or what is wrong with what was asked for."""
    method = METHODS[default_for(target)] if method is None else method
    if not isinstance(method, Method):
        raise ConfigError(f"method must be a configuration such as am.IWSM(), got {method!r}")
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
    return method


def _of_start(target: Target, method: Method | None, start: Sampler) -> Method:
    """The method of a sampler to begin with, or why it cannot be that."""
    if not isinstance(start, Sampler):
        raise ConfigError(f"start must be a sampler, as fit and load give it, got a {type(start).__name__}")
    if method is not None and method != start.method:
        raise ConfigError(f"start goes on with its own method, {start.method.name}: leave method out")
    if (target.dim, target.symmetry, target.chart) != (start.target.dim, start.target.symmetry, start.target.chart):
        raise ConfigError(
            f"start is a sampler of {start.target.name} in {start.target.dim} dimensions, and {target.name} is another "
            f"space, of {target.dim}"
        )
    return start.method


class _Training:
    """Training from wherever the run stands: its state, and the seconds that each part has taken.

    Of several processes that work together the leading one alone reads and writes the run folder;
    what it has read, and the time by its clock, all go by.
    """

    def __init__(
        self,
        target: Target,
        method: Method,
        key: Array,
        budget: Budget,
        run: Run | None,
        told: Callable[[Progress], None],
    ):
        self.target, self.method, self.budget, self.told = target, method, budget, told
        self.is_kept, self.run = run is not None, run if is_main_process() else None
        self.k_init, self.k_steps = jax.random.split(key)
        self.k_opinion = jax.random.fold_in(key, 2)
        self.placement = Placement(method)
        self.state: Any = None
        self.clock = {"start": 0.0, "compile": 0.0, "train": 0.0, "opinion": 0.0}
        self.lines: list[dict] = []

    def begin(self, resume: bool, start: Sampler | None) -> None:
        """Take the state of the newest checkpoint, or make the first one."""
        if self.run is not None:
            self._restore() if resume else self.run.forget_states()
            self.run.cut_metrics(int(self.state.step) if self.state is not None else -1)
            self.lines = self.run.read_metrics()
        if not broadcast(self.state is not None):
            with self._timed("start"):
                stage("searching" if self.method.steps else self.method.name)
                self.state = jax.block_until_ready(
                    self.method.init(self.target, self.k_init)
                    if start is None
                    else self.method.again(self.target, start.state, self.k_init)
                )
            self._save()  # a search may have taken longer than all that follows
            release_memory()
        elif self.state is None:  # the leading process has read it
            self.state = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), self.method.template(self.target))
        self.state = self.placement.put(broadcast(self.state))
        self._agree()

    def train(self) -> None:
        """Take steps until the method's end, or that of the budget.

        An interruption leaves a checkpoint of the last whole chunk. One of several processes
        cannot: to read a spread state takes all of them.
        """
        whole = False
        self.budget.begin(self.state, self.clock)
        try:
            self._steps()
            self._look_once_more()
            whole = True
        finally:
            if whole or jax.process_count() == 1:
                self.state = gather(self.state)
                self._save()
        self.budget.warn(int(self.state.step), self.clock)

    def _steps(self) -> None:
        step, end = self._progress()
        advance, is_winding, last_save = None, False, time.monotonic()
        while step < end and self.budget.used < 1.0:
            if advance is None:
                advance = self._compiled()
                if self.budget.used >= 1.0:
                    break
            size = min(end - step, self.budget.chunk(self.state))
            with self._timed("train"):
                self.state, mean, last = jax.block_until_ready(advance(self.state, self.k_steps, size))
            self._agree()
            self.budget.update(self.state, self.clock)
            if not is_winding and self.budget.used > 1.0 - WIND_DOWN:
                is_winding = True
                self.state = self.placement.put(self.method.wind_down(self.state, self.budget.steps_left))
            step, end = self._progress()
            line = line_of(self.method, self.state, mean, last, self.clock)
            self._write(line)
            if self.is_kept and broadcast(time.monotonic() - last_save > CHECKPOINT_SECONDS and step < end):
                self._save(gather(self.state))
                last_save = time.monotonic()
            left, at_most = self._left()
            seconds = sum(self.clock.values())
            self.told(Progress(step, end, seconds, line, left, at_most, shown(self.method, line)))

    def _look_once_more(self) -> None:
        """Have the method form its second opinion of the whole state."""
        with self._timed("opinion"):
            state = gather(self.state)
            self.state = jax.block_until_ready(self.method.second_opinion(self.target, state, self.k_opinion))
        self._agree()

    def _compiled(self) -> Callable:
        with self._timed("compile"):
            stage("compiling")
            advance = compiled(self.method, self.target, self.placement, self.state, self.k_steps)
        release_memory()
        self._agree()
        self.budget.begin(self.state, self.clock)
        return advance

    def _progress(self) -> tuple[int, int]:
        return int(self.state.step), int(self.method.end(self.state))

    def _left(self) -> tuple[float, bool]:
        """Seconds until training ends, by the pace so far and by where the method expects its end;
        else until the last step that there may be, and that it is so.
        """
        step, expected = int(self.state.step), self.method.expected_end(self.state, self.lines)
        last = int(self.method.end(self.state)) if expected is None else expected
        left, allowed = self.budget.pace.seconds(step, last - step), self.budget.seconds_left
        if allowed is not None and allowed < left:
            return max(0.0, allowed), expected is None
        return left, expected is None

    def _restore(self) -> None:
        restored = self.run.load_state(self.method.template(self.target))
        if restored is not None:
            self.state, self.clock = restored[0], {**self.clock, **restored[1]}

    def _write(self, line: dict) -> None:
        self.lines.append(line)
        if self.run is not None:
            self.run.append_metrics(line)

    def _save(self, state: Any = None) -> None:
        state = self.state if state is None else state
        if self.run is not None:
            self.run.save_state(int(state.step), state, self.clock)

    def _agree(self) -> None:
        """Go by the clock of the leading process: all must come to the same decisions by it."""
        self.clock = {name: float(seconds) for name, seconds in broadcast(self.clock).items()}

    @contextlib.contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        begin = time.monotonic()
        yield
        self.clock[part] += time.monotonic() - begin


def keeping(target: Target, run: Run | None, resume: bool = True) -> contextlib.AbstractContextManager:
    """Keep what a function on the host is asked for in the run folder, and do not ask again; what
    an earlier call kept is forgotten without `resume`.
    """
    host = getattr(target.log_prob, "host", None)
    if host is None or run is None or not is_main_process():
        return contextlib.nullcontext()
    if not resume:
        (run / KEPT).unlink(missing_ok=True)
    return host.keeping(run / KEPT)


@contextlib.contextmanager
def _shown(progress: bool, on_progress: Callable[[Progress], None] | None) -> Iterator[Callable[[Progress], None]]:
    """What to tell progress to: the caller, and a bar of our own on a terminal where nobody shows
    one yet.
    """
    callers = [] if on_progress is None else [on_progress]
    with contextlib.ExitStack() as stack:
        if progress and is_main_process() and not heard() and sys.stderr is not None and sys.stderr.isatty():
            callers.append(stack.enter_context(Bar(transient=True)).trained)
        yield lambda state: [caller(state) for caller in callers] and None
