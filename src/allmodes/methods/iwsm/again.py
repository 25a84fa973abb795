"""IWSM again: on a density that has changed, from where it ended on the one before."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.devices.compiled import program
from allmodes.diffusion.second_opinion import Opinion
from allmodes.mcmc.mala import mala
from allmodes.methods.iwsm.state import State
from allmodes.methods.iwsm.training import measure
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.progress.stages import stage
from allmodes.search.base import renewed
from allmodes.target import Target

POINTS = 4096  # of the buffer that begin again, at most
LEAST = 0.1  # effective share that the change of the density leaves of them, at least: it is tempered
PARTING = 5  # local moves of copies, where there is no base in whose shapes they could move


def again(method: Any, target: Target, state: State, key: Array) -> State:
    """The state before the first step on a density, of the last state on another one.

    Points of the buffer are weighted by what the density has changed, and resampled. A base is
    brought to the new density by draws of its own, as after a search; the network goes on from what
    it has learned.
    """
    stage("beginning where another sampler has ended")
    k_choose, k_points, k_measure = jax.random.split(key, 3)
    found = program(_weighted, target)(state, k_choose)
    if state.denoiser.base is None:
        found, share = program(_parted, target)(found, k_points), jnp.nan
    else:
        base, found = renewed(target, found, state.denoiser.base, k_points)
        share = base.share
        state = dataclasses.replace(
            state, denoiser=_on(state.denoiser, base.density), average=_on(state.average, base.density)
        )
    steps = method.steps if not share >= (method.ready or jnp.inf) else 0
    state = dataclasses.replace(
        state,
        step=jnp.zeros((), jnp.int32),
        end=jnp.asarray(steps, jnp.int32),
        cooldown=jnp.asarray(min(method.cooldown, method.steps // 2), jnp.int32),
        optimiser=method.optimiser.start(state.denoiser),
        buffer=found.filled(method.buffer).points,
        refresh_ess=jnp.asarray(share, jnp.float32),
        refresh_rate=jnp.asarray(jnp.nan),
        refresh_log_z=jnp.asarray(jnp.nan),
        evaluations=found.evaluations.book("mixture"),
        opinion=Opinion.none(),
    )
    return program(measure)(state, k_measure)


def _weighted(target: Target, state: State, key: Array) -> SearchResult:
    """Points of the buffer, right for the new density as far as weights can make them."""
    k_few, k_resample = jax.random.split(key)
    size = min(POINTS, state.buffer.size)
    before = state.buffer.take(jax.random.permutation(k_few, state.buffer.size)[:size])
    e = state.frame.evaluate(target, before.z)
    log_weight, _ = weights.temper(e.log_prob - before.log_prob, LEAST)
    points = Buffer.of(before.z, e).take(weights.systematic(k_resample, weights.normalise(log_weight), size))
    evaluations = Evaluations.none(target.differentiable).add(e).book("moves")
    return SearchResult(state.frame, points, state.step_size, jnp.ones(before.z.shape[1]), jnp.zeros(()), evaluations)


def _parted(target: Target, found: SearchResult, key: Array) -> SearchResult:
    """The points after local moves."""
    moved = mala(lambda z, _: found.frame.evaluate(target, z), found.points, found.step_size, key, PARTING)
    spent = found.evaluations.add_points(PARTING * found.points.size, moved.nan, moved.zero).book("moves")
    return found._replace(points=moved.points, step_size=moved.step_size, evaluations=spent)


def _on(denoiser: Any, base: Any) -> Any:
    """The denoiser on another base."""
    return eqx.tree_at(lambda d: d.network.base, denoiser, base)
