"""The state of IWSM, and one update of its network; `method` is the configuration, an `IWSM`."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.devices.blocks import value_and_grad
from allmodes.devices.mesh import spread
from allmodes.diffusion import posterior
from allmodes.diffusion.networks import EGNN, MLP, Anchored, Denoiser
from allmodes.diffusion.noise import Noise, stratified_times
from allmodes.diffusion.paths import Process
from allmodes.mcmc.mala import TARGET_ACCEPTANCE, posterior_chain
from allmodes.method import Info
from allmodes.points import weights
from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.points.found import Found
from allmodes.points.frame import Frame
from allmodes.target import Target

LEVELS = 32  # equal strata of t in which statistics are kept
MOST_FEATURES = 32  # frequencies times dimensions: in 64-D Fourier features only make noise
PER_ROOT_DIM = 0.36  # of sigma_max: .9 sqrt(dim) in units of the spread, with the default of 2.5


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
    smooth: Bool[Array, ""]  # False where there is no gradient, or the support has a hard edge, on which TSI fails
    step_size: Scalar
    chain_step: Float[Array, " levels"]  # of the moves on the posterior at each noise level
    refresh_ess: Scalar
    refresh_rate: Scalar
    evaluations: Evaluations


def build(
    method: Any, found: Found, anchors: tuple[Array, Array] | None, key: Array, differentiable: bool = True
) -> State:
    """The state before the first step: everything as the search found it, and a network that has
    learned nothing.

    `anchors`, where the network has any, are their places and widths.
    """
    dim = found.points.z.shape[1]
    # An effective width over all coordinates: each may be narrow, the sharpest decides.
    tau = jnp.sqrt(1.0 / jnp.mean(1.0 / found.tau**2))
    sigma_max = method.sigma_max * (_reach(found.points.z) if found.frame.symmetry is None else jnp.ones(()))
    noise = Noise(jnp.clip(method.sigma_min * tau, 1e-5, 0.1), sigma_max, method.dwell, method.dwell_at)
    sigmas = noise.sigma((jnp.arange(LEVELS) + 0.5) / LEVELS)
    if found.frame.symmetry is None:
        frequencies = min(method.frequencies, MOST_FEATURES // dim)
        layers = method.width, method.depth, frequencies
        if anchors is None:
            network = MLP(dim, *layers, curves=method.curves, key=key)
        else:
            network = Anchored(*anchors, *layers, method.rank, key=key)
    else:
        network = EGNN(found.frame.symmetry, method.width, method.depth, key=key)
    denoiser = Denoiser(network, method.predicts == "score")
    ones = jnp.ones((LEVELS, dim))
    return State(
        step=jnp.zeros((), jnp.int32),
        end=jnp.asarray(method.steps, jnp.int32),
        cooldown=jnp.asarray(min(method.cooldown, method.steps // 2), jnp.int32),
        denoiser=denoiser,
        average=denoiser,
        optimiser=_optimiser(method).init(denoiser),
        buffer=found.points,
        frame=found.frame,
        noise=noise,
        gate=posterior.Gate.start(sigmas, jnp.minimum(found.tau, 1.0)),
        error=ones * (sigmas**2 / (1.0 + sigmas**2))[:, None],
        smooth=jnp.asarray((found.edges < 1e-3) & differentiable),
        step_size=found.step_size,
        chain_step=0.5 / (1.0 / sigmas**2 + 1.0 / found.step_size),
        refresh_ess=jnp.asarray(jnp.nan),
        refresh_rate=jnp.asarray(jnp.nan),
        evaluations=found.evaluations,
    )


def _reach(z: Float[Array, "size dim"]) -> Scalar:
    """How much further than the spread of a coordinate noise must reach, for what it makes of the
    target to be normal.

    As far as the largest principal deviation: modes along a diagonal are sqrt(dim) times as far
    apart as each coordinate shows. And with the root of the dimension: modes at random places are
    that far from each other.
    """
    z = z - jnp.mean(z, axis=0)
    widest = jnp.sqrt(jnp.linalg.eigvalsh(z.T @ z / z.shape[0])[-1])
    return jnp.maximum(1.0, jnp.maximum(widest, PER_ROOT_DIM * z.shape[1] ** 0.5))


def process_of(state: State) -> Process:
    """The averaged denoiser with its error per level, and the moments of the buffer for the
    prior.
    """
    z = state.buffer.z
    mean = jnp.zeros_like(z[0]) if state.frame.symmetry else jnp.mean(z, axis=0)
    variance = state.frame.even(jnp.mean((z - mean) ** 2, axis=0))
    return Process(state.average, state.noise, state.error, mean, variance)


def train(method: Any, target: Target, state: State, key: Array) -> tuple[State, Info]:
    """One update of the network on noised points of the buffer; chains and posterior moves renew
    some of those.
    """
    k_index, k_time, k_noise, k_draws = jax.random.split(key, 4)
    index = jax.random.randint(k_index, (method.batch,), 0, method.buffer)
    origin = spread(state.buffer.take(index))
    t = stratified_times(k_time, method.batch)
    sigma = state.noise.sigma(t)
    z_t = origin.z + sigma[:, None] * jax.random.normal(k_noise, origin.z.shape)

    log_w = jnp.zeros(method.batch)
    if method.chain:
        state, dsi, tsi = _chain(method, target, state, k_draws, index, origin, z_t, sigma)
    elif method.draws == 1:
        others = state.buffer.take(jax.random.randint(k_draws, (method.neighbours,), 0, method.buffer))
        share_targets = jax.vmap(posterior.from_neighbours, in_axes=(0, 0, 0, 0, None, None))
        dsi, tsi = share_targets(origin.z, origin.grad, z_t, sigma, others.z, others.grad)
    else:
        centres = state.buffer.z  # as x_t was drawn from them: before any posterior move
        state, estimate = _many_draws(method, target, state, k_draws, index, origin, z_t, sigma)
        dsi, tsi = estimate.dsi, estimate.tsi
        if method.weights == "kde":
            log_w = estimate.log_density - weights.log_mixture(z_t, origin.z, centres, sigma, member=True)
    log_w = log_w.reshape(method.strata if method.weights == "kde" else 1, -1)
    if method.truncate:
        log_w = weights.truncate(log_w)
    w = weights.normalise(log_w).ravel()

    share = {"blend": jnp.where(state.smooth, state.gate.share(), 0.0), "tsi": 1.0, "dsi": 0.0}[method.score]
    share = jnp.broadcast_to(share, state.error.shape)
    a = jnp.repeat(share, method.batch // LEVELS, axis=0)
    goal = a * tsi + (1.0 - a) * dsi
    if method.score_clip is not None:
        norm = jnp.linalg.norm(goal - z_t, axis=-1) / sigma**2
        goal = z_t + jnp.minimum(1.0, method.score_clip / jnp.maximum(norm, 1e-30))[:, None] * (goal - z_t)

    def objective(denoiser, z_t, sigma, goal, weight):
        denoised = jax.vmap(denoiser)(z_t, sigma)
        squared = jnp.mean((denoised - goal) ** 2, axis=-1) * denoiser.loss_weight(sigma)
        return jnp.sum(weight * squared), (denoised, squared)

    weight = w * state.noise.rate(t) / method.batch
    (loss, (denoised, squared)), gradient = value_and_grad(
        objective, state.denoiser, (z_t, sigma, goal, weight), state.denoiser.block(method.batch)
    )
    updates, optimiser = _optimiser(method).update(gradient, state.optimiser, state.denoiser)
    rate = learning_rate(method, state)
    denoiser = jax.tree.map(lambda p, u: p - rate * u, state.denoiser, updates)
    decay = jnp.minimum(method.ema, (1.0 + state.step) / (10.0 + state.step))
    mix = lambda old, new: decay * old + (1.0 - decay) * new  # noqa: E731

    by_level = (w[:, None] * (origin.z - denoised) ** 2).reshape(LEVELS, -1, origin.z.shape[1])
    state = dataclasses.replace(
        state,
        step=state.step + 1,
        denoiser=denoiser,
        average=jax.tree.map(mix, state.average, denoiser),
        optimiser=optimiser,
        gate=jax.tree.map(state.frame.even, state.gate.update(dsi, tsi, denoised, 0.99)),
        error=0.99 * state.error + 0.01 * state.frame.even(jnp.mean(by_level, axis=1)),
    )
    info = Info(
        loss=loss,
        weight_ess=jnp.mean(weights.ess_fraction(log_w)),
        level_loss=jnp.mean((w * squared).reshape(LEVELS, -1), axis=-1),
        level_ess=weights.ess_fraction(jnp.log(w).reshape(LEVELS, -1)),
        level_gate=jnp.mean(share, axis=-1),
        refresh_ess=state.refresh_ess,
        refresh_rate=state.refresh_rate,
    )
    return state, info


def learning_rate(method: Any, state: State) -> Scalar:
    """Warm-up, plateau, cosine cooldown to one hundredth before `state.end`."""
    warm_up = jnp.minimum(1.0, (state.step + 1.0) / 100.0)
    done = jnp.clip((state.step - (state.end - state.cooldown)) / jnp.maximum(state.cooldown, 1), 0.0, 1.0)
    return method.learning_rate * warm_up * (0.01 + 0.99 * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))


def _optimiser(method: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(method.gradient_clip), optax.scale_by_adam())


def _chain(method, target, state, key, index, origin, z_t, sigma):
    """Averages over a short chain on each posterior; its end is written back, and its step follows
    acceptance.
    """
    h = jnp.repeat(state.chain_step, method.batch // LEVELS)
    evaluate = lambda z: state.frame.evaluate(target, z)  # noqa: E731
    chain = posterior_chain(evaluate, origin, z_t, sigma, h, key, method.chain)
    rate = jnp.mean(chain.acceptance.reshape(LEVELS, -1), axis=1)
    state = dataclasses.replace(
        state,
        buffer=state.buffer.put(index, chain.points),
        chain_step=state.chain_step * jnp.exp(0.1 * (rate - TARGET_ACCEPTANCE)),
        evaluations=state.evaluations.add_points(method.batch * method.chain, chain.nan, chain.zero),
    )
    return state, chain.mean, z_t + sigma[:, None] ** 2 * chain.mean_grad


def _many_draws(method, target, state, key, index, origin, z_t, sigma):
    """K fresh draws around each x_t: their estimates, and the posterior moves of the buffer if
    asked for.
    """
    k_noise, k_move = jax.random.split(key)
    shape = (method.batch, method.draws, z_t.shape[1])
    z = z_t[:, None] + sigma[:, None, None] * jax.random.normal(k_noise, shape)
    e = state.frame.evaluate(target, z.reshape(-1, z_t.shape[1]))
    drawn = Buffer(z, e.log_prob.reshape(shape[:2]), e.grad.reshape(shape))
    estimate = jax.vmap(posterior.from_draws)(z_t, sigma, drawn.z, drawn.log_prob, drawn.grad)
    buffer = state.buffer
    if method.posterior_moves:
        keys = jax.random.split(k_move, method.batch)
        # K - 1 of the draws and the origin: K candidates, one of which was there before.
        chosen = jax.vmap(posterior.move)(keys, drawn.log_prob[:, 1:], origin.log_prob)
        row = jnp.arange(method.batch)
        picked = jax.tree.map(lambda a: a[row, jnp.minimum(chosen + 1, method.draws - 1)], drawn)
        buffer = buffer.put(index, choose(chosen < method.draws - 1, picked, origin))
    state = dataclasses.replace(state, buffer=buffer, evaluations=state.evaluations.add(e))
    return state, estimate
