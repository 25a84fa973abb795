"""Many draws or points as blocks of equal size, so that one compiled program does for all."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.mesh import share_evenly

BLOCK = 4096  # most draws in one compiled call


def blocks_of(key: Array, n: int) -> tuple[list[Array], int]:
    """Give a key for each of the fewest blocks that n draws fit into, and the size of each: one
    that devices can share.
    """
    blocks = -(-n // BLOCK)
    return [jax.random.fold_in(key, i) for i in range(blocks)], share_evenly(-(-n // blocks))


def points_of(x: Float[Array, "n dim"], most: int | None = None) -> list[Float[Array, "size dim"]]:
    """Give points in as few blocks as can be, of at most `most` each (`BLOCK` when not given); the
    last point fills up.
    """
    count = -(-len(x) // (BLOCK if most is None else most))
    size = share_evenly(-(-len(x) // count))
    padded = jnp.concatenate([x, jnp.broadcast_to(x[-1], (count * size - len(x), x.shape[1]))])
    return [padded[i * size : (i + 1) * size] for i in range(count)]
