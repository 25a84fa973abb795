"""What a search, or a tempered population, knows of a density: a frame, and points in it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.target import Target


class SearchResult(NamedTuple):
    """What the search knows: a frame, points in it at local equilibrium, their step size and
    narrowest scale.
    """

    frame: Frame
    points: Buffer
    step_size: Scalar  # for MALA moves, normalised coordinates
    tau: Float[Array, " dim"]  # root of 1 / E[grad^2]: the narrowest scale along each coordinate
    edges: Scalar  # share of local proposals that met zero density
    evaluations: Evaluations
    starts: Int[Array, "2"] | None = None  # independent ones, and how many ended in basins of their own, if counted
    passed: Buffer | None = None  # what the points passed through on their last moves, if it was kept

    def filled(self, size: int) -> "SearchResult":
        """The same with so many points: copies where there are fewer."""
        n = self.points.size
        return self if n == size else self._replace(points=self.points.take(jnp.arange(size) % n))


@functools.partial(jax.jit, static_argnums=1)
def normalise(found: SearchResult, differentiable: bool = True, among: Bool[Array, " n"] | None = None) -> SearchResult:
    """The same points in the frame in which their mean is zero and their spread one: of all, or of
    some `among` them.

    The narrowest scale is that of their gradients; where there are none, the one that is there.
    """
    frame, points = found.frame, found.points
    some = None if among is None else jnp.broadcast_to(among[:, None], points.z.shape)
    mean = jnp.zeros(points.z.shape[1]) if frame.symmetry else jnp.mean(points.z, axis=0, where=some)
    spread = jnp.maximum(
        jnp.sqrt(frame.average_over_symmetry(jnp.mean((points.z - mean) ** 2, axis=0, where=some))), 1e-6
    )
    new = frame.moved(mean, spread)

    # Between the two frames without passing through x, whose float32 grid is coarse far from the
    # origin.
    def moved(points: Buffer) -> Buffer:
        z = (points.z - new.shift(frame) / frame.scale) / spread
        return Buffer(z, points.log_prob - frame.log_det + new.log_det, points.grad * spread)

    points = moved(points)
    if differentiable:
        tau2 = 1.0 / jnp.maximum(new.average_over_symmetry(jnp.mean(points.grad**2, axis=0, where=some)), 1e-12)
    else:
        tau2 = (found.tau / spread) ** 2
    return found._replace(
        frame=new,
        points=points,
        step_size=found.step_size / jnp.mean(spread) ** 2,
        tau=jnp.sqrt(tau2),
        passed=None if found.passed is None else moved(found.passed),
    )


def nowhere(target: Target, size: int) -> SearchResult:
    """A search's result with zeros in it: the shapes of one."""
    zero = jnp.zeros(())
    z = jnp.zeros((size, target.free_dim))
    points = Buffer(z, z[:, 0], z)
    fine = (z[0], jnp.zeros(2)) if target.double else (None, None)
    return SearchResult(
        Frame(z[0], z[0], target.symmetry, *fine), points, zero, z[0], zero, Evaluations.none(target.differentiable)
    )
