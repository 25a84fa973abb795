"""Nested sampling as a method, by slice moves (Skilling 2006; Yallup, Kroupa and Handley 2026,
arXiv:2601.23252), on BlackJAX: what users of evidences use.
"""

import dataclasses
import functools
import math
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.devices.keys import Key
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate, beyond_largest, ess, khat
from allmodes.draws.estimates import log_z as log_z_of
from allmodes.draws.shrinkage import log_weights, log_z_error, of_insertions, of_parents
from allmodes.draws.verdict import Pool
from allmodes.errors import ConfigError, TargetError
from allmodes.mcmc.parallel_tempering import NO_MASS
from allmodes.mcmc.tempered_smc import tempering, width_for
from allmodes.method import Untrained
from allmodes.points.count import Evaluations
from allmodes.points.found import nowhere
from allmodes.points.frame import Frame
from allmodes.points.normal import log_normal
from allmodes.progress.stages import stage
from allmodes.sampler import PlainSampler, alike
from allmodes.search.second_look import cost as cost_of_look
from allmodes.search.second_look import explore, looking, nowhere_else
from allmodes.search.settle import locate
from allmodes.search.told import where_told
from allmodes.settings import check
from allmodes.target import Target

PILOT = 512  # points of the search
PILOT_LIVE = 200  # live points of the run that tells what others will cost
LEAST_MOVES, MOVES_PER_DIM = 5, 2  # slice moves for each new point
EXPANSIONS, SHRINKS = 10, 100  # of a slice's bracket, at most
MOST_ROUNDS = 50_000


class Normal(eqx.Module):
    """The prior of a run: independent normals, in the frame."""

    mean: Float[Array, " free"]
    spread: Float[Array, " free"]

    @classmethod
    def of(cls, target: Target, frame: Frame) -> "Normal":
        """The target's own, where it tells place and scale; else as SMC and tempering begin."""
        told = where_told(target, frame)
        if told is not None:
            return cls(told.middle, told.spread)
        return cls(jnp.zeros(target.free_dim), jnp.full(target.free_dim, width_for(target), jnp.float32))

    def log_density(self, z: Float[Array, "*n free"]) -> Float[Array, "*n"]:
        """Log-density at each point."""
        return log_normal(z, jnp.broadcast_to(self.mean, z.shape), self.spread**2)


class NestedState(eqx.Module):
    """The frame and the prior in it, points from elsewhere, draws of the pilot run, and what it
    showed of each live point: the evaluations that it takes and the effective draws that it gives.
    """

    frame: Frame
    prior: Normal
    elsewhere: Float[Array, "explored free"] | None
    z: Float[Array, "pilot free"]
    cost: Scalar
    yields: Scalar
    step: Int[Array, ""]
    evaluations: Evaluations


class NestedRun(NamedTuple):
    """The points of a run in the order of their deaths, then those alive at its end: where they
    are, their log-likelihoods and the levels above which they were born; ranks of the new among
    the living, and of those that their moves began at; evaluations.
    """

    z: Float[np.ndarray, "n free"]
    log_likelihood: Float[np.ndarray, " n"]
    birth: Float[np.ndarray, " n"]
    ranks: Float[np.ndarray, " insertions"]
    parents: Float[np.ndarray, " insertions"]
    evaluations: int

    @property
    def log_weight(self) -> Float[np.ndarray, " n"]:
        """Weights of the points, whose mean estimates Z."""
        return log_weights(self.birth, self.log_likelihood)


