"""What all samplers of paths carry through training."""

from typing import Any

import equinox as eqx
import optax
from jaxtyping import Array, Float, Int

from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.noise import Noise
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame

Model = tuple[Denoiser, Float[Array, "levels dim"]]  # and the log of the variance that it leaves


class State(eqx.Module):
    """All that training carries."""

    step: Int[Array, ""]
    end: Int[Array, ""]  # of training, brought forward where time runs out
    cooldown: Int[Array, ""]
    model: Model
    average: Model
    optimiser: optax.OptState
    noise: Noise
    frame: Frame
    buffer: Buffer  # what the search found, or what has become of it
    evaluations: Evaluations
    more: Any = ()  # what a method carries beside
