"""Coordinates without bounds for parameters that have some: training lives on R^m, draws come back
where the user's density lives.

A chart maps free coordinates z to the user's x, and says which volume of x a unit volume of z
stands for, so that `log p(x(z)) + log_volume(z)` integrates to what p does: log Z is that of the
user's density with respect to the user's volume.
"""

import abc
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Scalar

SOFT = 0.05  # of a period, over which a turn of a circle fades into the next


class Flat(NamedTuple):
    """One coordinate of n draws, counted so that what is known before the density is flat: by the
    prior's distribution function, or by the length from a bound.

    **Attributes**: `y` `(n,)`, from 0 on, and up to 1 where it is `closed`; `low` and `high`, what
    the ends are called, empty where there is none; `before`: what such draws are like.
    """

    y: Float[np.ndarray, " n"]
    low: str = ""
    high: str = ""
    closed: bool = True
    before: str = "flat between bounds"


class Piece(abc.ABC):
    """Some of the user's coordinates, made of some free ones.

    `size` of the user's, `free` of the others; `spread`: how far around zero that reaches in free
    coordinates which is flat in the user's volume, or as the prior has it; None where it is
    unbounded. `is_standard`: whether it is a standard normal there. `period` of what is wound
    around a circle; 0 where nothing is.
    """

    size: int = 1
    free: int = 1
    spread: float | None = None
    is_standard: bool = False
    period: float = 0.0

    @abc.abstractmethod
    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """Give the user's coordinates of a free point."""

    @abc.abstractmethod
    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """Give the log of the user's volume that a unit of free volume stands for there."""

    @abc.abstractmethod
    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """Give a free point of the user's coordinates; with a key, as several may be of one."""

    def flats(self, x: Float[np.ndarray, "n size"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """Count each of the user's coordinates so that what is flat in the user's volume is flat;
        None where that has no bound.
        """
        return [None] * self.size


@dataclasses.dataclass(frozen=True)
class Line(Piece):
    """Coordinates without bounds, as they are."""

    size: int = 1

    @property
    def free(self) -> int:
        """As many."""
        return self.size

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """Leave them as they are."""
        return z

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """Zero."""
        return jnp.zeros((), z.dtype)

    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """Leave them as they are."""
        return x


@dataclasses.dataclass(frozen=True)
class HalfLine(Piece):
    """On one side of a bound, by the exponential."""

    bound: float
    above: bool = True

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """Never the bound itself, where a density may be infinite."""
        side = 1.0 if self.above else -1.0
        x, least = self.bound + side * jnp.exp(z), _next(self.bound, side, z.dtype)
        return jnp.maximum(x, least) if self.above else jnp.minimum(x, least)

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """The point itself, as that of the exponential is."""
        return z[0]

    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """The log of the distance from the bound."""
        return jnp.log(jnp.abs(x - self.bound))

    def flats(self, x: Float[np.ndarray, "n 1"], z: Float[np.ndarray, "n 1"]) -> list[Flat | None]:
        """By the distance from the bound."""
        return [Flat(np.exp(z[:, 0]), f"{'lower' if self.above else 'upper'} bound {self.bound:g}", closed=False)]


@dataclasses.dataclass(frozen=True)
class Interval(Piece):
    """Between two bounds, by the normal quantile: flat becomes a standard normal, and mass piled up
    at a bound is reached as easily as mass inside. Or many such, as one operation on arrays.
    """

    low: float | tuple[float, ...]
    high: float | tuple[float, ...]
    spread = 1.0
    is_standard = True

    @property
    def size(self) -> int:
        """As many as there are bounds."""
        return np.size(self.low)

    free = size

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """Count from the nearer bound, and never give the bound itself, where a density may be
        infinite.
        """
        low, high = np.asarray(self.low), np.asarray(self.high)
        step = 0.5 * (high - low).astype(z.dtype) * jax.lax.erfc(jnp.abs(z) * np.sqrt(0.5).astype(z.dtype))
        least, most = _next(low, 1.0, z.dtype), _next(high, -1.0, z.dtype)
        low, high = low.astype(z.dtype), high.astype(z.dtype)
        return jnp.where(z < 0.0, jnp.maximum(low + step, least), jnp.minimum(high - step, most))

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """That of the normal density, times the width."""
        return jnp.sum(norm.logpdf(z)) + np.sum(np.log(np.subtract(self.high, self.low)))

    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """The normal quantile, counted from the nearer bound."""
        low, high = np.asarray(self.low, x.dtype), np.asarray(self.high, x.dtype)
        below, above = (x - low) / (high - low), (high - x) / (high - low)
        return jnp.where(below < above, ndtri(below), -ndtri(above))

    def flats(self, x: Float[np.ndarray, "n size"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """By the share of the interval."""
        ends = zip(z.T, np.atleast_1d(self.low), np.atleast_1d(self.high), strict=True)
        return [Flat(normal_cdf(own), f"lower bound {low:g}", f"upper bound {high:g}") for own, low, high in ends]


@dataclasses.dataclass(frozen=True)
class Circle(Piece):
    """A circle, by a line that is wound around it and fades out smoothly: there is no seam, and a
    narrow mode keeps its shape wherever it lies.

    `theta = z mod period`, with the density times `sigmoid((z + h) / s) - sigmoid((z - h) / s)`, h
    half of the period: over all turns of one angle these sum to one. An angle in the plane,
    `theta = atan2(v, u)`, makes a wedge of a narrow mode (`docs/supports.md` has both).
    """

    low: float
    high: float

    @property
    def period(self) -> float:
        """From one end to the other."""
        return self.high - self.low

    @property
    def spread(self) -> float:
        """Some more than the standard deviation of an angle that is uniform."""
        return 0.3 * self.period

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " size"]:
        """The remainder."""
        return self.low + jnp.mod(z + 0.5 * self.period, self.period)

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """That of the share of this turn."""
        return log_turn(z[0], self.period)

    def to_free(self, key: Array, x: Float[Array, " size"]) -> Float[Array, " free"]:
        """In a turn that is drawn by the shares."""
        turns = self.period * (jnp.arange(-2, 3) + (x[0] - self.low) / self.period - 0.5)
        return turns[jax.random.categorical(key, jax.vmap(self.log_volume)(turns[:, None]))][None]

    def flats(self, x: Float[np.ndarray, "n 1"], z: Float[np.ndarray, "n 1"]) -> list[Flat | None]:
        """By the share of a turn; a circle has no end."""
        return [Flat(np.mod(z[:, 0] / self.period + 0.5, 1.0), before="flat around a circle")]


def log_turn(z: Float[Array, "*n"], period: Scalar | float) -> Float[Array, "*n"]:
    """Log of the share of the turn that z lies in, among all turns of the same angle:
    `sigmoid(b) - sigmoid(a)` with `b - a` constant is a product of two, times a constant.
    """
    half, s = 0.5 * period, SOFT * period
    both = jax.nn.log_sigmoid((half + z) / s) + jax.nn.log_sigmoid((half - z) / s)
    return both + np.log1p(-np.exp(-1.0 / SOFT))


class Support(abc.ABC):
    """How all of the user's coordinates are made of free ones.

    `free_dim`: how many of these there are; `spread`: how far around zero the mass reaches along
    each, None where that is not known.
    """

    free_dim: int
    spread: Float[np.ndarray, " free"] | None

    @abc.abstractmethod
    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " dim"]:
        """Give the user's coordinates of a free point."""

    @abc.abstractmethod
    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """Give the log of the user's volume that a unit of free volume stands for there."""

    def to_free(self, key: Array, x: Float[Array, " dim"]) -> Float[Array, " free"] | None:
        """Give a free point of the user's coordinates; None where they do not tell it."""
        return None

    @property
    def periods(self) -> Float[np.ndarray, " free"]:
        """Of the free coordinates that are wound around a circle; 0 of the others."""
        return np.zeros(self.free_dim)

    def log_turns(self, z: Float[Array, " free"]) -> Scalar:
        """Log of the share of the turns that a free point lies in, among all that are the same
        point of the user's.
        """
        wound = np.flatnonzero(self.periods)
        return sum((log_turn(z[i], float(self.periods[i])) for i in wound), start=jnp.zeros((), z.dtype))

    def first_turn(self, z: Float[Array, "*n free"]) -> Float[Array, "*n free"]:
        """Give the free point in the turn around zero that is the same point of the user's."""
        safe = jnp.asarray(np.where(self.periods > 0.0, self.periods, 1.0), z.dtype)
        return jnp.where(self.periods > 0.0, z - safe * jnp.round(z / safe), z)

    def flats(self, x: Float[np.ndarray, "n dim"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """Count each of the user's coordinates so that what is known before the density is flat;
        None where nothing is known of it.
        """
        return [None] * x.shape[1]

    def over(self, log_prob: Callable[[Float[Array, " dim"]], Scalar]) -> Callable[[Float[Array, " free"]], Scalar]:
        """Give a density over free coordinates, for one over the user's."""
        return lambda z: log_prob(self.to_x(z)) + self.log_volume(z)

    def in_any_turn(
        self, log_prob: Callable[[Float[Array, " dim"]], Scalar]
    ) -> Callable[[Float[Array, " free"]], Scalar]:
        """Give the same density with all turns of a circle alike: a mode at a seam is one, and not
        two.
        """
        over = self.over(log_prob)

        def value(z: Float[Array, " free"]) -> Scalar:
            z = self.first_turn(z)
            return over(z) - self.log_turns(z)

        return value


@dataclasses.dataclass(frozen=True)
class Chart(Support):
    """Piece by piece."""

    pieces: tuple[Piece, ...]

    @property
    def dim(self) -> int:
        """How many coordinates the user has."""
        return sum(piece.size for piece in self.pieces)

    @property
    def free_dim(self) -> int:
        """How many free coordinates there are."""
        return sum(piece.free for piece in self.pieces)

    @property
    def spread(self) -> Float[np.ndarray, " free"] | None:
        """How far the mass reaches around zero, where that is known of all pieces; else None."""
        if any(piece.spread is None for piece in self.pieces):
            return None
        return np.concatenate([np.full(piece.free, piece.spread) for piece in self.pieces])

    @property
    def periods(self) -> Float[np.ndarray, " free"]:
        """Of the free coordinates that are wound around a circle; 0 of the others."""
        return np.concatenate([np.full(piece.free, piece.period) for piece in self.pieces])

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " dim"]:
        """Give the user's coordinates of a free point."""
        return jnp.concatenate([piece.to_x(part) for piece, part in _parts(_joined(self.pieces), z, "free")])

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """Give the log of the user's volume that a unit of free volume stands for there."""
        return sum(piece.log_volume(part) for piece, part in _parts(_joined(self.pieces), z, "free"))

    def to_free(self, key: Array, x: Float[Array, " dim"]) -> Float[Array, " free"] | None:
        """Give a free point of the user's coordinates."""
        keys = jax.random.split(key, len(self.pieces))
        parts = _parts(self.pieces, x, "size")
        return jnp.concatenate([piece.to_free(k, part) for k, (piece, part) in zip(keys, parts, strict=True)])

    def flats(self, x: Float[np.ndarray, "n dim"], z: Float[np.ndarray, "n free"]) -> list[Flat | None]:
        """Count each so that what is flat in the user's volume is flat."""
        return flats_of(self.pieces, x, z)


def _joined(pieces: Sequence[Piece]) -> list[Piece]:
    """The same pieces, intervals beside each other as one: compiled once for all."""
    runs = [list(run) for _, run in itertools.groupby(pieces, key=lambda piece: isinstance(piece, Interval))]
    return [one for run in runs for one in (_as_one(run) if isinstance(run[0], Interval) else run)]


def _as_one(intervals: Sequence[Piece]) -> list[Piece]:
    low, high = (np.concatenate([np.atleast_1d(getattr(i, end)) for i in intervals]) for end in ("low", "high"))
    return [Interval(tuple(low.tolist()), tuple(high.tolist()))]


def _parts(pieces: Sequence[Piece], point: Float[Array, " n"], what: str) -> list[tuple[Piece, Float[Array, " k"]]]:
    ends = np.cumsum([getattr(piece, what) for piece in pieces])
    return list(zip(pieces, jnp.split(point, ends[:-1]), strict=True))


def flats_of(
    pieces: Sequence[Piece], x: Float[np.ndarray, "n dim"], z: Float[np.ndarray, "n free"]
) -> list[Flat | None]:
    """`Piece.flats` of one piece after the other."""
    ends = [np.cumsum([getattr(piece, what) for piece in pieces])[:-1] for what in ("size", "free")]
    parts = zip(pieces, np.split(x, ends[0], axis=1), np.split(z, ends[1], axis=1), strict=True)
    return [flat for piece, own, free in parts for flat in piece.flats(own, free)]


def normal_cdf(z: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Phi in double precision, on the host."""
    from scipy.special import ndtr

    return ndtr(np.asarray(z, np.float64))


def circle(low: float, high: float) -> Piece:
    """A circle that is as long as from one end to the other."""
    return Circle(low, high)


def line(low: float | None, high: float | None) -> Piece:
    """A line, as far as its bounds."""
    if low is not None and high is not None:
        return Interval(low, high)
    if low is not None:
        return HalfLine(low)
    return Line() if high is None else HalfLine(high, above=False)


def _next(bound: Any, side: float, dtype: Any) -> Any:
    """The next number beside a bound, or each of many; of zero, one that a processor does not flush
    to zero.
    """
    kind = np.dtype(dtype).type
    beside = np.nextafter(np.asarray(bound, kind), kind(side * np.inf))
    return np.where(np.abs(beside) >= np.finfo(kind).tiny, beside, kind(side) * np.finfo(kind).tiny).astype(kind)
