"""A residual multilayer perceptron with Fourier features of the point and of the noise level."""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.networks.settings import NetworkSettings
from allmodes.settings import check

MOST_FEATURES = 32  # frequencies times dimensions: in 64-D Fourier features only make noise
_LEVEL_FREQUENCIES = 16
LEVEL_FEATURES = 1 + 2 * _LEVEL_FREQUENCIES
STEEPEST = 16.0


def level_features(log_sigma: Scalar) -> Float[Array, " features"]:
    """The noise level as a network sees it."""
    level = log_sigma / 4.0
    angles = level * jnp.exp(jnp.linspace(0.0, 4.0, _LEVEL_FREQUENCIES))
    return jnp.concatenate([level[None], jnp.sin(angles), jnp.cos(angles)])


class _Block(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __init__(self, width: int, key: Array):
        k1, k2 = jax.random.split(key)
        self.first = eqx.nn.Linear(width, width, key=k1)
        self.second = eqx.nn.Linear(width, width, key=k2)

    def __call__(self, h: Float[Array, " width"]) -> Float[Array, " width"]:
        return h + self.second(jax.nn.gelu(self.first(jax.nn.gelu(h))))


class Curves(eqx.Module):
    """A curve of its own for each coordinate, which bends with the noise level: `units` bends each,
    zero at the start.

    Of a density whose coordinates are independent the exact denoiser is a curve for each
    coordinate. Layers of fixed width have a few units for each of many coordinates, and learn
    slowly what these know from the start. Slopes from 1 to 16 a unit: a denoiser between two modes
    is as steep as the distance between them over its noise variance.
    """

    slope: Float[Array, "dim units"]
    shift: Float[Array, "dim units"]
    of_level: Float[Array, "dim units features"]
    out: Float[Array, "dim units"]

    def __init__(self, dim: int, units: int, *, key: Array):
        k_steep, k_sign, k_place, k_level = jax.random.split(key, 4)
        shape = (dim, units)
        steepness = STEEPEST ** jax.random.uniform(k_steep, shape)
        self.slope = jnp.where(jax.random.bernoulli(k_sign, shape=shape), steepness, -steepness)
        self.shift = -0.7 * self.slope * jax.random.normal(k_place, shape)  # bends lie where the points do
        self.of_level = jax.random.normal(k_level, (*shape, LEVEL_FEATURES)) / LEVEL_FEATURES**0.5
        self.out = jnp.zeros(shape)

    def __call__(self, z: Float[Array, " dim"], level: Float[Array, " features"]) -> Float[Array, " dim"]:
        """The curves at one point."""
        return jnp.sum(self.out * jax.nn.gelu(self.slope * z[:, None] + self.shift + self.of_level @ level), axis=1)


class MLP(eqx.Module):
    """`F(z, log sigma)`: `depth` residual blocks of two `width x width` layers; the output starts
    at zero.

    `frequencies` sines and cosines of each coordinate, at 1, 2, 4, .. radians per unit, let a small
    network resolve modes that are narrow beside the distance between them (Tancik et al. 2020). The
    point itself, times a gain that each coordinate learns for each noise level, is added to the
    output: near a mode the answer is linear in the point, in every coordinate at once, which layers
    of fixed width learn slowly in many dimensions. So may be `curves`, where there are any. `more`
    is the number of further inputs of `hidden`.
    """

    first: eqx.nn.Linear
    blocks: list[_Block]
    last: eqx.nn.Linear
    gain: eqx.nn.Linear
    curves: Curves | None
    frequencies: int = eqx.field(static=True)

    def __init__(
        self, dim: int, width: int, depth: int, frequencies: int, more: int = 0, curves: int = 0, *, key: Array
    ):
        k_first, k_last, *k_blocks = jax.random.split(key, depth + 2)
        inputs = dim * (1 + 2 * frequencies) + LEVEL_FEATURES + more
        self.first = eqx.nn.Linear(inputs, width, key=k_first)
        self.blocks = [_Block(width, k) for k in k_blocks]
        last = eqx.nn.Linear(width, dim, key=k_last)
        self.last = eqx.tree_at(lambda m: (m.weight, m.bias), last, replace_fn=jnp.zeros_like)
        gain = eqx.nn.Linear(LEVEL_FEATURES, dim, key=k_last)
        self.gain = eqx.tree_at(lambda m: (m.weight, m.bias), gain, replace_fn=jnp.zeros_like)
        self.curves = Curves(dim, curves, key=jax.random.fold_in(key, 1)) if curves else None
        self.frequencies = frequencies

    def hidden(
        self, z: Float[Array, " dim"], level: Float[Array, " features"], *more: Float[Array, " _"]
    ) -> Float[Array, " width"]:
        """What the last layer sees."""
        features = [z, level]
        if self.frequencies:
            q = (z[:, None] * 2.0 ** jnp.arange(self.frequencies)).ravel()
            features += [jnp.sin(q), jnp.cos(q)]
        h = self.first(jnp.concatenate([*features, *more]))
        for block in self.blocks:
            h = block(h)
        return jax.nn.gelu(h)

    def __call__(self, z: Float[Array, " dim"], log_sigma: Scalar) -> Float[Array, " dim"]:
        """Network output for one point."""
        level = level_features(log_sigma)
        out = self.last(self.hidden(z, level)) + self.gain(level) * z
        return out if self.curves is None else out + self.curves(z, level)


@dataclasses.dataclass(frozen=True)
class Perceptron(NetworkSettings):
    """An `MLP` for any density."""

    width: int = 128
    """Width of its layers."""
    depth: int = 3
    """Residual blocks."""
    frequencies: int = 8
    """Fourier features of each coordinate; fewer above 4 dimensions, none above 32."""
    curves: int = 0
    """Bends of a curve that it learns for each coordinate, for many dimensions that are nearly
    independent of each other; 0 for none."""
    predicts: Literal["denoiser", "score"] = "denoiser"
    """What its output means: the preconditioned denoiser (EDM), or the score itself (papers)."""

    def __post_init__(self):
        check(self, zero=("depth", "frequencies", "curves"))

    def build(self, dim: int, prepared: Any, key: Array) -> MLP:
        """Make the network, which has learned nothing."""
        frequencies = frequencies_for(self.frequencies, dim)
        return MLP(dim, self.width, self.depth, frequencies, curves=self.curves, key=key)


def frequencies_for(most: int, dim: int) -> int:
    """Give the frequencies of each of so many coordinates."""
    return min(most, MOST_FEATURES // dim)
