"""An E(n)-equivariant graph network (Satorras et al. 2021) over all pairs of particles."""

import dataclasses
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.networks.mlp import level_features
from allmodes.diffusion.networks.settings import NetworkSettings
from allmodes.settings import check
from allmodes.symmetry import ParticleSymmetry

_RADIAL = 24  # Gaussian features of a distance
_REACH = 5.0  # the largest distance that they resolve, in units of the target's spread


class _Layer(eqx.Module):
    node: eqx.nn.Linear  # of both ends of a pair: the first edge layer, split into terms per node
    radial: eqx.nn.Linear
    original: eqx.nn.Linear  # the same of the distances that the network was given
    edge: eqx.nn.Linear
    pull: eqx.nn.Linear
    own: eqx.nn.Linear
    gathered: eqx.nn.Linear
    out: eqx.nn.Linear

    def __init__(self, width: int, key: Array):
        keys = jax.random.split(key, 7)
        self.node = eqx.nn.Linear(width, width, use_bias=False, key=keys[0])
        self.radial = eqx.nn.Linear(_RADIAL + 1, width, key=keys[1])
        self.original = eqx.nn.Linear(_RADIAL + 1, width, use_bias=False, key=keys[2])
        self.edge = eqx.nn.Linear(width, width, key=keys[3])
        pull = eqx.nn.Linear(width, 1, use_bias=False, key=keys[3])
        self.pull = eqx.tree_at(lambda m: m.weight, pull, replace_fn=jnp.zeros_like)
        self.own = eqx.nn.Linear(width, width, use_bias=False, key=keys[4])
        self.gathered = eqx.nn.Linear(width, width, key=keys[5])
        self.out = eqx.nn.Linear(width, width, key=keys[6])


class EGNN(eqx.Module):
    """`F(z, log sigma)` for particles: turns, mirrors and exchanges of the particles pass through
    it.

    Messages are symmetric in the two ends of a pair, so half of the pairs do; they are dense
    matrices, gathered and summed by products with the incidence matrix, which is what processors
    are quick at. The output starts at zero. `z` and the output are coordinates of the mean-free
    subspace.
    """

    level: eqx.nn.Linear
    layers: list[_Layer]
    symmetry: ParticleSymmetry = eqx.field(static=True)

    def __init__(self, symmetry: ParticleSymmetry, width: int, depth: int, *, key: Array):
        k_level, *k_layers = jax.random.split(key, depth + 1)
        self.level = eqx.nn.Linear(level_features(jnp.zeros(())).shape[0], width, key=k_level)
        self.layers = [_Layer(width, k) for k in k_layers]
        self.symmetry = symmetry

    @property
    def point_bytes(self) -> int:
        """Size of the messages of one configuration."""
        return 4 * self.symmetry.pairs * self.level.out_features

    def __call__(self, z: Float[Array, " free"], log_sigma: Scalar) -> Float[Array, " free"]:
        """Network output for one configuration."""
        n, d = self.symmetry.particles, self.symmetry.dim
        i, j = np.triu_indices(n, 1)
        ends = np.zeros((len(i), n), np.float32)
        ends[np.arange(len(i)), i] = ends[np.arange(len(i)), j] = 1.0
        signs = ends.copy()
        signs[np.arange(len(i)), j] = -1.0

        scale = jnp.sqrt(1.0 + jnp.exp(2.0 * log_sigma))  # 1 / c_in: distances are seen in units of the target
        x = x_0 = self.symmetry.embed(z).reshape(n, d)
        h = jnp.broadcast_to(self.level(level_features(log_sigma)), (n, self.level.out_features))
        first = None
        for layer in self.layers:
            apart = signs @ x
            squared = jnp.sum(apart**2, axis=-1)
            features = _distances(squared, scale)
            first = features if first is None else first
            message = ends @ _rows(layer.node, h) + _rows(layer.radial, features) + _rows(layer.original, first)
            message = jax.nn.silu(_rows(layer.edge, jax.nn.silu(message)))
            pull = _rows(layer.pull, message) / (jnp.sqrt(squared + 1e-8)[:, None] + 1.0)
            x = x + signs.T @ (apart * pull)
            gathered = (ends.T @ message) / np.sqrt(n)
            h = h + _rows(layer.out, jax.nn.silu(_rows(layer.own, h) + _rows(layer.gathered, gathered)))
        return self.symmetry.project((x - x_0).reshape(-1))


def _rows(layer: eqx.nn.Linear, rows: Float[Array, "n in"]) -> Float[Array, "n out"]:
    """The layer on each row. Weights on the right keep a batch of rows in place; a vmapped layer
    transposes it.
    """
    out = rows @ layer.weight.T
    return out if layer.bias is None else out + layer.bias


def _distances(squared: Float[Array, " pairs"], scale: Scalar) -> Float[Array, "pairs radial"]:
    """Smooth features of each pair's distance: Gaussians where the density lives, and the noisy
    square beyond.
    """
    r = scale * jnp.sqrt(squared + 1e-8)
    centres = np.linspace(0.0, _REACH, _RADIAL, dtype=np.float32)
    bumps = jnp.exp(-(((r[:, None] - centres) / (centres[1] - centres[0])) ** 2))
    return jnp.concatenate([bumps, jnp.log1p(squared)[:, None]], axis=-1)


@dataclasses.dataclass(frozen=True)
class Equivariant(NetworkSettings):
    """An `EGNN`, for particle systems."""

    width: int = 64
    """Width of its layers."""
    depth: int = 8
    """Rounds of messages."""
    predicts: Literal["denoiser", "score"] = "denoiser"
    """What its output means: the preconditioned denoiser (EDM), or the score itself (papers)."""

    def __post_init__(self):
        check(self, zero=("depth",))

    def build(self, dim: ParticleSymmetry, prepared: Any, key: Array) -> EGNN:
        """Make the network, which has learned nothing."""
        return EGNN(dim, self.width, self.depth, key=key)
