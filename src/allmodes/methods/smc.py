"""Adaptive tempered SMC as a method (Del Moral et al. 2006), on BlackJAX: what a sampler that is
trained must beat.
"""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.keys import Key
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import batch_log_z
from allmodes.mcmc.tempered_smc import tempering
from allmodes.method import Untrained
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult, normalise, nowhere
from allmodes.points.frame import Frame
from allmodes.sampler import PlainSampler, alike
from allmodes.search.second_look import DRAWS, Look, cost, explore, looking, nowhere_else, spread_out
from allmodes.search.settle import locate
from allmodes.settings import check
from allmodes.target import Target

PILOT = 512  # particles of the run that finds the frame and the cost of a particle


class SMCState(eqx.Module):
    """What the pilot found, points from elsewhere in its frame, and the evaluations that each of
    its particles took.
    """

    found: SearchResult
    elsewhere: Float[Array, "explored free"] | None
    cost: Scalar
    step: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class SMC(Untrained):
    """Adaptive tempered SMC: independent populations, tempered from a broad Gaussian by Hamiltonian
    moves.

    Fitting is a search for the place and scale of the density and one small pilot population; all
    else is done for every set of draws anew. Each population has an unbiased estimate of Z of its
    own (but for its adaptive choices).
    """

    name: str = "smc"
    """What results call it: that of a preset, where it is one."""

    populations: int = 4
    """Independent populations, whose disagreement tells what went wrong."""
    particles: int = 2048
    """Particles of a population, at least."""
    moves: int | None = None
    """Hamiltonian moves at each temperature, of 10 leapfrog steps; 1 when not given, for particle
    systems one for each 5 of them and 3 at least."""
    target_ess: float = 0.8
    """Effective share that each next temperature leaves: nearer to 1 means more temperatures."""

    def __post_init__(self):
        check(self)

    def init(self, target: Target, key: Array) -> SMCState:
        """Search, and temper a pilot population."""
        k_search, k_settle, k_pilot = jax.random.split(key, 3)
        found = locate(target, PILOT, k_search, k_settle)
        spent = int(found.evaluations.log_prob)
        temper = self.tempering(target, found)
        pilot = temper(k_pilot).found
        cost = (int(pilot.evaluations.log_prob) - spent) / PILOT
        pilot = normalise(pilot, target.differentiable)
        searched, k_explore = found._replace(evaluations=pilot.evaluations), jax.random.fold_in(key, 3)
        elsewhere, evaluations = explore(target, searched, pilot.frame, temper, k_explore)
        pilot = pilot._replace(evaluations=evaluations)
        return SMCState(pilot, elsewhere, jnp.asarray(cost), jnp.zeros((), jnp.int32))

    def template(self, target: Target) -> SMCState:
        """The shapes of a state."""

        def build():
            elsewhere = nowhere_else(target)
            return SMCState(nowhere(target, PILOT), elsewhere, jnp.zeros(()), jnp.zeros((), jnp.int32))

        return jax.eval_shape(build)

    def points(self, state: SMCState) -> Float[Array, "size dim"]:
        """The pilot's particles, in the user's coordinates."""
        return state.found.frame.to_x(state.found.points.z)

    def evaluations(self, state: SMCState) -> Evaluations:
        """What the search, the pilot and the wide populations took."""
        return state.found.evaluations

    def sampler(self, target: Target, state: SMCState, seconds: dict[str, float]) -> "SMCSampler":
        """Populations on demand."""
        return SMCSampler(target, self, state, seconds)

    def tempering(self, target: Target, found: SearchResult) -> Any:
        """Runs of these settings, from a frame and as many points as there are particles."""
        return tempering(target, found, moves=self.moves, target_ess=self.target_ess)


class SMCSampler(PlainSampler):
    """Each call tempers new populations."""

    @property
    def frame(self) -> Frame:
        """The frame that the chains run in."""
        return self.state.found.frame

    def sample(self, n: int, *, key: Key, evaluations: int | None = None) -> Draws:
        """N draws from `populations` independent populations, weighted by their estimates of Z.

        Within a population draws have equal weight and some a common origin; `evaluations`, where
        given, are spent on larger populations, of which n are drawn. Log Z and its error come from
        the populations. What `second_look` finds of their particles is in the verdict, and its
        evaluations among those of the draws.

        **Raises** `ConfigError` when n is below 1, `TargetError` where tempering does not reach the
        target.
        """
        self.check(n)
        method, found = self.method, self.state.found
        each = -(-n // method.populations)
        size = max(each, method.particles)
        if evaluations is not None:
            left = evaluations - cost(self.target)
            size = max(each, int(left / (method.populations * float(self.state.cost))))
        temper = self._tempering(size)
        parts, looked, log_zs, shares, spent = [], [], [], [], 0
        for i in range(method.populations):
            k_temper, k_keep = jax.random.split(jax.random.fold_in(key, i))
            population, log_z, independent = temper(k_temper)
            log_z = found.frame.total(log_z)
            points = population.points.take(jax.random.permutation(k_keep, size)[:each])
            x = found.frame.to_x(points.z)
            parts.append((x, found.frame.log_prob(points.log_prob), jnp.full(each, log_z)))
            looked.append(spread_out(population.points.z, DRAWS // method.populations))
            log_zs.append(log_z)
            # Of a random part of a population fewer are related: families shrink with it, singles
            # stay single.
            shares.append(1.0 / (1.0 + (1.0 / independent - 1.0) * each / size))
            spent += int(population.evaluations.log_prob)
        x, log_prob, log_weight = (jnp.stack(part) for part in zip(*parts, strict=True))
        x = alike(self.target, jax.random.fold_in(key, method.populations), x)
        evidence, independent = batch_log_z(np.asarray(log_zs)), float(np.mean(shares))
        k_look = jax.random.fold_in(key, method.populations + 1)
        look: Look = self._look(k_look, jnp.concatenate(looked), self.state.elsewhere)
        return Draws.of_chains(
            n, x, log_prob, log_weight, spent + look.evaluations, evidence, independent, self.target.parameters,
            look.findings,
        )  # fmt: skip

    @functools.cached_property
    def _look(self) -> Any:
        return looking(self.target, self.state.found.frame)

    def _tempering(self, size: int) -> Any:
        found = self.state.found
        points = found.points.take(jnp.arange(size) % PILOT)
        start = found._replace(points=points, evaluations=Evaluations.none(self.target.differentiable))
        return self.method.tempering(self.target, start)
