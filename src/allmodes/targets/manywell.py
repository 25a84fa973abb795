"""Many wells: 2^(dim/2) modes from independent pairs, each pair a tilted double well and a
Gaussian.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from allmodes.errors import TargetError
from allmodes.target import Modes, Target

QUARTIC, QUADRATIC, LINEAR = -1.0, 6.0, 0.5
EDGE = 4.0  # beyond it a double well has less than exp(-150) of its mass
MODES_UP_TO_DIM = 12


def many_well(dim: int = 32) -> Target:
    """`log_prob(x) = sum over pairs of -x1^4 + 6 x1^2 + x1 / 2 - x2^2 / 2`, `x1 = x[0::2]`, `x2 =
    x[1::2]`.

    `log_z` per pair is `log 11784.50927 + log(2 pi) / 2`. Draws are exact, by rejection from an
    envelope that is constant on short intervals. Up to 12 dimensions the modes are listed: in mode
    k, pair i is in its right well if bit i of k is set. Midgley et al. 2023 (FAB), after Noé et al.
    2019.
    """
    if dim < 2 or dim % 2:
        raise TargetError(f"many_well is made of pairs: dim must be even and at least 2, got {dim}")
    pairs = dim // 2
    x, step = np.linspace(-EDGE, EDGE, 100_001, retstep=True)
    density = np.exp(_double_well(x))
    z = density.sum() * step  # the trapezoidal rule: the ends are zero, and it converges exponentially

    def log_prob(x: Float[Array, " dim"]) -> Float[Array, ""]:
        return jnp.sum(_double_well(x[0::2])) - 0.5 * jnp.sum(x[1::2] ** 2)

    def sample(key: PRNGKeyArray, n: int) -> Float[Array, "n dim"]:
        key_well, key_gauss = jax.random.split(key)
        x1 = _sample_double_well(key_well, n * pairs).reshape(n, pairs)
        x2 = jax.random.normal(key_gauss, (n, pairs))
        return jnp.stack([x1, x2], axis=2).reshape(n, dim)

    log_z = pairs * (math.log(z) + 0.5 * math.log(2 * math.pi))
    modes = _modes(pairs, x, density / density.sum()) if dim <= MODES_UP_TO_DIM else None
    return Target(log_prob, dim, f"manywell-{dim}", sample=sample, log_z=log_z, modes=modes)


def _double_well(x):
    return ((QUARTIC * x**2 + QUADRATIC) * x + LINEAR) * x


def right_share() -> float:
    """Mass of the right well of each pair, by the trapezoidal rule."""
    x = np.linspace(-EDGE, EDGE, 100_001)
    density = np.exp(_double_well(x))
    return float(density[x > 0].sum() / density.sum())


def _stationary() -> np.ndarray:
    """Left well, barrier and right well."""
    return np.sort(np.roots([4 * QUARTIC, 0.0, 2 * QUADRATIC, LINEAR]).real)


@partial(jax.jit, static_argnames=("n", "intervals"))
def _sample_double_well(key: PRNGKeyArray, n: int, intervals: int = 1024) -> Float[Array, " n"]:
    """Exact rejection: an interval by its area under the envelope, a uniform point in it, kept with
    p / envelope.

    The stationary points are among the ends of intervals, so p is monotone in each and its maximum
    is at an end.
    """
    ends = np.sort(np.concatenate([np.linspace(-EDGE, EDGE, intervals + 1), _stationary()]))
    top = np.maximum(_double_well(ends[:-1]), _double_well(ends[1:]))
    area = np.cumsum(np.exp(top - top.max()) * np.diff(ends))
    ends, top, area = jnp.asarray(ends), jnp.asarray(top), jnp.asarray(area / area[-1])

    def propose(state):
        key, x, kept = state
        key, key_now = jax.random.split(key)
        u, place, height = jax.random.uniform(key_now, (3, n))
        i = jnp.searchsorted(area, u, side="right")
        y = ends[i] + place * (ends[i + 1] - ends[i])
        accept = jnp.log(height) <= _double_well(y) - top[i]
        return key, jnp.where(kept, x, y), kept | accept

    start = (key, jnp.zeros(n), jnp.zeros(n, bool))
    return jax.lax.while_loop(lambda state: ~jnp.all(state[2]), propose, start)[1]


def _modes(pairs: int, x: np.ndarray, mass: np.ndarray) -> Modes:
    """Sign patterns of x1, with the wells' weights by quadrature (`mass` on the grid `x`)."""
    left, _, right = _stationary()
    share = right_share()
    above = (np.arange(2**pairs)[:, None] >> np.arange(pairs)) & 1  # (modes, pairs)
    means = np.zeros((2**pairs, 2 * pairs))
    means[:, 0::2] = np.where(above, right, left)
    tail = np.cumsum(np.sort(mass))  # the reach of x1: all but 1e-7 of the mass, least dense points left out
    low, high = x[mass > np.sort(mass)[np.searchsorted(tail, 1e-7)]][[0, -1]]

    def assign(x: Float[Array | np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
        x = np.asarray(x, float)
        x1, x2 = x[:, 0::2], x[:, 1::2]
        on = np.all((x1 >= low) & (x1 <= high) & (np.abs(x2) <= 5.4), axis=1)  # P(|N(0, 1)| > 5.4) = 7e-8
        return np.where(on, (x1 > 0) @ (1 << np.arange(pairs)), -1)

    return Modes(weights=np.prod(np.where(above, share, 1 - share), axis=1), assign=assign, means=means)
