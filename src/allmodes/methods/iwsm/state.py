"""The state of IWSM: all that training carries from step to step."""

import equinox as eqx
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.diffusion import posterior
from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.noise import Noise
from allmodes.diffusion.paths import Process
from allmodes.diffusion.second_opinion import Opinion
from allmodes.methods.iwsm.batch import LEVELS
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame


class State(eqx.Module):
    """Everything that training carries; arrays only."""

    step: Int[Array, ""]
    end: Int[Array, ""]  # the step after which training is over, as known so far
    cooldown: Int[Array, ""]  # last steps, over which the learning rate falls
    denoiser: Denoiser
    average: Denoiser  # exponential moving average of the parameters: the one that draws
    optimiser: optax.OptState
    buffer: Buffer
    frame: Frame
    noise: Noise
    gate: posterior.Gate
    error: Float[Array, "levels dim"]  # running E[(z_0 - D)^2]
    scale: Float[Array, " levels"]  # running squares of what a base leaves, over the variance that it knows
    better: Float[Array, " levels"]  # nats by which clean points are likelier by a base than by `error`
    smooth: Bool[Array, ""]  # False where there is no gradient, or the support has a hard edge, on which TSI fails
    step_size: Scalar
    chain_step: Float[Array, " levels"]  # of the moves on the posterior at each noise level
    refresh_ess: Scalar
    refresh_rate: Scalar
    refresh_log_z: Scalar  # in unit scale, without the offset of the frame
    evaluations: Evaluations
    starts: Int[Array, "2"]  # of the search, and how many ended in basins of their own; zeros where not counted
    opinion: Opinion  # of climbs that began anew when training was over


def start(
    found: SearchResult,
    denoiser: Denoiser,
    optimiser: optax.OptState,
    noise: Noise,
    end: Int[Array, ""],
    cooldown: Int[Array, ""],
    smooth: bool,
) -> State:
    """Make the state before the first step: all as the search found it; `smooth` where the density
    has a gradient.
    """
    sigmas = noise.sigma((jnp.arange(LEVELS) + 0.5) / LEVELS)
    ones = jnp.ones((LEVELS, found.points.z.shape[1]))
    return State(
        step=jnp.zeros((), jnp.int32),
        end=end,
        cooldown=cooldown,
        denoiser=denoiser,
        average=denoiser,
        optimiser=optimiser,
        buffer=found.points,
        frame=found.frame,
        noise=noise,
        gate=posterior.Gate.start(sigmas, jnp.minimum(found.tau, 1.0)),
        error=ones * (sigmas**2 / (1.0 + sigmas**2))[:, None],
        scale=jnp.ones(LEVELS),
        better=jnp.ones(LEVELS),
        smooth=jnp.asarray((found.edges < 1e-3) & smooth),
        step_size=found.step_size,
        chain_step=0.5 / (1.0 / sigmas**2 + 1.0 / found.step_size),
        refresh_ess=jnp.asarray(jnp.nan),
        refresh_rate=jnp.asarray(jnp.nan),
        refresh_log_z=jnp.asarray(jnp.nan),
        evaluations=found.evaluations,
        starts=jnp.zeros(2, jnp.int32) if found.starts is None else found.starts,
        opinion=Opinion.none(),
    )


def process_of(state: State) -> Process:
    """The averaged denoiser with its error per level, and the moments of the buffer for the
    prior.
    """
    z = state.buffer.z
    mean = jnp.zeros_like(z[0]) if state.frame.symmetry else jnp.mean(z, axis=0)
    variance = state.frame.average_over_symmetry(jnp.mean((z - mean) ** 2, axis=0))
    return Process(state.average, state.noise, state.error, mean, variance, state.scale, state.better)
