"""A product over coordinates, of a mixture of normals for each, and all of it that is closed form:
what stands in for more modes than can be listed, as of wells in every coordinate.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Scalar

from allmodes.devices.blocks import batched_map
from allmodes.points.mixture import AT_A_TIME, GaussianMixture


class Product(eqx.Module):
    """`prod_j sum_k share_jk N(mean_jk, variance_jk)`."""

    log_share: Float[Array, "dim k"]  # of each coordinate, sums to one
    mean: Float[Array, "dim k"]
    variance: Float[Array, "dim k"]

    @classmethod
    def standard(cls, dim: int, size: int) -> "Product":
        """Standard normals, each in so many parts that are the same."""
        ones = jnp.ones((dim, size))
        return cls(-jnp.log(size) * ones, 0.0 * ones, ones)

    @property
    def point_bytes(self) -> int:
        """What the widest values of one point take."""
        return 4 * self.variance.size

    def log_parts(self, z: Float[Array, " dim"], noise: Scalar | float = 0.0) -> Float[Array, "dim k"]:
        """Log of each part's share times its density, with noise of this variance, at the point's
        own coordinate.
        """
        variance = self.variance + noise
        squared = (z[:, None] - self.mean) ** 2 / variance + jnp.log(2.0 * jnp.pi * variance)
        return self.log_share - 0.5 * squared

    def denoised(self, z: Float[Array, " dim"], noise: Scalar) -> Float[Array, " dim"]:
        """The mean of the clean point, of which z is the noised one."""
        log_share, mean, _ = self._posterior(z, noise)
        return jnp.sum(jnp.exp(log_share) * mean, axis=1)

    def clean(
        self, z: Float[Array, " dim"], denoised: Float[Array, " dim"], noise: Scalar
    ) -> tuple[Float[Array, "dim k"], Float[Array, "dim k"], Float[Array, "dim k"]]:
        """What is known of the clean point that z was made of, its mean moved to `denoised`: log
        shares of the parts of each coordinate, and mean, from z, and variance of each.
        """
        log_share, mean, variance = self._posterior(z, noise)
        learned = denoised - jnp.sum(jnp.exp(log_share) * mean, axis=1)
        return log_share, mean - z[:, None] + learned[:, None], variance

    def step(
        self,
        key: Array,
        normal: Float[Array, " dim"],
        log_share: Float[Array, "dim k"],
        shift: Float[Array, "dim k"],
        variance: Float[Array, "dim k"],
    ) -> Float[Array, " dim"]:
        """Turn a standard normal into a draw of parts that stand as `clean` says."""
        which = jnp.arange(len(normal)), jax.random.categorical(key, log_share)
        return shift[which] + jnp.sqrt(variance[which]) * normal

    def log_step(
        self,
        v: Float[Array, " dim"],
        log_share: Float[Array, "dim k"],
        shift: Float[Array, "dim k"],
        variance: Float[Array, "dim k"],
    ) -> Scalar:
        """Log-density of such a draw."""
        squared = (v[:, None] - shift) ** 2 / variance + jnp.log(2.0 * jnp.pi * variance)
        return jnp.sum(logsumexp(log_share - 0.5 * squared, axis=1))

    def _posterior(
        self, z: Float[Array, " dim"], noise: Scalar
    ) -> tuple[Float[Array, "dim k"], Float[Array, "dim k"], Float[Array, "dim k"]]:
        """Log shares of the parts of each coordinate of the clean point, mean and variance."""
        kept = self.variance / (self.variance + noise)
        log_share = jax.nn.log_softmax(self.log_parts(z, noise), axis=1)
        return log_share, self.mean + kept * (z[:, None] - self.mean), kept * noise

    def log_density(self, z: Float[Array, "n dim"], noise: Scalar | float = 0.0) -> Float[Array, " n"]:
        """Log-density, with noise of this variance, at each point."""
        return batched_map(lambda one: jnp.sum(logsumexp(self.log_parts(one, noise), axis=1)), z, AT_A_TIME)

    def sample(self, key: Array, n: int, noise: Scalar | float = 0.0) -> Float[Array, "n dim"]:
        """N draws, with noise of this variance."""
        k_which, k_normal = jax.random.split(key)
        dim = len(self.mean)
        which = jax.random.categorical(k_which, self.log_share, shape=(n, dim))
        mean, variance = (a[jnp.arange(dim), which] for a in (self.mean, self.variance))
        return mean + jnp.sqrt(variance + noise) * jax.random.normal(k_normal, (n, dim))


class BaseDensity(eqx.Module):
    """What a network corrects the denoiser of: a mixture, or a product where `is_product`.

    Both are always there, so that the shapes of a state do not hang on what a density is like.
    """

    mixture: GaussianMixture
    product: Product
    by_product: Scalar  # one where it is the product, else zero: a number, as all that a network is made of

    @property
    def is_product(self) -> Bool[Array, ""]:
        """Which of the two it is."""
        return self.by_product > 0.5

    @property
    def point_bytes(self) -> int:
        """What the widest values of one point take."""
        return max(self.mixture.point_bytes, self.product.point_bytes)

    def log_density(self, z: Float[Array, "n dim"], noise: Scalar | float = 0.0) -> Float[Array, " n"]:
        """Log-density, with noise of this variance, at each point."""
        return jax.lax.cond(
            self.is_product, lambda: self.product.log_density(z, noise), lambda: self.mixture.log_density(z, noise)
        )

    def sample(self, key: Array, n: int, noise: Scalar | float = 0.0) -> Float[Array, "n dim"]:
        """N draws, with noise of this variance."""
        return jax.lax.cond(
            self.is_product, lambda: self.product.sample(key, n, noise), lambda: self.mixture.sample(key, n, noise)
        )
