"""The protocol that every method keeps, and that `fit` knows it by."""

import dataclasses
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.points.count import Evaluations
from allmodes.target import Target


class Info(NamedTuple):
    """What one training step reports; rows of levels are equal strata of t, from low noise to
    high.
    """

    loss: Scalar
    weight_ess: Scalar  # effective share of the batch that the importance weights leave
    level_loss: Float[Array, " levels"]
    level_ess: Float[Array, " levels"]
    level_gate: Float[Array, " levels"]  # mean share of the target-score identity in the blend
    refresh_ess: Scalar  # of path weights at the last renewal of the buffer, NaN before the first
    refresh_rate: Scalar  # tempering exponent, or acceptance rate, of that renewal

    @staticmethod
    def none() -> "Info":
        """Of a method that trains nothing."""
        nothing = jnp.full((), jnp.nan)
        return Info(nothing, nothing, jnp.zeros(0), jnp.zeros(0), jnp.zeros(0), nothing, nothing)


class Untrained:
    """What a method that trains nothing answers to the protocol's questions about steps; its work
    is in `init`.
    """

    steps: ClassVar[int] = 0

    def step(self, target: Target, state: Any, key: Array) -> tuple[Any, Info]:
        """Not taken."""
        return state, Info.none()

    def end(self, state: Any) -> Int[Array, ""]:
        """Before the first."""
        return jnp.zeros((), jnp.int32)

    def wind_down(self, state: Any, steps: int) -> Any:
        """Nothing to end."""
        return state


@runtime_checkable
class Method(Protocol):
    """A frozen configuration with pure functions; `State` is one pytree of arrays.

    `init` may run on the host (a warm start); `step` is traced once and scanned. A method that has
    nothing to train has no steps.
    """

    name: str
    steps: int  # of training, at most; a class variable of 0 where there are none

    def init(self, target: Target, key: Array) -> Any:
        """The state before the first training step."""

    def template(self, target: Target) -> Any:
        """Shapes and types of the state, without its work: what a checkpoint is read into."""

    def step(self, target: Target, state: Any, key: Array) -> tuple[Any, Info]:
        """One training step."""

    def end(self, state: Any) -> Int[Array, ""]:
        """The step after which training is over, as known so far: at most `steps`."""

    def wind_down(self, state: Any, steps: int) -> Any:
        """The state told to end after `steps` more steps at most: time is running out. Cheap, on
        the host.
        """

    def sampler(self, target: Target, state: Any, seconds: dict[str, float]) -> Any:
        """The `Sampler` that draws with a state."""

    def points(self, state: Any) -> Float[Array, "size dim"]:
        """The points that training ended with, in the user's coordinates: a second opinion on where
        the mass is.
        """

    def evaluations(self, state: Any) -> Evaluations:
        """What the state has cost so far, the warm start included."""


def settings_of(method: Any) -> dict[str, Any]:
    """The fields of a method by their names, without its own name."""
    return {name: value for name, value in dataclasses.asdict(method).items() if name != "name"}
