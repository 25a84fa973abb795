"""Losses of log path weights: how far the sampler's paths are from those that noise the target.

With the weight `w = pi(z_0) prod noising / (prior prod q)` of a path (`diffusion/paths.py`), all of
them are least where log w is the same, log Z, on every path: the sampler is exact then.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.settings import check

LOWEST = -1e6  # log-density of a draw without mass: its path still has a gradient


def with_mass(log_prob: Float[Array, " n"]) -> Float[Array, " n"]:
    """Log-densities with a floor, which a loss of them is finite by."""
    return jnp.where(log_prob > LOWEST, log_prob, LOWEST)


@dataclasses.dataclass(frozen=True)
class ReverseKL:
    """`-E_q[log w]` over the sampler's own paths, minus the ELBO: the KL divergence from the
    sampler to the target, up to log Z.

    Its gradient goes through the path. It drops modes.
    """

    def __call__(self, log_weight: Float[Array, " n"], log_z: Scalar | float = 0.0) -> Scalar:
        """The loss of a batch of paths; log Z has no part in it."""
        return -jnp.mean(log_weight)


@dataclasses.dataclass(frozen=True)
class LogVariance:
    """`Var[log w]` over paths of any origin (Richter and Berner 2024, arXiv 2307.01198).

    No gradient goes through the points of a path. Over the sampler's own paths, the gradient is
    twice that of the reverse KL, in expectation; it is zero for each batch where the sampler is
    exact.
    """

    def __call__(self, log_weight: Float[Array, " n"], log_z: Scalar | float = 0.0) -> Scalar:
        """The loss of a batch of paths; log Z is the mean of their log w."""
        return jnp.var(log_weight)


@dataclasses.dataclass(frozen=True)
class TrajectoryBalance:
    """`E[(log Z - log w)^2]` over paths of any origin, with a log Z that is learned (Malkin et al.
    2022, arXiv 2201.13259; of diffusions Sendera et al. 2024, arXiv 2402.05098).

    Where log Z is the mean of log w, which is where it is led to, this is the log-variance.
    """

    rate: float = 0.05
    """Learning rate of log Z, by gradient descent: each step goes 2 `rate` of the way to the mean
    of log w."""

    def __post_init__(self):
        check(self)

    def __call__(self, log_weight: Float[Array, " n"], log_z: Scalar | float = 0.0) -> Scalar:
        """The loss of a batch of paths."""
        return jnp.mean((log_z - log_weight) ** 2)
