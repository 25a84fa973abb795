"""A perceptron that sees points from the nearest of many anchors: for separated modes in many
dimensions.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.networks.mlp import MLP, frequencies_for, level_features
from allmodes.diffusion.networks.settings import NetworkSettings
from allmodes.points.clusters import kmeans
from allmodes.points.found import SearchResult
from allmodes.settings import check
from allmodes.target import Target

NARROWEST = 0.1  # width of an anchor over the median one, at least: a cluster may be a single point
LLOYD = 10  # rounds of k-means


class Anchored(eqx.Module):
    """The denoiser of a mixture of round Gaussians, all of whose parameters are learned, plus a
    network's correction.

    Modes that stand far apart ask two things of a network at once: where the mode is, to a small
    part of its width, and which linear map goes with its shape. An `MLP` learns both slowly: the
    first is a table, which it must read to better than one in a hundred, the second a product of
    the point with a function of the point. Here

    - each anchor has a place, a width and a weight, and the posterior of a point over them (a
      softmax) gives the exact denoiser of their mixture, to which the rest is added;
    - the rest sees the point from there, `u`, in units of its spread; and besides an `MLP` it has a
      bilinear layer, `rank` products of a direction of u with a number that depends on the anchor
      and on the MLP's last layer, which gives each mode a linear map of its own.

    The output starts as the mixture's denoiser, with the preconditioning of `Denoiser` taken off.
    """

    trunk: MLP
    places: Float[Array, "anchors dim"]
    log_widths: Float[Array, " anchors"]
    log_weights: Float[Array, " anchors"]
    down: eqx.nn.Linear
    shape_of_anchor: eqx.nn.Linear
    shape_of_point: eqx.nn.Linear
    up: eqx.nn.Linear

    def __init__(
        self,
        places: Float[Array, "anchors dim"],
        widths: Float[Array, " anchors"],
        width: int,
        depth: int,
        frequencies: int,
        rank: int,
        *,
        key: Array,
    ):
        anchors, dim = places.shape
        k_trunk, *k_bilinear = jax.random.split(key, 5)
        self.trunk = MLP(dim, width, depth, frequencies, dim + anchors, key=k_trunk)
        self.places, self.log_widths, self.log_weights = places, jnp.log(widths), jnp.zeros(anchors)
        layers = bilinear_layers(dim, anchors, width, rank, k_bilinear)
        self.down, self.shape_of_anchor, self.shape_of_point, self.up = layers

    def __call__(self, z: Float[Array, " dim"], log_sigma: Scalar) -> Float[Array, " dim"]:
        """Network output for one point."""
        c_in = jax.lax.rsqrt(jnp.exp(2.0 * log_sigma) + 1.0)
        x = z / c_in
        width2 = jnp.exp(2.0 * self.log_widths)
        variance = width2 + jnp.exp(2.0 * log_sigma)  # of the noised mixture's components
        # Of the differences themselves: by products, narrow modes far from the origin would drown
        # in rounding.
        squared = jnp.sum((x - self.places) ** 2, axis=-1)
        share = jax.nn.softmax(self.log_weights - 0.5 * (squared / variance + z.shape[0] * jnp.log(variance)))
        # All else by products, which are much cheaper: sum_k share_k (place_k + c_k (x - place_k)),
        # and the same for u.
        kept = share * width2 / variance
        denoised = (share - kept) @ self.places + jnp.sum(kept) * x
        scaled = share * jax.lax.rsqrt(variance)
        u = jnp.sum(scaled) * x - scaled @ self.places

        return (denoised - c_in * z) / (jnp.exp(log_sigma) * c_in) + learned_around(self, z, log_sigma, u, share)


def bilinear_layers(dim: int, anchors: int, width: int, rank: int, keys: Sequence[Array]) -> tuple[eqx.nn.Linear, ...]:
    """Layers of products of a direction of the point, `down`, with a number that depends on the
    anchor and on the last layer of an `MLP`, and `up` again, which starts at zero.
    """
    k_down, k_anchor, k_point, k_up = keys
    up = eqx.nn.Linear(rank, dim, use_bias=False, key=k_up)
    return (
        eqx.nn.Linear(dim, rank, use_bias=False, key=k_down),
        eqx.nn.Linear(anchors, rank, use_bias=False, key=k_anchor),
        eqx.nn.Linear(width, rank, key=k_point),
        eqx.tree_at(lambda m: m.weight, up, replace_fn=jnp.zeros_like),
    )


def learned_around(
    network: Any, z: Float[Array, " dim"], log_sigma: Scalar, u: Float[Array, " dim"], share: Float[Array, " anchors"]
) -> Float[Array, " dim"]:
    """What a network with a `trunk` and these layers adds: to the point, seen from its anchors in
    units of their spread as `u`, of which it is in `share`.
    """
    level = level_features(log_sigma)
    h = network.trunk.hidden(z, level, u, share)
    shape = network.shape_of_anchor(share) + network.shape_of_point(h)
    return network.trunk.last(h) + network.trunk.gain(level) * u + network.up(network.down(u) * shape)


def anchors_of(z: Float[Array, "n dim"], count: int, key: Array) -> tuple[Float[Array, "k dim"], Float[Array, " k"]]:
    """Places and widths of `count` anchors, or of as many as there are points: clusters of these,
    by k-means++. Where few points are distinct, anchors are, too.
    """
    points, rng = np.asarray(z, float), np.random.default_rng(np.asarray(jax.random.key_data(key)))
    places, label = kmeans(points, count, LLOYD, rng)
    distinct = len(places)
    number = np.bincount(label, minlength=distinct)
    total = np.bincount(label, np.mean((points - places[label]) ** 2, axis=1), minlength=distinct)
    variance = total / np.maximum(number, 1)
    spread = variance[variance > 0.0]
    usual = np.median(spread) if len(spread) else 1.0
    widths = np.sqrt(np.maximum(variance, NARROWEST**2 * usual))
    which = np.arange(min(count, len(points))) % distinct
    return jnp.asarray(places[which], jnp.float32), jnp.asarray(widths[which], jnp.float32)


@dataclasses.dataclass(frozen=True)
class AnchoredPerceptron(NetworkSettings):
    """An `Anchored` network, for modes far apart in many dimensions."""

    anchors: int = 64
    """Anchors from which it sees the point."""
    rank: int = 256
    """Rank of the linear maps that it learns around anchors."""
    width: int = 128
    """Width of the layers of its perceptron."""
    depth: int = 3
    """Residual blocks of its perceptron."""
    frequencies: int = 8
    """Fourier features of each coordinate; fewer above 4 dimensions, none above 32."""
    predicts: ClassVar[str] = "denoiser"

    def __post_init__(self):
        check(self, zero=("depth", "frequencies"))

    def prepare(self, target: Target, found: SearchResult, key: Array) -> tuple[Any, SearchResult]:
        """Find places and widths of the anchors, on the host."""
        return anchors_of(found.points.z, self.anchors, key), found

    def unprepared(self, size: int, dim: int) -> Any:
        """Give the shapes of what `prepare` gives."""
        count = min(self.anchors, size)
        return jnp.zeros((count, dim)), jnp.ones(count)

    def build(self, dim: int, prepared: Any, key: Array) -> Anchored:
        """Make the network, which has learned nothing."""
        frequencies = frequencies_for(self.frequencies, dim)
        return Anchored(*prepared, self.width, self.depth, frequencies, self.rank, key=key)
