"""The first mixture: fitted to what the search has seen, then brought to the density by population
Monte Carlo (Cappé et al. 2008).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int

from allmodes.devices.compiled import program
from allmodes.points import weights
from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.progress.stages import stage
from allmodes.search.fitting import BELOW, WILD, fit_mixture, unexplained, with_missing
from allmodes.search.in_shapes import climb_from_beyond, move_in_shapes
from allmodes.search.moves import fewer, lowest_that_counts
from allmodes.search.refit import eigen, log_noise, refit
from allmodes.search.shapes import TENTH
from allmodes.target import Target

DRAWS = 4096  # of a round
BEYOND = 48  # climbs from beyond the components
ROUNDS = 7, 8  # of draws from the mixture, at most: before the points have moved, and after
FIRST, LEAP = 3, 0.1  # rounds of the former, but for more while each brings so much of the share
REFITS = 2  # between rounds
ENOUGH = 0.98  # effective share of its draws, beyond which it is left as it is
GAIN, PATIENCE = 0.01, 3  # of the share, that one of so many rounds must have brought
READY = 0.9  # effective share, from which on each round must bring it, once the points have moved
FEWEST = 8.0  # draws of a component that may change its share, and that each has, on average, at least
SETTLED = 0.8  # effective share, below which the points need moves of their own
FARTHEST = 30.0  # nats that the mixture may be below the density at a point, where mixtures are compared
FEW, MOVED_OF_FEW = 3, 512  # points for each dimension that are few for a component; how many are moved for more
LEAST_PER_DIM = 2  # points of a component for each dimension, before they move
MOVED, MOVES, KEPT = 2, 6, 4  # how often, by so many moves each, and after how many of these points are kept
PASSES = 4  # of draws that are proposed again
FITTED = 16_384  # points, at most, that a mixture is fitted to at first


class Base(NamedTuple):
    """A mixture, and the effective share of its own draws."""

    mixture: GaussianMixture
    share: float


class _Draws(NamedTuple):
    """Draws of a mixture, and what it says of them itself."""

    points: Buffer
    log_proposal: Float[Array, " n"]

    @property
    def log_weight(self) -> Float[Array, " n"]:
        """Of the density over the mixture."""
        return self.points.log_prob - self.log_proposal


def fit_base(target: Target, found: SearchResult, most: int, key: Array) -> tuple[Base, SearchResult]:
    """Fit a mixture of at most so many components; what was found, with its points made right as
    far as the mixture can.

    Each round draws from the mixture. The draws are proposed to the points (independence
    Metropolis, which loses no mode), tell shares by their weights, and the points tell shapes.
    Where a mixture cannot be the density, the points are moved locally as well, in the shapes that
    it has found.
    """
    stage("fitting a mixture")
    k_fit, k_rounds = jax.random.split(key)
    seen = found.points if found.passed is None else _thinned(found.passed)
    mixture, spent = _fitted(target, found.frame, seen, most, k_fit)
    found = found._replace(evaluations=jax.tree.map(jnp.add, found.evaluations, spent))
    mixture, found = _with_those_beyond(target, found, mixture, jax.random.fold_in(k_fit, 1))
    return improved(target, found, mixture, k_rounds)


def improved(target: Target, found: SearchResult, mixture: GaussianMixture, key: Array) -> tuple[Base, SearchResult]:
    """The mixture and the points after rounds of draws, and of moves where these are needed.

    Where the modes are too many for the mixture, it would draw the network towards those that it
    has: a single component takes its place, and the share is of what was left out.
    """
    k_even, k_first, k_move, k_second = jax.random.split(key, 4)
    found = found._replace(points=program(_evened, static=(3,))(mixture, found.points, k_even, DRAWS))
    first, drawn, found = _rounds(target, found, mixture, k_first, has_moved=False)
    if first.share >= SETTLED:
        return first, found
    stage("moving points in the shapes of their modes")
    mixture, points = first.mixture, program(_evened, static=(3,))(first.mixture, found.points, k_move, DRAWS)
    moved = fewer(target, DRAWS)
    for i in range(MOVED):
        points, spent = program(move_in_shapes, target, static=(4, 5))(
            found.frame, mixture, points.take(jnp.arange(-moved, 0)), jax.random.fold_in(k_move, i), MOVES, KEPT
        )
        found = found._replace(points=points, evaluations=jax.tree.map(jnp.add, found.evaluations, spent))
        mixture = _refitted(mixture, points, jax.random.fold_in(k_move, MOVED + i))
    second, again, found = _rounds(target, found, mixture, k_second, has_moved=True)
    base = (first, second)[_best([first, second], [drawn, again])]
    if _is_far_off(base.mixture, found.points):
        base = base._replace(mixture=_one_for_all(found.points, len(mixture.log_share)))
    return base, found


def _is_far_off(mixture: GaussianMixture, points: Buffer) -> bool:
    """Whether `log p - log q` varies wildly over points: by the bulk of them, as a single draw of
    great weight decides on the effective share.
    """
    excess = np.asarray(points.log_prob) - np.asarray(program(GaussianMixture.log_density)(mixture, points.z))
    low, high = np.nanquantile(np.where(np.isfinite(excess), excess, np.nan), [TENTH, 1.0 - TENTH])
    return bool(high > low + WILD)


def _one_for_all(points: Buffer, size: int) -> GaussianMixture:
    """A single component with the moments of the points, and others of no share."""
    middle = jnp.mean(points.z, axis=0)
    axes, variance = eigen((points.z - middle).T @ (points.z - middle) / points.size)
    log_share = jnp.where(jnp.arange(size) == 0, 0.0, -jnp.inf)
    alike = (jnp.broadcast_to(a, (size, *a.shape)) for a in (middle, axes, variance))
    return GaussianMixture(log_share, *alike)


def _thinned(passed: Buffer) -> Buffer:
    """Some of the points of many moves."""
    return passed.take(jnp.arange(0, passed.size, -(-passed.size // FITTED)))


def _fitted(target: Target, frame: Frame, seen: Buffer, most: int, key: Array) -> tuple[GaussianMixture, Evaluations]:
    """The first mixture, where components of few points have moved these for more, and what that
    has cost.
    """
    k_fit, k_move, k_again = jax.random.split(key, 3)
    mixture, none = fit_mixture(seen, most, k_fit), Evaluations.none(target.differentiable)
    which = np.asarray(program(GaussianMixture.component_of)(mixture, seen.z))
    few = np.flatnonzero(np.bincount(which, minlength=most)[which] < FEW * seen.z.shape[1])
    if not len(few):
        return mixture, none
    starts = seen.take(np.resize(few, fewer(target, MOVED_OF_FEW)))
    more, spent = program(move_in_shapes, target, static=(4, 5))(frame, mixture, starts, k_move, 2 * MOVES, MOVES)
    seen = jax.tree.map(lambda a, b: np.concatenate([a, b]), seen, more)
    return fit_mixture(seen, most, k_again, mixture), spent


def _with_those_beyond(
    target: Target, found: SearchResult, mixture: GaussianMixture, key: Array
) -> tuple[GaussianMixture, SearchResult]:
    """The mixture and the points with what climbs from beyond the components have met."""
    k_climb, k_born = jax.random.split(key)
    ends, spent = program(climb_from_beyond, target, static=(3,))(found.frame, mixture, k_climb, BEYOND)
    found = found._replace(evaluations=jax.tree.map(jnp.add, found.evaluations, spent))
    best = float(jnp.maximum(jnp.max(found.points.log_prob), jnp.max(ends.log_prob)))
    counts = np.asarray(ends.log_prob) >= lowest_that_counts(best, target.free_dim)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), found.points, ends)
    new = unexplained(mixture, both) & np.concatenate([np.zeros(found.points.size, bool), counts])
    if not new.any():
        return mixture, found
    points = both.take(jnp.asarray(np.flatnonzero(new | (np.arange(both.size) < found.points.size))))
    return with_missing(mixture, points, k_born), found._replace(points=points)


def _rounds(
    target: Target, found: SearchResult, mixture: GaussianMixture, key: Array, has_moved: bool
) -> tuple[Base, _Draws, SearchResult]:
    """Draw, propose and refit until the mixture is the density, or gets no better: the best on the
    way, with shares as all draws have them, and its draws.
    """
    points, evaluations, tried, drawn, waited = found.points, found.evaluations, [], [], 0
    most = ROUNDS[has_moved]
    for i in range(most):
        turn = (i * DRAWS + jnp.arange(DRAWS)) % points.size
        k_draw, k_refit = jax.random.split(jax.random.fold_in(key, i))
        draws, points, nan, zero = program(_propose, target)(found.frame, mixture, points, turn, k_draw)
        evaluations = evaluations.add_points(DRAWS, nan, zero)
        share = float(program(_share_of_own)(mixture, draws))
        gain = share - max((b.share for b in tried), default=0.0)
        waited = 0 if gain > GAIN else waited + 1
        tried.append(Base(mixture, share))
        drawn.append(draws)
        is_enough = share > ENOUGH and not unexplained(mixture, points).any()
        best = max(b.share for b in tried)
        if has_moved:
            is_enough |= waited > (0 if best >= READY else PATIENCE)
        else:  # draws of at least so many rounds tell the shares of components
            is_enough |= i >= FIRST - 1 and (gain < LEAP or best >= SETTLED)
        if is_enough or i == most - 1:
            break
        k_move = jax.random.fold_in(k_refit, 1)
        mixture, spent = _with_moved(target, found.frame, _with_shares(mixture, [draws]), points, k_move)
        evaluations = jax.tree.map(jnp.add, evaluations, spent)
        mixture = _refitted(mixture, points, k_refit)
    best = _best(tried, drawn)
    mixture, draws = _with_shares(tried[best].mixture, drawn), drawn[best]
    points = program(_proposed_again)(mixture, points, draws, jax.random.fold_in(key, most))
    share = float(program(_share_of_own)(mixture, draws))
    return Base(mixture, share), draws, found._replace(points=points, evaluations=evaluations)


def _proposed_again(mixture: GaussianMixture, points: Buffer, draws: _Draws, key: Array) -> Buffer:
    """The points after draws that are there already were proposed to them anew, some passes long,
    as draws of the mixture by now.

    Most points of a search may lie where there is next to no mass, and one round of proposals
    leaves some of them there, which would seem to be regions that the sampler does not reach.
    """
    log_q, own = mixture.log_density(draws.points.z), _defended(mixture.log_density(points.z), points)
    new, share = draws.points.log_prob - log_q, weights.normalise(log_q - draws.log_proposal)

    def proposed(carry, k_pass):
        points, old = carry
        k_choose, k_accept = jax.random.split(k_pass)
        index = jax.random.permutation(k_choose, weights.systematic(k_choose, share, points.size))
        accept = jnp.log(jax.random.uniform(k_accept, (points.size,))) < new[index] - old
        return (choose(accept, draws.points.take(index), points), jnp.where(accept, new[index], old)), None

    start = points, points.log_prob - own
    return jax.lax.scan(proposed, start, jax.random.split(key, PASSES))[0][0]


def _with_moved(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, key: Array
) -> tuple[GaussianMixture, Evaluations]:
    """The mixture with components for points that it has far too little at, of which there are too
    few to tell shapes before they have moved; and what the moves have cost.
    """
    none, missing = Evaluations.none(target.differentiable), np.flatnonzero(unexplained(mixture, points))
    if not len(missing):
        return mixture, none
    k_round, k_move, k_shape = jax.random.split(key, 3)
    starts = points.take(np.resize(missing, fewer(target, MOVED_OF_FEW)))
    rough = with_missing(mixture, points, k_round)
    moved, spent = program(move_in_shapes, target, static=(4, 5))(frame, rough, starts, k_move, 2 * MOVES, MOVES)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), points, moved)
    return with_missing(mixture, both, k_shape, len(missing) / points.size), spent


def _refitted(mixture: GaussianMixture, points: Buffer, key: Array) -> GaussianMixture:
    for _ in range(REFITS):
        mixture = program(refit)(mixture, points)
    return with_missing(mixture, points, key)


def _evened(mixture: GaussianMixture, points: Buffer, key: Array, size: int) -> Buffer:
    """So many of the points, among them copies, so that components with few have some more."""
    which = mixture.component_of(points.z)
    count = jnp.bincount(which, length=len(mixture.log_share))
    wanted = jnp.maximum(count, LEAST_PER_DIM * points.z.shape[1]) / jnp.maximum(count, 1)
    weight = wanted[which]
    return points.take(weights.systematic(key, weight / jnp.mean(weight), size))


def _best(tried: list[Base], drawn: list[_Draws]) -> int:
    """Which mixture exact draws of the density would be likeliest under, by draws of all of them,
    weighted together. By its own draws alone the best would be one that lacks modes.
    """
    if len(tried) == 1:
        return 0
    log_density = program(GaussianMixture.log_density)

    def at_all(mixture: GaussianMixture) -> Float[np.ndarray, " n"]:
        return np.concatenate([np.asarray(log_density(mixture, draws.points.z), float) for draws in drawn])

    log_q = np.array([at_all(base.mixture) for base in tried])
    log_proposal = np.array([at_all(program(_proposal)(base.mixture)) for base in tried])
    log_prob = np.concatenate([np.asarray(draws.points.log_prob, float) for draws in drawn])
    for i, draws in enumerate(drawn):  # shares may have changed since
        log_proposal[i, i * DRAWS : (i + 1) * DRAWS] = np.asarray(draws.log_proposal)
    log_weight = np.asarray(weights.truncate(jnp.asarray(log_prob - np.logaddexp.reduce(log_proposal, axis=0))), float)
    weight = np.exp(log_weight - np.logaddexp.reduce(log_weight))
    log_z = np.logaddexp.reduce(log_weight) - np.log(len(log_weight) / len(tried))
    there = weight > 0.0
    likelihood = np.maximum(log_q, log_prob - log_z - FARTHEST)[:, there] @ weight[there]
    return int(np.argmax(likelihood))


def _propose(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, turn: Int[Array, " n"], key: Array
) -> tuple[_Draws, Buffer, Int[Array, ""], Int[Array, ""]]:
    """Draws of the mixture, some of each component that has any share, and the points after those
    whose turn it is were proposed to them.
    """
    k_draw, k_accept = jax.random.split(key)
    proposal = _proposal(mixture)
    z, old = proposal.sample(k_draw, len(turn)), points.take(turn)
    e = frame.evaluate(target, z)
    draws = _Draws(Buffer.of(z, e), proposal.log_density(z))
    own = old.log_prob - _defended(proposal.log_density(old.z), points)
    accept = jnp.log(jax.random.uniform(k_accept, (len(turn),))) < draws.log_weight - own
    return draws, points.put(turn, choose(accept, draws.points, old)), e.nan, e.zero


def _proposal(mixture: GaussianMixture) -> GaussianMixture:
    """The mixture with draws of each component that has any share."""
    least = jnp.log(FEWEST / DRAWS)
    log_share = jnp.where(mixture.log_share > -BELOW, jnp.maximum(mixture.log_share, least), -jnp.inf)
    return dataclasses.replace(mixture, log_share=log_share - logsumexp(log_share))


def _defended(log_q: Float[Array, " n"], points: Buffer) -> Float[Array, " n"]:
    """A proposal's log-density at the points, if next to none of its draws were all over them: they
    would replace points in regions of no mass that no other proposal reaches.
    """
    return jnp.logaddexp(log_q, log_noise(points))


def _with_shares(mixture: GaussianMixture, drawn: list[_Draws]) -> GaussianMixture:
    """The mixture with shares as draws have them, which may be those of others.

    Each component's share is changed by the mass that the density has over the mass that the
    mixture has, where the component is: if the two are alike nothing changes, however few draws
    there are.
    """
    masses = [program(_masses)(mixture, draws) for draws in drawn]
    own, squares, mass = (np.logaddexp.reduce([np.asarray(m[i], float) for m in masses]) for i in range(3))
    with np.errstate(invalid="ignore"):  # of components of no share
        known = 2.0 * own - squares >= np.log(FEWEST)
    log_share = np.asarray(mixture.log_share, float)
    if known.any():
        change = mass[known] - own[known]
        usual = np.logaddexp.reduce(change + log_share[known]) - np.logaddexp.reduce(log_share[known])
        log_share[known] += change - usual
    log_share -= np.logaddexp.reduce(log_share)
    return dataclasses.replace(mixture, log_share=jnp.asarray(log_share, jnp.float32))


def _masses(mixture: GaussianMixture, draws: _Draws) -> tuple[Float[Array, " k"], ...]:
    """Logs of sums over draws, for each component: of the mass that the mixture has there, of its
    squares, and of the mass that the density has.
    """
    z = draws.points.z
    joint = mixture.log_joint(z)
    own, parts = joint - draws.log_proposal[:, None], jax.nn.log_softmax(joint, axis=1)
    mass = parts + weights.truncate(draws.log_weight)[:, None]
    return logsumexp(own, axis=0), logsumexp(2.0 * own, axis=0), logsumexp(mass, axis=0)


def _share_of_own(mixture: GaussianMixture, draws: _Draws) -> Float[Array, ""]:
    """Effective share that draws of the mixture itself would have."""
    squares = logsumexp(draws.log_weight + draws.points.log_prob - mixture.log_density(draws.points.z))
    share = jnp.exp(2.0 * logsumexp(draws.log_weight) - squares - jnp.log(draws.points.size))
    return jnp.minimum(share, 1.0)  # the draws may be those of another
