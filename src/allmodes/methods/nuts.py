"""The no-U-turn sampler as a method (Hoffman and Gelman 2014), on BlackJAX: what most people
use.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.devices.keys import Key
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate
from allmodes.errors import ConfigError
from allmodes.mcmc.tempered_smc import tempering
from allmodes.method import Untrained
from allmodes.points.count import Evaluations
from allmodes.points.found import nowhere
from allmodes.points.frame import Frame
from allmodes.sampler import PlainSampler, alike
from allmodes.search.search import search
from allmodes.search.second_look import cost, explore, looking, nowhere_else, thinned
from allmodes.settings import check
from allmodes.target import Target

PILOT = 512  # points of the search


class NUTSState(eqx.Module):
    """Each chain's place, step size and inverse mass matrix after the warm-up, and what a draw took
    at its end.

    And points from elsewhere, in the same frame.
    """

    frame: Frame
    elsewhere: Float[Array, "explored free"] | None
    z: Float[Array, "chains dim"]
    step_size: Float[Array, " chains"]
    inverse_mass: Float[Array, "chains dim"]
    cost: Scalar
    step: Int[Array, ""]
    evaluations: Evaluations


@dataclasses.dataclass(frozen=True)
class NUTS(Untrained):
    """The no-U-turn sampler: many chains from the points of a search, Stan's warm-up for each.

    A chain does not leave the mode that it starts in where modes are far apart: its shares of the
    modes are then those of the search, not of the density, and R^ says so.
    """

    work: ClassVar[str] = "chains"
    name: str = "nuts"
    """What results call it: that of a preset, where it is one."""

    chains: int = 64
    """Independent chains."""
    warmup: int = 500
    """Steps of the warm-up of each."""
    thin: int = 1
    """Steps for each draw of a chain."""

    def __post_init__(self):
        check(self)

    def init(self, target: Target, key: Array) -> NUTSState:
        """Search, then warm each chain up to a step size and a diagonal mass matrix of its own, as
        Stan does.
        """
        if not target.differentiable:
            raise ConfigError(
                f"nuts needs the gradient of the density, and {target.name} has none: smc, tempering and nested do not"
            )
        k_search, k_choose, k_warm = jax.random.split(key, 3)
        found = search(target, k_search, PILOT)
        z = found.points.z[jax.random.permutation(k_choose, jnp.arange(max(PILOT, self.chains)) % PILOT)[: self.chains]]

        warm, keys = program(_warm, target, self.warmup), jax.random.split(k_warm, self.chains)
        z, step_size, inverse_mass, steps = warm(found.frame, z, keys)
        temper = tempering(target, found)
        elsewhere, evaluations = explore(target, found, found.frame, temper, jax.random.fold_in(key, 3))
        evaluations = evaluations.add_points(jnp.sum(steps) + self.chains, 0, 0)
        late = jnp.mean(steps[:, -(self.warmup // 2 + 1) :])
        step = jnp.zeros((), jnp.int32)
        return NUTSState(found.frame, elsewhere, z, step_size, inverse_mass, late, step, evaluations)

    def template(self, target: Target) -> NUTSState:
        """The shapes of a state."""

        def build():
            z = jnp.zeros((self.chains, target.free_dim))
            nothing, step = jnp.zeros(()), jnp.zeros((), jnp.int32)
            frame, elsewhere = nowhere(target, 1).frame, nowhere_else(target)
            return NUTSState(frame, elsewhere, z, z[:, 0], z, nothing, step, Evaluations.none())

        return jax.eval_shape(build)

    def points(self, state: NUTSState) -> Float[Array, "size dim"]:
        """Where the chains stand, in the user's coordinates."""
        return state.frame.to_x(state.z)

    def evaluations(self, state: NUTSState) -> Evaluations:
        """What the search, the wide populations and the warm-up took."""
        return state.evaluations

    def sampler(self, target: Target, state: NUTSState, seconds: dict[str, float]) -> "NUTSSampler":
        """Chains go on from where the warm-up left them."""
        return NUTSSampler(target, self, state, seconds)


class NUTSSampler(PlainSampler):
    """Goes on with the chains of the state, by other randomness for each key."""

    @property
    def frame(self) -> Frame:
        """The frame that the chains run in."""
        return self.state.frame

    def sample(self, n: int, *, key: Key, evaluations: int | None = None) -> Draws:
        """N draws, from all chains in turn, `thin` steps apart (more of them where `evaluations`
        pay for it).

        Chains do not know log Z: it is NaN. What `second_look` finds of the draws is in the
        verdict, and its evaluations among theirs.

        **Raises** `ConfigError` when n is below 1.
        """
        self.check(n)
        method, state, each = self.method, self.state, -(-n // self.method.chains)
        thin = method.thin
        if evaluations is not None:
            thin = max(1, int((evaluations - cost(self.target)) / (method.chains * each * float(state.cost))))
        z, log_prob, steps = program(_draws, self.target, static=(2, 3))(state, key, each, thin)
        x = alike(self.target, jax.random.fold_in(key, 1), state.frame.to_x(z))
        flat, unknown = jnp.zeros((method.chains, each)), Estimate(float("nan"), float("inf"))
        look = self._look(jax.random.fold_in(key, 2), thinned(jnp.swapaxes(z, 0, 1)), state.elsewhere)
        log_prob, spent = state.frame.log_prob(log_prob), int(jnp.sum(steps)) + len(z) + look.evaluations
        return Draws.of_chains(
            n, x, log_prob, flat, spent, unknown, parameters=self.target.parameters, findings=look.findings
        )

    @functools.cached_property
    def _look(self) -> Any:
        return looking(self.target, self.state.frame)


def _warm(
    target: Target, warmup: int, frame: Frame, z: Float[Array, "chains free"], keys: Array
) -> tuple[Float[Array, "chains free"], Float[Array, " chains"], Float[Array, "chains free"], Int[Array, "chains _"]]:
    """Places, step sizes and inverse mass matrices after the warm-up, and the leapfrog steps of
    each of its moves.
    """
    import blackjax

    def one(z, key):
        adaptation = blackjax.window_adaptation(
            blackjax.nuts, lambda z: frame.value(target, z),
            adaptation_info_fn=lambda state, info, adaptation: info.num_integration_steps,
        )  # fmt: skip
        (state, settings), steps = adaptation.run(key, z, warmup)
        return state.position, settings["step_size"], settings["inverse_mass_matrix"], steps

    return jax.vmap(one)(z, keys)


def _draws(
    target: Target, state: NUTSState, key: Array, each: int, thin: int
) -> tuple[Float[Array, "chains each free"], Float[Array, "chains each"], Int[Array, " chains"]]:
    """Draws of each chain, their log-densities, and the leapfrog steps that each took."""
    import blackjax

    kernel = blackjax.nuts.build_kernel()

    def chain(z, step_size, inverse_mass, key):
        def log_prob(z):
            return state.frame.value(target, z)

        def move(i, carry):
            at, steps = carry
            at, info = kernel(jax.random.fold_in(key, i), at, log_prob, step_size, inverse_mass)
            return at, steps + info.num_integration_steps

        def one(carry, i):
            at, steps = jax.lax.fori_loop(i * thin, (i + 1) * thin, move, carry)
            return (at, steps), (at.position, at.logdensity)

        first = blackjax.nuts.init(z, log_prob), jnp.zeros((), jnp.int32)
        (_, steps), (draws, values) = jax.lax.scan(one, first, jnp.arange(each))
        return draws, values, steps

    keys = jax.random.split(key, len(state.z))
    return jax.vmap(chain)(state.z, state.step_size, state.inverse_mass, keys)
