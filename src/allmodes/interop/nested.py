"""Problems written for nested samplers: a likelihood, and a transform of the unit cube that is the
prior.

The interface of dynesty, UltraNest, nautilus, pocoMC and JAXNS: `log_likelihood(theta)` and
`prior_transform(u)`. Through the normal quantile the prior is a standard normal in the coordinates
that methods work in, so its place and scale are known, and log Z is the evidence.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.bounds import indices_of
from allmodes.chart import Chart, Flat, Interval, Support, circle
from allmodes.devices.callbacks import called_back
from allmodes.errors import TargetError
from allmodes.interop import numpy as on_host
from allmodes.ranges import Range
from allmodes.target import Target

GRAIN = 1e-5  # of a parameter's size, which rounding in float32 stays below


def target(
    log_likelihood: Callable[[Any], Any],
    prior_transform: Callable[[Any], Any],
    dim: int,
    *,
    periodic: Sequence[int | str] = (),
    vectorized: bool | int = False,
    names: Sequence[str] | None = None,
    workers: int | None = None,
    pool: Any = None,
    **more: Any,
) -> Target:
    """The posterior of a likelihood and a prior over the unit cube; its log Z is the evidence.

    - `log_likelihood`: maps parameters `(k,)` to a number, `prior_transform` maps a point `(dim,)`
      of the unit cube to parameters. Of JAX or of NumPy: what JAX cannot trace is called on the
      host, as it is, and has no gradient.
    - `dim`: the dimension of the cube.
    - `periodic`: numbers or names of coordinates of the cube whose two ends are one.
    - `vectorized`: whether both take many points at once, `(n, dim)`; a number: at most so many.
    - `names`: of the parameters. `more`: the other arguments of `Target`.
    - `workers`, `pool`: processes that evaluate the likelihood, as `am.interop.numpy.target` has
      them. With either, nothing is traced by JAX.

    `draws.x` are parameters, `draws.log_prob` their log-likelihood. A point at which the likelihood
    raises an error carries no mass, and a warning tells of it.

    **Raises** `TargetError` where a function fails at the middle of the cube and at eight points
    around it, or returns another shape; `ConfigError` and `JobError` as `am.interop.numpy.target`.
    """
    if isinstance(dim, bool) or not isinstance(dim, int | np.integer) or dim < 1:
        raise TargetError(f"dim must be a whole number of at least 1, got {dim!r}")
    coordinates = list(names) if names is not None and len(names) == dim else [f"u[{i}]" for i in range(dim)]
    circles = {i for which in periodic for i in indices_of(which, dim, coordinates)}
    cube = Chart(tuple(circle(0.0, 1.0) if i in circles else Interval(0.0, 1.0) for i in range(dim)))
    name = getattr(log_likelihood, "__name__", "nested")
    more = {"name": name, "source": "a likelihood and a prior transform"} | more
    is_here = workers is None and pool is None
    traced = _traced(log_likelihood, prior_transform, dim, bool(vectorized)) if is_here else None
    if traced is not None:
        of_one, to_theta = traced
        size = jax.eval_shape(to_theta, jax.ShapeDtypeStruct((dim,), jnp.float32)).shape[0]
        at = jax.vmap(to_theta)
        more = {"supports": _ranges(lambda u: np.asarray(at(jnp.asarray(u)), float), dim, size, circles, names)} | more
        return Target(of_one, size, names=names, chart=OfCube(cube, to_theta), **more)
    more |= {"names": names, "workers": workers, "pool": pool}
    return _on_host(log_likelihood, prior_transform, dim, vectorized, cube, circles, more)


@dataclasses.dataclass(frozen=True, eq=False)
class OfCube(Support):
    """Parameters made of a point of the cube, which is made of free coordinates; the volume is the
    prior's mass.
    """

    cube: Chart
    transform: Callable[[Float[Array, " dim"]], Float[Array, " k"]]

    @property
    def free_dim(self) -> int:
        """That of the cube's own chart."""
        return self.cube.free_dim

    @property
    def spread(self) -> Float[np.ndarray, " free"] | None:
        """How far the prior reaches."""
        return self.cube.spread

    @property
    def periods(self) -> Float[np.ndarray, " free"]:
        """Those of the cube."""
        return self.cube.periods

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " k"]:
        """Give the parameters."""
        return self.transform(self.cube.to_x(z))

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """Give the log of the prior's density over free coordinates."""
        return self.cube.log_volume(z)

    def flats(self, x: Float[np.ndarray, "n k"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """Count by the cube, where each parameter is made of its own coordinate, as far as the
        draws show.
        """
        if x.shape[1] != z.shape[1]:
            return [None] * x.shape[1]
        flats = self.cube.flats(z, z)  # of the cube's pieces none looks at the user's coordinates
        return [_of_prior(flat) if _is_function(own, flat) else None for own, flat in zip(x.T, flats, strict=True)]


def _of_prior(flat: Flat) -> Flat:
    if flat.low:  # else it is a circle, which has no end
        flat = flat._replace(low="lower end of its prior", high="upper end of its prior")
    return flat._replace(before="as before the data")


def _is_function(x: Float[np.ndarray, " n"], flat: Flat | None) -> bool:
    """Whether a parameter rises with its coordinate of the cube, whatever the others are."""
    if flat is None:
        return False
    steps = np.diff(np.asarray(x, float)[np.argsort(flat.y, kind="stable")])
    return bool(np.all(steps >= -GRAIN * np.max(np.abs(x))))


def _traced(log_likelihood: Callable, prior_transform: Callable, dim: int, vectorized: bool) -> tuple | None:
    """Both functions of one point, where JAX can trace them; else None."""

    def one(function: Callable) -> Callable:
        return (lambda x: function(x[None])[0]) if vectorized else function

    to_theta = lambda u: jnp.atleast_1d(jnp.asarray(one(prior_transform)(u)))  # noqa: E731
    of_one = lambda theta: jnp.asarray(one(log_likelihood)(theta))  # noqa: E731
    try:
        theta = jax.eval_shape(to_theta, jax.ShapeDtypeStruct((dim,), jnp.float32))
        value = jax.eval_shape(of_one, theta)
    except Exception:  # whatever a function does that knows NumPy alone
        return None
    if len(theta.shape) != 1 or value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        return None  # what is wrong is said where it is called on the host
    return of_one, to_theta


def _on_host(
    log_likelihood: Callable,
    prior_transform: Callable,
    dim: int,
    vectorized: bool | int,
    cube: Chart,
    circles: set[int],
    more: dict[str, Any],
) -> Target:
    """The target of functions that are called on the host, many points at a time."""

    def thetas(u: np.ndarray) -> np.ndarray:
        u = np.asarray(u, np.float64)
        if vectorized:
            return np.asarray(prior_transform(u.copy()), np.float64)
        return np.asarray([np.array(prior_transform(point.copy()), np.float64) for point in u])

    middle = np.full((2, dim), 0.5)
    try:
        theta = thetas(middle)
    except Exception as error:
        words = f"{type(error).__name__}: {error}"
        raise TargetError(f"prior_transform fails at the middle of the cube: {words}") from error
    if theta.ndim != 2 or len(theta) != 2:
        raise TargetError(f"prior_transform must map each point to one array of parameters, got shape {theta.shape}")
    size, places = theta.shape[1], theta[:1]
    with contextlib.suppress(Exception):  # where else to try the likelihood, if it fails there
        others = np.random.default_rng(0).uniform(size=(on_host.PROBES - 1, dim))
        places = np.concatenate([places, thetas(others)])
    more = {"supports": _ranges(thetas, dim, size, circles, more["names"])} | more

    def to_theta(u: Float[Array, " dim"]) -> Float[Array, " k"]:
        def call(points: Any) -> np.ndarray:
            flat = np.asarray(points).reshape(-1, dim)
            return thetas(flat).reshape(*np.shape(points)[:-1], size).astype(np.float32)

        shape = jax.ShapeDtypeStruct((*u.shape[:-1], size), jnp.float32)
        return jax.pure_callback(called_back(call), shape, u, vmap_method="expand_dims")

    more |= {"grad": None, "batched": vectorized, "chart": OfCube(cube, to_theta), "location": theta[0]}
    return on_host.of_host(log_likelihood, size, places=places, **more)


def _ranges(
    thetas: Callable[[np.ndarray], np.ndarray], dim: int, size: int, circles: set[int], names: Sequence[str] | None
) -> dict[str, Range]:
    """Where parameters lie, by the prior at the ends of the cube: of those that the coordinate of
    their own place decides alone; for tables and pictures.
    """
    words = list(names or [f"x[{i}]" for i in range(size)])
    found = dict.fromkeys(words, Range())
    if size != dim or len(words) != size:
        return found
    for i, word in enumerate(words):
        u = np.repeat([[0.5], [0.3]], 2, axis=0) * np.ones(dim)  # two points, each at both ends
        u[:, i] = [0.0, 1.0, 0.0, 1.0]
        try:
            with np.errstate(all="ignore"):
                at = np.sort(np.asarray(thetas(u), float)[:, i].reshape(2, 2), axis=1)
        except Exception:  # whatever a function does that was never asked for an end
            continue
        if np.array_equal(*at) and at[0, 0] < at[0, 1]:
            low, high = (float(end) if np.isfinite(end) else None for end in at[0])
            found[word] = Range(low, high, i in circles and None not in (low, high))
    return found