@dataclasses.dataclass(frozen=True)
class Nested(Untrained):
    """Nested sampling: live points from the prior, of which the lowest are replaced, a share of
    them at a time, by slice moves from others above their level.

    The prior is the target's own where it tells the place and scale of one (`am.posterior`,
    `interop.nested`, `location` and `scale`), and otherwise the broad Gaussian that `SMC` begins
    with; log Z is that of the density in both cases, as the likelihood is density over prior. No
    gradient is used but by the search.

    Fitting is the search and a small pilot run; each set of draws is a run of its own.
    """

    work: ClassVar[str] = "populations"
    name: str = "nested"
    """What results call it: that of a preset, where it is one."""

    live: int = 1000
    """Live points, at least: the error of log Z is about the root of information over these."""
    moves: int | None = None
    """Slice moves for each new point; twice the dimension and at least 5 when not given."""
    removed: float = 0.1
    """Share of the live points that are replaced at a time."""
    remainder: float = 0.01
    """A run ends when the live points hold less than this share of the evidence."""

    def __post_init__(self):
        check(self)
        if not self.removed <= 0.5:
            raise ConfigError(f"removed must be at most 0.5, got {self.removed}")
        if not self.remainder < 1.0:
            raise ConfigError(f"remainder must be below 1, got {self.remainder}")

    def init(self, target: Target, key: Array) -> NestedState:
        """Search for the frame, and make a pilot run."""
        k_search, k_settle, k_pilot, k_explore = jax.random.split(key, 4)
        found = locate(target, PILOT, k_search, k_settle)
        prior = Normal.of(target, found.frame)
        live = min(PILOT_LIVE, self.live)
        pilot = self.run(target, found.frame, prior, live, k_pilot)
        yields = ess(pilot.log_weight) / live
        elsewhere, evaluations = explore(target, found, found.frame, tempering(target, found), k_explore)
        evaluations = evaluations.add_points(pilot.evaluations, 0, 0, gradient=False)
        z = jnp.asarray(pilot.z)[_resampled(jax.random.fold_in(k_pilot, 1), pilot.log_weight, PILOT)]
        cost, yields = (jnp.asarray(figure, jnp.float32) for figure in (pilot.evaluations / live, yields))
        step = jnp.zeros((), jnp.int32)
        return NestedState(found.frame, prior, elsewhere, z, cost, yields, step, evaluations)

    def template(self, target: Target) -> NestedState:
        """The shapes of a state."""

        def build():
            frame, nothing, z = nowhere(target, 1).frame, jnp.zeros(()), jnp.zeros((PILOT, target.free_dim))
            none = Evaluations.none(target.differentiable)
            step = jnp.zeros((), jnp.int32)
            return NestedState(frame, Normal(z[0], z[0]), nowhere_else(target), z, nothing, nothing, step, none)

        return jax.eval_shape(build)

    def points(self, state: NestedState) -> Float[Array, "size dim"]:
        """Draws of the pilot run, in the user's coordinates."""
        return state.frame.to_x(state.z)

    def evaluations(self, state: NestedState) -> Evaluations:
        """What the search, the wide populations and the pilot took."""
        return state.evaluations

    def sampler(self, target: Target, state: NestedState, seconds: dict[str, float]) -> "NestedSampler":
        """Runs on demand."""
        return NestedSampler(target, self, state, seconds)

    def run(self, target: Target, frame: Frame, prior: Normal, live: int, key: Array) -> NestedRun:
        """One run of so many live points.

        **Raises** `TargetError` where it does not come to an end.
        """
        removed = max(1, int(self.removed * live))
        moves = self.moves or max(LEAST_MOVES, MOVES_PER_DIM * target.free_dim)
        k_start, key = jax.random.split(key)
        state = program(_start, target, live)(frame, prior, k_start)
        advance, dead = program(_advance, target, removed, moves), []
        for i in range(MOST_ROUNDS):
            state, fallen = advance(frame, prior, state, jax.random.fold_in(key, i))
            dead.append(jax.device_get(fallen))
            stage(f"nested sampling: the live points hold {math.exp(dead[-1].log_held):.1%} of the evidence")
            if dead[-1].log_held < math.log(self.remainder):
                return _ended(live, dead, state)
        raise TargetError(f"nested sampling did not come to an end within {MOST_ROUNDS:,} rounds: {target.name}")


