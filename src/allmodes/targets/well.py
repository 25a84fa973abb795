"""A double well in one dimension, and targets that are products of such wells and normals."""

import dataclasses
import math
from functools import partial
from statistics import NormalDist

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from allmodes.target import Modes

EDGE = 4.0  # beyond it a double well has less than exp(-100) of its mass
NORMAL_EDGE = 5.4  # P(|N(0, 1)| > 5.4) = 7e-8
OFF = 3e-7  # of exact draws lie beyond the edge of any of the normals, at most


@dataclasses.dataclass(frozen=True)
class Well:
    """One coordinate of log-density `quartic x^4 + quadratic x^2 + linear x + constant`."""

    quartic: float
    quadratic: float
    linear: float
    constant: float = 0.0

    def log_density(self, x):
        """At points of any shape, of NumPy or of JAX."""
        return ((self.quartic * x**2 + self.quadratic) * x + self.linear) * x + self.constant

    def table(self) -> tuple[np.ndarray, np.ndarray, float]:
        """A fine grid, the density on it and its integral, by the trapezoidal rule: the ends are
        zero, and it converges exponentially.
        """
        x, step = np.linspace(-EDGE, EDGE, 100_001, retstep=True)
        density = np.exp(self.log_density(x))
        return x, density, float(density.sum() * step)

    def log_z(self) -> float:
        """The log of the integral."""
        return math.log(self.table()[2])

    def right_share(self) -> float:
        """Mass of the right well."""
        x, density, _ = self.table()
        return float((density[x > 0].sum() + 0.5 * density[x == 0].sum()) / density.sum())

    def reach(self) -> tuple[float, float]:
        """Where all but 1e-7 of the mass lies, the least dense points left out."""
        x, density, _ = self.table()
        mass = density / density.sum()
        tail = np.cumsum(np.sort(mass))
        low, high = x[mass > np.sort(mass)[np.searchsorted(tail, 1e-7)]][[0, -1]]
        return float(low), float(high)

    def stationary(self) -> np.ndarray:
        """Left well, barrier and right well."""
        return np.sort(np.roots([4 * self.quartic, 0.0, 2 * self.quadratic, self.linear]).real)

    @partial(jax.jit, static_argnames=("self", "n", "intervals"))
    def sample(self, key: PRNGKeyArray, n: int, intervals: int = 1024) -> Float[Array, " n"]:
        """Exact rejection: an interval by its area under the envelope, a uniform point in it, kept
        with p / envelope.

        The stationary points are among the ends of intervals, so p is monotone in each and its
        maximum is at an end.
        """
        ends = np.sort(np.concatenate([np.linspace(-EDGE, EDGE, intervals + 1), self.stationary()]))
        top = np.maximum(self.log_density(ends[:-1]), self.log_density(ends[1:]))
        area = np.cumsum(np.exp(top - top.max()) * np.diff(ends))
        ends, top, area = jnp.asarray(ends), jnp.asarray(top), jnp.asarray(area / area[-1])

        def propose(state):
            key, x, kept = state
            key, key_now = jax.random.split(key)
            u, place, height = jax.random.uniform(key_now, (3, n))
            i = jnp.searchsorted(area, u, side="right")
            y = ends[i] + place * (ends[i + 1] - ends[i])
            accept = jnp.log(height) <= self.log_density(y) - top[i]
            return key, jnp.where(kept, x, y), kept | accept

        start = (key, jnp.zeros(n), jnp.zeros(n, bool))
        return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, start)[1]


def sign_patterns(well: Well, dim: int, wells: np.ndarray) -> Modes:
    """The modes of a product of `well` in the coordinates `wells` (indices) and normals in all
    others: in mode k, the i-th of the wells is on its right side if bit i of k is set.
    """
    left, _, right = well.stationary()
    share, (low, high) = well.right_share(), well.reach()
    count, bits = len(wells), np.arange(len(wells))
    normals = np.setdiff1d(np.arange(dim), wells)
    above = (np.arange(2**count)[:, None] >> bits) & 1  # (modes, wells)
    means = np.zeros((2**count, dim))
    means[:, wells] = np.where(above, right, left)
    edge = max(NORMAL_EDGE, -NormalDist().inv_cdf(0.5 * OFF / max(1, len(normals))))

    def assign(x: Float[Array | np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
        x = np.asarray(x, float)
        x1, x2 = x[:, wells], x[:, normals]
        on = np.all((x1 >= low) & (x1 <= high), axis=1) & np.all(np.abs(x2) <= edge, axis=1)
        return np.where(on, (x1 > 0) @ (1 << bits), -1)

    return Modes(weights=np.prod(np.where(above, share, 1 - share), axis=1), assign=assign, means=means)
