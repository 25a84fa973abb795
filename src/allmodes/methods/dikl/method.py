"""The reverse KL along diffusion (He, Chen, Zhang, Barber and Hernández-Lobato 2025,
arXiv 2410.12456): a generator that draws in one step.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.diffusion.networks import Denoiser, Perceptron
from allmodes.diffusion.networks.mlp import MLP
from allmodes.diffusion.noise import Noise, NoiseRange, noise_for, stratified_times
from allmodes.draws.verdict import DO_NOT_USE, Finding
from allmodes.errors import ConfigError
from allmodes.method import Figure, Figures, Trained
from allmodes.methods.dikl.posterior import denoise, evaluations_of
from allmodes.methods.dikl.sampler import GeneratorSampler
from allmodes.methods.optimiser import Adam
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult, nowhere
from allmodes.points.frame import Frame
from allmodes.search.search import search
from allmodes.settings import check
from allmodes.target import Target

POINTS = 2048  # of the search
FINDING = Finding(
    DO_NOT_USE,
    "draws of a generator have no density, and so no weights: nothing tells how far they are from the target",
)


class Generator(eqx.Module):
    """`G(e) = e + F(e)` of a normal e, in the frame: the normal itself before the first step."""

    network: MLP

    def sample(self, key: Array, n: int) -> Float[Array, "n dim"]:
        """Draw n."""
        e = jax.random.normal(key, (n, self.network.last.out_features))
        return e + jax.vmap(lambda one: self.network(one, jnp.zeros(())))(e)


class State(eqx.Module):
    """A generator, the denoiser of what it draws, and where the posteriors' chains have ended."""

    step: Int[Array, ""]
    end: Int[Array, ""]  # the step after which training is over
    cooldown: Int[Array, ""]  # last steps, over which the learning rates fall
    generator: Generator
    average: Generator
    denoiser: Denoiser
    optimisers: tuple[optax.OptState, optax.OptState]  # of the generator and of the denoiser
    noise: Noise
    narrowest: Scalar
    frame: Frame
    buffer: Buffer
    evaluations: Evaluations


