"""Adaptive tempered SMC, on BlackJAX (Del Moral et al. 2006): a warm start, and draws to compare
with.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.errors import TargetError
from allmodes.mcmc.hmc import LEAPS, drawn_steps, kind_of
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
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

    found: SearchResult
    log_z: float
    independent: float  # share: all particles over the sum of squared families, a family having one common origin


def width_for(target: Target) -> float:
    """Standard deviation of the initial Gaussian, over the spread of the target."""
    return WIDTH if target.symmetry is None else PARTICLE_WIDTH


def tempering(
    target: Target, found: SearchResult, *, moves: int | None = None, target_ess: float = TARGET_ESS
) -> "TemperedSMC":
    """A function of a key and, if it is another one, what was found: particles tempered from a
    Gaussian, and log Z.

    The Gaussian is over the frame; there are as many particles as `found` has points, and one
    program serves all frames.
    """
    if moves is None:
        moves = MOVES if target.symmetry is None else max(PARTICLE_MOVES, target.symmetry.particles // 5)
    return TemperedSMC(target, found, moves, target_ess)


class _Walk(NamedTuple):
    """Particles on their way: BlackJAX's state, the leapfrog step, log Z so far, from which
    particle of the Gaussian each descends, and the temperatures passed.
    """

    state: Any
    step_size: Scalar
    log_z: float
    origin: Int[Array, " size"]
    stages: int


class TemperedSMC:
    """Tempered SMC of one density, with `moves` Hamiltonian moves at each temperature.

    Counted for each particle and temperature: a value to choose the temperature and one to
    re-weight, a value with gradient at the first state and at each leapfrog step. The points come
    equally weighted, resampled by the last weights; their `step_size` is MALA's, `eps^2 / 2` of the
    leapfrog's eps.
    """

    def __init__(self, target: Target, found: SearchResult, moves: int, target_ess: float):
        self.target, self.found, self.moves = target, found, moves
        self.size, self.dim = found.points.z.shape
        self.width = width_for(target)
        self._start_at, self._advance = (program(f, target, moves, target_ess) for f in (_first, _one_temperature))

    def __call__(self, key: Array, found: SearchResult | None = None) -> Tempered:
        """Temper, in the frame of what was found.

        **Raises** `UnreachedError` (a `TargetError`) where the target is not reached.
        """
        found = self.found if found is None else found
        k_start, key = jax.random.split(key)
        walk = self._start(found.frame, k_start)
        while float(walk.state.tempering_param) < 1.0:
            walk = self._next(found.frame, walk, jax.random.fold_in(key, walk.stages))
            if walk.stages == MOST_STAGES:
                text = f"tempering did not reach the target within {walk.stages} temperatures: start='search'?"
                raise UnreachedError(text, self._spent(found, walk.stages))
        return self._end(found, walk, jax.random.fold_in(key, MOST_STAGES))

    def _start(self, frame: Frame, key: Array) -> _Walk:
        """Draws of the Gaussian."""
        z = self.width * jax.random.normal(key, (self.size, self.dim))
        return _Walk(self._start_at(frame, z), jnp.asarray(FIRST_STEP * self.width), 0.0, jnp.arange(self.size), 0)

    def _next(self, frame: Frame, walk: _Walk, key: Array) -> _Walk:
        """The particles at the next temperature."""
        state, step_size, increment, origin = self._advance(frame, walk.state, walk.step_size, walk.origin, key)
        return _Walk(state, step_size, walk.log_z + float(increment), origin, walk.stages + 1)

    def _end(self, found: SearchResult, walk: _Walk, key: Array) -> Tempered:
        """The particles at the target, resampled by the last weights."""
        index = weights.systematic(key, walk.state.weights, self.size)
        z = walk.state.particles[index]
        e = found.frame.evaluate(self.target, z)
        evaluations = self._spent(found, walk.stages).add(e).book("populations")
        families = jnp.bincount(walk.origin[index], length=self.size).astype(float)  # squares pass the range of int32
        step_size = 0.5 * walk.step_size**2
        found = found._replace(points=Buffer.of(z, e), step_size=step_size, evaluations=evaluations)
        return Tempered(found, walk.log_z, float(self.size / jnp.sum(families**2)))

    def _spent(self, found: SearchResult, stages: int) -> Evaluations:
        evaluations = found.evaluations.add_points(stages * self.size * (self.moves * LEAPS + 1), 0, 0)
        return evaluations.add_points(stages * self.size * 2, 0, 0, gradient=False).book("populations")


def _first(target: Target, moves: int, target_ess: float, frame: Frame, z: Float[Array, "size dim"]) -> Any:
    return _algorithm(target, moves, target_ess, frame, jnp.ones(len(z)), *z.shape).init(z)


def _one_temperature(
    target: Target,
    moves: int,
    target_ess: float,
    frame: Frame,
    state: Any,
    step_size: Scalar,
    origin: Int[Array, " size"],
    key: Array,
) -> tuple[Any, Scalar, Scalar, Int[Array, " size"]]:
    k_steps, key = jax.random.split(key)
    size, dim = state.particles.shape
    steps = drawn_steps(k_steps, step_size, size)
    state, info = _algorithm(target, moves, target_ess, frame, steps, size, dim).step(key, state)
    rate = jnp.mean(info.update_info.acceptance_rate)
    # The step follows the acceptance from one temperature to the next.
    step_size = step_size * jnp.exp(2.0 * (rate - kind_of(target.differentiable).acceptance))
    return state, step_size, info.log_likelihood_increment, origin[info.ancestors]


def _algorithm(
    target: Target, moves: int, target_ess: float, frame: Frame, steps: Float[Array, " size"], size: int, dim: int
) -> Any:
    """BlackJAX's, with a leapfrog step for each particle."""
    import blackjax
    from blackjax.smc.resampling import systematic

    block, width, kind = target.block(size), width_for(target), kind_of(target.differentiable)

    def log_prior(z: Float[Array, " dim"]):
        return log_normal(z, jnp.zeros(dim), jnp.full(dim, width**2))

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
        log_prior, log_likelihood, blackjax.hmc.build_kernel(), blackjax.hmc.init, settings, systematic,
        target_ess, num_mcmc_steps=moves * kind.moves, batch_size=block if block < size else 0,
    )  # fmt: skip
