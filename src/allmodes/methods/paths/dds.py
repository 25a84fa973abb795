"""Denoising Diffusion Samplers (Vargas, Grathwohl and Doucet 2023, arXiv 2302.13834): the reverse
KL over whole paths, and the density's gradient in the network.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
from jaxtyping import Array

from allmodes.diffusion.networks import Network, Perceptron
from allmodes.diffusion.paths import reverse
from allmodes.method import Figure, Figures
from allmodes.methods.paths.losses import ReverseKL, with_mass
from allmodes.methods.paths.method import PathMethod
from allmodes.methods.paths.state import State
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class DDS(PathMethod):
    """Train the reverse of a diffusion on the reverse KL between its paths and those of noising.

    The loss is minus the ELBO, whose gradient goes through the whole path. It drops modes, as the
    reverse KL does: the forward ESS and the modes that the search found tell. Here in the frame
    that a search finds, and with variance-exploding noise, as all samplers of this library are.
    """

    figures: ClassVar[Mapping[str, Figure]] = {"loss": Figure("-ELBO", in_progress="-ELBO", caption="minus the ELBO")}
    needs_gradient: ClassVar[bool] = True  # the loss is differentiated through the ends of paths

    name: str = "dds"
    """What results call it."""
    guided: bool = True
    """Whether the network is shown the density's gradient at each point of a path."""
    network: Network = Perceptron(frequencies=2)
    """What learns, beside the gain of the gradient."""

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Walk a batch of paths down, and follow the gradient of their mean log weight."""

        def loss_of(model):
            path = reverse(self.process_of(target, state, model), key, self.batch, self.path_steps)
            return ReverseKL()(path.log_ratio + with_mass(state.frame.values(target, path.z)))

        loss, gradient = jax.value_and_grad(loss_of)(state.model)
        cost = self.batch * (1 + self.path_steps * state.model[0].evaluations)
        return self.follow(state, gradient, evaluations=state.evaluations.add_points(cost, 0, 0)), {"loss": loss}
