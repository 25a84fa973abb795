"""Controlled Monte Carlo Diffusions (Vargas, Padhy, Blessing and Nüsken 2024, arXiv 2307.01050):
Langevin annealing with a control that is learned.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.diffusion.networks import Equivariant, Perceptron, network_for
from allmodes.errors import ConfigError
from allmodes.method import Figure, Figures, Trained
from allmodes.methods.cmcd.annealing import Annealing, Learned
from allmodes.methods.cmcd.path import walk
from allmodes.methods.cmcd.sampler import AnnealedSampler
from allmodes.methods.cmcd.state import State
from allmodes.methods.optimiser import Adam
from allmodes.methods.paths.losses import LogVariance, ReverseKL, with_mass
from allmodes.points.found import SearchResult, nowhere
from allmodes.search.search import search
from allmodes.settings import check
from allmodes.target import Target

POINTS = 2048  # of the search


@dataclasses.dataclass(frozen=True)
class CMCD(Trained):
    """Train the control of Langevin annealing from the unit normal of the frame that a search finds
    to the target, with the schedule of densities and the lengths of steps.

    The control starts at zero, as annealing alone, and weights are exact from then on. By the
    log-variance over own paths (CMCD-LV) modes are covered better than by the reverse KL (CMCD-KL),
    whose gradient goes through the path, and needs second derivatives of the density.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "loss": Figure("loss", in_progress="loss", caption="the log-variance of own paths, or minus their ELBO"),
        "elbo": Figure("ELBO", in_progress="ELBO", caption="the ELBO of own paths, before averaging, in the frame"),
    }

    name: str = "cmcd"
    """What results call it."""
    steps: int = 3000
    """Training steps."""
    cooldown: int = 1000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    batch: int = 256
    """Paths a step."""
    path_steps: int = 64
    """Steps of a path, an evaluation each, in training and of a draw."""
    network: Perceptron | Equivariant = Perceptron(64, 2)
    """The control, in units of the width of the annealed density."""
    loss: LogVariance | ReverseKL = LogVariance()
    """What is made small over own paths."""
    optimiser: Adam = Adam()
    """How all that is learned follows its gradient."""

    def __post_init__(self):
        check(self, zero=("cooldown",))
        if self.path_steps < 2:
            raise ConfigError(f"path_steps must be at least 2, got {self.path_steps}")
        if self.network.predicts != "denoiser":
            raise ConfigError("the network of cmcd is a control, and predicts no score: leave predicts out")

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, and build the network.

        **Raises** `ConfigError` where the density has no gradient, or no second derivative and the
        loss needs it.
        """
        if not target.differentiable:
            raise ConfigError(f"cmcd needs the gradient of the density, and {target.name} has none")
        if isinstance(self.loss, ReverseKL) and hasattr(target.log_prob, "host"):
            raise ConfigError(
                f"the reverse KL of cmcd needs second derivatives of the density, and {target.name}, a function on "
                "the host, has none: leave loss out"
            )
        k_search, k_network = jax.random.split(key)
        return program(_start, self)(search(target, k_search, POINTS), k_network)

    def template(self, target: Target) -> State:
        """Give the shapes of a state."""
        return jax.eval_shape(self.start, nowhere(target, POINTS), jax.random.key(0))

    def start(self, found: SearchResult, key: Array) -> State:
        """Make the state of a control of zero."""
        symmetry, dim = found.frame.symmetry, found.points.z.shape[1]
        network = network_for(self.network, symmetry).build(symmetry or dim, (), key)
        learned = Learned.start(network, found.tau, self.path_steps)
        end, cooldown = self.first_end()
        return State(
            jnp.zeros((), jnp.int32), end, cooldown, learned, learned, self.optimiser.start(learned), found.tau,
            found.frame, found.points, found.evaluations,
        )  # fmt: skip

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Walk a batch of paths, and follow the gradient of the loss of their log weights."""
        evaluate = functools.partial(state.frame.evaluate, target)
        detached = isinstance(self.loss, LogVariance)

        def loss_of(learned):
            path = walk(Annealing.of(learned, state.narrowest), evaluate, key, self.batch, detached)
            log_weight = path.log_ratio + with_mass(path.log_prob)
            return self.loss(log_weight), (jnp.mean(log_weight), path.nan, path.zero)

        (loss, (elbo, nan, zero)), gradient = jax.value_and_grad(loss_of, has_aux=True)(state.learned)
        rate = self.optimiser.rate(state.step, state.end, state.cooldown)
        learned, optimiser = self.optimiser.update(gradient, state.optimiser, state.learned, rate)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            learned=learned,
            average=self.optimiser.average(state.average, learned, state.step),
            optimiser=optimiser,
            evaluations=state.evaluations.add_points(self.batch * self.path_steps, nan, zero),
        )
        return state, {"loss": loss, "elbo": elbo}

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> AnnealedSampler:
        """Make the sampler of what was learned, averaged."""
        return AnnealedSampler(target, self, state, seconds)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """Give the points of the search, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)


def _start(method: CMCD, found: SearchResult, key: Array) -> State:
    return method.start(found, key)
