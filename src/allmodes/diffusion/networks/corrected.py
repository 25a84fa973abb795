"""A fitted mixture whose exact denoiser is corrected by a perceptron: for modes of any shape, far
apart or not.
"""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.diffusion.networks.anchored import bilinear_layers, learned_around
from allmodes.diffusion.networks.mlp import MLP, frequencies_for
from allmodes.diffusion.networks.settings import NetworkSettings
from allmodes.points.found import SearchResult
from allmodes.points.mixture import GaussianMixture
from allmodes.points.product import BaseDensity
from allmodes.search.base import Base, fit_base
from allmodes.settings import check
from allmodes.target import Target


class Corrected(eqx.Module):
    """The closed-form denoiser of a base, which stays as it is, plus what a network has learned.

    The network sees the point from each component of the mixture, in units of its noised spread,
    and adds to an `MLP` a bilinear layer of `rank` products, as `Anchored` does: a linear map of
    its own for each component. All of it starts at zero.
    """

    base: BaseDensity
    trunk: MLP
    down: eqx.nn.Linear
    shape_of_anchor: eqx.nn.Linear
    shape_of_point: eqx.nn.Linear
    up: eqx.nn.Linear

    def __init__(self, base: BaseDensity, width: int, depth: int, frequencies: int, rank: int, *, key: Array):
        parts, dim = base.mixture.mean.shape
        k_trunk, *k_bilinear = jax.random.split(key, 5)
        self.base = base
        self.trunk = MLP(dim, width, depth, frequencies, dim + parts, key=k_trunk)
        layers = bilinear_layers(dim, parts, width, rank, k_bilinear)
        self.down, self.shape_of_anchor, self.shape_of_point, self.up = layers

    @property
    def point_bytes(self) -> int:
        """What the widest values of one point take."""
        return self.base.point_bytes

    def __call__(self, z: Float[Array, " dim"], log_sigma: Scalar) -> Float[Array, " dim"]:
        """Network output for one point."""
        base = jax.lax.stop_gradient(self.base)
        mixture, noise = base.mixture, jnp.exp(2.0 * log_sigma)
        c_in = jax.lax.rsqrt(noise + 1.0)
        x = z / c_in
        y, variance = mixture.along_noised(x), mixture.variance + noise
        share = jax.nn.softmax(mixture.log_parts(y, noise))
        denoised = jax.lax.cond(
            base.is_product, lambda: base.product.denoised(x, noise), lambda: mixture.denoised(y, share, noise)
        )
        u = mixture.back(y * jax.lax.rsqrt(variance), share)

        return (denoised - c_in * z) / (jnp.exp(log_sigma) * c_in) + learned_around(self, z, log_sigma, u, share)


@dataclasses.dataclass(frozen=True)
class MixturePerceptron(NetworkSettings):
    """A `Corrected` network."""

    components: int = 128
    """Components of the base, at most."""
    rank: int = 128
    """Rank of the linear maps that it learns around components."""
    width: int = 128
    """Width of the layers of its perceptron."""
    depth: int = 3
    """Residual blocks of its perceptron."""
    frequencies: int = 8
    """Fourier features of each coordinate; fewer above 4 dimensions, none above 32."""
    predicts: ClassVar[str] = "denoiser"
    fits_mixture: ClassVar[bool] = True

    def __post_init__(self):
        check(self, zero=("depth", "frequencies"))

    def prepare(self, target: Target, found: SearchResult, key: Array) -> tuple[Any, SearchResult]:
        """Fit the base to points and their gradients, and make the points right by its draws."""
        return fit_base(target, found, self.components, key)

    def unprepared(self, size: int, dim: int) -> Any:
        """Give the shapes of what `prepare` gives."""
        k = self.components
        parts = jnp.zeros(k), jnp.zeros((k, dim)), jnp.zeros((k, dim, dim)), jnp.ones((k, dim))
        return Base(GaussianMixture(*parts), 0.0)

    def build(self, dim: int, prepared: Any, key: Array) -> Corrected:
        """Make the network, which has learned nothing."""
        frequencies = frequencies_for(self.frequencies, dim)
        return Corrected(prepared.density, self.width, self.depth, frequencies, self.rank, key=key)
