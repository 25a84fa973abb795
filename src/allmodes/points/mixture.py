"""A mixture of Gaussians with full covariances, and all of it that is closed form: its density, its
draws, and what its noised points say of the clean ones.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.blocks import batched_map

AT_A_TIME = 1024  # points whose distances from all components are computed together


class GaussianMixture(eqx.Module):
    """`sum_k share_k N(mean_k, axes_k diag(variance_k) axes_k')`; the columns of `axes_k` are
    orthonormal.
    """

    log_share: Float[Array, " k"]  # sums to one
    mean: Float[Array, "k dim"]
    axes: Float[Array, "k dim dim"]
    variance: Float[Array, "k dim"]

    @property
    def point_bytes(self) -> int:
        """What the widest values of one point take."""
        return 4 * self.variance.size

    def along(self, z: Float[Array, " dim"]) -> Float[Array, "k dim"]:
        """One point from each mean, along the component's own axes."""
        return jnp.einsum("kij,ki->kj", self.axes, z - self.mean)

    def along_noised(self, z: Float[Array, " dim"]) -> Float[Array, "k dim"]:
        """The same many times as fast, of many points one matrix product: off by the grain of
        float32 at z, which is next to nothing beside any noise.
        """
        return self.turned(z) - jnp.einsum("kij,ki->kj", self.axes, self.mean)

    def turned(self, v: Float[Array, " dim"]) -> Float[Array, "k dim"]:
        """One vector, along each component's axes."""
        rows = jnp.swapaxes(self.axes, 0, 1).reshape(len(v), -1)
        return (v @ rows).reshape(self.mean.shape)

    def back(self, y: Float[Array, "k dim"], weight: Float[Array, " k"]) -> Float[Array, " dim"]:
        """The weighted sum of vectors that are given along the axes."""
        columns = jnp.swapaxes(self.axes, 1, 2).reshape(-1, y.shape[1])
        return (weight[:, None] * y).ravel() @ columns

    def log_parts(self, y: Float[Array, "k dim"], noise: Scalar | float = 0.0) -> Float[Array, " k"]:
        """Log of each component's share times its density, with noise of this variance, at the
        point that `along` gave y of.
        """
        variance = self.variance + noise
        squared = jnp.sum(y**2 / variance + jnp.log(variance), axis=1)
        return self.log_share - 0.5 * (squared + y.shape[1] * jnp.log(2.0 * jnp.pi))

    def denoised(self, y: Float[Array, "k dim"], share: Float[Array, " k"], noise: Scalar) -> Float[Array, " dim"]:
        """The mean of the clean point, of which the noised one is `along` the components as y and
        theirs in `share`.
        """
        return share @ self.mean + self.back(self.variance / (self.variance + noise) * y, share)

    def clean(
        self, z: Float[Array, " dim"], denoised: Float[Array, " dim"], noise: Scalar
    ) -> tuple[Float[Array, " k"], Float[Array, "k dim"], Float[Array, "k dim"]]:
        """What is known of the clean point that z was made of, its mean moved to `denoised`: log
        shares of the components, and mean and variance of each along its axes, from z.

        Component k would have made z of a clean point that is normal with mean
        `mean_k + U_k (L_k / v_k) y_k` and variance `U_k (L_k sigma^2 / v_k) U_k'`, where
        `y_k = U_k'(z - mean_k)` and `v_k = L_k + sigma^2`.
        """
        y, kept = self.along_noised(z), self.variance / (self.variance + noise)
        log_share = jax.nn.log_softmax(self.log_parts(y, noise))
        learned = denoised - self.denoised(y, jnp.exp(log_share), noise)
        return log_share, kept * y - y + self.turned(learned), kept * noise

    def step(
        self,
        key: Array,
        normal: Float[Array, " dim"],
        log_share: Float[Array, " k"],
        shift: Float[Array, "k dim"],
        variance: Float[Array, "k dim"],
    ) -> Float[Array, " dim"]:
        """Turn a standard normal into a draw of parts that stand as `clean` says."""
        k = jax.random.categorical(key, log_share)
        return self.axes[k] @ (shift[k] + jnp.sqrt(variance[k]) * normal)

    def log_step(
        self,
        v: Float[Array, " dim"],
        log_share: Float[Array, " k"],
        shift: Float[Array, "k dim"],
        variance: Float[Array, "k dim"],
    ) -> Scalar:
        """Log-density of such a draw."""
        squared = jnp.sum((self.turned(v) - shift) ** 2 / variance + jnp.log(variance), axis=1)
        return logsumexp(log_share - 0.5 * (squared + len(v) * jnp.log(2.0 * jnp.pi)))

    def log_joint(self, z: Float[Array, "n dim"]) -> Float[Array, "n k"]:
        """`log_parts` at each point."""
        return batched_map(lambda one: self.log_parts(self.along(one)), z, AT_A_TIME)

    def component_of(self, z: Float[Array, "n dim"]) -> Int[Array, " n"]:
        """The component that most probably made each point."""
        return batched_map(lambda one: jnp.argmax(self.log_parts(self.along(one))), z, AT_A_TIME)

    def log_density(self, z: Float[Array, "n dim"], noise: Scalar | float = 0.0) -> Float[Array, " n"]:
        """Log-density of the mixture, with noise of this variance, at each point."""
        return batched_map(lambda one: logsumexp(self.log_parts(self.along(one), noise)), z, AT_A_TIME)

    def sample(self, key: Array, n: int, noise: Scalar | float = 0.0) -> Float[Array, "n dim"]:
        """N draws of the mixture, with noise of this variance."""
        k_which, k_normal = jax.random.split(key)
        which = jax.random.categorical(k_which, self.log_share, shape=(n,))
        y = jnp.sqrt(self.variance[which] + noise) * jax.random.normal(k_normal, (n, self.mean.shape[1]))
        return self.mean[which] + jax.vmap(lambda k, one: self.axes[k] @ one)(which, y)
