"""Variance-exploding noise: x_t = x_0 + sigma(t) eps, with a geometric sigma (Song et al. 2021)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar


class Noise(eqx.Module):
    """`sigma(t) = sigma_min (sigma_max / sigma_min)^t` for t in [0, 1], in units of the normalised target."""

    sigma_min: Scalar
    sigma_max: Scalar

    def sigma(self, t: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Noise level at time t."""
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** t

    def time(self, sigma: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Inverse of `sigma`, clipped to [0, 1]: sigma = 0 counts as the lowest level."""
        ratio = jnp.maximum(sigma, self.sigma_min) / self.sigma_min
        return jnp.clip(jnp.log(ratio) / jnp.log(self.sigma_max / self.sigma_min), 0.0, 1.0)

    def grid(self, steps: int) -> Float[Array, " levels"]:
        """Levels of a reverse path of `steps` steps: geometric from sigma_max to sigma_min, then 0."""
        return jnp.append(self.sigma(jnp.linspace(1.0, 0.0, steps)), 0.0)


def stratified_times(key: Array, n: int) -> Float[Array, " n"]:
    """N times in increasing order, one uniform in each of n equal strata of [0, 1]."""
    return (jnp.arange(n) + jax.random.uniform(key, (n,))) / n
