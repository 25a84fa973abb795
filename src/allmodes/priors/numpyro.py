"""Priors of NumPyro, on the supports that its distributions have."""

import contextlib
import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.chart import Flat, HalfLine, Line, Piece, circle, flats_of, line, normal_cdf
from allmodes.errors import PriorWarning, TargetError
from allmodes.priors.prior import Prior

PRIOR_DRAWS = 100_000  # that stand for a prior whose distribution function is not known


@dataclasses.dataclass(frozen=True)
class Affine(Piece):
    """Numbers without bounds, counted from a place in units of a scale."""

    location: tuple[float, ...]
    scale: tuple[float, ...]
    spread = 1.0
    is_standard = True

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
        is_standard = self.is_standard and all(piece.is_standard for piece in self.pieces)
        if is_standard or is_uniform(self.dist):
            return of_pieces
        ends = [("", "") if flat is None else flat[1:3] for flat in of_pieces]
        if any(isinstance(piece, HalfLine) and not piece.above for piece in self.pieces):
            ends = [(high, low) for low, high in ends]  # its bound is where the distribution function is one
        return [Flat(y, *end) for y, end in zip(self._cdf(x).T, ends, strict=True)]

    def _cdf(self, x: Float[np.ndarray, "n size"]) -> Float[np.ndarray, "n size"]:
        """Of each number: the distribution's own, where it is of one number and has one, else that
        of draws.
        """
        if not _base(self.dist).event_shape:
            with contextlib.suppress(NotImplementedError):  # NumPyro's word for one that is not written
                y = np.asarray(_base(self.dist).cdf(jnp.asarray(x).reshape(len(x), *self.shape)), float)
                return y.reshape(len(x), -1)
        drawn = np.asarray(self.dist.sample(jax.random.key(0), (PRIOR_DRAWS,))).reshape(PRIOR_DRAWS, -1)
        columns = zip(x.T, np.sort(drawn, axis=0).T, strict=True)
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


def is_uniform(dist: Any) -> bool:
    """Whether a distribution of NumPyro is uniform between ends, which may depend on others."""
    return type(_base(dist)).__name__ == "Uniform"


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
