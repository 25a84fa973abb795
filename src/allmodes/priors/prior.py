"""The prior of one parameter, whatever it is made of."""

import abc
import math

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Float, Scalar

from allmodes.chart import Flat, Piece, flats_of


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
        if self.is_standard and all(piece.is_standard for piece in self.pieces):
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
