"""Normalising flows of flowjax, with all that they learn in one vector: a state holds arrays
alone.
"""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from allmodes.devices.precision import single
from allmodes.errors import ConfigError
from allmodes.settings import check

SMALL = 0.3  # of the weights of a new flow, over those that keep a perceptron's units at their size


class Flow:
    """A normalised density that can be drawn from, in the frame of the method."""

    def __init__(self, distribution: Any):
        self._distribution = distribution

    def sample(self, key: Array, n: int) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
        """N draws and their log-densities."""
        return self._distribution.sample_and_log_prob(key, (n,))

    def log_prob(self, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """Log-density at each point."""
        return self._distribution.log_prob(z)

    def score(self, z: Float[Array, "n dim"]) -> tuple[Float[Array, " n"], Float[Array, "n dim"]]:
        """Log-density at each point, and its gradient there."""
        log_prob, pull = jax.vjp(self.log_prob, z)
        return log_prob, pull(jnp.ones_like(log_prob))[0]


@dataclasses.dataclass(frozen=True)
class CouplingFlow:
    """Coupling layers from a standard normal, each of which moves half of the coordinates by what
    a perceptron makes of the other half (Dinh et al. 2017, arXiv 1605.08803).
    """

    layers: int = 8
    """Coupling layers, between which coordinates are permuted."""
    width: int = 64
    """Units of each hidden layer of a perceptron."""
    depth: int = 2
    """Hidden layers of a perceptron."""
    knots: int = 8
    """Inner knots of the rational-quadratic splines that coordinates are moved by (Durkan et al.
    2019, arXiv 1906.04032); affine maps where it is 0, as in RealNVP."""
    reach: float = 5.0
    """As far from the origin as splines act, in standard deviations of the normal; the identity
    beyond."""

    def __post_init__(self):
        check(self, zero=("knots",))

    def start(self, dim: int, key: Array) -> Float[Array, " parameters"]:
        """Draw what a flow has learned before the first step: it is all but the standard normal.

        **Raises** `ConfigError` in one dimension, where there is nothing to couple.
        """
        if dim < 2:
            raise ConfigError(f"a coupling flow needs at least 2 dimensions, got {dim}")
        _, unravel, size = _blueprint(self, dim)
        leaves, tree = jax.tree.flatten(unravel(jnp.zeros(size)))
        return ravel_pytree(jax.tree.unflatten(tree, map(_drawn, jax.random.split(key, len(leaves)), leaves)))[0]

    def at(self, dim: int, parameters: Float[Array, " parameters"]) -> Flow:
        """Give the flow that has learned this."""
        rest, unravel, _ = _blueprint(self, dim)
        return Flow(eqx.combine(unravel(parameters), rest))

    def _build(self, dim: int, key: Array) -> Any:
        from flowjax.bijections import RationalQuadraticSpline
        from flowjax.distributions import StandardNormal
        from flowjax.flows import coupling_flow

        moves = RationalQuadraticSpline(knots=self.knots, interval=self.reach) if self.knots else None
        return coupling_flow(
            key, base_dist=StandardNormal((dim,)), transformer=moves, flow_layers=self.layers,
            nn_width=self.width, nn_depth=self.depth, nn_activation=jax.nn.silu,
        )  # fmt: skip


def _drawn(key: Array, like: Float[Array, "layers *shape"]) -> Float[Array, "layers *shape"]:
    """Weights `(layers, out, in)`, small that many layers do not pile up; no offsets."""
    return jnp.zeros(like.shape) if like.ndim < 3 else SMALL * jax.random.normal(key, like.shape) / like.shape[2] ** 0.5


@functools.lru_cache(16)
def _blueprint(settings: CouplingFlow, dim: int) -> tuple[Any, Callable[[Array], Any], int]:
    """All of a flow that is not learned, the permutations among it; what makes of a vector the
    rest; and the length of that.

    Made by a thread of its own, because a flow that is made while JAX traces, as here it may be,
    would carry tracers into the next program.
    """

    @single
    def build():
        flow = settings._build(dim, jax.random.key(0))
        learned, rest = eqx.partition(flow, eqx.is_inexact_array)
        vector, unravel = ravel_pytree(learned)
        return rest, unravel, vector.size

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(build).result()
