"""Where a target says that its mass is: the place and the scale of a prior, or a user's own."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.points.frame import Frame
from allmodes.target import Target


class Told(NamedTuple):
    """Middle and spread, in a frame."""

    middle: Float[Array, " dim"]
    spread: Float[Array, " dim"]


def where_told(target: Target, frame: Frame) -> Told | None:
    """Middle and spread of the mass, if the target says both.

    Starts of a search are drawn there too, as the scouts' box is no stand-in for a prior: they
    begin ten scales away as well, where a likelihood is flat and a point may stay, and a mode that
    6 % of the prior lead to was met by none of 340 starts.
    """
    if target.location is None or target.scale is None:
        return None
    place = jnp.broadcast_to(np.asarray(target.location, float), (1, target.free_dim))
    spread = jnp.broadcast_to(jnp.asarray(target.scale, jnp.float32), (target.free_dim,))
    return Told(frame.to_z(place)[0], spread / frame.scale)
