"""A likelihood and a prior as a target: log Z is then the evidence."""

import abc
import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Scalar

from allmodes.chart import (
    Chart,
    Flat,
    HalfLine,
    Interval,
    Line,
    Piece,
    circle,
    flats_of,
    line,
    normal_cdf,
    pairs_of,
)
from allmodes.errors import PriorWarning, TargetError
from allmodes.target import Target

END, KNOTS = 8.0, 2049  # of the table of a quantile function: how far it goes in the normal, and its points
PRIOR_DRAWS = 100_000  # that stand for a prior whose distribution function is not known
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

    parts: dict[str, "Prior"]
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


class Prior(abc.ABC):
    """Of one parameter: its shape, the pieces of the chart that it lives on, its log-density."""

    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)

    def names(self, name: str) -> list[str]:
        """One for each number."""
        return [f"{name}[{','.join(map(str, i))}]" if i else name for i in np.ndindex(*self.shape)]

    @abc.abstractmethod
    def log_prob(self, value: Array) -> Scalar:
        """Give the log-density of a value."""

    def log_free(self, z: Float[Array, " free"], value: Array) -> Scalar:
        """Give the log-density over free coordinates: a standard normal's where that is what the
        prior is there.
        """
        if all(isinstance(piece, Interval | Affine | Tabulated) for piece in self.pieces) and self.is_standard:
            return jnp.sum(norm.logpdf(z))
        ends = np.cumsum([piece.free for piece in self.pieces])[:-1]
        parts = zip(self.pieces, jnp.split(z, ends), strict=True)
        return self.log_prob(value) + sum(piece.log_volume(part) for piece, part in parts)

    @property
    def is_standard(self) -> bool:
        """Whether the pieces were chosen so that the prior is a standard normal."""
        return True

    def flats(self, x: Float[np.ndarray, "n size"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """Count each number by its distribution function before the likelihood: as the pieces do,
        where these were chosen so that the prior is flat in them.
        """
        return flats_of(self.pieces, x, z)


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


@dataclasses.dataclass(frozen=True, eq=False)
class Tabulated(Prior, Piece):
    """A distribution that is known by its quantile function, tabulated over the standard normal
    that it is made of, with cubic pieces between.
    """

    values: Float[np.ndarray, " knots"]
    ends: tuple[float, float] = (-np.inf, np.inf)
    shape = ()
    spread = 1.0

    @classmethod
    def of(cls, name: str, frozen: Any) -> "Tabulated":
        """Ask SciPy's distribution, in its own double precision."""
        from scipy.stats import norm as normal

        if not hasattr(frozen, "pdf") or hasattr(frozen.dist, "pmf"):
            raise TargetError(f"prior of {name} is discrete: a density needs continuous parameters")
        z = np.linspace(-END, END, KNOTS)
        lower, upper = frozen.ppf(normal.cdf(z[z < 0])), frozen.isf(normal.sf(z[z >= 0]))
        values = np.concatenate([lower, upper])
        if values.shape != z.shape:
            raise TargetError(f"prior of {name} must be of one number, got one of shape {np.shape(frozen.mean())}")
        if not np.all(np.isfinite(values)) or not np.all(np.diff(values) >= 0):
            raise TargetError(f"prior of {name}: its ppf must rise and be finite between 0 and 1")
        low, high = frozen.support()
        return cls(values, (float(low), float(high)))

    @property
    def pieces(self) -> tuple[Piece, ...]:
        """Itself."""
        return (self,)

    def to_x(self, z: Float[Array, "1"]) -> Float[Array, "1"]:
        """The quantile."""
        return self._cubic(z[0])[0][None]

    def log_volume(self, z: Float[Array, "1"]) -> Scalar:
        """Of the slope of the quantile."""
        return jnp.log(self._cubic(z[0])[1])

    def to_free(self, key: Array, x: Float[Array, "1"]) -> Float[Array, "1"]:
        """By the table, read the other way round."""
        return jnp.interp(x, jnp.asarray(self.values, x.dtype), jnp.linspace(-END, END, KNOTS, dtype=x.dtype))

    def log_prob(self, value: Array) -> Scalar:
        """That of the normal over the slope."""
        z = self.to_free(jax.random.key(0), value.reshape(1))
        return norm.logpdf(z[0]) - self.log_volume(z)

    def flats(self, x: Float[np.ndarray, "n 1"], z: Float[np.ndarray, "n 1"]) -> list[Flat | None]:
        """By the normal that it is made of."""
        low, high = (f"{word} bound {end:g}" if np.isfinite(end) else "" for word, end in _sides(*self.ends))
        return [Flat(normal_cdf(z[:, 0]), low, high)]

    def _cubic(self, z: Scalar) -> tuple[Scalar, Scalar]:
        """Value and slope: Hermite's pieces with slopes that keep them rising (Fritsch and
        Carlson).
        """
        step = 2.0 * END / (KNOTS - 1)
        slopes = jnp.asarray(_slopes(self.values, step), z.dtype)
        values = jnp.asarray(self.values, z.dtype)
        inside = jnp.clip(z, -END, END)
        i = jnp.clip(jnp.floor((inside + END) / step).astype(int), 0, KNOTS - 2)
        t = (inside + END) / step - i
        rise, m0, m1 = (values[i + 1] - values[i]) / step, slopes[i], slopes[i + 1]
        value = values[i] + step * t * (m0 + t * (3 * rise - 2 * m0 - m1 + t * (m0 + m1 - 2 * rise)))
        slope = m0 + t * (2 * (3 * rise - 2 * m0 - m1) + 3 * t * (m0 + m1 - 2 * rise))
        slope = jnp.maximum(slope, jnp.finfo(z.dtype).tiny)
        return value + slope * (z - inside), slope


def _sides(low: float, high: float) -> list[tuple[str, float]]:
    return [("lower", low), ("upper", high)]


def _slopes(values: Float[np.ndarray, " knots"], step: float) -> Float[np.ndarray, " knots"]:
    """At each knot: the harmonic mean of the slopes on both sides."""
    rise = np.diff(values) / step
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = 2.0 / (1.0 / rise[1:] + 1.0 / rise[:-1])
    return np.concatenate([rise[:1], np.nan_to_num(inner), rise[-1:]])


@dataclasses.dataclass(frozen=True)
class Affine(Piece):
    """Numbers without bounds, counted from a place in units of a scale."""

    location: tuple[float, ...]
    scale: tuple[float, ...]
    spread = 1.0

    @property
    def size(self) -> int:
        """As many as there are scales."""
        return len(self.scale)

    @property
    def free(self) -> int:
        """As many."""
        return len(self.scale)

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """Scale and shift."""
        return jnp.asarray(self.location, z.dtype) + jnp.asarray(self.scale, z.dtype) * z

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """The scales' product."""
        return jnp.asarray(np.sum(np.log(self.scale)), z.dtype)

    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """Shift back and scale."""
        return (x - jnp.asarray(self.location, x.dtype)) / jnp.asarray(self.scale, x.dtype)

    def flats(self, x: Float[np.ndarray, "n size"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """By the normal that it is a prior of."""
        return [Flat(normal_cdf(own)) for own in z.T]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Bijection(Piece):
    """A parameter by NumPyro's own bijection from R^n to its support: a simplex, a correlation."""

    transform: Any
    size: int
    free: int
    shape: tuple[int, ...]
    free_shape: tuple[int, ...]

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """Apply it."""
        return self.transform(z.reshape(self.free_shape)).reshape(-1)

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """The log-determinant of its Jacobian."""
        z = z.reshape(self.free_shape)
        return jnp.sum(self.transform.log_abs_det_jacobian(z, self.transform(z)))

    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """Apply its inverse."""
        return self.transform.inv(x.reshape(self.shape)).reshape(-1)


@dataclasses.dataclass(frozen=True, eq=False)
class OfNumPyro(Prior):
    """A distribution of NumPyro."""

    dist: Any
    pieces: tuple[Piece, ...]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, name: str, dist: Any, is_circle: bool) -> "OfNumPyro":
        """Choose the pieces by its support."""
        shape = tuple(dist.batch_shape) + tuple(dist.event_shape)
        support = dist.support
        if support is None or support.is_discrete:
            raise TargetError(f"prior of {name} is discrete: a density needs continuous parameters")
        if is_improper(dist):
            raise TargetError(
                f"prior of {name} is improper ({type(_base(dist)).__name__}): there is no evidence. Give one that "
                "integrates to one"
            )
        pieces = pieces_of(dist, support, shape)
        if is_circle:
            low, high = (getattr(support, side, None) for side in ("lower_bound", "upper_bound"))
            if low is None or high is None or np.size(low) != 1 or np.size(high) != 1:
                raise TargetError(f"prior of {name} is periodic: it needs two bounds, and its support is {support}")
            pieces = (circle(float(np.squeeze(low)), float(np.squeeze(high))),) * math.prod(shape)
        return cls(dist, pieces, shape)

    @property
    def is_standard(self) -> bool:
        """Of a uniform and a normal."""
        return type(_base(self.dist)).__name__ in ("Uniform", "Normal")

    def log_prob(self, value: Array) -> Scalar:
        """Its own."""
        return jnp.sum(self.dist.log_prob(value))

    def flats(self, x: Float[np.ndarray, "n size"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """By the pieces where the prior is flat in them, else by its distribution function, or by
        that of draws of it.
        """
        of_pieces = flats_of(self.pieces, x, z)
        is_standard = all(isinstance(piece, Interval | Affine) for piece in self.pieces) and self.is_standard
        if is_standard or type(_base(self.dist)).__name__ == "Uniform":
            return of_pieces
        ends = [("", "") if flat is None else flat[1:3] for flat in of_pieces]
        if any(isinstance(piece, HalfLine) and not piece.above for piece in self.pieces):
            ends = [(high, low) for low, high in ends]  # its bound is where the distribution function is one
        return [Flat(y, *end) for y, end in zip(self._cdf(x).T, ends, strict=True)]

    def _cdf(self, x: Float[np.ndarray, "n size"]) -> Float[np.ndarray, "n size"]:
        try:
            if _base(self.dist).event_shape:
                raise NotImplementedError
            y = np.asarray(_base(self.dist).cdf(jnp.asarray(x).reshape(len(x), *self.shape)), float)
            return y.reshape(len(x), -1)
        except NotImplementedError:  # of one number in several that belong together, or not written
            drawn = np.asarray(self.dist.sample(jax.random.key(0), (PRIOR_DRAWS,))).reshape(PRIOR_DRAWS, -1)
            sorted_ = np.sort(drawn, axis=0)
            columns = zip(x.T, sorted_.T, strict=True)
            return np.stack([(np.searchsorted(own, v) + 0.5) / (PRIOR_DRAWS + 1) for v, own in columns], axis=1)


def pieces_of(dist: Any, support: Any, shape: tuple[int, ...]) -> tuple[Piece, ...]:
    """The pieces that a distribution of NumPyro asks for: bounds and circles as those of `Target`,
    else NumPyro's own bijection from R^n to the support.
    """
    from numpyro.distributions import Normal, constraints, transforms

    size, dist = math.prod(shape), _base(dist)
    inner = support
    while hasattr(inner, "base_constraint"):
        inner = inner.base_constraint
    if type(dist) is Normal:
        location, scale = (np.broadcast_to(np.asarray(a, float), shape).ravel() for a in (dist.loc, dist.scale))
        return (Affine(tuple(location.tolist()), tuple(scale.tolist())),)
    if inner in (constraints.real, constraints.real_vector):
        return (Line(size),)
    if inner is constraints.circular:
        return (circle(-np.pi, np.pi),) * size
    low, high = (getattr(inner, side, None) for side in ("lower_bound", "upper_bound"))
    if low is None and high is None:
        transform = transforms.biject_to(support)
        free_shape = tuple(transform.inverse_shape(shape))
        free = math.prod(free_shape)
        return (Bijection(transform=transform, size=size, free=free, shape=shape, free_shape=free_shape),)
    bounds = [[None] * size if b is None else np.broadcast_to(np.asarray(b, float), shape).ravel() for b in (low, high)]
    return tuple(line(a, b) for a, b in zip(*bounds, strict=True))


def is_improper(dist: Any) -> bool:
    """Whether a distribution of NumPyro does not integrate to one: `ImproperUniform`, a factor, one
    that is masked, or one whose scale or bound is infinite, so that its draws have no density.
    """
    inner = _base(dist)
    if type(inner).__name__ in ("ImproperUniform", "Unit", "MaskedDistribution"):
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a draw is out of the support
            return not bool(jnp.all(jnp.isfinite(inner.log_prob(inner.sample(jax.random.key(0))))))
    except NotImplementedError:  # one that cannot be drawn from
        return False


def warn_of_improper(what: str, names: Sequence[str]) -> None:
    """Warn, with a `PriorWarning`, of the parameters whose priors are improper, where there are
    any.
    """
    if names:
        warnings.warn(
            f"{what} has improper priors: {', '.join(names)}. Its posterior may be proper, but log Z depends on an "
            "arbitrary constant and is no evidence: give proper priors to compare models",
            PriorWarning,
            stacklevel=4,
        )


def _base(dist: Any) -> Any:
    """What a distribution of NumPyro is of each number."""
    while hasattr(dist, "base_dist") and type(dist).__name__ in ("Independent", "ExpandedDistribution"):
        dist = dist.base_dist
    return dist
