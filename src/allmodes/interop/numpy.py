"""Functions of NumPy and SciPy as targets: called back from compiled code, many points at a
time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from allmodes.devices.batched import log_prob_of
from allmodes.devices.callbacks import called_back
from allmodes.devices.precision import halves, traced_halves, whole
from allmodes.errors import ConfigError
from allmodes.interop.host import PROBES, Host
from allmodes.target import Target


def target(
    log_prob: Callable[[np.ndarray], Any],
    dim: int,
    *,
    grad: Callable[[np.ndarray], Any] | None = None,
    batched: bool | int = False,
    workers: int | None = None,
    pool: Any = None,
    **more: Any,
) -> Target:
    """The density of a function that JAX cannot trace, with its gradient or without.

    - `log_prob`, `grad`: of one point, a float64 array `(dim,)`, to a number and to `(dim,)`; with
      `batched`, of many at once, `(n, dim)` to `(n,)` and to `(n, dim)`, which is quicker: 4,096 of
      them at most, or as many as the number says. -inf, NaN and +inf are allowed in places. Without
      `grad` the search takes slopes by differences, training uses the denoising identity alone,
      and moves are random walks: a few dimensions.
    - `workers`: how many processes evaluate the points of a call side by side. They are spawned, so
      a script does its work below `if __name__ == "__main__":`, and the function is one that they
      can import, or cloudpickle is installed. For functions of .1 ms and more.
    - `pool`: the same by a pool of yours, whatever has a `map`: `multiprocessing.Pool`,
      `mpi4py.futures.MPIPoolExecutor`, those of schwimmbad.
    - `more`: the other arguments of `Target`.

    Every evaluation leaves compiled code and comes back. Draws and counts are the same whatever the
    number of workers. A sampler of it cannot be saved unless the target comes from a file
    (`am.find_target`).

    A point at which a function raises an error carries no mass: it is counted as NaN is, by `cost`
    too, and a warning tells how many there were and what the first error was.

    **Raises** `TargetError` when a function fails, or returns another shape, at the `location` that
    is given (inside of the bounds, or at zero, where none is) and at eight points around it;
    `ConfigError` when worker processes cannot have it; `JobError` when they have ended.
    """
    more = {"name": getattr(log_prob, "__name__", "numpy"), "source": "a NumPy function"} | more
    return of_host(log_prob, dim, grad=grad, batched=batched, workers=workers, pool=pool, **more)


def of_host(
    log_prob: Callable[[np.ndarray], Any],
    dim: int,
    *,
    grad: Callable[[np.ndarray], Any] | None,
    batched: bool | int,
    workers: int | None,
    pool: Any,
    places: np.ndarray | None = None,
    **more: Any,
) -> Target:
    """The same, tried at given `places` `(n, dim)`."""
    host = Host(log_prob, grad, dim, batched, workers, pool)

    def shapes(x):
        return jax.ShapeDtypeStruct(x.shape[:-1], jnp.float32), jax.ShapeDtypeStruct(x.shape, jnp.float32)

    def values(x):
        if x.dtype == jnp.float64:
            return whole(*halved(host.values, x)[0])
        return jax.pure_callback(called_back(host.values), shapes(x)[0], x, vmap_method="expand_dims")

    def both(x):
        if x.dtype == jnp.float64:
            return tuple(whole(*pair) for pair in halved(host.both, x))
        return jax.pure_callback(called_back(host.both), shapes(x), x, vmap_method="expand_dims")

    def halved(function, x):
        # A callback's own arrays are float32 outside of `double`, where it runs: a float64 goes as
        # two of them.
        def call(high, rest):
            found = function(np.asarray(high, np.float64) + np.asarray(rest, np.float64), np.float64)
            return tuple(halves(f) for f in (found if isinstance(found, tuple) else (found,)))

        kinds = shapes(x)[: 2 if function == host.both else 1]
        pairs = tuple((kind, kind) for kind in kinds)
        return jax.pure_callback(called_back(call), pairs, *traced_halves(x), vmap_method="expand_dims")

    called = log_prob_of(values, both if grad else None)
    called.host = host
    made = Target(called, dim, differentiable=grad is not None, **more)
    if places is None:
        places, where, hint = _places(made)
    else:
        where, hint = "at the middle of the prior", ""
    host.check(places, where, hint)
    return made


def _places(target: Target) -> tuple[np.ndarray, str, str]:
    """Where to try a function first: at the location or inside of the bounds, and around it."""
    normal = np.random.default_rng(0).normal(size=(PROBES, target.free.dim))
    normal[0] = 0.0
    chart, location = target.chart, target.location
    if chart is not None:
        free = normal * (1.0 if chart.spread is None else chart.spread)
        around = np.asarray(jax.vmap(chart.to_x)(jnp.asarray(free, jnp.float32)), np.float64)
    else:
        around = normal * (1.0 if target.scale is None else np.asarray(target.scale, float))
    if location is None:
        if chart is not None:
            return around, f"inside of the bounds, at {around[0]},", ""
        return around, "on points of zeros", " If it is right elsewhere, say where: location=.."
    place = np.broadcast_to(np.asarray(location, float), (target.dim,))
    around = around if chart is not None else around + place
    around[0] = place
    return around, f"at the location {place}", ""


class Cost(NamedTuple):
    """What the calls of a function on the host have taken so far."""

    calls: int  # from compiled code, of values alone or with gradients
    points: int
    seconds: float  # in the function itself
    failed: int = 0  # points at which it raised an error
    found: int = 0  # points beside these that an earlier process had evaluated: they were in the run folder

    def __str__(self) -> str:
        each = 1e6 * self.seconds / max(self.points, 1)
        return (
            f"{self.calls:,} calls, {self.points:,} points, {self.seconds:.3g} s ({each:.3g} microseconds a point)"
            + (f", {self.failed:,} failed" if self.failed else "")
            + (f", {self.found:,} more found in the run folder" if self.found else "")
        )


def cost(target: Target) -> Cost:
    """What the calls of a target's function have taken in this process so far, for targets of NumPy
    and PyTorch.

    **Raises** `ConfigError` for a target that JAX traces: it makes no calls.
    """
    host = getattr(target.log_prob, "host", None)
    if host is None:
        raise ConfigError(f"{target.name} is traced by JAX, not called on the host: it has no cost of calls")
    return Cost(host.calls, host.points, host.seconds, host.failed, host.found)