class NestedSampler(PlainSampler):
    """Each call makes a new run."""

    @property
    def frame(self) -> Frame:
        """The frame that the runs are made in."""
        return self.state.frame

    def sample(self, n: int, *, key: Key, evaluations: int | None = None) -> Draws:
        """N draws, resampled from the weighted points of one run of at least `live` live points,
        and of so many that few draws are copies; of more or fewer where `evaluations` are given.

        Log Z is of those weights, and its error of simulated volumes. Of the draws no more count as
        independent than there are live points: these decide how much of the mass goes to each mode
        when the modes part. What the ranks of new points show of the moves, and what `second_look`
        finds of the draws, is in the verdict.

        **Raises** `ConfigError` when n is below 1, `TargetError` where the run does not come to an
        end.
        """
        self.check(n)
        method, state, frame = self.method, self.state, self.state.frame
        live = max(method.live, math.ceil(n / float(state.yields)))
        if evaluations is not None:
            live = max(10, int((evaluations - cost_of_look(self.target)) / float(state.cost)))
        k_run, k_resample, k_turn, k_look = jax.random.split(key, 4)
        run = method.run(self.target, frame, state.prior, live, k_run)
        index = _resampled(k_resample, run.log_weight, n)
        z = jnp.asarray(run.z[index])
        look = self._look(k_look, z, state.elsewhere)
        x = alike(self.target, k_turn, frame.to_x(z)[None])[0]
        log_prob = jnp.asarray(run.log_likelihood[index]) + state.prior.log_density(z)
        log_prob = frame.log_prob(jnp.where(log_prob > 0.5 * NO_MASS, log_prob, -jnp.inf))
        pool = self._pool(run)
        log_z = Estimate(float(frame.total(log_z_of(run.log_weight).value)), pool.log_z_error)
        independent = min(1.0, live / n, pool.ess / n)
        return Draws(
            x, log_prob, jnp.zeros(n), run.evaluations + look.evaluations, log_z, independent=independent,
            parameters=self.target.parameters, pool=pool,
            findings=(of_insertions(run.ranks), of_parents(run.ranks, run.parents), *look.findings),
        )  # fmt: skip

    def _pool(self, run: NestedRun) -> Pool:
        """What the weighted points of a run show."""
        log_weight = run.log_weight
        error = log_z_error(run.birth, run.log_likelihood, seed=len(log_weight))
        shape = khat(log_weight)
        beyond = beyond_largest(log_weight, shape)
        return Pool(len(log_weight), ess(log_weight), shape, error, beyond=beyond)

    @functools.cached_property
    def _look(self) -> Any:
        return looking(self.target, self.state.frame)


