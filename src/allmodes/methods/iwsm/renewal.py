"""What brings the buffer of IWSM to the target: local moves, and renewals by the sampler itself."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.diffusion.path_exchange import exchange
from allmodes.diffusion.paths import reverse
from allmodes.mcmc.mala import mala
from allmodes.methods.iwsm.training import State, process_of
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.target import Target


def move(method: Any, target: Target, state: State, key: Array) -> State:
    """One local move of the whole buffer; its gradients double as score targets."""
    moved = mala(lambda z: state.frame.evaluate(target, z), state.buffer, state.step_size, key, 1)
    evaluations = state.evaluations.add_points(method.buffer, moved.nan, moved.zero)
    return dataclasses.replace(state, buffer=moved.points, step_size=moved.step_size, evaluations=evaluations)


def renew(method: Any, target: Target, state: State, key: Array) -> State:
    """Renew the buffer from the sampler, in the way that `weights` says."""
    k_path, k_noising, k_choose, k_broad = jax.random.split(key, 4)
    process = process_of(state)
    own = method.weights in ("kde", "none")
    broad_draws = math.ceil(method.broad_share * method.own_draws) if own else 0
    count = method.own_draws if own else method.renew or method.buffer
    # The points whose turn it is, oldest first.
    index = (state.step // method.refresh_every * count + jnp.arange(count)) % method.buffer
    path = reverse(process, k_path, count, method.refresh_steps)
    z = path.z
    if own:
        spread = jax.random.uniform(k_broad, z.shape, minval=-1.0, maxval=1.0)
        z = jnp.where((jnp.arange(method.own_draws) < broad_draws)[:, None], spread, z)
    e = state.frame.evaluate(target, z)
    new = Buffer.of(z, e)
    evaluations = state.evaluations.add(e)
    log_w = path.log_ratio + e.log_prob
    ess = weights.ess_fraction(log_w[broad_draws:]) if broad_draws < len(z) else state.refresh_ess

    if own:
        buffer, rate = state.buffer.put(index, new), jnp.ones(())
    elif method.weights == "path":
        log_w, rate = weights.temper(log_w, method.temper_ess)
        buffer = new.take(weights.systematic(k_choose, weights.normalise(log_w), method.buffer))
        # Copies must part before they are learned from.
        moved = mala(lambda z: state.frame.evaluate(target, z), buffer, state.step_size, k_noising, 5)
        buffer = moved.points
        evaluations = evaluations.add_points(5 * method.buffer, moved.nan, moved.zero)
    else:
        points = state.buffer.take(index)
        points, accept = exchange(process, k_noising, k_choose, points, new, log_w, method.refresh_steps)
        buffer, rate = state.buffer.put(index, points), jnp.mean(accept)
    end = state.end
    if method.enough is not None:
        end = jnp.where(ess >= method.enough, jnp.minimum(end, state.step + state.cooldown), end)
    return dataclasses.replace(
        state, end=end, buffer=buffer, refresh_ess=ess, refresh_rate=rate, evaluations=evaluations
    )
