"""Importance-Weighted Score Matching (Wang et al. 2025, arXiv 2505.19431)."""

import dataclasses
import math
from typing import ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes import posterior, weights
from allmodes.buffer import Buffer, choose
from allmodes.count import Evaluations
from allmodes.errors import ConfigError
from allmodes.frame import Frame
from allmodes.mcmc.independence import exchange
from allmodes.mcmc.local import TARGET_ACCEPTANCE, mala, posterior_chain
from allmodes.methods.base import Info
from allmodes.methods.settings import check
from allmodes.networks import EGNN, MLP, Denoiser
from allmodes.networks.blocks import value_and_grad
from allmodes.noise import Noise, stratified_times
from allmodes.paths import Process, reverse
from allmodes.search import Found, broad, nowhere, search
from allmodes.target import Target

LEVELS = 32  # equal strata of t in which statistics are kept
_MAY_BE_ZERO = tuple("cooldown ema neighbours chain broad_share local_every renew depth frequencies dwell".split())


class State(eqx.Module):
    """Everything that training carries; arrays only."""

    step: Int[Array, ""]
    end: Int[Array, ""]  # the step after which training is over, as known so far
    cooldown: Int[Array, ""]  # last steps, over which the learning rate falls
    denoiser: Denoiser
    average: Denoiser  # exponential moving average of the parameters: the one that draws
    optimiser: optax.OptState
    buffer: Buffer
    frame: Frame
    noise: Noise
    gate: posterior.Gate
    error: Float[Array, "levels dim"]  # running E[(z_0 - D)^2]
    smooth: Bool[Array, ""]  # False where the support has a hard edge, on which TSI fails
    step_size: Scalar
    chain_step: Float[Array, " levels"]  # of the moves on the posterior at each noise level
    refresh_ess: Scalar
    refresh_rate: Scalar
    evaluations: Evaluations


