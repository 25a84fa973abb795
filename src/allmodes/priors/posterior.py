"""A likelihood and the priors of its parameters, as one target."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.bounds import pairs_of
from allmodes.chart import Chart, Flat, Piece, circle, line
from allmodes.errors import TargetError
from allmodes.priors.numpyro import OfNumPyro
from allmodes.priors.prior import Prior
from allmodes.priors.tabulated import Tabulated
from allmodes.target import Target

PRIOR = "as before the data"


def posterior(
    log_likelihood: Callable[[dict[str, Array]], Scalar],
    prior: Mapping[str, Any],
    *,
    periodic: Sequence[str] = (),
    **more: Any,
) -> Target:
    """The posterior of a likelihood and a prior over named parameters; its log Z is the evidence.

    - `log_likelihood`: maps a dictionary of parameters, each of the shape that its prior gives it,
      to a scalar; traceable by JAX.
    - `prior`: for each parameter a NumPyro distribution, a frozen distribution of SciPy (by its
      `ppf`), or a pair of bounds between which it is uniform.
    - `periodic`: names of parameters that are angles or phases; the bounds of their priors are one
      point.
    - `more`: the other arguments of `Target`, but for `dim`, `names` and `bounds`.

    Draws lie where the prior has mass, in the order of the dictionary (`draws.x`), and by name
    (`draws.unravel()`).

    **Raises** `TargetError`, which names the parameter, where a prior is none of these, discrete or
    improper, or one that is periodic has no two bounds.
    """
    if not isinstance(prior, Mapping) or not prior:
        raise TargetError(f"prior must be a dictionary of distributions or bounds by name, got {prior!r}")
    circles = [periodic] if isinstance(periodic, str) else periodic
    for name in circles:
        if name not in prior:
            raise TargetError(f"there is no parameter {name!r}: there are {', '.join(prior)}")
    parts = {str(name): _prior(str(name), given, name in circles) for name, given in prior.items()}
    chart = OfPriors(tuple(piece for part in parts.values() for piece in part.pieces), parts, log_likelihood)
    names = tuple(word for name, part in parts.items() for word in part.names(name))
    more = {"source": "a likelihood and a prior", "name": getattr(log_likelihood, "__name__", "posterior")} | more
    return Target(chart.log_prob, chart.dim, chart=chart, names=names, parameters=jax.vmap(chart.split), **more)


@dataclasses.dataclass(frozen=True, eq=False)
class OfPriors(Chart):
    """Free coordinates in which a prior that is uniform, normal or tabulated is a standard
    normal.
    """

    parts: dict[str, Prior]
    log_likelihood: Callable[[dict[str, Array]], Scalar]

    def split(self, x: Float[Array, " dim"]) -> dict[str, Array]:
        """Give the parameters by name, each in its shape."""
        values = jnp.split(x, np.cumsum([part.size for part in self.parts.values()])[:-1])
        named = zip(self.parts.items(), values, strict=True)
        return {name: value.reshape(part.shape) for (name, part), value in named}

    def flats(self, x: Float[np.ndarray, "n dim"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """Count each number of the parameters by its prior's distribution function."""
        sizes = [part.size for part in self.parts.values()]
        frees = [sum(piece.free for piece in part.pieces) for part in self.parts.values()]
        xs, zs = np.split(x, np.cumsum(sizes)[:-1], axis=1), np.split(z, np.cumsum(frees)[:-1], axis=1)
        each = zip(self.parts.values(), xs, zs, strict=True)
        return [flat and flat._replace(before=PRIOR) for part, own, free in each for flat in part.flats(own, free)]

    def log_prob(self, x: Float[Array, " dim"]) -> Scalar:
        """Give the log of likelihood times prior, with respect to the user's volume."""
        values = self.split(x)
        return self.log_likelihood(values) + sum(part.log_prob(values[name]) for name, part in self.parts.items())

    def over(self, log_prob: Any) -> Callable[[Float[Array, " free"]], Scalar]:
        """Give the same over free coordinates, where a prior need not be undone to be applied."""

        def free(z: Float[Array, " free"]) -> Scalar:
            values = self.split(self.to_x(z))
            sizes = [sum(piece.free for piece in part.pieces) for part in self.parts.values()]
            each = zip(self.parts.items(), jnp.split(z, np.cumsum(sizes)[:-1]), strict=True)
            return self.log_likelihood(values) + sum(part.log_free(own, values[name]) for (name, part), own in each)

        return free


def _prior(name: str, given: Any, is_circle: bool) -> Prior:
    if hasattr(given, "log_prob") and hasattr(given, "support"):
        return OfNumPyro.of(name, given, is_circle)
    if hasattr(given, "ppf") and hasattr(given, "dist"):
        if is_circle:
            raise TargetError(f"prior of {name} is periodic: give a pair of bounds, or a NumPyro distribution")
        return Tabulated.of(name, given)
    try:
        ((low, high),) = pairs_of(1, [given], [name])
    except TargetError as error:
        raise TargetError(
            f"prior of {name} must be a NumPyro distribution, a frozen one of SciPy, or a pair of bounds, got {given!r}"
        ) from error
    if low is None or high is None:
        raise TargetError(
            f"prior of {name} is improper: between {low} and {high} nothing is uniform, and there is no evidence. "
            "Give both bounds, or a distribution"
        )
    return Uniform(low, high, is_circle)


@dataclasses.dataclass(frozen=True)
class Uniform(Prior):
    """Between two bounds."""

    low: float
    high: float
    is_circle: bool = False
    shape = ()

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """The interval, or the circle of its ends."""
        return ((circle if self.is_circle else line)(self.low, self.high),)

    def log_prob(self, value: Array) -> Scalar:
        """Minus the log of the width."""
        return jnp.full((), -np.log(self.high - self.low), value.dtype)