def _resampled(key: Array, log_weight: Float[np.ndarray, " n"], size: int) -> Int[np.ndarray, " size"]:
    """Indices by the weights, in random order; on the host, as runs are of any length."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    share = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    index = np.searchsorted(np.cumsum(share), (np.arange(size) + rng.uniform()) / size * (1.0 - 1e-12))
    return rng.permutation(np.minimum(index, len(share) - 1))


class _Fallen(NamedTuple):
    """Points that died in a round, the levels above which they were born, the ranks of those that
    have taken their place and of the points that their moves began at, evaluations, and the log of
    the share of the evidence that the living hold.
    """

    z: Float[Array, "removed free"]
    log_likelihood: Float[Array, " removed"]
    birth: Float[Array, " removed"]
    ranks: Float[Array, " removed"]
    parents: Float[Array, " removed"]
    evaluations: Int[Array, ""]
    log_held: Scalar


def _ended(live: int, dead: list[_Fallen], state: Any) -> NestedRun:
    """All points of a run whose last live points are these."""
    last = jax.device_get(state.particles)
    parts = [*((f.z, f.log_likelihood, f.birth) for f in dead)]
    parts.append((last.position, last.loglikelihood, last.loglikelihood_birth))
    z, log_likelihood, birth = (np.concatenate(part) for part in zip(*parts, strict=True))
    ranks, parents = (np.concatenate(part) for part in zip(*((f.ranks, f.parents) for f in dead), strict=True))
    return NestedRun(z, log_likelihood, birth, ranks, parents, live + sum(int(f.evaluations) for f in dead))


def _point_of(target: Target, frame: Frame, prior: Normal) -> Any:
    """A function `(z, loglikelihood_birth)` of one point that gives what BlackJAX keeps of it."""
    from blackjax.ns.base import init_state_strategy

    def log_likelihood(z):
        return jnp.maximum(frame.value(target, z) - prior.log_density(z), NO_MASS)

    return functools.partial(init_state_strategy, logprior_fn=prior.log_density, loglikelihood_fn=log_likelihood)


def _start(target: Target, live: int, frame: Frame, prior: Normal, key: Array) -> Any:
    """Draws of the prior; born below everything."""
    from blackjax.ns import adaptive, nss

    z = prior.mean + prior.spread * jax.random.normal(key, (live, target.free_dim))
    of_many = jax.vmap(_point_of(target, frame, prior))
    return adaptive.init(z, of_many, -jnp.inf, nss.live_covariance_factor, key)


def _advance(
    target: Target, removed: int, moves: int, frame: Frame, prior: Normal, state: Any, key: Array
) -> tuple[Any, _Fallen]:
    """One round: the lowest points die, and as many are born above the highest of them.

    Lanes of a vectorised loop are all evaluated until the last has ended, and all are counted.
    """
    from blackjax.mcmc import slice as slices
    from blackjax.ns import from_mcmc, nss

    point_of = _point_of(target, frame, prior)
    kernel = slices.build_kernel(stepping_out, EXPANSIONS, SHRINKS)
    move = nss.slice_constrained_step(point_of, kernel, nss.covariance_proposal)
    k_round, k_rank = jax.random.split(key)
    round_of = from_mcmc.build_kernel(move, moves, nss.live_covariance_factor, removed, update_strategy=from_survivors)
    new, info = round_of(k_round, state)
    (seen, parents), dead = info.update_info, info.particles
    level = new.particles.loglikelihood
    _, places = jax.lax.top_k(-state.particles.loglikelihood, removed)  # as BlackJAX chooses the dead
    is_old = jnp.ones(level.shape, bool).at[places].set(False)
    ranks = insertion_ranks(k_rank, level, is_old, level[places])
    above = jnp.sum((level[None, :] < parents[:, None]) & is_old[None, :], axis=1) / (len(level) - removed)
    evaluations = removed * jnp.sum(2 * (1 + jnp.max(seen.num_expansions, 0)) + jnp.max(seen.num_shrink, 0))
    log_held = new.integrator.logZ_live - jnp.logaddexp(new.integrator.logZ, new.integrator.logZ_live)
    found = dead.position, dead.loglikelihood, dead.loglikelihood_birth, ranks, above, evaluations, log_held
    return new, _Fallen(*found)


def from_survivors(move: Any, moves: int, count: int) -> Any:
    """How new points are made, for BlackJAX: by so many moves, one after the other, of points above
    the level that are chosen at random; with what the moves tell, and the levels of those points.
    """

    def update(key: Array, state: Any, loglikelihood_0: Scalar, **settings: Any) -> tuple[Any, Any]:
        k_choose, k_move = jax.random.split(key)
        share = (state.particles.loglikelihood > loglikelihood_0).astype(jnp.float32)
        share = jnp.where(jnp.any(share > 0.0), share, 1.0)  # a plateau at the top has none above it
        chosen = jax.random.choice(k_choose, len(share), (count,), p=share / jnp.sum(share))
        start = jax.tree.map(lambda a: a[chosen], state.particles)

        def moved(key, point):
            def one(point, key):
                return move(key, point, loglikelihood_0, **settings)

            return jax.lax.scan(one, point, jax.random.split(key, moves))

        new, seen = jax.vmap(moved)(jax.random.split(k_move, count), start)
        new = new._replace(loglikelihood_birth=jnp.full_like(new.loglikelihood_birth, loglikelihood_0))
        return new, (seen, start.loglikelihood)

    return update


def insertion_ranks(
    key: Array, level: Float[Array, " live"], is_old: Bool[Array, " live"], born: Float[Array, " born"]
) -> Float[Array, " born"]:
    """Ranks of new points, put in one after the other, among the old ones of `level` and those put
    in before: as shares, with a random place within the rank.

    Uniform and independent, if the new points are draws of what the old ones are draws of.
    """
    old, count = jnp.sum(is_old), jnp.arange(len(born))
    below = jnp.sum((level[None, :] < born[:, None]) & is_old[None, :], axis=1)
    below += jnp.sum((born[None, :] < born[:, None]) & (count[None, :] < count[:, None]), axis=1)
    return (below + jax.random.uniform(key, born.shape)) / (old + count + 1)


def stepping_out(key: Array, in_slice: Any, width: float, most: int) -> tuple[Scalar, Scalar, Scalar, Any]:
    """A bracket around 0 whose ends are outside of the slice (Neal 2003, figure 3), for BlackJAX:
    left, right, steps, a test of what is drawn between them.

    Both ends are looked at in each step, so that the steps tell how many evaluations it takes: two
    for each, and two before. Not by `vmap`: functions on the host can be batched once, over lanes.
    """
    k_place, k_share = jax.random.split(key)
    u = jax.random.uniform(k_place)
    first = jax.random.randint(k_share, (), 0, most)
    left_over = jnp.stack([first, most - 1 - first])
    direction = jnp.array([-width, width])

    def inside(ends):
        return jnp.stack([in_slice(ends[0]), in_slice(ends[1])])

    def going(carry):
        _, is_inside, steps = carry
        return is_inside & (steps < left_over)

    def step(carry):
        ends, is_inside, steps = carry
        ends = jnp.where(going(carry), ends + direction, ends)
        return ends, is_inside & inside(ends), steps + 1

    ends = width * jnp.stack([-u, 1.0 - u])
    start = ends, inside(ends), jnp.zeros((), jnp.int32)
    ends, _, steps = jax.lax.while_loop(lambda carry: jnp.any(going(carry)), step, start)
    return ends[0], ends[1], steps, lambda t: jnp.asarray(True)
