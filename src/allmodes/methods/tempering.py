"""Non-reversible parallel tempering as a method, its ladder adapted (Syed et al. 2022,
arXiv:1905.02939): what a sampler that is trained must beat.
"""

import dataclasses
import functools
import types
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.devices.keys import Key
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import batch_log_z
from allmodes.draws.verdict import CORRECT, TRUSTED, Finding
from allmodes.errors import ConfigError
from allmodes.mcmc import parallel_tempering as parallel
from allmodes.mcmc.hmc import kind_of
from allmodes.mcmc.parallel_tempering import Ladder, Replicas
from allmodes.mcmc.tempered_smc import tempering, width_for
from allmodes.method import Figure, Figures, Method
from allmodes.points.count import Evaluations
from allmodes.points.found import nowhere
from allmodes.points.frame import Frame
from allmodes.sampler import PlainSampler, alike
from allmodes.search.second_look import cost as cost_of_look
from allmodes.search.second_look import explore, looking, nowhere_else, thinned
from allmodes.search.settle import locate
from allmodes.settings import check
from allmodes.target import Target

PILOT = 512  # points of the search


class TemperingState(eqx.Module):
    """The replicas, their ladder, the rejection rate across each gap, and points from elsewhere."""

    frame: Frame
    elsewhere: Float[Array, "explored free"] | None
    replicas: Replicas
    ladder: Ladder
    rejection: Float[Array, " gaps"]
    step: Int[Array, ""]
    evaluations: Evaluations


@dataclasses.dataclass(frozen=True)
class Tempering(Method):
    """Parallel tempering: systems of replicas between a broad Gaussian and the target,
    non-reversible swaps.

    Each step of fitting is a round of sweeps that ends with an adaptation of the ladder and of the
    moves; draws come from the last temperature, the ladder fixed.
    """

    work: ClassVar[str] = "chains"
    figures: ClassVar[Mapping[str, Figure]] = types.MappingProxyType(
        {
            "barrier": Figure(
                "Communication barrier", over="last", in_progress="barrier",
                caption="Swaps refused along the whole ladder. It should settle, at half of the temperatures or less.",
            ),
            "round_trips": Figure(
                "Round trips a sweep", in_progress="round trips",
                caption="Of all replicas of a system, from the prior to the target and back.",
            ),
            "ideal_round_trips": Figure("Round trips a sweep, of ideal moves", over="last"),
        }
    )  # fmt: skip
    name: str = "tempering"
    """What results call it: that of a preset, where it is one."""

    steps: int = 40
    """Rounds of adaptation."""
    sweeps: int = 10
    """Sweeps of a round: a Hamiltonian move of 10 leapfrog steps at each temperature, then
    swaps."""
    systems: int = 16
    """Independent systems, whose disagreement tells what went wrong."""
    temperatures: int = 16
    """Replicas of a system; twice the communication barrier (`sampler.barrier`) is a good
    number."""
    thin: int = 4
    """Sweeps for each draw of a system."""

    def __post_init__(self):
        check(self)
        if self.temperatures < 3:
            raise ConfigError(f"temperatures must be at least 3, got {self.temperatures}")

    def init(self, target: Target, key: Array) -> TemperingState:
        """Search for the place and scale of the density, and put its points at all temperatures."""
        k_search, k_settle, k_choose = jax.random.split(key, 3)
        found = locate(target, PILOT, k_search, k_settle)
        index = jax.random.randint(k_choose, (self.systems, self.temperatures), 0, PILOT)
        ladder = parallel.first_ladder(self.temperatures, width_for(target), target.free_dim)
        replicas = parallel.start(target, found.frame, found.points.z[index])
        temper = tempering(target, found)
        elsewhere, evaluations = explore(target, found, found.frame, temper, jax.random.fold_in(key, 3))
        evaluations = evaluations.add_points(index.size, 0, 0)
        return self._state(found.frame, elsewhere, replicas, ladder, evaluations)

    def template(self, target: Target) -> TemperingState:
        """The shapes of a state."""

        def build():
            z = jnp.zeros((self.systems, self.temperatures, target.free_dim))
            ladder = parallel.first_ladder(self.temperatures, 1.0, target.free_dim)
            frame, elsewhere = nowhere(target, 1).frame, nowhere_else(target)
            none = Evaluations.none(target.differentiable)
            replicas = Replicas(z, z[..., 0], z, jnp.zeros(z.shape[:2], bool))
            return self._state(frame, elsewhere, replicas, ladder, none)

        return jax.eval_shape(build)

    def _state(
        self, frame: Frame, elsewhere: Array | None, replicas: Replicas, ladder: Ladder, evaluations: Evaluations
    ) -> TemperingState:
        nothing = jnp.zeros(self.temperatures - 1)
        return TemperingState(frame, elsewhere, replicas, ladder, nothing, jnp.zeros((), jnp.int32), evaluations)

    def step(self, target: Target, state: TemperingState, key: Array) -> tuple[TemperingState, Figures]:
        """A round of sweeps; then the ladder is adapted, the less the later it is."""
        replicas, seen = self._sweeps(target, state, key, state.step * self.sweeps, self.sweeps)
        rejection = jnp.mean(seen.rejection, axis=0)
        gain = jnp.maximum(1.0 / (1.0 + state.step), 4.0 / self.steps)
        ladder = parallel.adapt(
            state.ladder, jnp.mean(seen.acceptance, axis=0), rejection, gain, kind_of(target.differentiable)
        )
        cost = self.sweeps * parallel.evaluations_of(self.systems, self.temperatures)
        evaluations = state.evaluations.add_points(cost, 0, 0)
        state = TemperingState(state.frame, state.elsewhere, replicas, ladder, rejection, state.step + 1, evaluations)
        told = jnp.sum(rejection), jnp.mean(seen.arrived / self.systems), parallel.round_trip_rate(rejection)
        return state, dict(zip(self.figures, told, strict=True))

    def _sweeps(
        self, target: Target, state: TemperingState, key: Array, first: int | Scalar, sweeps: int
    ) -> tuple[Replicas, Any]:
        """So many sweeps; `first` is how many there were before: swaps go on with the gaps whose
        turn it is.
        """
        sweep = parallel.sweeper(target, state.frame, width_for(target))

        def one(replicas, i):
            return sweep(jax.random.fold_in(key, i), first + i, replicas, state.ladder)

        return jax.lax.scan(one, state.replicas, jnp.arange(sweeps))

    def points(self, state: TemperingState) -> Float[Array, "size dim"]:
        """Where the last temperature of each system stands, in the user's coordinates."""
        return state.frame.to_x(state.replicas.z[:, -1])

    def evaluations(self, state: TemperingState) -> Evaluations:
        """What the search, the wide populations and the rounds took."""
        return state.evaluations

    def sampler(self, target: Target, state: TemperingState, seconds: dict[str, float]) -> "TemperingSampler":
        """Sweeps go on from where fitting left them."""
        return TemperingSampler(target, self, state, seconds)


