"""Flow annealed importance sampling bootstrap (Midgley, Stimper, Simm, Schölkopf and
Hernández-Lobato 2023, arXiv 2208.01893): a normalising flow that learns from its own draws,
annealed to where it is worst.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.errors import ConfigError
from allmodes.mcmc.mala import TARGET_ACCEPTANCE
from allmodes.method import Figure, Figures, Trained
from allmodes.methods.fab.anneal import Annealed, anneal, evaluations_of
from allmodes.methods.fab.flow import CouplingFlow
from allmodes.methods.fab.replay import Replay
from allmodes.methods.fab.sampler import FlowSampler
from allmodes.methods.fab.state import State
from allmodes.methods.optimiser import Adam
from allmodes.points import weights
from allmodes.points.count import Evaluations
from allmodes.points.found import normalise, nowhere
from allmodes.points.frame import Frame
from allmodes.progress.stages import stage
from allmodes.search.scout import broad
from allmodes.search.search import search
from allmodes.settings import check
from allmodes.target import Target

POINTS = 2048  # of the search, or spread over the box
FIRST = 10  # batches that the buffer begins with
FIRST_STEP = 1e-2  # of MALA, in the frame


@dataclasses.dataclass(frozen=True)
class FAB(Trained):
    """Train a flow q on the alpha-divergence with alpha = 2 from the density p, the variance of its
    importance weights, which is covering: a mode that q lacks has the largest weights of all.

    Its gradient needs draws of `p^2 / q`: draws of q are annealed there, and go into a buffer from
    which they are taken by their weights. Draws of the flow have weights `p / q` without paths.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "loss": Figure("cross entropy of p^2/q", in_progress="cross entropy", caption="the cross entropy of p^2/q"),
        "ess": Figure("ESS of draws", is_share=True, in_progress="ESS", caption="effective share of the flow's draws"),
        "annealed_ess": Figure("ESS annealed", is_share=True, caption="effective share of the annealed draws"),
        "acceptance": Figure("acceptance", is_share=True),
    }

    name: str = "fab"
    """What results call it: that of a preset, where it is one."""
    steps: int = 10_000
    """Training steps, each of `batch` annealed draws and of `updates` of the flow."""
    cooldown: int = 3000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    batch: int = 256
    """Annealed draws a step, and draws of the buffer for an update."""
    updates: int = 4
    """Updates of the flow a step."""
    buffer: int = 25_600
    """Annealed draws that are kept, the latest ones."""
    levels: int = 1
    """Densities between q and `p^2 / q`; of one, it is p."""
    moves: int = 4
    """Langevin moves at each level, an evaluation each."""
    most: float = 10.0
    """Largest factor by which the weight of a draw of the buffer is corrected in an update."""
    start: Literal["broad", "search"] = "broad"
    """Where the frame comes from: the box that the scouts span, as in the paper, where no mode is
    known before; or a search."""
    flow: CouplingFlow = CouplingFlow()
    """What learns."""
    optimiser: Adam = Adam(learning_rate=1e-3)
    """How the flow follows its gradient."""

    def __post_init__(self):
        check(self, zero=("cooldown",))
        if self.buffer < FIRST * self.batch:
            least = FIRST * self.batch
            raise ConfigError(f"buffer must be at least {least}, for {FIRST} batches to begin with, got {self.buffer}")

    @classmethod
    def paper(cls, **changes: Any) -> "FAB":
        """Give what the paper has for its mixture of 40 Gaussians, with any field changed: RealNVP,
        small batches, no average. Its moves there are random walks of a fixed width; here they are
        Langevin moves, and the frame is that of the scouts' box.
        """
        fields = dict(
            name="fab-paper", steps=20_000, batch=128, buffer=12_800, moves=1,
            flow=CouplingFlow(layers=15, width=80, knots=0), optimiser=Adam(1e-4, clip=100.0, ema=0.0),
        )  # fmt: skip
        return cls(**{**fields, **changes})

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, and fill the first part of the buffer."""
        k_start, k_flow, k_fill = jax.random.split(key, 3)
        found = search(target, k_start, POINTS) if self.start == "search" else broad(target, k_start, POINTS)
        found = normalise(found, target.differentiable)
        stage("annealing the first draws")
        return program(_first, self, target)(found.frame, found.evaluations, k_flow, k_fill)

    def template(self, target: Target) -> State:
        """Give the shapes of a state."""
        found, key = nowhere(target, 1), jax.random.key(0)
        return jax.eval_shape(functools.partial(self._state, target), found.frame, found.evaluations, key)

    def _state(self, target: Target, frame: Frame, evaluations: Evaluations, key: Array) -> State:
        flow = self.flow.start(target.free_dim, key)
        replay, moves = Replay.empty(self.buffer, target.free_dim), jnp.full(self.levels, FIRST_STEP)
        end, cooldown = self.first_end()
        optimiser, step = self.optimiser.start(flow), jnp.zeros((), jnp.int32)
        return State(step, end, cooldown, flow, flow, optimiser, moves, frame, replay, evaluations)

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Anneal a batch of draws into the buffer, then update the flow by draws of the buffer."""
        k_anneal, k_choose = jax.random.split(key)
        first = (FIRST + state.step) * self.batch
        state, annealed = self._fill(target, state, k_anneal, first % self.buffer, self.batch)
        state, loss = self._learn(target, state, k_choose)
        figures = {
            "loss": loss,
            "ess": weights.ess_fraction(annealed.raw),
            "annealed_ess": weights.ess_fraction(annealed.draws.log_weight),
            "acceptance": jnp.mean(annealed.acceptance),
        }
        return dataclasses.replace(state, step=state.step + 1), figures

    def _fill(
        self, target: Target, state: State, key: Array, first: Int[Array, ""] | int, n: int
    ) -> tuple[State, Annealed]:
        """Anneal n draws of the flow into the buffer, from a place on."""
        evaluate = functools.partial(state.frame.evaluate, target)
        flow = self.flow.at(target.free_dim, state.flow)
        annealed = anneal(evaluate, flow, key, n, state.moves, self.moves)
        cost = evaluations_of(n, self.levels, self.moves)
        state = dataclasses.replace(
            state,
            replay=state.replay.put(jnp.asarray(first), annealed.draws),
            moves=state.moves * jnp.exp(0.5 * (annealed.acceptance - TARGET_ACCEPTANCE)),
            evaluations=state.evaluations.add_points(cost, annealed.nan, annealed.zero),
        )
        return state, annealed

    def _learn(self, target: Target, state: State, key: Array) -> tuple[State, Scalar]:
        """Update the flow by batches of the buffer, and correct their priorities."""
        index = state.replay.choose(key, self.updates * self.batch).reshape(self.updates, self.batch)
        rate = self.optimiser.rate(state.step, state.end, state.cooldown)
        has_mass = state.replay.log_priority > -jnp.inf

        def update(carry, index):
            parameters, optimiser = carry

            def loss_of(parameters):
                log_q = self.flow.at(target.free_dim, parameters).log_prob(state.replay.z[index])
                return divergence(log_q, state.replay.log_q[index], has_mass[index], self.most), log_q

            (loss, log_q), gradient = jax.value_and_grad(loss_of, has_aux=True)(parameters)
            parameters, optimiser = self.optimiser.update(gradient, optimiser, parameters, rate)
            return (parameters, optimiser), (loss, log_q)

        (flow, optimiser), (loss, log_q) = jax.lax.scan(update, (state.flow, state.optimiser), index)
        state = dataclasses.replace(
            state,
            flow=flow,
            average=self.optimiser.average(state.average, flow, state.step),
            optimiser=optimiser,
            replay=state.replay.seen(index.ravel(), log_q.ravel()),
        )
        return state, jnp.mean(loss)

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> FlowSampler:
        """Make the sampler of the averaged flow."""
        return FlowSampler(target, self, state, seconds)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """Give draws of the buffer by their weight towards the target, in the user's
        coordinates.
        """
        replay = state.replay
        return state.frame.to_x(replay.z[replay.of_target(jax.random.key(0), POINTS)])


def divergence(log_q: Float[Array, " n"], log_q_seen: Float[Array, " n"], has_mass: Array, most: float) -> Scalar:
    """What has the gradient of the alpha-divergence with alpha = 2 at q, but for a factor, of draws
    that were chosen by their weight towards `p^2 / q` with the q that was seen there: the cross
    entropy of these, re-weighted by at most `most` to the q of now (the paper's loss with its
    prioritised buffer).
    """
    corrected = jnp.minimum(jnp.exp(log_q_seen - jax.lax.stop_gradient(log_q)), most)
    corrected = jnp.where(has_mass & jnp.isfinite(log_q), corrected, 0.0)
    return -jnp.mean(corrected * jnp.where(corrected > 0.0, log_q, 0.0))


def _first(method: FAB, target: Target, frame: Frame, evaluations: Evaluations, k_flow: Array, k_fill: Array) -> State:
    state = method._state(target, frame, evaluations, k_flow)
    return method._fill(target, state, k_fill, 0, FIRST * method.batch)[0]
