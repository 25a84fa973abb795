"""One update of the network of IWSM."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.blocks import batched_map, block_size, value_and_grad
from allmodes.devices.mesh import spread
from allmodes.diffusion.noise import stratified_times
from allmodes.mcmc.mala import mala
from allmodes.method import Figure, Figures
from allmodes.methods.iwsm.batch import LEVELS, Batch, Targets
from allmodes.methods.iwsm.estimators.estimator import Estimator
from allmodes.methods.iwsm.state import State
from allmodes.points import weights
from allmodes.points.normal import log_normal
from allmodes.target import Target

FARTHEST, MOST = 5.0, 10.0  # spreads, nats, that one point counts for: few are far out where tails are heavy
ONE_IN = 4  # points of a batch, of which it is looked at what the base leaves
WEIGHTED = "the effective share of the weighted batch"
FIGURES = {
    "loss": Figure("loss", in_progress="loss", caption="the loss"),
    "ess": Figure("weight ESS", is_share=True, caption=WEIGHTED),
    "refresh_ess": Figure(
        "draws' ESS",
        over="last",
        is_share=True,
        in_progress="ESS",
        caption="the effective share of the sampler's own draws",
    ),
    "refresh_rate": Figure("renewed", over="last", is_share=True),
    "refresh_log_z": Figure("log Z", over="last", caption="log Z by the sampler's own draws"),
    "level_loss": Figure("loss", by_level=True, caption="the loss"),
    "level_weight_ess": Figure("weight ESS", by_level=True, is_share=True, caption=WEIGHTED),
    "level_gate": Figure("blend gate", by_level=True, is_share=True, caption="the blend of the two score estimates"),
}


def train(method: Any, target: Target, state: State, key: Array) -> tuple[State, Figures]:
    """Update the network on noised points of the buffer, towards what the estimator makes of
    them.
    """
    k_index, k_time, k_noise, k_estimate = jax.random.split(key, 4)
    index = jax.random.randint(k_index, (method.batch,), 0, state.buffer.size)
    origin = spread(state.buffer.take(index))
    t = stratified_times(k_time, method.batch)
    sigma = state.noise.sigma(t)
    z = origin.z + sigma[:, None] * jax.random.normal(k_noise, origin.z.shape)
    batch = Batch(index, origin, z, sigma)

    targets = method.estimator(target, state, k_estimate, batch)
    state, w = targets.state, targets.weight
    share = jnp.broadcast_to(share_of_tsi(method.estimator, state), state.error.shape)
    goal = goal_of(method.estimator, share, targets, batch)
    (loss, (denoised, squared)), gradient = value_and_grad(
        objective, state.denoiser, (z, sigma, goal, w * state.noise.rate(t) / method.batch),
        state.denoiser.block(method.batch),
    )  # fmt: skip
    rate = method.optimiser.rate(state.step, state.end, state.cooldown)
    denoiser, optimiser = method.optimiser.update(gradient, state.optimiser, state.denoiser, rate)
    by_level = (w[:, None] * (origin.z - denoised) ** 2).reshape(LEVELS, -1, origin.z.shape[1])
    some = slice(None, None, ONE_IN if method.batch % (ONE_IN * LEVELS) == 0 else 1)
    scale, better = left_of_base(state, origin.z[some], z[some], denoised[some], sigma[some])
    gate = state.gate.update(targets.dsi, targets.tsi, denoised, 0.99)
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        denoiser=denoiser,
        average=method.optimiser.average(state.average, denoiser, state.step),
        optimiser=optimiser,
        gate=jax.tree.map(state.frame.average_over_symmetry, gate),
        error=0.99 * state.error + 0.01 * state.frame.average_over_symmetry(jnp.mean(by_level, axis=1)),
        scale=0.99 * state.scale + 0.01 * scale,
        better=0.99 * state.better + 0.01 * better,
    )
    return state, {
        "loss": loss,
        "ess": targets.weight_ess,
        "refresh_ess": state.refresh_ess,
        "refresh_rate": state.refresh_rate,
        "refresh_log_z": state.refresh_log_z + (0.0 if state.frame.offset is None else jnp.sum(state.frame.offset)),
        "level_loss": jnp.mean((w * squared).reshape(LEVELS, -1), axis=-1),
        "level_weight_ess": weights.ess_fraction(jnp.log(w).reshape(LEVELS, -1)),
        "level_gate": jnp.mean(share, axis=-1),
    }


def left_of_base(
    state: State,
    z_0: Float[Array, "n dim"],
    z: Float[Array, "n dim"],
    denoised: Float[Array, "n dim"],
    sigma: Float[Array, " n"],
) -> tuple[Float[Array, " levels"], Float[Array, " levels"]]:
    """By noise level: mean squares of what a clean point is off from where its own component of the
    base has it after the network's correction, over the variance that the base knows, one where all
    is right; and by how many nats it is likelier there than by independent normals of the
    denoiser's errors.
    """
    base = state.denoiser.base
    if base is None:
        return jnp.ones(LEVELS), jnp.ones(LEVELS)

    def of_mixture(z_0, z, denoised, noise, scale):
        log_share, shift, variance = base.mixture.clean(z, denoised, noise)
        k = jnp.argmax(base.mixture.log_parts(base.mixture.along_noised(z_0)))
        off = (base.mixture.turned(z_0 - z) - shift)[k] ** 2 / variance[k]
        return off, base.mixture.log_step(z_0 - z, log_share, shift, scale * variance)

    def of_product(z_0, z, denoised, noise, scale):
        log_share, shift, variance = base.product.clean(z, denoised, noise)
        off = ((z_0 - z)[:, None] - shift) ** 2 / variance
        # Parts of one well overlap: the likeliest of them is nearer than the one that has made it.
        part = jax.nn.softmax(log_share - 0.5 * (off / scale + jnp.log(variance)), axis=1)
        return jnp.sum(part * off, axis=1), base.product.log_step(z_0 - z, log_share, shift, scale * variance)

    def one(z_0, z, denoised, sigma, scale, error):
        off, log_density = jax.lax.cond(base.is_product, of_product, of_mixture, z_0, z, denoised, sigma**2, scale)
        better = log_density - log_normal(z_0, denoised, error)
        return jnp.mean(jnp.minimum(off, FARTHEST**2)), jnp.clip(better, -MOST, MOST)

    level = jnp.arange(len(z)) * LEVELS // len(z)
    points = z_0, z, denoised, sigma, state.scale[level], state.error[level]
    seen = batched_map(lambda a: one(*a), points, block_size(len(z), base.point_bytes))
    squares, better = (jnp.mean(a.reshape(LEVELS, -1), axis=1) for a in seen)
    return squares, better


def measure(state: State, key: Array, n: int = 8192) -> State:
    """The state with the denoiser's errors at each noise level, measured on noised points of the
    buffer: no evaluations.
    """
    k_index, k_time, k_noise = jax.random.split(key, 3)
    origin = state.buffer.z[jax.random.randint(k_index, (n,), 0, state.buffer.size)]
    sigma = state.noise.sigma(stratified_times(k_time, n))
    z = origin + sigma[:, None] * jax.random.normal(k_noise, origin.shape)
    denoised = batched_map(lambda one: state.denoiser(*one), (z, sigma), 1024)
    error = jnp.mean(((origin - denoised) ** 2).reshape(LEVELS, -1, z.shape[1]), axis=1)
    state = dataclasses.replace(state, error=state.frame.average_over_symmetry(error))

    def left(known, _):
        return left_of_base(dataclasses.replace(state, scale=known[0]), origin, z, denoised, sigma), None

    # Twice: the second needs the scale that the first has found.
    (scale, better), _ = jax.lax.scan(left, (state.scale, state.better), length=2)
    return dataclasses.replace(state, scale=scale, better=better)


def objective(denoiser, z, sigma, goal, weight):
    """Sum of weighted squared errors of the network's output; denoised points and squared errors
    beside it.
    """
    denoised = jax.vmap(denoiser)(z, sigma)
    squared = jnp.mean((denoised - goal) ** 2, axis=-1) * denoiser.loss_weight(sigma)
    return jnp.sum(weight * squared), (denoised, squared)


def share_of_tsi(estimator: Estimator, state: State) -> Array | float:
    """Give the share of the target-score identity, by noise level and coordinate where it is
    learned.
    """
    return {"blend": jnp.where(state.smooth, state.gate.share(), 0.0), "tsi": 1.0, "dsi": 0.0}[estimator.score]


def goal_of(
    estimator: Estimator, share: Float[Array, "levels dim"], targets: Targets, batch: Batch
) -> Float[Array, "batch dim"]:
    """Blend the two estimates, and bound the score that the blend stands for."""
    a = jnp.repeat(share, len(batch.sigma) // LEVELS, axis=0)
    goal = a * targets.tsi + (1.0 - a) * targets.dsi
    if estimator.clip is None:
        return goal
    norm = jnp.linalg.norm(goal - batch.z, axis=-1) / batch.sigma**2
    return batch.z + jnp.minimum(1.0, estimator.clip / jnp.maximum(norm, 1e-30))[:, None] * (goal - batch.z)


def move(target: Target, state: State, key: Array) -> State:
    """Move the whole buffer locally once; its gradients double as score targets."""
    moved = mala(lambda z, _: state.frame.evaluate(target, z), state.buffer, state.step_size, key, 1)
    evaluations = state.evaluations.add_points(state.buffer.size, moved.nan, moved.zero)
    return dataclasses.replace(state, buffer=moved.points, step_size=moved.step_size, evaluations=evaluations)
