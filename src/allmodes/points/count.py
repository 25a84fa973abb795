"""Exact counts of what was evaluated, inside compiled code, beyond the range of 32-bit integers."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from allmodes.target import Evaluation

_BASE = 1_000_000_000
# What evaluations may be booked for.
PURPOSES = "scouts", "climbs", "moves", "completeness", "mixture", "populations", "training", "renewals", "opinion"


class Counter(eqx.Module):
    """A whole number held as `high * 10^9 + low`; each addition must be below 10^9."""

    high: Int[Array, ""]
    low: Int[Array, ""]

    @staticmethod
    def zero() -> "Counter":
        """Nothing counted yet."""
        return Counter(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))

    def __add__(self, n: int | Int[Array, ""]) -> "Counter":
        low = self.low + jnp.asarray(n, jnp.int32)
        return Counter(self.high + low // _BASE, low % _BASE)

    def plus(self, other: "Counter") -> "Counter":
        """The sum of two."""
        low = self.low + other.low
        return Counter(self.high + other.high + low // _BASE, low % _BASE)

    def __int__(self) -> int:
        return int(self.high) * _BASE + int(self.low)


def _nothing_booked() -> dict[str, Counter]:
    return {purpose: Counter.zero() for purpose in PURPOSES}


class Evaluations(eqx.Module):
    """The field's currency: at how many points the density was computed, at how many of them a
    gradient was.

    `nan` and `zero` count the points whose value was NaN or +inf, and -inf: they carry no mass. Of
    a density that is not `differentiable` no gradient is counted. `booked` is what is known to have
    been spent for a purpose.
    """

    log_prob: Counter
    gradient: Counter
    nan: Counter
    zero: Counter
    differentiable: bool = eqx.field(static=True, default=True)
    booked: dict[str, Counter] = eqx.field(default_factory=_nothing_booked)

    @staticmethod
    def none(differentiable: bool = True) -> "Evaluations":
        """Nothing evaluated yet."""
        return Evaluations(*(Counter.zero() for _ in range(4)), differentiable)

    def add(self, e: Evaluation, price: int = 1) -> "Evaluations":
        """Count a batch of values with gradients, each of which has taken `price` evaluations."""
        return self.add_points(price * e.log_prob.shape[0], e.nan, e.zero)

    def add_points(
        self, n: int | Int[Array, ""], nan: int | Int[Array, ""], zero: int | Int[Array, ""], gradient: bool = True
    ) -> "Evaluations":
        """Count n points, with or without gradients."""
        gradients = n if gradient and self.differentiable else 0
        counts = self.log_prob + n, self.gradient + gradients, self.nan + nan, self.zero + zero
        return Evaluations(*counts, self.differentiable, self.booked)

    def book(self, purpose: str) -> "Evaluations":
        """Book for a purpose all that has not been booked."""
        return dataclasses.replace(self, booked={**self.booked, purpose: self.booked[purpose].plus(self._left())})

    def spent(self, rest: str) -> dict[str, int]:
        """How many points were evaluated for each purpose; `rest` is what is not booked."""
        spent = {purpose: int(booked) for purpose, booked in self.booked.items()}
        spent[rest] = spent.get(rest, 0) + int(self._left())
        return {purpose: n for purpose, n in spent.items() if n}

    def _left(self) -> Counter:
        """What has not been booked."""
        left = self.log_prob
        for booked in self.booked.values():
            left = left.plus(Counter(-booked.high, -booked.low))
        return left