@dataclasses.dataclass(frozen=True)
class DiKL(Trained):
    """Train a generator on the reverse KL between its noised draws and the noised target, at all
    noise levels: noise makes modes meet, where the reverse KL of the densities themselves drops
    them.

    A denoiser learns what the generator draws; a draw moves along the difference between what that
    and the target say of it when it is noised. Here in the frame that a search finds, and with
    variance-exploding noise, as all samplers of this library are. Draws have no density.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "loss": Figure("denoising loss", in_progress="denoising", caption="the loss of the generator's denoiser"),
        "gap": Figure("difference of denoisers", in_progress="gap", caption="the gap between denoisers, over sigma"),
    }

    name: str = "dikl"
    """What results call it."""
    steps: int = 10_000
    """Training steps, each an update of the generator."""
    cooldown: int = 3000
    """Last steps, over which the learning rates fall to nothing; at most half of `steps`."""
    batch: int = 256
    """Draws for an update of either network."""
    updates: int = 10
    """Updates of the denoiser a step; the paper has 50."""
    draws: int = 10
    """Annealed draws for the posterior of a noised point."""
    levels: int = 15
    """Levels that they are annealed over, an evaluation each."""
    moves: int = 5
    """Langevin moves of the one that is chosen, an evaluation each."""
    generator: Perceptron = Perceptron(frequencies=2)
    """What draws."""
    network: Perceptron = Perceptron(frequencies=2)
    """What the denoiser learns with."""
    noise: NoiseRange = NoiseRange()
    """The noise levels."""
    optimiser: Adam = Adam(learning_rate=1e-3)
    """How both networks follow their gradients."""

    def __post_init__(self):
        check(self, zero=("cooldown",))
        if self.network.predicts != "denoiser":
            raise ConfigError("dikl needs a network that predicts a denoiser")

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, and build both networks."""
        if not target.differentiable:
            raise ConfigError(f"dikl needs the gradient of the density, and {target.name} has none")
        k_search, k_network = jax.random.split(key)
        return program(_start, self)(search(target, k_search, POINTS), k_network)

    def template(self, target: Target) -> State:
        """Give the shapes of a state."""
        return jax.eval_shape(self._state, nowhere(target, POINTS), jax.random.key(0))

    def _state(self, found: SearchResult, key: Array) -> State:
        z, (k_generator, k_denoiser) = found.points.z, jax.random.split(key)
        generator = Generator(self.generator.build(z.shape[1], None, k_generator))
        denoiser = Denoiser(self.network.build(z.shape[1], None, k_denoiser))
        noise = noise_for(self.noise, z, found.tau, found.frame.symmetry is not None)
        end, cooldown = self.first_end()
        optimisers = self.optimiser.start(generator), self.optimiser.start(denoiser)
        buffer = found.points.take(jnp.arange(self.batch) % POINTS)
        return State(
            jnp.zeros((), jnp.int32), end, cooldown, generator, generator, denoiser, optimisers, noise,
            jnp.min(found.tau), found.frame, buffer, found.evaluations,
        )  # fmt: skip

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Let the denoiser learn what the generator draws, then move the generator."""
        k_denoiser, k_draw, k_time, k_noise, k_posterior = jax.random.split(key, 5)
        rate = self.optimiser.rate(state.step, state.end, state.cooldown)
        denoiser, of_denoiser, loss = self._denoiser(state, k_denoiser, rate)
        sigma = state.noise.sigma(stratified_times(k_time, self.batch))
        noise = sigma[:, None] * jax.random.normal(k_noise, (self.batch, target.free_dim))
        z_t = state.generator.sample(k_draw, self.batch) + noise
        posterior = denoise(
            functools.partial(state.frame.evaluate, target), z_t, sigma, state.narrowest, k_posterior, self.draws,
            self.levels, self.moves,
        )  # fmt: skip
        difference = (jax.vmap(denoiser)(z_t, sigma) - posterior.mean) / sigma[:, None]
        known = jnp.all(jnp.isfinite(difference), axis=1, keepdims=True)
        difference = jnp.where(known, difference, 0.0)

        def divergence(generator):
            return jnp.mean(jnp.sum(difference * generator.sample(k_draw, self.batch), axis=1))

        gradient = jax.grad(divergence)(state.generator)
        generator, of_generator = self.optimiser.update(gradient, state.optimisers[0], state.generator, rate)
        cost = evaluations_of(self.batch, self.draws, self.levels, self.moves)
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            generator=generator,
            average=self.optimiser.average(state.average, generator, state.step),
            denoiser=denoiser,
            optimisers=(of_generator, of_denoiser),
            buffer=posterior.points,
            evaluations=state.evaluations.add_points(cost, posterior.nan, posterior.zero),
        )
        return state, {"loss": loss, "gap": jnp.mean(jnp.sum(difference**2, axis=1))}

    def _denoiser(self, state: State, key: Array, rate: Scalar) -> tuple[Denoiser, optax.OptState, Scalar]:
        """The denoiser after its updates by fresh draws of the generator."""

        def update(carry, key):
            denoiser, optimiser = carry
            k_draw, k_time, k_noise = jax.random.split(key, 3)
            z = state.generator.sample(k_draw, self.batch)
            sigma = state.noise.sigma(stratified_times(k_time, self.batch))
            z_t = z + sigma[:, None] * jax.random.normal(k_noise, z.shape)

            def loss_of(denoiser):
                error = jnp.sum((jax.vmap(denoiser)(z_t, sigma) - z) ** 2, axis=1)
                return jnp.mean(denoiser.loss_weight(sigma) * error)

            loss, gradient = jax.value_and_grad(loss_of)(denoiser)
            return self.optimiser.update(gradient, optimiser, denoiser, rate), loss

        keys = jax.random.split(key, self.updates)
        (denoiser, optimiser), loss = jax.lax.scan(update, (state.denoiser, state.optimisers[1]), keys)
        return denoiser, optimiser, jnp.mean(loss)

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> GeneratorSampler:
        """Make the sampler of the averaged generator."""
        return GeneratorSampler(target, self, state, seconds)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """Give where the last chains of posteriors have ended, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)

    def findings(self, state: State) -> tuple[Finding, ...]:
        """Say that nothing is known of its draws."""
        return (FINDING,)


def _start(method: DiKL, found: SearchResult, key: Array) -> State:
    return method._state(found, key)
