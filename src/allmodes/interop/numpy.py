"""Functions of NumPy and SciPy as targets: called back from compiled code, many points at a
time.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.devices.batched import log_prob_of
from allmodes.devices.precision import halves, traced_halves, whole
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

    - `log_prob`, `grad`: of one point, a float64 array `(dim,)`, to a number and to `(dim,)`; with
      `batched`, of many at once, `(n, dim)` to `(n,)` and to `(n, dim)`, which is quicker. -inf,
      NaN and +inf are allowed in places. Without `grad` training uses the denoising identity alone,
      and moves are random walks: a few dimensions.
    - `more`: the other arguments of `Target`.

    Every evaluation leaves compiled code and comes back; the function runs on the host, one call at
    a time. A sampler of it cannot be saved unless the target comes from a file (`am.find_target`).

    A point at which a function raises an error carries no mass: it is counted as NaN is, by `cost`
    too, and the first one is told by a warning.

    **Raises** `TargetError` when a function fails, or returns another shape, at the `location` that
    is given; at a point of zeros, where none is.
    """
    more = {"name": getattr(log_prob, "__name__", "numpy"), "source": "a NumPy function"} | more
    host = _Host(log_prob, grad, batched)
    if isinstance(dim, int | np.integer) and dim >= 1:  # else Target says what is wrong
        host.check(dim, more.get("location"))

    def shapes(x):
        return jax.ShapeDtypeStruct(x.shape[:-1], jnp.float32), jax.ShapeDtypeStruct(x.shape, jnp.float32)

    def values(x):
        if x.dtype == jnp.float64:
            return whole(*halved(host.values, x)[0])
        return jax.pure_callback(host.values, shapes(x)[0], x, vmap_method="expand_dims")

    def both(x):
        if x.dtype == jnp.float64:
            return tuple(whole(*pair) for pair in halved(host.both, x))
        return jax.pure_callback(host.both, shapes(x), x, vmap_method="expand_dims")

    def halved(function, x):
        # A callback's own arrays are float32 outside of `double`, where it runs: a float64 goes as
        # two of them.
        def call(high, rest):
            found = function(np.asarray(high, np.float64) + np.asarray(rest, np.float64), np.float64)
            return tuple(halves(f) for f in (found if isinstance(found, tuple) else (found,)))

        kinds = shapes(x)[: 2 if function == host.both else 1]
        pairs = tuple((kind, kind) for kind in kinds)
        return jax.pure_callback(call, pairs, *traced_halves(x), vmap_method="expand_dims")

    called = log_prob_of(values, both if grad else None)
    called.host = host
    return Target(called, dim, differentiable=grad is not None, **more)


class Cost(NamedTuple):
    """What the calls of a function on the host have taken so far."""

    calls: int  # from compiled code, of values alone or with gradients
    points: int
    seconds: float  # in the function itself
    failed: int = 0  # points at which it raised an error

    def __str__(self) -> str:
        each = 1e6 * self.seconds / max(self.points, 1)
        return (
            f"{self.calls:,} calls, {self.points:,} points, {self.seconds:.3g} s ({each:.3g} microseconds a point)"
            + (f", {self.failed:,} failed" if self.failed else "")
        )


def cost(target: Target) -> Cost:
    """What the calls of a target's function have taken in this process so far, for targets of NumPy
    and PyTorch.

    **Raises** `ConfigError` for a target that JAX traces: it makes no calls.
    """
    host = getattr(target.log_prob, "host", None)
    if host is None:
        raise ConfigError(f"{target.name} is traced by JAX, not called on the host: it has no cost of calls")
    return Cost(host.calls, host.points, host.seconds, host.failed)


class _Host:
    """The functions on arrays `(.., dim)` of any batch, and what their calls have taken."""

    def __init__(self, log_prob: Callable, grad: Callable | None, batched: bool):
        self._log_prob, self._grad, self._batched = log_prob, grad, batched
        self.calls, self.points, self.seconds = 0, 0, 0.0
        self.failed, self.error = 0, ""  # at how many points, and what the first one said

    def values(self, x, dtype=np.float32):
        return self.both(x, dtype, (self._log_prob,))[0]

    def both(self, x, dtype=np.float32, functions=None):
        with np.errstate(over="ignore"):  # beyond float32 a value is infinite
            found = self._called(np.asarray(x, np.float64), *(functions or (self._log_prob, self._grad)))
            return tuple(f.astype(dtype) for f in found)

    def _called(self, x: np.ndarray, *functions: Callable) -> tuple[np.ndarray, ...]:
        begin, flat = time.perf_counter(), x.reshape(-1, x.shape[-1])
        found = tuple(self._safely(f, flat, (len(flat), *flat.shape[1:][:i])) for i, f in enumerate(functions))
        self.calls, self.points = self.calls + 1, self.points + len(flat)
        self.seconds += time.perf_counter() - begin
        shapes = x.shape[:-1], x.shape
        return tuple(value.reshape(shape) for value, shape in zip(found, shapes, strict=False))

    def _all(self, function: Callable, points: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):  # what is not finite is counted and carries no mass
            found = function(points) if self._batched else [function(point) for point in points]
            return np.asarray(found, np.float64)

    def _safely(self, function: Callable, points: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The same with NaN where the function raises an error: its points one by one, once a batch
        does.
        """
        try:
            return self._all(function, points).reshape(shape)
        except Exception as error:
            if len(points) == 1:
                self._note(error)
                return np.full(shape, np.nan)
            return np.concatenate([self._safely(function, point, (1, *shape[1:])) for point in points[:, None]])

    def _note(self, error: Exception) -> None:
        self.failed += 1
        if self.failed == 1:
            self.error = f"{type(error).__name__}: {error}"
            warnings.warn(
                f"the function raised an error at a point ({self.error}): such points carry no mass, and are counted "
                "(am.interop.numpy.cost(target).failed)",
                stacklevel=2,
            )

    def check(self, dim: int, location: Any = None) -> None:
        try:
            place = np.zeros(dim) if location is None else np.broadcast_to(np.asarray(location, float), (dim,))
        except ValueError:
            return  # Target says what is wrong with it
        probe = np.stack([place, place])
        for what, function, shape in (("log_prob", self._log_prob, (2,)), ("grad", self._grad, (2, dim))):
            if function is None:
                continue
            try:
                got = self._all(function, probe).shape
            except Exception as error:
                where = "on points of zeros" if location is None else f"at the location {place}"
                hint = " If it is right elsewhere, say where: location=.." if location is None else ""
                raise TargetError(f"{what} fails {where}: {type(error).__name__}: {error}{hint}") from error
            if got != shape:
                given, wanted = (got, shape) if self._batched else (got[1:], shape[1:])
                points = f"(2, {dim})" if self._batched else f"({dim},)"
                raise TargetError(f"{what} of points {points} must have shape {wanted}, but has {given}")
