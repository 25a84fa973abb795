"""Exact counts of what was evaluated, inside compiled code, beyond the range of 32-bit integers."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Int

from allmodes.target import Evaluation

_BASE = 1_000_000_000


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

    def __int__(self) -> int:
        return int(self.high) * _BASE + int(self.low)


class Evaluations(eqx.Module):
    """The field's currency: at how many points the density was computed, at how many of them a
    gradient was.

    `nan` and `zero` count the points whose value was NaN or +inf, and -inf: they carry no mass. Of
    a density that is not `differentiable` no gradient is counted.
    """

    log_prob: Counter
    gradient: Counter
    nan: Counter
    zero: Counter
    differentiable: bool = eqx.field(static=True, default=True)

    @staticmethod
    def none(differentiable: bool = True) -> "Evaluations":
        """Nothing evaluated yet."""
        return Evaluations(*(Counter.zero() for _ in range(4)), differentiable)

    def add(self, e: Evaluation) -> "Evaluations":
        """Count a batch of values with gradients."""
        return self.add_points(e.log_prob.shape[0], e.nan, e.zero)

    def add_points(
        self, n: int | Int[Array, ""], nan: int | Int[Array, ""], zero: int | Int[Array, ""], gradient: bool = True
    ) -> "Evaluations":
        """Count n points, with or without gradients."""
        gradients = n if gradient and self.differentiable else 0
        counts = self.log_prob + n, self.gradient + gradients, self.nan + nan, self.zero + zero
        return Evaluations(*counts, self.differentiable)
