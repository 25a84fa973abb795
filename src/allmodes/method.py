"""The protocol that every method keeps, and that training knows it by."""

import abc
import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.errors import ConfigError
from allmodes.points.count import Evaluations
from allmodes.target import Target

Figures = dict[str, Scalar | Float[Array, " levels"]]


class Figure(NamedTuple):
    """A figure that a method tells of its training, and how it is shown.

    One number a step, or one for each of equal strata of t, from low noise to high (`by_level`).
    """

    label: str
    over: Literal["mean", "last"] = "mean"  # of the steps of a chunk
    by_level: bool = False
    is_share: bool = False  # lies in [0, 1]
    in_progress: str = ""  # what the line of progress calls it, where it has it
    caption: str = ""  # what the report says of its curve, where it shows it


class Method(abc.ABC):
    """A frozen dataclass of settings with pure functions; `State` is one pytree of arrays.

    `init` may run on the host (a warm start); `step` is traced once and scanned. State has a
    counter `step`. `name` is what results call the method: a preset has its own. A method that has
    nothing to train has no `steps` (`Untrained`).
    """

    figures: ClassVar[Mapping[str, Figure]] = types.MappingProxyType({})
    work: ClassVar[str] = "training"  # what evaluations after the search are for, where it books no other purpose
    name: str
    steps: int  # of training, at most

    @abc.abstractmethod
    def init(self, target: Target, key: Array) -> Any:
        """Make the state before the first training step."""

    @abc.abstractmethod
    def template(self, target: Target) -> Any:
        """Give shapes and types of the state, without its work: what a checkpoint is read into."""

    @abc.abstractmethod
    def step(self, target: Target, state: Any, key: Array) -> tuple[Any, Figures]:
        """Take one training step; what it tells has the names of `figures`."""

    def second_opinion(self, target: Target, state: Any, key: Array) -> Any:
        """Look once more, on the host, when the last step is done; nothing by default."""
        return state

    @abc.abstractmethod
    def sampler(self, target: Target, state: Any, seconds: dict[str, float]) -> Any:
        """Make the `Sampler` that draws with a state."""

    @abc.abstractmethod
    def points(self, state: Any) -> Float[Array, "size dim"]:
        """Give the points that training ended with, in the user's coordinates: a second opinion on
        where the mass is.
        """

    @abc.abstractmethod
    def evaluations(self, state: Any) -> Evaluations:
        """Count what the state has cost so far, the warm start included."""

    def findings(self, state: Any) -> tuple[Any, ...]:
        """Say what is known of all draws (`Finding`s); nothing by default."""
        return ()

    def again(self, target: Target, state: Any, key: Array) -> Any:
        """Make the state before the first step of the last one on another density.

        **Raises** `ConfigError` where the method has no use of it.
        """
        raise ConfigError(f"method {self.name} cannot begin where another sampler has ended: leave start out")

    # What budgets and the time left go by.

    def end(self, state: Any) -> Int[Array, ""]:
        """Give the step after which training is over, as known so far: at most `steps`."""
        return jnp.asarray(self.steps, jnp.int32)

    def wind_down(self, state: Any, steps: int) -> Any:
        """Tell the state to end after `steps` more steps at most, as time is running out. Cheap, on
        the host.
        """
        return state

    @property
    def period(self) -> int:
        """Steps after which the dear part of the work comes round; 1 where there is none."""
        return 1

    @property
    def period_evaluations(self) -> int:
        """Evaluations of the density that the dear part takes, about: what it costs where they are
        slow, before one was seen.
        """
        return 0

    def expected_end(self, state: Any, lines: Sequence[Mapping[str, Any]]) -> int | None:
        """Tell where training is likely to end, by the lines of `metrics.jsonl` so far; None where
        nothing tells.
        """
        return int(self.end(state))

    def renewals_of(self, n: int) -> float:
        """Tell how many times the dear part of a period draws of n points are the work of."""
        return 0.0


class Trained(Method):
    """What a method answers whose state has `step`, `end`, `cooldown` and `evaluations`: training
    ends where the state says, and sooner where time runs out.
    """

    cooldown: int  # last steps, over which the learning rate falls

    def first_end(self) -> tuple[Int[Array, ""], Int[Array, ""]]:
        """Give `end` and `cooldown` of the first state; a cooldown is at most half of `steps`."""
        cooldown = min(self.cooldown, self.steps // 2)
        return jnp.asarray(self.steps, jnp.int32), jnp.asarray(cooldown, jnp.int32)

    def end(self, state: Any) -> Int[Array, ""]:
        """Give the step after which training is over, as known so far."""
        return state.end

    def wind_down(self, state: Any, steps: int) -> Any:
        """End after `steps` more steps at most, over which the learning rate falls."""
        end = jnp.minimum(state.end, state.step + steps)
        cooldown = jnp.minimum(state.cooldown, jnp.maximum(end - state.step, 0))
        return dataclasses.replace(state, end=end, cooldown=cooldown)

    def evaluations(self, state: Any) -> Evaluations:
        """Count what the state has cost so far, the search included."""
        return state.evaluations


class Untrained(Method):
    """What a method that trains nothing answers to questions about steps; its work is in `init`."""

    steps: ClassVar[int] = 0

    def step(self, target: Target, state: Any, key: Array) -> tuple[Any, Figures]:
        """Take no step."""
        return state, {}
