"""Adaptive tempered SMC, on BlackJAX (Del Moral et al. 2006): a warm start, and draws to compare
with.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.errors import TargetError
from allmodes.mcmc.hmc import LEAPS, drawn_steps, kind_of
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import Found
from allmodes.points.normal import log_normal
from allmodes.target import Target

MOVES = 1  # Hamiltonian moves at each temperature
TARGET_ESS = 0.8
MOST_STAGES = 500
FIRST_STEP = 0.1  # of the leapfrog, over the width of the initial Gaussian
WIDTH = 2.0  # of the initial Gaussian, over the spread that the search found

# Particles. A Gaussian wider than the target is a gas; on the way from there the particles
# condense, and runs with few moves disagree on log Z by several units. From a Gaussian as wide as
# the target there is no such passage.
PARTICLE_WIDTH = 1.0
PARTICLE_MOVES = 3  # at least; one for each five particles


class UnreachedError(TargetError):
    """Tempering did not reach the target; `evaluations` are those before it, and those that it
    took.
    """

    def __init__(self, message: str, evaluations: Evaluations):
        super().__init__(message)
        self.evaluations = evaluations


class Tempered(NamedTuple):
    """Particles, the estimate of log Z, and how many of them count as independent."""

    found: Found
    log_z: float
    independent: float  # share: all particles over the sum of squared families, a family having one common origin


def width_for(target: Target) -> float:
    """Standard deviation of the initial Gaussian, over the spread of the target."""
    return WIDTH if target.symmetry is None else PARTICLE_WIDTH


def tempering(
    target: Target, found: Found, *, moves: int | None = None, target_ess: float = TARGET_ESS
) -> Callable[..., Tempered]:
    """A function of a key and, if it is another one, what was found: particles tempered from a
    Gaussian, and log Z.

    The Gaussian is over the frame; there are as many particles as `found` has points, and one
    program serves all frames. Counted for each particle and temperature: a value to choose the
    temperature and one to re-weight, a value with gradient at the first state and at each leapfrog
    step. The points come equally weighted, resampled by the last weights; their `step_size` is
    MALA's, `eps^2 / 2` of the leapfrog's eps.

    **Raises** `UnreachedError` (a `TargetError`), when called, where the target is not reached.
    """
    import blackjax
    from blackjax.smc.resampling import systematic

    size, dim = found.points.z.shape
    width, block, kind = width_for(target), target.block(size), kind_of(target.differentiable)
    if moves is None:
        moves = MOVES if target.symmetry is None else max(PARTICLE_MOVES, target.symmetry.particles // 5)

    def log_prior(z: Float[Array, " dim"]):
        return log_normal(z, jnp.zeros(dim), jnp.full(dim, width**2))

    kernel = blackjax.hmc.build_kernel()

    def build(frame, steps):
        def log_likelihood(z: Float[Array, " dim"]):
            # Massless points stay massless; -1e30 keeps the difference of two of them finite.
            value = frame.value(target, z) - log_prior(z)
            return jnp.where(jnp.isfinite(value), value, -1e30)

        settings = {
            "step_size": steps,
            "inverse_mass_matrix": jnp.ones((1, dim)),
            "num_integration_steps": jnp.full((1,), kind.leaps),
        }
        return blackjax.adaptive_tempered_smc(
            log_prior, log_likelihood, kernel, blackjax.hmc.init, settings, systematic, target_ess,
            num_mcmc_steps=moves * kind.moves, batch_size=block if block < size else 0,
        )  # fmt: skip

    @jax.jit
    def advance(frame, state, step_size, origin, key):
        k_steps, key = jax.random.split(key)
        state, info = build(frame, drawn_steps(k_steps, step_size, size)).step(key, state)
        rate = jnp.mean(info.update_info.acceptance_rate)
        # The step follows the acceptance from one temperature to the next.
        step_size = step_size * jnp.exp(2.0 * (rate - kind.acceptance))
        return state, step_size, info.log_likelihood_increment, origin[info.ancestors]

    def spent(found: Found, stages: int) -> Evaluations:
        evaluations = found.evaluations.add_points(stages * size * (moves * LEAPS + 1), 0, 0)
        return evaluations.add_points(stages * size * 2, 0, 0, gradient=False)

    def run(key: Array, found: Found = found) -> Tempered:
        k_start, key = jax.random.split(key)
        state = build(found.frame, jnp.ones(size)).init(width * jax.random.normal(k_start, (size, dim)))
        step_size, stages, log_z, origin = jnp.asarray(FIRST_STEP * width), 0, 0.0, jnp.arange(size)
        while float(state.tempering_param) < 1.0:
            subkey = jax.random.fold_in(key, stages)
            state, step_size, increment, origin = advance(found.frame, state, step_size, origin, subkey)
            stages, log_z = stages + 1, log_z + float(increment)
            if stages == MOST_STAGES:
                text = f"tempering did not reach the target within {stages} temperatures: start='search'?"
                raise UnreachedError(text, spent(found, stages))
        index = weights.systematic(jax.random.fold_in(key, MOST_STAGES), state.weights, size)
        z = state.particles[index]
        e = found.frame.evaluate(target, z)
        evaluations = spent(found, stages).add(e)
        families = jnp.bincount(origin[index], length=size).astype(float)  # squares pass the range of int32
        found = found._replace(points=Buffer.of(z, e), step_size=0.5 * step_size**2, evaluations=evaluations)
        return Tempered(found, log_z, float(size / jnp.sum(families**2)))

    return run
