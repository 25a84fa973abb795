"""Denoising Diffusion Samplers (Vargas, Grathwohl and Doucet 2023, arXiv 2302.13834): the reverse
KL over whole paths, and the density's gradient in the network.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.blocks import batched_map
from allmodes.devices.compiled import program
from allmodes.diffusion.networks import Denoiser, Network, Perceptron, network_for
from allmodes.diffusion.networks.mlp import LEVEL_FEATURES, level_features
from allmodes.diffusion.noise import Noise, NoiseRange, noise_for
from allmodes.diffusion.paths import Process, reverse
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.errors import ConfigError
from allmodes.method import Figure, Figures, Method
from allmodes.methods.optimiser import Adam
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult, nowhere
from allmodes.points.frame import Frame
from allmodes.search.search import search
from allmodes.settings import check
from allmodes.target import Target

LEVELS = 32  # of the log-variance that is learned
POINTS = 2048  # of the search
STEEPEST = 100.0  # largest norm of the gradient that the network is shown, in units of the frame
LOWEST = -1e6  # log-density of a draw without mass: its path still has a gradient


class GuidedDenoiser(Denoiser):
    """A denoiser that is shown the density's gradient at the noisy point, an evaluation for each.

    `D = c_skip z + c_out (F(c_in z, log sigma) + gain(sigma) sigma grad)`: with a gain of one it
    follows the gradient where the noise is low. The gain starts at zero, and is the paper's
    `NN_2`; no derivative is taken of the gradient.
    """

    evaluations: ClassVar[int] = 1

    gain: eqx.nn.Linear | None = None
    gradient: Callable[[Array], Array] | None = eqx.field(static=True, default=None)  # of many points

    @staticmethod
    def start(network: eqx.Module, is_score: bool, dim: int, key: Array) -> "GuidedDenoiser":
        """Make one that has learned nothing."""
        gain = jax.tree.map(jnp.zeros_like, eqx.nn.Linear(LEVEL_FEATURES, dim, key=key))
        return GuidedDenoiser(network, is_score, gain)

    def many(self, z: Float[Array, "n dim"], sigma: Scalar) -> Float[Array, "n dim"]:
        """Denoise many points at one level."""
        assert self.gain is not None and self.gradient is not None  # a process has set them  # noqa: PT018
        shown = jax.lax.stop_gradient(self.gradient(z))
        size = jnp.linalg.norm(shown, axis=1, keepdims=True)
        shown = shown * jnp.minimum(1.0, STEEPEST / jnp.maximum(size, 1e-30))
        pull = sigma * self.gain(level_features(jnp.log(sigma))) * shown
        plain = batched_map(lambda one: self(one, sigma), z, self.block(len(z)))
        return plain + sigma / jnp.sqrt(sigma**2 + 1.0) * pull


class State(eqx.Module):
    """All that training carries."""

    step: Int[Array, ""]
    model: tuple[GuidedDenoiser, Float[Array, "levels dim"]]  # and the log of the variance that it leaves
    average: tuple[GuidedDenoiser, Float[Array, "levels dim"]]
    optimiser: optax.OptState
    noise: Noise
    frame: Frame
    buffer: Buffer  # what the search found
    evaluations: Evaluations


@dataclasses.dataclass(frozen=True)
class DDS(Method):
    """Train the reverse of a diffusion on the reverse KL between its paths and those of noising.

    The loss is minus the ELBO, whose gradient goes through the whole path. It drops modes, as the
    reverse KL does: the forward ESS and the modes that the search found tell. Here in the frame
    that a search finds, and with variance-exploding noise, as all samplers of this library are.
    """

    figures: ClassVar[Mapping[str, Figure]] = {"loss": Figure("-ELBO", in_progress="-ELBO", caption="minus the ELBO")}

    name: str = "dds"
    """What results call it."""
    steps: int = 3000
    """Training steps."""
    cooldown: int = 1000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    batch: int = 256
    """Paths a step."""
    path_steps: int = 64
    """Steps of a path, in training and of a draw when not said otherwise. Each is an evaluation."""
    network: Network = Perceptron(frequencies=2)
    """What learns, beside the gain of the gradient."""
    noise: NoiseRange = NoiseRange()
    """The noise levels."""
    optimiser: Adam = Adam()
    """How the network follows its gradient."""

    def __post_init__(self):
        check(self, zero=("cooldown",))
        if self.path_steps < 2:
            raise ConfigError(f"path_steps must be at least 2, got {self.path_steps}")

    @property
    def sample_steps(self) -> int:
        """Steps of the reverse path of a draw, when not said otherwise."""
        return self.path_steps

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, and build the network."""
        if not target.differentiable:
            raise ConfigError(f"dds needs the gradient of the density, and {target.name} has none")
        k_search, k_network = jax.random.split(key)
        found = search(target, k_search, POINTS)
        prepared, found = network_for(self.network, target.symmetry).prepare(target, found, k_search)
        return program(_start, self)(found, prepared, k_network)

    def template(self, target: Target) -> State:
        """Give the shapes of a state."""
        prepared = network_for(self.network, target.symmetry).unprepared(POINTS, target.free_dim)
        return jax.eval_shape(self._state, nowhere(target, POINTS), prepared, jax.random.key(0))

    def _state(self, found: SearchResult, prepared: Any, key: Array) -> State:
        symmetry, dim = found.frame.symmetry, found.points.z.shape[1]
        settings = network_for(self.network, symmetry)
        network = settings.build(symmetry or dim, prepared, key)
        noise = noise_for(self.noise, found.points.z, found.tau, symmetry is not None)
        sigmas = noise.sigma((jnp.arange(LEVELS) + 0.5) / LEVELS)
        variance = jnp.broadcast_to((sigmas**2 / (1.0 + sigmas**2))[:, None], (LEVELS, dim))
        model = GuidedDenoiser.start(network, settings.predicts == "score", dim, key), jnp.log(variance)
        optimiser, step = self.optimiser.start(model), jnp.zeros((), jnp.int32)
        return State(step, model, model, optimiser, noise, found.frame, found.points, found.evaluations)

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Walk a batch of paths down, and follow the gradient of their mean log weight."""

        def loss_of(model):
            process = process_of(target, state, model)
            path = reverse(process, key, self.batch, self.path_steps)
            log_prob = state.frame.values(target, path.z)
            return -jnp.mean(path.log_ratio + jnp.where(log_prob > LOWEST, log_prob, LOWEST))

        loss, gradient = jax.value_and_grad(loss_of)(state.model)
        end, cooldown = jnp.asarray(self.steps), jnp.asarray(min(self.cooldown, self.steps // 2))
        rate = self.optimiser.rate(state.step, end, cooldown)
        model, optimiser = self.optimiser.update(gradient, state.optimiser, state.model, rate)
        cost = self.batch * (1 + self.path_steps)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            model=model,
            average=self.optimiser.average(state.average, model, state.step),
            optimiser=optimiser,
            evaluations=state.evaluations.add_points(cost, 0, 0),
        )
        return state, {"loss": loss}

    def process(self, target: Target, state: State) -> tuple[Frame, Process]:
        """Give the averaged model over the density."""
        return state.frame, process_of(target, state, state.average)

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> DiffusionSampler:
        """Make the sampler of reverse paths."""
        return DiffusionSampler(target, self, state, seconds)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """Give the points of the search, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)

    def evaluations(self, state: State) -> Evaluations:
        """Count what the search and training have cost."""
        return state.evaluations


def _start(method: DDS, found: SearchResult, prepared: Any, key: Array) -> State:
    return method._state(found, prepared, key)


def process_of(target: Target, state: State, model: Any) -> Process:
    """The denoiser shown the target's gradient, from a prior as wide as the frame."""
    denoiser, log_variance = model

    def gradient(z):
        return state.frame.evaluate(target, z).grad

    guided = dataclasses.replace(denoiser, gradient=gradient)
    zero = jnp.zeros(log_variance.shape[1])
    return Process(guided, state.noise, jnp.exp(log_variance), zero, zero + 1.0)