class TemperingSampler(PlainSampler):
    """Goes on with the systems of the state, by other randomness for each key."""

    @property
    def barrier(self) -> float:
        """The communication barrier between prior and target: swaps refused along the whole
        ladder.
        """
        return float(jnp.sum(self.state.rejection))

    @property
    def ideal_round_trips(self) -> float:
        """Round trips of a system a sweep, if moves forgot where they began, by the swaps refused
        in the last round of fitting (Syed et al. 2022).
        """
        return float(parallel.round_trip_rate(self.state.rejection))

    @property
    def frame(self) -> Frame:
        """The frame that the chains run in."""
        return self.state.frame

    def sample(self, n: int, *, key: Key, evaluations: int | None = None) -> Draws:
        """N draws, from all systems in turn, `thin` sweeps apart (more of them where `evaluations`
        pay for it).

        Log Z and its error come from the systems, by stepping stones. How many round trips the
        replicas have made, and what `second_look` finds of the draws, is in the verdict.

        **Raises** `ConfigError` when n is below 1.
        """
        self.check(n)
        method, each = self.method, -(-n // self.method.systems)
        cost = parallel.evaluations_of(method.systems, method.temperatures)
        thin = method.thin
        if evaluations is not None:
            thin = max(1, int((evaluations - cost_of_look(self.target)) / (cost * each)))
        z, log_prob, log_zs, trips = program(_draws, method, self.target, static=(2, 3))(self.state, key, each, thin)
        frame = self.state.frame
        x = alike(self.target, jax.random.fold_in(key, 1), frame.to_x(jnp.swapaxes(z, 0, 1)))
        log_prob = jnp.where(log_prob > parallel.NO_MASS, log_prob, -jnp.inf)
        log_prob, log_zs = frame.log_prob(log_prob), frame.total(log_zs)
        flat = jnp.zeros((method.systems, each))
        evidence = batch_log_z(np.asarray(log_zs))
        # Of each system the same number of draws, evenly over its time.
        look = self._look(jax.random.fold_in(key, 2), thinned(z), self.state.elsewhere)
        spent = cost * each * thin + look.evaluations
        return Draws.of_chains(
            n, x, log_prob.T, flat, spent, evidence, parameters=self.target.parameters,
            findings=(self._of_trips(int(trips), each * thin), *look.findings),
        )  # fmt: skip

    def _of_trips(self, trips: int, sweeps: int) -> Finding:
        """What the round trips say: without any, draws do not come from the prior's independent
        ones.
        """
        systems = self.method.systems
        ideal = self.ideal_round_trips * sweeps * systems
        text = f"{trips:,} round trips between prior and target (ideal moves: {ideal:,.0f}, barrier {self.barrier:.1f})"
        if trips < systems:
            return Finding(CORRECT, f"{text}: fewer than one for each of {systems} systems")
        return Finding(TRUSTED, text)

    @functools.cached_property
    def _look(self) -> Any:
        return looking(self.target, self.state.frame)


def _draws(
    method: Tempering, target: Target, state: TemperingState, key: Array, each: int, thin: int
) -> tuple[
    Float[Array, "each systems free"], Float[Array, "each systems"], Float[Array, " systems"], Int[Array, ""]
]:  # fmt: skip
    """Draws of each system and their log-densities, what each says of log Z, and the round trips of
    all.
    """

    def one(carry, i):
        replicas, log_ratio, trips = carry
        now = dataclasses.replace(state, replicas=replicas)
        replicas, seen = method._sweeps(target, now, jax.random.fold_in(key, i), i * thin, thin)
        more = jax.scipy.special.logsumexp(seen.log_ratio, axis=0)
        carry = replicas, jnp.logaddexp(log_ratio, more), trips + jnp.sum(seen.arrived)
        return carry, (replicas.z[:, -1], replicas.log_prob[:, -1])

    nothing = jnp.full((method.systems, method.temperatures - 1), -jnp.inf), jnp.zeros((), jnp.int32)
    (_, total, trips), (z, log_prob) = jax.lax.scan(one, (state.replicas, *nothing), jnp.arange(each))
    return z, log_prob, jnp.sum(total - jnp.log(each * thin), axis=-1), trips
