"""All that the training of FAB carries."""

import equinox as eqx
import optax
from jaxtyping import Array, Float, Int

from allmodes.methods.fab.replay import Replay
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame


class State(eqx.Module):
    """A flow, the buffer that it learns from, and the steps of the moves that fill it."""

    step: Int[Array, ""]
    end: Int[Array, ""]  # the step after which training is over
    cooldown: Int[Array, ""]  # last steps, over which the learning rate falls
    flow: Float[Array, " parameters"]
    average: Float[Array, " parameters"]
    optimiser: optax.OptState
    moves: Float[Array, " levels"]  # MALA's step at each level
    frame: Frame
    replay: Replay
    evaluations: Evaluations
