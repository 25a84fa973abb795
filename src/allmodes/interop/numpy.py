"""Functions of NumPy and SciPy as targets: called back from compiled code, many points at a time."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.batched import log_prob_of
from allmodes.errors import ConfigError, TargetError
from allmodes.target import Target


def target(
    log_prob: Callable[[np.ndarray], Any],
    dim: int,
    *,
    grad: Callable[[np.ndarray], Any] | None = None,
    batched: bool = False,
    **more: Any,
) -> Target:
    """The density of a function that JAX cannot trace, with its gradient or without.

    - `log_prob`, `grad`: of one point, a float64 array `(dim,)`, to a number and to `(dim,)`; with `batched`, of many
      at once, `(n, dim)` to `(n,)` and to `(n, dim)`, which is quicker. -inf, NaN and +inf are allowed in places.
      Without `grad` training uses the denoising identity alone, and moves are random walks: a few dimensions.
    - `more`: the other arguments of `Target`.

    Every evaluation leaves compiled code and comes back; the function runs on the host, one call at a time. A sampler
    of it cannot be saved unless the target comes from a file (`am.find_target`).

    **Raises** `TargetError` when a function fails on a point of zeros or returns another shape. An error in it later
    on comes out of `fit` or `sample`.
    """
    more = {"name": getattr(log_prob, "__name__", "numpy"), "source": "a NumPy function"} | more
    host = _Host(log_prob, grad, batched)
    if isinstance(dim, int | np.integer) and dim >= 1:  # else Target says what is wrong
        host.check(dim)

    def shapes(x):
        return jax.ShapeDtypeStruct(x.shape[:-1], jnp.float32), jax.ShapeDtypeStruct(x.shape, jnp.float32)

    def values(x):
        return jax.pure_callback(host.values, shapes(x)[0], x, vmap_method="expand_dims")

    def both(x):
        return jax.pure_callback(host.both, shapes(x), x, vmap_method="expand_dims")

    called = log_prob_of(values, both if grad else None)
    called.host = host
    return Target(called, dim, differentiable=grad is not None, **more)


class Cost(NamedTuple):
    """What the calls of a function on the host have taken so far."""

    calls: int  # from compiled code, of values alone or with gradients
    points: int
    seconds: float  # in the function itself

    def __str__(self) -> str:
        each = 1e6 * self.seconds / max(self.points, 1)
        return f"{self.calls:,} calls, {self.points:,} points, {self.seconds:.3g} s ({each:.3g} microseconds a point)"


def cost(target: Target) -> Cost:
    """What the calls of a target's function have taken in this process so far, for targets of NumPy and PyTorch.

    **Raises** `ConfigError` for a target that JAX traces: it makes no calls.
    """
    host = getattr(target.log_prob, "host", None)
    if host is None:
        raise ConfigError(f"{target.name} is traced by JAX, not called on the host: it has no cost of calls")
    return Cost(host.calls, host.points, host.seconds)


class _Host:
    """The functions on arrays `(.., dim)` of any batch, and what their calls have taken."""

    def __init__(self, log_prob: Callable, grad: Callable | None, batched: bool):
        self._log_prob, self._grad, self._batched = log_prob, grad, batched
        self.calls, self.points, self.seconds = 0, 0, 0.0

    def values(self, x):
        return self._called(np.asarray(x, np.float64), self._log_prob)[0]

    def both(self, x):
        return self._called(np.asarray(x, np.float64), self._log_prob, self._grad)

    def _called(self, x: np.ndarray, *functions: Callable) -> tuple[np.ndarray, ...]:
        begin, flat = time.perf_counter(), x.reshape(-1, x.shape[-1])
        found = tuple(self._all(f, flat) for f in functions)
        self.calls, self.points = self.calls + 1, self.points + len(flat)
        self.seconds += time.perf_counter() - begin
        shapes = x.shape[:-1], x.shape
        return tuple(value.reshape(shape) for value, shape in zip(found, shapes, strict=False))

    def _all(self, function: Callable, points: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # what is not finite is counted and carries no mass
            found = function(points) if self._batched else [function(point) for point in points]
            return np.asarray(found, np.float32)

    def check(self, dim: int) -> None:
        for what, function, shape in (("log_prob", self._log_prob, (2,)), ("grad", self._grad, (2, dim))):
            if function is None:
                continue
            try:
                got = self._all(function, np.zeros((2, dim))).shape
            except Exception as error:
                raise TargetError(f"{what} fails on points of zeros: {type(error).__name__}: {error}") from error
            if got != shape:
                given, wanted = (got, shape) if self._batched else (got[1:], shape[1:])
                points = f"(2, {dim})" if self._batched else f"({dim},)"
                raise TargetError(f"{what} of points {points} must have shape {wanted}, but has {given}")
