"""All that the training of CMCD carries."""

import equinox as eqx
import optax
from jaxtyping import Array, Float, Int

from allmodes.methods.cmcd.annealing import Learned
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame


class State(eqx.Module):
    """What was learned, and what the search has found."""

    step: Int[Array, ""]
    end: Int[Array, ""]  # the step after which training is over
    cooldown: Int[Array, ""]  # last steps, over which the learning rate falls
    learned: Learned
    average: Learned
    optimiser: optax.OptState
    narrowest: Float[Array, " dim"]  # scale of the target along each coordinate
    frame: Frame
    buffer: Buffer
    evaluations: Evaluations
