"""Adaptive tempered SMC, on BlackJAX (Del Moral et al. 2006): a warm start, and draws to compare with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes import weights
from allmodes.buffer import Buffer
from allmodes.errors import TargetError
from allmodes.paths import log_normal
from allmodes.search import Found
from allmodes.target import Target

MOVES = 10  # MALA moves at each temperature
TARGET_ESS = 0.8
MOST_STAGES = 500
WIDTH = 2.0  # of the initial Gaussian, over the spread that the search found


def warm_start(target: Target, found: Found, key: Array) -> Found:
    """Replace the search's points by particles of `tempering`."""
    return tempering(target, found)(key)[0]


def tempering(target: Target, found: Found) -> Callable[[Array], tuple[Found, float]]:
    """A function of a key, compiled once: particles tempered from a broad Gaussian over the frame, and their log Z.

    As many particles as `found` has points. Counted for each particle and temperature: a value to choose the
    temperature and one to re-weight, a value with gradient at the first state and at each proposal. The points come
    equally weighted, resampled by the last weights.

    **Raises** `TargetError`, when called, where the target is not reached.
    """
    import blackjax
    from blackjax.smc.resampling import systematic

    size, dim = found.points.z.shape

    def log_prior(z: Float[Array, " dim"]):
        return log_normal(z, jnp.zeros(dim), jnp.full(dim, WIDTH**2))

    def log_likelihood(z: Float[Array, " dim"]):
        # Massless points stay massless; -1e30 keeps the difference of two of them finite.
        value = found.frame.values(target, z[None])[0] - log_prior(z)
        return jnp.where(jnp.isfinite(value), value, -1e30)

    kernel = blackjax.mala.build_kernel()

    def build(step_size):
        return blackjax.adaptive_tempered_smc(
            log_prior, log_likelihood, kernel, blackjax.mala.init,
            {"step_size": jnp.reshape(step_size, (1,))}, systematic, TARGET_ESS, num_mcmc_steps=MOVES,
        )  # fmt: skip

    @jax.jit
    def advance(state, step_size, key):
        state, info = build(step_size).step(key, state)
        rate = jnp.mean(info.update_info.is_accepted)
        # The step follows the acceptance from one temperature to the next.
        return state, step_size * jnp.exp(2.0 * (rate - 0.57)), info.log_likelihood_increment

    def run(key: Array) -> tuple[Found, float]:
        k_start, key = jax.random.split(key)
        state = build(found.step_size).init(WIDTH * jax.random.normal(k_start, (size, dim)))
        step_size, stages, log_z = jnp.asarray(WIDTH**2), 0, 0.0
        while float(state.tempering_param) < 1.0:
            state, step_size, increment = advance(state, step_size, jax.random.fold_in(key, stages))
            stages, log_z = stages + 1, log_z + float(increment)
            if stages == MOST_STAGES:
                raise TargetError(f"tempering did not reach the target within {stages} temperatures: start='search'?")
        index = weights.systematic(jax.random.fold_in(key, MOST_STAGES), state.weights, size)
        z = state.particles[index]
        e = found.frame.evaluate(target, z)
        evaluations = found.evaluations.add_points(stages * size * (MOVES + 1), 0, 0)
        evaluations = evaluations.add_points(stages * size * 2, 0, 0, gradient=False).add(e)
        return found._replace(points=Buffer.of(z, e), step_size=step_size, evaluations=evaluations), log_z

    return run
