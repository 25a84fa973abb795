"""Importance-Weighted Score Matching (Wang et al. 2025, arXiv 2505.19431): its settings, and the
protocol.
"""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.diffusion.networks import anchors_of
from allmodes.diffusion.paths import Process
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.errors import ConfigError
from allmodes.method import Info
from allmodes.methods.iwsm.end import expected_end
from allmodes.methods.iwsm.renewal import move, renew
from allmodes.methods.iwsm.training import LEVELS, State, build, process_of, train
from allmodes.methods.settings import check
from allmodes.points.count import Evaluations
from allmodes.points.found import nowhere
from allmodes.points.frame import Frame
from allmodes.progress.stages import stage
from allmodes.search.scout import broad
from allmodes.search.search import search
from allmodes.search.settle import warm_start
from allmodes.target import Target

_MAY_BE_ZERO = tuple(
    "cooldown ema neighbours chain broad_share local_every renew depth anchors curves frequencies dwell".split()
)


@dataclasses.dataclass(frozen=True)
class IWSM:
    """Learn the denoiser of a density by score matching on re-weighted points.

    Minimises `E_t E_{x_t} w(x_t) |D(x_t, sigma_t) - D^(x_t)|^2 / c_out^2`: points x_t come from a
    noised replay buffer, `D^` is an estimate of the posterior mean from the density and its
    gradient, and w, or the buffer itself, is brought towards `p_t` by one of `weights`. The
    defaults are the best combination that we found (`docs/concepts.md`,
    `docs/results/ablation.md`); `IWSM.paper()` is the published method.
    """

    name: str = "iwsm"
    """What results call it: that of a preset, where it is one."""

    steps: int = 12_000
    """Most training steps."""
    cooldown: int = 2000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    enough: float | None = 0.5
    """Begin the cooldown once the sampler's own draws have this effective share; None spends all
    steps."""
    batch: int = 1024
    """Points a step, a multiple of 32."""
    learning_rate: float = 2e-3
    """Adam's rate between a warm-up of 100 steps and the cooldown."""
    gradient_clip: float = 1.0
    """Largest norm of the parameters' gradient."""
    ema: float = 0.998
    """Decay of the running average of the parameters."""

    start: Literal["search", "smc", "broad"] = "search"
    """First buffer: multi-start search, tempered SMC (BlackJAX), or points spread over the box of
    the scouts."""

    score: Literal["blend", "tsi", "dsi"] = "blend"
    """Target-score identity, denoising identity, or their least-variance blend; without a gradient,
    the second."""
    draws: int = 1
    """K: fresh draws around each x_t; 1 uses x_0 with its stored gradient and costs no
    evaluation."""
    neighbours: int = 256
    """With one draw: other points of the buffer that share in each target by their distance; no
    evaluations."""
    chain: int = 0
    """With one draw, instead of neighbours: moves on the posterior of x_0 given x_t, started at x_0
    and averaged over. Each costs an evaluation; the chain's end is written back to the buffer."""
    score_clip: float | None = None
    """Largest norm of the estimated score, in normalised coordinates."""

    weights: Literal["moves", "path", "kde", "none"] = "moves"
    """What brings the buffer to the target: independence Metropolis moves with exact path weights;
    own draws resampled by tempered path weights; own draws, and the ratio of noised densities in
    the loss (the paper's); nothing (iDEM)."""
    strata: int = 16
    """Strata of t within which `kde` weights are normalised and truncated; 1 is the paper's
    SNIS."""
    truncate: bool = True
    """Cap `kde` weights at sqrt(n) times their mean."""
    temper_ess: float = 0.25
    """Least effective share that tempered `path` weights must leave."""
    posterior_moves: bool = False
    """With draws > 1: resample x_0 among itself and the draws, and write it back."""

    buffer: int = 16_384
    """Points in the replay buffer."""
    refresh_every: int = 400
    """Steps between renewals of the buffer by the sampler."""
    refresh_steps: int = 40
    """Steps of the reverse paths of a renewal."""
    renew: int = 0
    """With `moves`, points that a renewal is for, in turn; 0 for all."""
    own_draws: int = 1000
    """Draws added at a renewal when `weights` is `kde` or `none`."""
    broad_share: float = 0.0
    """Share of those that is spread over the box instead of drawn by the sampler."""
    local_every: int = 100
    """Steps between local moves of the whole buffer; 0 for none."""

    predicts: Literal["denoiser", "score"] = "denoiser"
    """What the network's output means: the preconditioned denoiser (EDM), or the score itself (the
    papers)."""
    width: int = 128
    """Width of the network."""
    depth: int = 3
    """Residual blocks of the network."""
    anchors: int = 0
    """Anchors from which the network sees the point (`diffusion/networks/anchored.py`), for modes
    far apart in many dimensions; 0 for a plain perceptron. Not for particles."""
    rank: int = 256
    """Rank of the linear maps that it learns around anchors."""
    curves: int = 0
    """Bends of a curve that it learns for each coordinate, for many dimensions that are nearly
    independent of each other; 0 for none. Not with anchors, nor for particles."""
    frequencies: int = 8
    """Fourier features of each coordinate; fewer above 4 dimensions, none above 32."""
    sigma_max: float = 2.5
    """Highest noise, over the spread of the target: the largest principal one, or more where there
    are many dimensions (0.36 times their root)."""
    sigma_min: float = 0.15
    """Lowest noise, over the narrowest scale of the target."""
    dwell: float = 0.0
    """In [0, 1): how much denser than even in log sigma the schedule is around `dwell_at`, for
    points and for steps."""
    dwell_at: float = 0.25
    """Noise level around which it dwells, over the spread of the target."""

    sample_steps: int = 200
    """Steps of the reverse path of a draw, when not said otherwise: more of them raise the weights'
    effective share."""

    def __post_init__(self):
        check(self, zero=_MAY_BE_ZERO)
        if self.batch % LEVELS or (self.weights == "kde" and self.batch % self.strata):
            raise ConfigError(f"batch must be a multiple of {LEVELS} and of strata, got {self.batch}")
        if not 0.0 <= self.broad_share <= 1.0:
            raise ConfigError(f"broad_share must lie in [0, 1], got {self.broad_share}")
        if self.weights == "kde" and self.draws < 2:
            raise ConfigError("weights='kde' needs draws of at least 2: the noised density is estimated from them")
        if self.posterior_moves and self.draws < 2:
            raise ConfigError("posterior_moves needs draws of at least 2")
        if self.sample_steps < 2:
            raise ConfigError(f"sample_steps must be at least 2, got {self.sample_steps}")
        if not self.dwell < 1.0:
            raise ConfigError(f"dwell must lie in [0, 1), got {self.dwell}")
        if self.chain and self.draws > 1:
            raise ConfigError(f"chain needs draws=1: it takes the place of fresh draws, got draws={self.draws}")
        if self.anchors and self.predicts == "score":
            raise ConfigError(f"anchors need predicts='denoiser', got anchors={self.anchors} and predicts='score'")
        if self.renew > self.buffer or (self.renew and self.weights != "moves"):
            raise ConfigError(
                f"renew must not exceed buffer ({self.buffer}) and needs weights='moves', got {self.renew}"
            )
        if self.curves and self.anchors:
            raise ConfigError(f"curves need anchors=0, got curves={self.curves} and anchors={self.anchors}")
        if self.weights in ("kde", "none") and self.own_draws > self.buffer:
            raise ConfigError(f"own_draws ({self.own_draws}) must not exceed buffer ({self.buffer})")

    @classmethod
    def paper(cls, **changes) -> "IWSM":
        """The published method, with any setting changed.

        Pure target-score estimator, buffer-mixture weights, SNIS over the whole batch, a buffer of
        own and broad draws; iDEM's published settings where the paper gives none
        (`docs/concepts.md` lists what differs).
        """
        settings = dict(
            name="iwsm-paper", start="broad",
            score="tsi", draws=500, score_clip=70.0, weights="kde", strata=1, truncate=False,
            predicts="score", sigma_max=1.0, batch=512, learning_rate=5e-4, gradient_clip=0.5, ema=0.0, buffer=10_000,
            refresh_every=100, refresh_steps=1000, own_draws=1000, broad_share=0.2, local_every=0,
        )  # fmt: skip
        return cls(**{**settings, **changes})

    @classmethod
    def particles(cls, **changes) -> "IWSM":
        """What particle systems get by default, with any field changed; tuned on LJ-13.

        Energies are stiff and modes many, so tempered SMC starts it, short posterior chains make
        the targets and renew the buffer all the time, and a deep equivariant network of fewer
        points a step replaces the perceptron. All steps are spent: the energies of raw draws go on
        improving long after the path weights do.
        """
        settings = dict(
            name="iwsm-particles", start="smc", steps=36_000, cooldown=15_000, enough=None, batch=64, width=64, depth=8,
            chain=8, buffer=4096, local_every=0, refresh_every=1000, refresh_steps=60, renew=512,
            dwell=0.5, dwell_at=0.2,
        )  # fmt: skip
        return cls(**{**settings, **changes})

    @classmethod
    def few_particles(cls, **changes) -> "IWSM":
        """`particles` for up to 6 of them, whose steps are cheap: more of them, and a deeper
        network; tuned on DW-4.

        Neighbours in place of chains: there are enough of them near each point.
        """
        settings = dict(
            name="iwsm-few-particles", batch=128, steps=30_000, cooldown=12_000, chain=0, neighbours=64, local_every=5,
            dwell=0.7, dwell_at=0.25, sample_steps=400,
        )  # fmt: skip
        return cls.particles(**{**settings, **changes})

    @classmethod
    def many_particles(cls, **changes) -> "IWSM":
        """`particles` for more than 30 of them, whose steps are dear and whose paths are hardly
        ever exchanged.

        One run of LJ-55 is published; it is not tuned beyond that.
        """
        settings = dict(
            name="iwsm-many-particles",
            batch=32,
            steps=16_000,
            cooldown=6000,
            depth=3,
            buffer=2048,
            refresh_every=8000,
            renew=64,
            sample_steps=100,
        )
        return cls.particles(**{**settings, **changes})

    @classmethod
    def many_dimensions(cls, **changes) -> "IWSM":
        """What 16 dimensions or more get by default, with any field changed: renewed more often, by
        finer paths.

        Whole paths are exchanged more rarely there, and the shapes of modes are what a perceptron
        learns last: it gets anchors.
        """
        settings = dict(
            name="iwsm-many-dimensions", steps=8000, cooldown=3000, refresh_every=200, refresh_steps=60, anchors=64
        )
        return cls(**{**settings, **changes})

    # The protocol.

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, fill the buffer, and build the network."""
        if self.score == "tsi" and not target.differentiable:
            raise ConfigError(
                f"score='tsi' needs the gradient of the density, and {target.name} has none: 'dsi' and 'blend' do not"
            )
        k_start, k_network = jax.random.split(key)
        found = broad(target, k_start, self.buffer) if self.start == "broad" else search(target, k_start, self.buffer)
        if self.start == "smc":
            stage("searching: tempered SMC")
            found = warm_start(target, found, jax.random.fold_in(k_start, 1))
        anchored = self.anchors and target.symmetry is None
        anchors = anchors_of(found.points.z, self.anchors, k_start) if anchored else None
        return build(self, found, anchors, k_network, target.differentiable)

    def template(self, target: Target) -> State:
        """The shapes of a state, without the work: what a checkpoint is read into."""
        count, dim = min(self.anchors, self.buffer) if target.symmetry is None else 0, target.free_dim
        anchors = (jnp.zeros((count, dim)), jnp.ones(count)) if count else None
        return jax.eval_shape(functools.partial(build, self), nowhere(target, self.buffer), anchors, jax.random.key(0))

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Info]:
        """One update of the network, and the moves and renewals of the buffer that are due."""
        k_refresh, k_local, k_train = jax.random.split(key, 3)
        due = (state.step > 0) & (state.step % self.refresh_every == 0)
        state = jax.lax.cond(due, lambda s: renew(self, target, s, k_refresh), lambda s: s, state)
        if self.local_every:
            due = state.step % self.local_every == 0
            state = jax.lax.cond(due, lambda s: move(self, target, s, k_local), lambda s: s, state)
        return train(self, target, state, k_train)

    def end(self, state: State) -> Int[Array, ""]:
        """The step after which training is over, as known so far."""
        return state.end

    @property
    def period(self) -> int:
        """Steps after which a renewal of the buffer comes round, which takes as long as hundreds of
        steps.
        """
        return self.refresh_every

    def expected_end(self, state: State, seen: list[tuple[int, float]]) -> int | None:
        """Where training is likely to end by the renewals `seen`, (step, effective share), or None:
        nothing tells.
        """
        end = int(state.end)
        if self.enough is None or end < self.steps:
            return end
        return expected_end(seen, self.enough, self.refresh_every, int(state.cooldown), end)

    def renewals_of(self, n: int) -> float:
        """How many renewals of the buffer, each of paths down and up again, draws of n points are
        the work of.
        """
        own = self.weights in ("kde", "none")
        paths = self.own_draws if own else (self.renew or self.buffer) * (2 if self.weights == "moves" else 1)
        return n * self.sample_steps / (paths * self.refresh_steps)

    def wind_down(self, state: State, steps: int) -> State:
        """End after `steps` more steps at most, over which the learning rate falls."""
        end = jnp.minimum(state.end, state.step + steps)
        cooldown = jnp.minimum(state.cooldown, jnp.maximum(end - state.step, 0))
        return dataclasses.replace(state, end=end, cooldown=cooldown)

    def sampler(self, target: Target, state: State, seconds: dict[str, float]) -> Any:
        """Reverse paths of the averaged denoiser."""
        return DiffusionSampler(target, self, state, seconds)

    def process(self, state: State) -> tuple[Frame, Process]:
        """The averaged denoiser with its error per level, and the moments of the buffer for the
        prior.
        """
        return state.frame, process_of(state)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """The buffer, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)

    def evaluations(self, state: State) -> Evaluations:
        """What the state has cost so far, the warm start included."""
        return state.evaluations