@dataclasses.dataclass(frozen=True)
class IWSM:
    """Learn the denoiser of a density by score matching on re-weighted points.

    Minimises `E_t E_{x_t} w(x_t) |D(x_t, sigma_t) - D^(x_t)|^2 / c_out^2`: points x_t come from a noised replay
    buffer, `D^` is an estimate of the posterior mean from the density and its gradient, and w, or the buffer itself,
    is brought towards `p_t` by one of `weights`. The defaults are the best combination that we found
    (`docs/concepts.md`, `docs/results/ablation.md`); `IWSM.paper()` is the published method.
    """

    name: ClassVar[str] = "iwsm"

    steps: int = 12_000
    """Most training steps."""
    cooldown: int = 2000
    """Last steps, over which the learning rate falls to nothing; at most half of `steps`."""
    enough: float | None = 0.5
    """Begin the cooldown once the sampler's own draws have this effective share; None spends all steps."""
    batch: int = 1024
    """Points a step, a multiple of 32."""
    learning_rate: float = 2e-3
    """Adam's rate between a warm-up of 100 steps and the cooldown."""
    gradient_clip: float = 1.0
    """Largest norm of the parameters' gradient."""
    ema: float = 0.998
    """Decay of the running average of the parameters."""

    start: Literal["search", "smc", "broad"] = "search"
    """First buffer: multi-start search, tempered SMC (BlackJAX), or points spread over the box of the scouts."""

    score: Literal["blend", "tsi", "dsi"] = "blend"
    """Target-score identity, denoising identity, or their least-variance blend."""
    draws: int = 1
    """K: fresh draws around each x_t; 1 uses x_0 with its stored gradient and costs no evaluation."""
    neighbours: int = 256
    """With one draw: other points of the buffer that share in each target by their distance; no evaluations."""
    chain: int = 0
    """With one draw, instead of neighbours: moves on the posterior of x_0 given x_t, started at x_0 and averaged over.
    Each costs an evaluation; the chain's end is written back to the buffer."""
    score_clip: float | None = None
    """Largest norm of the estimated score, in normalised coordinates."""

    weights: Literal["moves", "path", "kde", "none"] = "moves"
    """What brings the buffer to the target: independence Metropolis moves with exact path weights; own draws resampled
    by tempered path weights; own draws, and the ratio of noised densities in the loss (the paper's); nothing (iDEM)."""
    strata: int = 16
    """Strata of t within which `kde` weights are normalised and truncated; 1 is the paper's SNIS."""
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
    """What the network's output means: the preconditioned denoiser (EDM), or the score itself (the papers)."""
    width: int = 128
    """Width of the network."""
    depth: int = 3
    """Residual blocks of the network."""
    frequencies: int = 8
    """Fourier features of each coordinate."""
    sigma_max: float = 2.5
    """Highest noise, over the spread of the target."""
    sigma_min: float = 0.15
    """Lowest noise, over the narrowest scale of the target."""
    dwell: float = 0.0
    """In [0, 1): how much denser than even in log sigma the schedule is around `dwell_at`, for points and for steps."""
    dwell_at: float = 0.25
    """Noise level around which it dwells, over the spread of the target."""

    sample_steps: int = 200
    """Steps of the reverse path of a draw, when not said otherwise: more of them raise the weights' effective share."""

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
        if self.renew > self.buffer or (self.renew and self.weights != "moves"):
            raise ConfigError(
                f"renew must not exceed buffer ({self.buffer}) and needs weights='moves', got {self.renew}"
            )
        if self.weights in ("kde", "none") and self.own_draws > self.buffer:
            raise ConfigError(f"own_draws ({self.own_draws}) must not exceed buffer ({self.buffer})")

    @classmethod
    def paper(cls, **changes) -> "IWSM":
        """The published method, with any setting changed.

        Pure target-score estimator, buffer-mixture weights, SNIS over the whole batch, a buffer of own and broad draws;
        iDEM's published settings where the paper gives none (`docs/concepts.md` lists what differs).
        """
        settings = dict(
            start="broad", score="tsi", draws=500, score_clip=70.0, weights="kde", strata=1, truncate=False,
            predicts="score", sigma_max=1.0, batch=512, learning_rate=5e-4, gradient_clip=0.5, ema=0.0, buffer=10_000,
            refresh_every=100, refresh_steps=1000, own_draws=1000, broad_share=0.2, local_every=0,
        )  # fmt: skip
        return cls(**{**settings, **changes})

    @classmethod
    def particles(cls, **changes) -> "IWSM":
        """What particle systems get by default, with any field changed; tuned on LJ-13.

        Energies are stiff and modes many, so tempered SMC starts it, short posterior chains make the targets and renew
        the buffer all the time, and a deep equivariant network of fewer points a step replaces the perceptron. All
        steps are spent: the energies of raw draws go on improving long after the path weights do.
        """
        settings = dict(
            start="smc", steps=24_000, cooldown=10_000, enough=None, batch=128, width=64, depth=5, chain=8,
            buffer=4096, local_every=0, refresh_every=1000, refresh_steps=60, renew=512, dwell=0.5, dwell_at=0.2,
        )  # fmt: skip
        return cls(**{**settings, **changes})

    @classmethod
    def few_particles(cls, **changes) -> "IWSM":
        """`particles` for up to 6 of them, whose steps are cheap: more of them; tuned on DW-4.

        Neighbours in place of chains: there are enough of them near each point.
        """
        settings = dict(
            batch=128, steps=40_000, cooldown=16_000, chain=0, neighbours=64, local_every=5, dwell=0.7, dwell_at=0.25,
            sample_steps=400,
        )  # fmt: skip
        return cls.particles(**{**settings, **changes})

    @classmethod
    def many_particles(cls, **changes) -> "IWSM":
        """`particles` for more than 30 of them, whose steps are dear and whose paths are hardly ever exchanged.

        A first setting, not tuned: no results of it are published yet.
        """
        settings = dict(
            batch=32, steps=16_000, cooldown=6000, depth=3, buffer=2048, refresh_every=8000, renew=64, sample_steps=100
        )
        return cls.particles(**{**settings, **changes})

    # The protocol.

    def init(self, target: Target, key: Array) -> State:
        """Find the target's place and scale, fill the buffer, and build the network."""
        k_start, k_network = jax.random.split(key)
        found = broad(target, k_start, self.buffer) if self.start == "broad" else search(target, k_start, self.buffer)
        if self.start == "smc":
            from allmodes.mcmc.smc import warm_start

            found = warm_start(target, found, jax.random.fold_in(k_start, 1))
        return self._build(found, k_network)

    def template(self, target: Target) -> State:
        """The shapes of a state, without the work: what a checkpoint is read into."""
        return jax.eval_shape(self._build, nowhere(target, self.buffer), jax.random.key(0))

    def _build(self, found: Found, key: Array) -> State:
        dim = found.points.z.shape[1]
        # An effective width over all coordinates: each may be narrow, the sharpest decides.
        tau = jnp.sqrt(1.0 / jnp.mean(1.0 / found.tau**2))
        noise = Noise(jnp.clip(self.sigma_min * tau, 1e-5, 0.1), jnp.asarray(self.sigma_max), self.dwell, self.dwell_at)
        sigmas = noise.sigma((jnp.arange(LEVELS) + 0.5) / LEVELS)
        if found.frame.symmetry is None:
            network = MLP(dim, self.width, self.depth, self.frequencies, key=key)
        else:
            network = EGNN(found.frame.symmetry, self.width, self.depth, key=key)
        denoiser = Denoiser(network, self.predicts == "score")
        ones = jnp.ones((LEVELS, dim))
        return State(
            step=jnp.zeros((), jnp.int32),
            end=jnp.asarray(self.steps, jnp.int32),
            cooldown=jnp.asarray(min(self.cooldown, self.steps // 2), jnp.int32),
            denoiser=denoiser,
            average=denoiser,
            optimiser=self._optimiser().init(denoiser),
            buffer=found.points,
            frame=found.frame,
            noise=noise,
            gate=posterior.Gate.start(sigmas, jnp.minimum(found.tau, 1.0)),
            error=ones * (sigmas**2 / (1.0 + sigmas**2))[:, None],
            smooth=jnp.asarray(found.edges < 1e-3),
            step_size=found.step_size,
            chain_step=0.5 / (1.0 / sigmas**2 + 1.0 / found.step_size),
            refresh_ess=jnp.asarray(jnp.nan),
            refresh_rate=jnp.asarray(jnp.nan),
            evaluations=found.evaluations,
        )

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Info]:
        """One update of the network, and the moves and renewals of the buffer that are due."""
        k_refresh, k_local, k_train = jax.random.split(key, 3)
        due = (state.step > 0) & (state.step % self.refresh_every == 0)
        state = jax.lax.cond(due, lambda s: self._refresh(target, s, k_refresh), lambda s: s, state)
        if self.local_every:
            due = state.step % self.local_every == 0
            state = jax.lax.cond(due, lambda s: self._move(target, s, k_local, 1), lambda s: s, state)
        return self._train(target, state, k_train)

    def end(self, state: State) -> Int[Array, ""]:
        """The step after which training is over, as known so far."""
        return state.end

    def wind_down(self, state: State, steps: int) -> State:
        """End after `steps` more steps at most, over which the learning rate falls."""
        end = jnp.minimum(state.end, state.step + steps)
        cooldown = jnp.minimum(state.cooldown, jnp.maximum(end - state.step, 0))
        return dataclasses.replace(state, end=end, cooldown=cooldown)

    def process(self, state: State) -> tuple[Frame, Process]:
        """The averaged denoiser with its error per level, and the moments of the buffer for the prior."""
        z = state.buffer.z
        mean = jnp.zeros_like(z[0]) if state.frame.symmetry else jnp.mean(z, axis=0)
        variance = state.frame.even(jnp.mean((z - mean) ** 2, axis=0))
        return state.frame, Process(state.average, state.noise, state.error, mean, variance)

    def points(self, state: State) -> Float[Array, "size dim"]:
        """The buffer, in the user's coordinates."""
        return state.frame.to_x(state.buffer.z)

    def evaluations(self, state: State) -> Evaluations:
        """What the state has cost so far, the warm start included."""
        return state.evaluations

    # The parts of a step.

    def _optimiser(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(self.gradient_clip), optax.scale_by_adam())

    def _rate(self, state: State) -> Scalar:
        """Learning rate: warm-up, plateau, cosine cooldown to one hundredth before `state.end`."""
        warm_up = jnp.minimum(1.0, (state.step + 1.0) / 100.0)
        done = jnp.clip((state.step - (state.end - state.cooldown)) / jnp.maximum(state.cooldown, 1), 0.0, 1.0)
        return self.learning_rate * warm_up * (0.01 + 0.99 * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))

    def _train(self, target: Target, state: State, key: Array) -> tuple[State, Info]:
        k_index, k_time, k_noise, k_draws = jax.random.split(key, 4)
        index = jax.random.randint(k_index, (self.batch,), 0, self.buffer)
        origin = state.buffer.take(index)
        t = stratified_times(k_time, self.batch)
        sigma = state.noise.sigma(t)
        z_t = origin.z + sigma[:, None] * jax.random.normal(k_noise, origin.z.shape)

        log_w = jnp.zeros(self.batch)
        if self.chain:
            state, dsi, tsi = self._chain(target, state, k_draws, index, origin, z_t, sigma)
        elif self.draws == 1:
            others = state.buffer.take(jax.random.randint(k_draws, (self.neighbours,), 0, self.buffer))
            share_targets = jax.vmap(posterior.from_neighbours, in_axes=(0, 0, 0, 0, None, None))
            dsi, tsi = share_targets(origin.z, origin.grad, z_t, sigma, others.z, others.grad)
        else:
            centres = state.buffer.z  # as x_t was drawn from them: before any posterior move
            state, estimate = self._many_draws(target, state, k_draws, index, origin, z_t, sigma)
            dsi, tsi = estimate.dsi, estimate.tsi
            if self.weights == "kde":
                log_w = estimate.log_density - weights.log_mixture(z_t, origin.z, centres, sigma, member=True)
        log_w = log_w.reshape(self.strata if self.weights == "kde" else 1, -1)
        if self.truncate:
            log_w = weights.truncate(log_w)
        w = weights.normalise(log_w).ravel()

        share = {"blend": jnp.where(state.smooth, state.gate.share(), 0.0), "tsi": 1.0, "dsi": 0.0}[self.score]
        share = jnp.broadcast_to(share, state.error.shape)
        a = jnp.repeat(share, self.batch // LEVELS, axis=0)
        goal = a * tsi + (1.0 - a) * dsi
        if self.score_clip is not None:
            norm = jnp.linalg.norm(goal - z_t, axis=-1) / sigma**2
            goal = z_t + jnp.minimum(1.0, self.score_clip / jnp.maximum(norm, 1e-30))[:, None] * (goal - z_t)

        def objective(denoiser, z_t, sigma, goal, weight):
            denoised = jax.vmap(denoiser)(z_t, sigma)
            squared = jnp.mean((denoised - goal) ** 2, axis=-1) * denoiser.loss_weight(sigma)
            return jnp.sum(weight * squared), (denoised, squared)

        weight = w * state.noise.rate(t) / self.batch
        (loss, (denoised, squared)), gradient = value_and_grad(
            objective, state.denoiser, (z_t, sigma, goal, weight), state.denoiser.block(self.batch)
        )
        updates, optimiser = self._optimiser().update(gradient, state.optimiser, state.denoiser)
        rate = self._rate(state)
        denoiser = jax.tree.map(lambda p, u: p - rate * u, state.denoiser, updates)
        decay = jnp.minimum(self.ema, (1.0 + state.step) / (10.0 + state.step))
        mix = lambda old, new: decay * old + (1.0 - decay) * new  # noqa: E731

        by_level = (w[:, None] * (origin.z - denoised) ** 2).reshape(LEVELS, -1, origin.z.shape[1])
        state = dataclasses.replace(
            state,
            step=state.step + 1,
            denoiser=denoiser,
            average=jax.tree.map(mix, state.average, denoiser),
            optimiser=optimiser,
            gate=jax.tree.map(state.frame.even, state.gate.update(dsi, tsi, denoised, 0.99)),
            error=0.99 * state.error + 0.01 * state.frame.even(jnp.mean(by_level, axis=1)),
        )
        info = Info(
            loss=loss,
            weight_ess=jnp.mean(weights.ess_fraction(log_w)),
            level_loss=jnp.mean((w * squared).reshape(LEVELS, -1), axis=-1),
            level_ess=weights.ess_fraction(jnp.log(w).reshape(LEVELS, -1)),
            level_gate=jnp.mean(share, axis=-1),
            refresh_ess=state.refresh_ess,
            refresh_rate=state.refresh_rate,
        )
        return state, info

    def _chain(self, target, state, key, index, origin, z_t, sigma):
        """Averages over a short chain on each posterior; its end is written back, and its step follows acceptance."""
        h = jnp.repeat(state.chain_step, self.batch // LEVELS)
        evaluate = lambda z: state.frame.evaluate(target, z)  # noqa: E731
        chain = posterior_chain(evaluate, origin, z_t, sigma, h, key, self.chain)
        rate = jnp.mean(chain.acceptance.reshape(LEVELS, -1), axis=1)
        state = dataclasses.replace(
            state,
            buffer=state.buffer.put(index, chain.points),
            chain_step=state.chain_step * jnp.exp(0.1 * (rate - TARGET_ACCEPTANCE)),
            evaluations=state.evaluations.add_points(self.batch * self.chain, chain.nan, chain.zero),
        )
        return state, chain.mean, z_t + sigma[:, None] ** 2 * chain.mean_grad

    def _many_draws(self, target, state, key, index, origin, z_t, sigma):
        """K fresh draws around each x_t: their estimates, and the posterior moves of the buffer if asked for."""
        k_noise, k_move = jax.random.split(key)
        shape = (self.batch, self.draws, z_t.shape[1])
        z = z_t[:, None] + sigma[:, None, None] * jax.random.normal(k_noise, shape)
        e = state.frame.evaluate(target, z.reshape(-1, z_t.shape[1]))
        drawn = Buffer(z, e.log_prob.reshape(shape[:2]), e.grad.reshape(shape))
        estimate = jax.vmap(posterior.from_draws)(z_t, sigma, drawn.z, drawn.log_prob, drawn.grad)
        buffer = state.buffer
        if self.posterior_moves:
            keys = jax.random.split(k_move, self.batch)
            # K - 1 of the draws and the origin: K candidates, one of which was there before.
            chosen = jax.vmap(posterior.move)(keys, drawn.log_prob[:, 1:], origin.log_prob)
            row = jnp.arange(self.batch)
            picked = jax.tree.map(lambda a: a[row, jnp.minimum(chosen + 1, self.draws - 1)], drawn)
            buffer = buffer.put(index, choose(chosen < self.draws - 1, picked, origin))
        state = dataclasses.replace(state, buffer=buffer, evaluations=state.evaluations.add(e))
        return state, estimate

    def _move(self, target: Target, state: State, key: Array, steps: int) -> State:
        """Local moves of the whole buffer; their gradients double as score targets."""
        moved = mala(lambda z: state.frame.evaluate(target, z), state.buffer, state.step_size, key, steps)
        evaluations = state.evaluations.add_points(self.buffer * steps, moved.nan, moved.zero)
        return dataclasses.replace(state, buffer=moved.points, step_size=moved.step_size, evaluations=evaluations)

    def _refresh(self, target: Target, state: State, key: Array) -> State:
        """Renew the buffer from the sampler, in the way that `weights` says."""
        k_path, k_noising, k_choose, k_broad = jax.random.split(key, 4)
        _, process = self.process(state)
        own = self.weights in ("kde", "none")
        broad_draws = math.ceil(self.broad_share * self.own_draws) if own else 0
        count = self.own_draws if own else self.renew or self.buffer
        # The points whose turn it is, oldest first.
        index = (state.step // self.refresh_every * count + jnp.arange(count)) % self.buffer
        path = reverse(process, k_path, count, self.refresh_steps)
        z = path.z
        if own:
            spread = jax.random.uniform(k_broad, z.shape, minval=-1.0, maxval=1.0)
            z = jnp.where((jnp.arange(self.own_draws) < broad_draws)[:, None], spread, z)
        e = state.frame.evaluate(target, z)
        new = Buffer.of(z, e)
        evaluations = state.evaluations.add(e)
        log_w = path.log_ratio + e.log_prob
        ess = weights.ess_fraction(log_w[broad_draws:]) if broad_draws < len(z) else state.refresh_ess

        if own:
            buffer, rate = state.buffer.put(index, new), jnp.ones(())
        elif self.weights == "path":
            log_w, rate = weights.temper(log_w, self.temper_ess)
            buffer = new.take(weights.systematic(k_choose, weights.normalise(log_w), self.buffer))
            # Copies must part before they are learned from.
            moved = mala(lambda z: state.frame.evaluate(target, z), buffer, state.step_size, k_noising, 5)
            buffer = moved.points
            evaluations = evaluations.add_points(5 * self.buffer, moved.nan, moved.zero)
        else:
            points = state.buffer.take(index)
            points, accept = exchange(process, k_noising, k_choose, points, new, log_w, self.refresh_steps)
            buffer, rate = state.buffer.put(index, points), jnp.mean(accept)
        end = state.end
        if self.enough is not None:
            end = jnp.where(ess >= self.enough, jnp.minimum(end, state.step + state.cooldown), end)
        return dataclasses.replace(
            state, end=end, buffer=buffer, refresh_ess=ess, refresh_rate=rate, evaluations=evaluations
        )
