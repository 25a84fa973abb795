"""Importance-Weighted Score Matching (Wang et al. 2025, arXiv 2505.19431): its parts, and the
protocol.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.diffusion.networks import (
    AnchoredPerceptron,
    Denoiser,
    Equivariant,
    MixturePerceptron,
    Network,
    Perceptron,
    network_for,
)
from allmodes.diffusion.noise import NoiseRange, noise_for
from allmodes.diffusion.paths import Process
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.diffusion.second_opinion import second_opinion
from allmodes.draws.verdict import Finding
from allmodes.errors import ConfigError
from allmodes.method import Figure, Figures, Trained
from allmodes.methods.iwsm.again import again
from allmodes.methods.iwsm.batch import LEVELS
from allmodes.methods.iwsm.end import expected_end, shares_of_renewals
from allmodes.methods.iwsm.estimators import AnyEstimator, Chain, FreshDraws, MixtureRatio, Neighbours
from allmodes.methods.iwsm.reweighting import AnyReweighting, OwnDraws, PathMoves
from allmodes.methods.iwsm.state import State, process_of, start
from allmodes.methods.iwsm.training import FIGURES, measure, move, train
from allmodes.methods.optimiser import Adam
from allmodes.points.found import SearchResult, nowhere
from allmodes.points.frame import Frame
from allmodes.progress.stages import stage
from allmodes.search.complete import of_product, of_starts
from allmodes.search.effort import BEFORE_TEMPERING, THOROUGH, Search
from allmodes.search.scout import broad
from allmodes.search.search import search
from allmodes.search.settle import warm_start
from allmodes.settings import check
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class IWSM(Trained):
    """Learn the denoiser of a density by score matching on re-weighted points.

    Minimises `E_t E_{x_t} w(x_t) |D(x_t, sigma_t) - D^(x_t)|^2 / c_out^2`: points x_t come from a
    noised replay buffer, `D^` is an estimate of the posterior mean from the density and its
    gradient, and w, or the buffer itself, is brought towards `p_t`. The defaults spend few
    evaluations: a small search, and a mixture fitted to its points and gradients as the base of the
    denoiser, so that nothing is left to train where the mixture is the density
    (`docs/results/evaluations.md`). `IWSM.thorough()` spends a million and more, and
    `IWSM.paper()` is the published method.
    """

    figures: ClassVar[Mapping[str, Figure]] = FIGURES

    name: str = "iwsm"
    """What results call it: that of a preset, where it is one."""
    steps: int = 5000
    """Most training steps."""
    cooldown: int = 1000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    enough: float | None = 0.7
    """Begin the cooldown once the sampler's own draws have this effective share; None spends all
    steps."""
    batch: int = 1024
    """Points a step, a multiple of 32."""
    buffer: int = 16_384
    """Points in the replay buffer."""
    start: Literal["search", "smc", "broad"] = "search"
    """First buffer: multi-start search, tempered SMC (BlackJAX), or points spread over the box of
    the scouts."""
    search: Search = Search()
    """What the search spends."""
    local_every: int = 0
    """Steps between local moves of the whole buffer; 0 for none."""
    ready: float | None = 0.8
    """Nothing is trained where the network has a base whose own draws have this effective share;
    None trains all the same."""
    sample_steps: int = 50
    """Steps of the reverse path of a draw, when not said otherwise and where anything was trained:
    more of them raise the weights' effective share."""
    estimator: AnyEstimator = Neighbours()
    """What the network learns from."""
    reweighting: AnyReweighting = PathMoves(4096, every=250, path_steps=20)
    """What brings the buffer to the density."""
    network: Network = MixturePerceptron()
    """What learns; particles get an equivariant one, as wide and as deep."""
    noise: NoiseRange = NoiseRange()
    """The noise levels."""
    optimiser: Adam = Adam()
    """How the network follows its gradient."""
    opinion: float = 0.1
    """Share of all evaluations that a second opinion may take, on top, when training is over; 0 for
    none."""

    def __post_init__(self):
        check(self, zero=("cooldown", "local_every", "opinion"))
        ratio = isinstance(self.estimator, FreshDraws) and self.estimator.weights
        strata = ratio.strata if ratio else 1
        if self.batch % LEVELS or self.batch % strata:
            raise ConfigError(f"batch must be a multiple of {LEVELS} and of strata, got {self.batch}")
        if self.sample_steps < 2:
            raise ConfigError(f"sample_steps must be at least 2, got {self.sample_steps}")
        self.reweighting.check(self.buffer)

    @classmethod
    def thorough(cls, **changes: Any) -> "IWSM":
        """Give what spends evaluations where they are cheap, with any field changed: a large
        search, a network that starts from nothing, and renewals of the whole buffer by finer paths.

        What the default was up to 0.1; it takes a million evaluations in two dimensions.
        """
        fields = dict(
            name="iwsm-thorough", steps=12_000, cooldown=2000, enough=0.5, local_every=100, search=THOROUGH,
            network=Perceptron(), reweighting=PathMoves(), sample_steps=200,
        )  # fmt: skip
        return cls(**{**fields, **changes})

    @classmethod
    def many_dimensions(cls, **changes: Any) -> "IWSM":
        """Give `thorough` for 16 dimensions or more, with any field changed: renewed more often, by
        finer paths.

        Whole paths are exchanged more rarely there, and the shapes of modes are what a perceptron
        learns last: it gets anchors.
        """
        fields = dict(
            name="iwsm-many-dimensions", steps=8000, cooldown=3000, network=AnchoredPerceptron(64),
            reweighting=PathMoves(every=200, path_steps=60),
        )  # fmt: skip
        return cls.thorough(**{**fields, **changes})

    @classmethod
    def paper(cls, **changes: Any) -> "IWSM":
        """Give the published method, with any field changed.

        Pure target-score estimator, buffer-mixture weights, SNIS over the whole batch, a buffer of
        own and broad draws; iDEM's published settings where the paper gives none
        (`docs/concepts.md` lists what differs).
        """
        ratio = MixtureRatio(strata=1, truncate=False)
        fields = dict(
            name="iwsm-paper", start="broad", batch=512, buffer=10_000, local_every=0,
            estimator=FreshDraws(500, weights=ratio, score="tsi", clip=70.0),
            reweighting=OwnDraws(1000, broad_share=0.2, every=100, path_steps=1000),
            network=Perceptron(predicts="score"), noise=NoiseRange(sigma_max=1.0),
            optimiser=Adam(learning_rate=5e-4, clip=0.5, ema=0.0),
        )  # fmt: skip
        return cls.thorough(**{**fields, **changes})

    @classmethod
    def particles(cls, **changes: Any) -> "IWSM":
        """Give what particle systems get by default, with any field changed; tuned on LJ-13.

        Energies are stiff and modes many, so tempered SMC starts it, short posterior chains make
        the targets and renew the buffer all the time, and a deep equivariant network of fewer
        points a step replaces the perceptron. All steps are spent: the energies of raw draws go on
        improving long after the path weights do.
        """
        fields = dict(
            name="iwsm-particles", start="smc", steps=36_000, cooldown=15_000, enough=None, batch=64, buffer=4096,
            local_every=0, estimator=Chain(8), reweighting=PathMoves(512, every=1000, path_steps=60),
            network=Equivariant(64, 8), noise=NoiseRange(dwell=0.5, dwell_at=0.2),
        )  # fmt: skip
        return cls.thorough(**{**fields, **changes})

    @classmethod
    def few_particles(cls, **changes: Any) -> "IWSM":
        """Give `particles` for up to 6 of them, whose steps are cheap: more of them; tuned on DW-4.

        Neighbours in place of chains, as there are enough of them near each point; and few
        evaluations: small populations to begin with, whose copies local moves part.
        """
        fields = dict(
            name="iwsm-few-particles", batch=128, steps=30_000, cooldown=12_000, search=BEFORE_TEMPERING,
            estimator=Neighbours(64), local_every=96, noise=NoiseRange(dwell=0.7, dwell_at=0.25), sample_steps=400,
        )  # fmt: skip
        return cls.particles(**{**fields, **changes})

    @classmethod
    def many_particles(cls, **changes: Any) -> "IWSM":
        """Give `particles` for more than 30 of them, whose steps are dear and whose paths are
        hardly ever exchanged.

        One run of LJ-55 is published; it is not tuned beyond that.
        """
        fields = dict(
            name="iwsm-many-particles", batch=32, steps=16_000, cooldown=6000, buffer=2048, sample_steps=100,
            network=Equivariant(64, 3), reweighting=PathMoves(64, every=8000, path_steps=60),
        )  # fmt: skip
        return cls.particles(**{**fields, **changes})

    # The protocol.

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, fill the buffer, and build the network."""
        if self.estimator.score == "tsi" and not target.differentiable:
            raise ConfigError(
                f"score='tsi' needs the gradient of the density, and {target.name} has none: 'dsi' and 'blend' do not"
            )
        k_start, k_network = jax.random.split(key)
        network = network_for(self.network, target.symmetry)
        if self.start == "broad":
            found = broad(target, k_start, self.buffer)
        else:
            spent = self.search if network.fits_mixture else dataclasses.replace(self.search, keep=0)
            found = search(target, k_start, self.buffer, spent)
        if self.start == "smc":
            stage("searching: tempered SMC")
            few = found.filled(min(self.buffer, self.search.starts))
            found = warm_start(target, few, jax.random.fold_in(k_start, 1))
        prepared, found = network.prepare(target, found, k_start)
        found = found._replace(passed=None, evaluations=found.evaluations.book("mixture")).filled(self.buffer)
        state = program(_build, self, target)(found, prepared, k_network)
        return state if state.denoiser.base is None else self._begin(state, prepared.share, key)

    def _begin(self, state: State, share: float, key: Array) -> State:
        """The state with the errors that the base's denoiser has; one that ends before the first
        step where the base's own draws are `ready`.
        """
        state = program(measure)(state, jax.random.fold_in(key, 1))
        state = dataclasses.replace(state, refresh_ess=jnp.asarray(share, jnp.float32))
        if self.ready is None or share < self.ready:
            return state
        return dataclasses.replace(state, end=jnp.zeros((), jnp.int32))

    def again(self, target: Target, state: State, key: Array) -> State:
        """Begin where training on another density has ended."""
        return again(self, target, state, key)

    def template(self, target: Target) -> State:
        """Give the shapes of a state, without the work: what a checkpoint is read into."""
        prepared = network_for(self.network, target.symmetry).unprepared(self.buffer, target.free_dim)
        build = functools.partial(self.build, target)
        return jax.eval_shape(build, nowhere(target, self.buffer), prepared, jax.random.key(0))

    def build(self, target: Target, found: SearchResult, prepared: Any, key: Array) -> State:
        """Make the state before the first step of what was found, and of what the network has
        `prepared` of its points.
        """
        symmetry = found.frame.symmetry
        settings = network_for(self.network, symmetry)
        network = settings.build(symmetry or found.points.z.shape[1], prepared, key)
        denoiser = Denoiser(network, settings.predicts == "score")
        noise = noise_for(self.noise, found.points.z, found.tau, symmetry is not None)
        optimiser = self.optimiser.start(denoiser)
        return start(found, denoiser, optimiser, noise, *self.first_end(), target.differentiable)

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Update the network once, and make the moves and renewals of the buffer that are due."""
        k_renew, k_local, k_train = jax.random.split(key, 3)
        due = (state.step > 0) & (state.step % self.reweighting.every == 0)
        state = jax.lax.cond(due, lambda s: self.renew(target, s, k_renew), lambda s: s, state)
        if self.local_every:
            due = state.step % self.local_every == 0
            state = jax.lax.cond(due, lambda s: move(target, s, k_local), lambda s: s, state)
        return train(self, target, state, k_train)

    def renew(self, target: Target, state: State, key: Array) -> State:
        """Renew the buffer, and begin the cooldown where the sampler's draws are good enough."""
        state = dataclasses.replace(state, evaluations=state.evaluations.book("training"))
        state = self.reweighting.renew(target, state, key)
        state = dataclasses.replace(state, evaluations=state.evaluations.book("renewals"))
        if self.enough is None:
            return state
        sooner = jnp.minimum(state.end, state.step + state.cooldown)
        return dataclasses.replace(state, end=jnp.where(state.refresh_ess >= self.enough, sooner, state.end))

    @property
    def period(self) -> int:
        """Steps after which a renewal of the buffer comes round, which takes as long as hundreds of
        steps.
        """
        return self.reweighting.every

    def expected_end(self, state: State, lines: Sequence[Mapping[str, Any]]) -> int | None:
        """Tell where training is likely to end by the effective shares of renewals so far; None
        where nothing tells.
        """
        end = int(state.end)
        if self.enough is None or end < self.steps:
            return end
        seen = shares_of_renewals(lines, self.reweighting.every)
        return expected_end(seen, self.enough, self.reweighting.every, int(state.cooldown), end)

    @property
    def period_evaluations(self) -> int:
        """One of each path of a renewal."""
        return self.reweighting.paths(self.buffer)

    def renewals_of(self, n: int) -> float:
        """Tell how many renewals of the buffer, each of paths down and up again, draws of n points
        are the work of.
        """
        return n * self.sample_steps / (self.reweighting.paths(self.buffer) * self.reweighting.path_steps)

    def second_opinion(self, target: Target, state: State, key: Array) -> State:
        """Climb from fresh starts to ends that the sampler must explain; not for particles, whose
        minima are too many.
        """
        if target.symmetry is not None or not self.opinion or int(state.opinion.step) == int(state.step):
            return state
        stage("looking once more, from fresh starts")
        limit, sampler = int(self.opinion * int(state.evaluations.log_prob)), self.sampler(target, state, {})
        opinion, spent = second_opinion(
            target, sampler.frame, sampler.process, state.buffer, int(state.step),
            evaluations=limit, steps=sampler.steps, key=key,
        )  # fmt: skip
        evaluations = jax.tree.map(jnp.add, state.evaluations.book(self.work), spent).book("opinion")
        return dataclasses.replace(state, evaluations=evaluations, opinion=opinion)

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> DiffusionSampler:
        """Make the sampler of reverse paths of the averaged denoiser."""
        return DiffusionSampler(target, self, state, seconds)

    def process(self, target: Target, state: State) -> tuple[Frame, Process]:
        """Give the averaged denoiser with its error per level, and the moments of the buffer for
        the prior.
        """
        return state.frame, process_of(state)

    def findings(self, state: State) -> tuple[Finding, ...]:
        """Say how complete the search was, where it counted its basins, and what a second opinion
        has found.
        """
        base = state.denoiser.base
        is_product = base is not None and bool(base.is_product)
        of_search = of_product() if is_product else of_starts(*state.starts.tolist())
        return (*of_search, *state.opinion.findings)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """Give the buffer, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)


def _build(method: IWSM, target: Target, found: SearchResult, prepared: Any, key: Array) -> State:
    return method.build(target, found, prepared, key)
