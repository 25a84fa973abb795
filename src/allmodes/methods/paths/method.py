"""What all samplers of paths share: the search, the process, a step of the optimiser."""

import abc
import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.diffusion.networks import Denoiser, Network, Perceptron, network_for
from allmodes.diffusion.noise import Noise, NoiseRange, noise_for
from allmodes.diffusion.paths import Process
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.errors import ConfigError
from allmodes.method import Trained
from allmodes.methods.optimiser import Adam
from allmodes.methods.paths.guided import GuidedDenoiser
from allmodes.methods.paths.reference import PinnedBrownian, PinnedProcess
from allmodes.methods.paths.state import Model, State
from allmodes.points.found import SearchResult, nowhere
from allmodes.points.frame import Frame
from allmodes.search.effort import THOROUGH, Search
from allmodes.search.search import search
from allmodes.settings import check
from allmodes.target import Target

LEVELS = 32  # of the log-variance that is learned
POINTS = 2048  # of the search


@dataclasses.dataclass(frozen=True)
class PathMethod(Trained, abc.ABC):
    """A sampler that learns the reverse of a noising process from whole paths, in the frame that a
    search finds.
    """

    may_be_zero: ClassVar[tuple[str, ...]] = ("cooldown",)  # of the fields

    name: str = ""
    """What results call it."""
    steps: int = 3000
    """Training steps."""
    cooldown: int = 1000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    batch: int = 256
    """Paths a step."""
    path_steps: int = 64
    """Steps of a path, in training and of a draw when not said otherwise. Where the network is
    guided each is an evaluation."""
    guided: bool = False
    """Whether the network is shown the density's gradient at each point of a path."""
    network: Network = Perceptron()
    """What learns, beside the gain of the gradient."""
    noise: NoiseRange | PinnedBrownian = NoiseRange()
    """The noise levels, or the reference process of PIS."""
    optimiser: Adam = Adam()
    """How the network follows its gradient."""

    def __post_init__(self):
        check(self, zero=self.may_be_zero)
        if self.path_steps < 2:
            raise ConfigError(f"path_steps must be at least 2, got {self.path_steps}")

    @property
    def sample_steps(self) -> int:
        """Steps of the reverse path of a draw, when not said otherwise."""
        return self.path_steps

    @property
    def needs_gradient(self) -> bool:
        """Whether training takes the density's gradient."""
        return self.guided

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, and build the network.

        **Raises** `ConfigError` where the density has no gradient and the method needs it.
        """
        if self.needs_gradient and not target.differentiable:
            raise ConfigError(f"{self.name} needs the gradient of the density, and {target.name} has none")
        k_search, k_network = jax.random.split(key)
        network = network_for(self.network, target.symmetry)
        found = search(target, k_search, POINTS, Search() if network.fits_mixture else THOROUGH)
        prepared, found = network.prepare(target, found, k_search)
        if network.fits_mixture:
            found = found._replace(passed=None, evaluations=found.evaluations.book("mixture")).filled(POINTS)
        return program(_start, self)(found, prepared, k_network)

    def template(self, target: Target) -> State:
        """Give the shapes of a state."""
        prepared = network_for(self.network, target.symmetry).unprepared(POINTS, target.free_dim)
        return jax.eval_shape(self.start, nowhere(target, POINTS), prepared, jax.random.key(0))

    def start(self, found: SearchResult, prepared: Any, key: Array) -> State:
        """Make the state of a network that has learned nothing."""
        symmetry, dim = found.frame.symmetry, found.points.z.shape[1]
        settings = network_for(self.network, symmetry)
        network = settings.build(symmetry or dim, prepared, key)
        noise = self.noise_of(found)
        sigmas = noise.sigma((jnp.arange(LEVELS) + 0.5) / LEVELS)
        variance = jnp.broadcast_to((sigmas**2 / (1.0 + sigmas**2))[:, None], (LEVELS, dim))
        is_score = settings.predicts == "score"
        denoiser = GuidedDenoiser.start(network, is_score, dim, key) if self.guided else Denoiser(network, is_score)
        model = denoiser, jnp.log(variance)
        end, cooldown = self.first_end()
        return State(
            step=jnp.zeros((), jnp.int32),
            end=end,
            cooldown=cooldown,
            model=model,
            average=model,
            optimiser=self.optimiser.start(model),
            noise=noise,
            frame=found.frame,
            buffer=found.points,
            evaluations=found.evaluations,
            more=self.more(found),
        )

    def noise_of(self, found: SearchResult) -> Noise:
        """Give the noise levels of paths in the frame of a search."""
        if isinstance(self.noise, PinnedBrownian):
            return self.noise.noise(self.path_steps)
        return noise_for(self.noise, found.points.z, found.tau, found.frame.symmetry is not None)

    def more(self, found: SearchResult) -> Any:
        """Give what the method carries beside; nothing by default."""
        return ()

    def follow(self, state: State, gradient: Any, **changes: Any) -> State:
        """Take one step of the optimiser, and change what else a step of training has changed."""
        rate = self.optimiser.rate(state.step, state.end, state.cooldown)
        model, optimiser = self.optimiser.update(gradient, state.optimiser, state.model, rate)
        average = self.optimiser.average(state.average, model, state.step)
        return dataclasses.replace(
            state, step=state.step + 1, model=model, average=average, optimiser=optimiser, **changes
        )

    def process_of(self, target: Target, state: State, model: Model) -> Process:
        """Give a model over the density, from a prior as wide as the frame."""
        denoiser, log_variance = model
        if isinstance(denoiser, GuidedDenoiser):

            def gradient(z):
                return state.frame.evaluate(target, z).grad

            denoiser = dataclasses.replace(denoiser, gradient=gradient)
        kind = PinnedProcess if isinstance(self.noise, PinnedBrownian) else Process
        zero, of_base = jnp.zeros(log_variance.shape[1]), ()
        if denoiser.base is not None:  # its kernels as they are, at each level: it is not learned
            denoiser = eqx.tree_at(lambda d: d.network.base, denoiser, jax.lax.stop_gradient(denoiser.base))
            of_base = jnp.ones(LEVELS), jnp.ones(LEVELS)
        return kind(denoiser, state.noise, jnp.exp(log_variance), zero, zero + 1.0, *of_base)

    def process(self, target: Target, state: State) -> tuple[Frame, Process]:
        """Give the averaged model over the density."""
        return state.frame, self.process_of(target, state, state.average)

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> DiffusionSampler:
        """Make the sampler of reverse paths."""
        return DiffusionSampler(target, self, state, seconds)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """Give the points of the buffer, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)


def _start(method: PathMethod, found: SearchResult, prepared: Any, key: Array) -> State:
    return method.start(found, prepared, key)
