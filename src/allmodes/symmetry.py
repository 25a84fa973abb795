"""Particles that may be moved together, turned, mirrored and exchanged without changing the
density.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.errors import TargetError

_POINTS = 16
_TOLERANCE = 1e-3  # of 1 + |log_prob|: float32 sums of steep pair energies lose about 1e-5


@dataclasses.dataclass(frozen=True)
class ParticleSymmetry:
    """`particles` equal particles in `dim` spatial dimensions; a point is their coordinates,
    particle by particle.

    A density that does not change when all particles are moved together cannot be normalised on all
    of space: it lives on the mean-free subspace, of `free_dim = (particles - 1) dim` dimensions.
    The library works there, in the coordinates of an orthonormal basis, in which isotropic noise is
    mean-free noise and every formula (prior, path weights, log Z) holds as it stands, with
    `free_dim` in place of the dimension.
    """

    particles: int
    dim: int = 3

    def __post_init__(self):
        for name, least in (("particles", 2), ("dim", 1)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise TargetError(f"{name} of a ParticleSymmetry must be a whole number of at least {least}: {value!r}")

    @property
    def free_dim(self) -> int:
        """Dimensions of the mean-free subspace."""
        return (self.particles - 1) * self.dim

    @property
    def pairs(self) -> int:
        """Pairs of particles."""
        return self.particles * (self.particles - 1) // 2

    @functools.cached_property
    def _basis(self) -> np.ndarray:
        """`(particles, particles - 1)`: orthonormal columns, each of sum zero (Helmert's)."""
        n = self.particles
        columns = np.zeros((n, n - 1))
        for k in range(1, n):
            columns[:k, k - 1], columns[k, k - 1] = 1.0, -k
            columns[:, k - 1] /= np.sqrt(k * (k + 1))
        return columns

    def embed(self, free: Float[Array, "*n free"]) -> Float[Array, "*n dim"]:
        """From the subspace's coordinates to mean-free particle coordinates."""
        y = free.reshape(*free.shape[:-1], self.particles - 1, self.dim)
        x = jnp.einsum("pk,...kd->...pd", jnp.asarray(self._basis, free.dtype), y, precision="highest")
        return x.reshape(*free.shape[:-1], self.particles * self.dim)

    def project(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n free"]:
        """From particle coordinates to the subspace's; what all particles share is lost."""
        x = x.reshape(*x.shape[:-1], self.particles, self.dim)
        y = jnp.einsum("pk,...pd->...kd", jnp.asarray(self._basis, x.dtype), x, precision="highest")
        return y.reshape(*x.shape[:-2], self.free_dim)

    def scramble(self, key: Array, x: Float[Array, " dim"]) -> Float[Array, " dim"]:
        """One of the configurations that the density cannot tell from x: exchanged, turned and
        mirrored at random.
        """
        k_order, k_turn = jax.random.split(key)
        turn, triangle = jnp.linalg.qr(jax.random.normal(k_turn, (self.dim, self.dim)))
        turn = turn * jnp.sign(jnp.diagonal(triangle))  # uniform over the orthogonal group
        order = jax.random.permutation(k_order, self.particles)
        return (x.reshape(self.particles, self.dim)[order] @ turn).reshape(-1)

    def check(self, log_prob: Callable[[Float[Array, " dim"]], Float[Array, ""]]) -> None:
        """Compare the density at random points with itself after each transformation.

        **Raises** `TargetError`, naming the transformation that it is not invariant under.
        """
        k_points, k_shift, k_turn, k_order = jax.random.split(jax.random.key(0), 4)
        n, d = self.particles, self.dim
        # Spread over scales: what matters to the density may be visible at some of them only.
        scales = jnp.geomspace(0.3, 30.0, _POINTS)[:, None, None]
        x = scales * jax.random.normal(k_points, (_POINTS, n, d))
        turn, _ = jnp.linalg.qr(jax.random.normal(k_turn, (d, d)))
        order = jax.random.permutation(k_order, n)
        order = jnp.where(jnp.all(order == jnp.arange(n)), jnp.roll(order, 1), order)
        changes = {
            "all particles are moved together": x + jax.random.normal(k_shift, (d,)),
            "the whole is turned and mirrored": x @ turn,
            "particles are exchanged": x[:, order],
        }
        values = jax.jit(jax.vmap(lambda x: log_prob(x.reshape(-1))))
        before = np.asarray(values(x), float)
        for what, changed in changes.items():
            after = np.asarray(values(changed), float)
            known = np.isfinite(before) & np.isfinite(after)
            wrong = known & (np.abs(after - before) > _TOLERANCE * (1.0 + np.abs(before)))
            if np.any(wrong):
                i = int(np.argmax(wrong))
                raise TargetError(
                    f"log_prob is declared symmetric ({n} particles in {d} dimensions) but changes when {what}: "
                    f"{before[i]:.6g} became {after[i]:.6g} at a random point. Mend it, or leave symmetry out."
                )
