"""How much mass is around a point, by the moves that it made."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from allmodes.mcmc.mala import Moved, width_of

_BEST = 800  # one estimate of mass in so many, and two at least, may be too large: the next is the largest that counts
REACH = 1.25  # the second stage's box over the extent of what the first found


@jax.jit
def shortfall(moved: Moved) -> Float[Array, " n"]:
    """By how much an estimate of the log of the mass around each point is below the largest ones.

    Climbs also end in wide basins far below the best, such as that of a component of a mixture
    which stands for nothing. Half of the exact draws of six posteriors in 7 to 256 dimensions are
    nearer than 3 sqrt(dim), all nearer than 8 sqrt(dim).
    """
    mass = local_mass(moved)
    return jax.lax.top_k(mass, min(max(3, len(mass) // _BEST), len(mass)))[0][-1] - mass


def local_mass(moved: Moved, differentiable: bool = True) -> Float[Array, " n"]:
    """Estimate the log of the mass around each point, but for a constant, by the moves that it
    made.

    Height alone does not tell worthless basins from modes, as a wide mode is lower than a narrow
    one of the same mass: so the widths count, those of the gradients along each coordinate, or of
    the frame where it is narrower.
    """
    dim = moved.points.z.shape[1]
    if differentiable:
        width = 1.0 / jnp.sqrt(jnp.maximum(moved.mean_square_grad, 1e-30))
    else:
        width = width_of(moved.step_size, dim)
        width = jnp.broadcast_to(width[:, None] if width.ndim else width, moved.points.z.shape)
    return moved.mean_log_prob + jnp.sum(jnp.log(jnp.minimum(width, REACH)), axis=1)


def near_the_mass(short: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Where nearly all exact draws are: of six posteriors 0.6 % at most are not."""
    return short < 10.0 + 2.0 * dim**0.5 + 0.25 * dim
