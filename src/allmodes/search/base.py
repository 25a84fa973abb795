"""The first mixture: fitted to what the search has seen, then brought to the density by population
Monte Carlo (Cappé et al. 2008).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from allmodes.devices.compiled import program
from allmodes.draws.estimates import forward_ess
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.points.product import BaseDensity, Product
from allmodes.progress.stages import stage
from allmodes.search.exchanges import with_exchanged
from allmodes.search.fitting import WILD, fit_mixture, unexplained, with_missing
from allmodes.search.in_shapes import climb_from_beyond, move_in_shapes
from allmodes.search.moves import fewer, lowest_that_counts
from allmodes.search.parts import Parts
from allmodes.search.polish import polished
from allmodes.search.pool import DRAWS, Drawn, Pool, proposal_of
from allmodes.search.product import PARTS, fit_product, seems_independent
from allmodes.search.proposals import passes, propose
from allmodes.search.refit import eigen, refit
from allmodes.search.shapes import TENTH
from allmodes.target import Target

BEYOND = 48  # climbs from beyond the components
ROUNDS = 7, 8  # of draws from the mixture, at most: before the points have moved, and after
FIRST, LEAP = 3, 0.1  # rounds of the former, but for more while each brings so much of the share
REFITS = 2  # between rounds
ENOUGH = 0.98  # effective share of its draws, beyond which it is left as it is
GAIN, PATIENCE = 0.01, 1  # of the share, that a round must bring; how many in a row may bring less
READY = 0.9  # effective share, from which on each round must bring it, once the points have moved
TWO_WILL_DO = 0.95  # effective share, from which on two of the former rounds are enough
SETTLED = 0.8  # effective share, below which the points need moves of their own
FEW, MOVED_OF_FEW = 3, 512  # points for each dimension that are few for a component; how many are moved for more
LEAST_PER_DIM = 2  # points of a component for each dimension, before they move
MOVED, MOVES, KEPT = 2, 6, 4  # how often, by so many moves each, and after how many of these points are kept
PASSES = 4  # of draws that are proposed again
PASSES_OF_PRODUCT = 16  # of those of a product: points have moved to their own wells alone
UNDISPUTED = 0.9  # forward effective share by the points, below which those that dispute it move
FITTED = 16_384  # points, at most, that a mixture is fitted to at first


class Base(NamedTuple):
    """A mixture, or a product in its place, and the effective share of its own draws, by those
    that have made it better: they flatter a mixture.
    """

    mixture: GaussianMixture
    share: float
    product: Product | None = None

    @property
    def density(self) -> BaseDensity:
        """What a network corrects the denoiser of."""
        product = self.product or Product.standard(self.mixture.mean.shape[1], 2 * PARTS)
        return BaseDensity(self.mixture, product, jnp.asarray(float(self.product is not None)))


def fit_base(target: Target, found: SearchResult, most: int, key: Array) -> tuple[Base, SearchResult]:
    """Fit a mixture of at most so many components, or a product over coordinates where these do not
    seem to mind each other; what was found, with its points made right as far as either can.

    Each round draws from the mixture. The draws are proposed to the points (independence
    Metropolis, which loses no mode), tell shares by their weights, and the points tell shapes.
    Where a mixture cannot be the density, the points are moved locally as well, in the shapes that
    it has found.
    """
    k_fit, k_rounds = jax.random.split(key)
    product, found = product_base(target, found, most, jax.random.fold_in(k_fit, 2))
    if product is not None:
        return product, found
    stage("fitting a mixture")
    seen = found.points if found.passed is None else _thinned(found.passed)
    mixture, spent = _fitted(target, found.frame, seen, most, k_fit)
    found = found._replace(evaluations=jax.tree.map(jnp.add, found.evaluations, spent))
    mixture, found = _with_those_beyond(target, found, mixture, jax.random.fold_in(k_fit, 1))
    stage("exchanging coordinates of modes")
    mixture, found = with_exchanged(target, found, mixture, jax.random.fold_in(k_fit, 3))
    return improved(target, found, mixture, k_rounds)


def renewed(target: Target, found: SearchResult, old: BaseDensity, key: Array) -> tuple[Base, SearchResult]:
    """The base of another density, brought to this one; the points as `fit_base` has them."""
    if bool(old.is_product):
        k_product, key = jax.random.split(key)
        product, found = product_base(target, found, len(old.mixture.log_share), k_product)
        if product is not None:
            return product, found
    return improved(target, found, old.mixture, key)


def product_base(target: Target, found: SearchResult, most: int, key: Array) -> tuple[Base | None, SearchResult]:
    """A base that is a product, and the points after draws of it were proposed to them, some passes
    long. None, and the points as they were, where coordinates seem to mind each other, too few of
    its draws are effective, or points dispute it: it lacks what they have seen.
    """
    if not seems_independent(found.points):
        return None, found
    stage("fitting a density of each coordinate")
    k_fit, k_draw, k_turn, k_pass = jax.random.split(key, 4)
    product, spent = fit_product(target, found.frame, found.points, k_fit)
    turn = jnp.arange(DRAWS) % found.points.size
    drawn, points, nan, zero = program(propose, target)(found.frame, product, found.points, turn, k_draw)
    spent = jax.tree.map(jnp.add, found.evaluations, spent.add_points(DRAWS, nan, zero))
    log_density = program(Product.log_density)
    log_weight = drawn.log_prob - log_density(product, drawn.z)
    turns = jax.random.randint(k_turn, (PASSES_OF_PRODUCT, points.size), 0, DRAWS)
    points = program(passes)(product, points, drawn, log_weight, turns, k_pass)
    excess = np.asarray(points.log_prob, np.float64) - np.asarray(log_density(product, points.z))
    share = float(weights.ess_fraction(log_weight))
    if share < SETTLED or forward_ess(excess) < UNDISPUTED:
        return None, found._replace(evaluations=spent)
    return Base(_one_for_all(points, most), share, product), found._replace(points=points, evaluations=spent)


def improved(target: Target, found: SearchResult, mixture: GaussianMixture, key: Array) -> tuple[Base, SearchResult]:
    """The mixture and the points after rounds of draws, and of moves where these are needed.

    Where the modes are too many for the mixture, it would draw the network towards those that it
    has: a single component takes its place, and the share is of what was left out.
    """
    k_even, k_first, k_move, k_second = jax.random.split(key, 4)
    found = found._replace(points=_evened_with_missing(mixture, found.points, k_even))
    first, pool, found = _rounds(target, found, mixture, Pool(), k_first, has_moved=False)
    if first.share >= SETTLED and not unexplained(first.mixture, found.points).any():
        return first, found
    stage("moving points in the shapes of their modes")
    mixture, points = first.mixture, _evened_with_missing(first.mixture, found.points, k_move)
    moved = fewer(target, DRAWS)
    for i in range(MOVED):
        points, spent = program(move_in_shapes, target, static=(4, 5))(
            found.frame, mixture, points.take(jnp.arange(-moved, 0)), jax.random.fold_in(k_move, i), MOVES, KEPT
        )
        found = found._replace(points=points, evaluations=jax.tree.map(jnp.add, found.evaluations, spent))
        mixture = _refitted(mixture, points, jax.random.fold_in(k_move, MOVED + i))
    second, pool, found = _rounds(target, found, mixture, pool, k_second, has_moved=True)
    seen = pool.drawn
    base = max(first, second, key=lambda b: seen.likelihood(Parts.of_mixture(b.mixture)))
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
    target: Target, found: SearchResult, mixture: GaussianMixture, pool: Pool, key: Array, has_moved: bool
) -> tuple[Base, Pool, SearchResult]:
    """Draw, propose and refit until the mixture is the density, or gets no better: the best on the
    way, made as good as all draws together make it.
    """
    points, evaluations, tried, waited, is_polished = found.points, found.evaluations, [], 0, True
    most = ROUNDS[has_moved]
    for i in range(most):
        turn = (i * DRAWS + jnp.arange(DRAWS)) % points.size
        k_draw, k_refit = jax.random.split(jax.random.fold_in(key, i))
        proposal = proposal_of(Parts.of_mixture(mixture))
        as_drawn = proposal.mixture(len(mixture.log_share))
        drawn, points, nan, zero = program(propose, target)(found.frame, as_drawn, points, turn, k_draw)
        pool = pool.plus(proposal, drawn)
        seen = pool.drawn
        evaluations = evaluations.add_points(DRAWS, nan, zero)
        share = seen.share(Parts.of_mixture(mixture))
        gain = share - max((b.share for b in tried), default=0.0)
        waited = 0 if gain > GAIN else waited + 1
        tried.append(Base(mixture, share))
        is_enough = share > ENOUGH and not unexplained(mixture, points).any()
        best = max(b.share for b in tried)
        if has_moved:
            is_enough |= waited > (0 if best >= READY else PATIENCE)
        else:  # draws of at least so many rounds tell the shares of components
            is_enough |= i >= FIRST - 1 and (gain < LEAP or best >= SETTLED)
            is_enough |= i >= 1 and best >= TWO_WILL_DO
        if is_enough or i == most - 1:
            break
        k_move = jax.random.fold_in(k_refit, 1)
        mixture, points, spent = _with_moved(target, found.frame, _made_right(mixture, seen), points, k_move)
        evaluations = jax.tree.map(jnp.add, evaluations, spent)
        # By points, whatever draws say of it: they are blind to a mode that the mixture lacks.
        mixture = _refitted(mixture, points, k_refit)
        if is_polished:  # what draws could not make better once, more of them rarely will
            mixture, is_polished = _polished(mixture, seen)
    best = max((b.mixture for b in tried), key=lambda m: seen.likelihood(Parts.of_mixture(m)))
    mixture = _made_right(_polished(best, seen)[0] if is_polished else best, seen)
    points = _proposed_again(mixture, points, pool, jax.random.fold_in(key, most))
    base = Base(mixture, seen.share(Parts.of_mixture(mixture)))
    if base.share >= SETTLED:  # else all points move, or training renews them
        points, spent = _strays_moved(target, found.frame, mixture, points, pool, jax.random.fold_in(key, most + 1))
        evaluations = jax.tree.map(jnp.add, evaluations, spent)
    return base, pool, found._replace(points=points, evaluations=evaluations)


def _made_right(mixture: GaussianMixture, seen: Drawn) -> GaussianMixture:
    """The mixture with the shares that all draws tell."""
    return seen.with_shares(Parts.of_mixture(mixture)).mixture(len(mixture.log_share))


def _polished(mixture: GaussianMixture, seen: Drawn) -> tuple[GaussianMixture, bool]:
    """The mixture as the draws make it better, and whether they do."""
    most, old = len(mixture.log_share), Parts.of_mixture(mixture)
    new = polished(old, seen, most)
    return (mixture, False) if new is old else (new.mixture(most), True)


def _proposed_again(mixture: GaussianMixture, points: Buffer, pool: Pool, key: Array) -> Buffer:
    """The points after draws that are there already were proposed to them anew, some passes long,
    as draws of the mixture by now.

    Most points of a search may lie where there is next to no mass, and one round of proposals
    leaves some of them there, which would seem to be regions that the sampler does not reach.
    """
    drawn, rng = pool.drawn, np.random.default_rng(np.asarray(jax.random.key_data(key)))
    log_q = Parts.of_mixture(mixture).log_density(drawn.z)
    share = drawn._replace(log_prob=log_q).weight  # as draws of the mixture: a single one is not proposed all the time
    index = rng.choice(len(share), PASSES * points.size, p=share)  # on the host: of any number
    everything = jax.tree.map(lambda *a: np.concatenate(a), *pool.points)
    new = jnp.asarray((drawn.log_prob - log_q)[index], jnp.float32)
    turns = jnp.arange(PASSES * points.size).reshape(PASSES, points.size)
    return program(passes)(mixture, points, everything.take(index), new, turns, key)


def _strays_moved(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, pool: Pool, key: Array
) -> tuple[Buffer, Evaluations]:
    """The points after moves of those that the mixture has least of, where these seem to say that
    it leaves mass out, and what that has cost.

    A point of the search in the flank of a mode, further out than draws are, stays there: no draw
    takes its place. It must move before it may say anything. Those that it would meet on the way
    move as well, so that as many come as go where there is mass.
    """
    k_move, k_again = jax.random.split(key)
    excess = np.asarray(points.log_prob, np.float64) - Parts.of_mixture(mixture).log_density(points.z)
    if forward_ess(excess) >= UNDISPUTED:
        return points, Evaluations.none(target.differentiable)
    strays = jnp.asarray(np.argsort(-excess)[: fewer(target, MOVED_OF_FEW)])
    moved, spent = program(move_in_shapes, target, static=(4, 5))(
        frame, mixture, points.take(strays), k_move, 2 * MOVES, 1
    )
    return _proposed_again(mixture, points.put(strays, moved), pool, k_again), spent


def _with_moved(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, key: Array
) -> tuple[GaussianMixture, Buffer, Evaluations]:
    """The mixture with components for points that it has far too little at, of which there are too
    few to tell shapes before they have moved; the points, of which those have moved; and what the
    moves have cost.
    """
    none, missing = Evaluations.none(target.differentiable), np.flatnonzero(unexplained(mixture, points))
    if not len(missing):
        return mixture, points, none
    k_round, k_move, k_shape = jax.random.split(key, 3)
    starts = points.take(np.resize(missing, fewer(target, MOVED_OF_FEW)))
    rough = with_missing(mixture, points, k_round)
    moved, spent = program(move_in_shapes, target, static=(4, 5))(frame, rough, starts, k_move, 2 * MOVES, MOVES)
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), points, moved)
    # Where they have come to tells whether the new components reach as far as the modes.
    some, ends = missing[: starts.size], jnp.arange(-starts.size, 0)
    points = points.put(jnp.asarray(some), moved.take(ends[: len(some)]))
    return with_missing(mixture, both, k_shape, len(missing) / points.size), points, spent


def _refitted(mixture: GaussianMixture, points: Buffer, key: Array) -> GaussianMixture:
    for _ in range(REFITS):
        mixture = program(refit)(mixture, points)
    return with_missing(mixture, points, key)


def _evened_with_missing(mixture: GaussianMixture, points: Buffer, key: Array) -> Buffer:
    """`DRAWS` of the points, evened out, and among them, last, those of modes that the mixture
    lacks: two of 8,192 have been all that a search had of a quarter of the mass.
    """
    evened = program(_evened, static=(3,))(mixture, points, key, DRAWS)
    missing = np.flatnonzero(unexplained(mixture, points))
    highest = missing[np.argsort(-np.asarray(points.log_prob)[missing])][: DRAWS // 4]
    return evened.put(jnp.arange(-len(highest), 0), points.take(jnp.asarray(highest)))


def _evened(mixture: GaussianMixture, points: Buffer, key: Array, size: int) -> Buffer:
    """So many of the points, among them copies, so that components with few have some more."""
    which = mixture.component_of(points.z)
    count = jnp.bincount(which, length=len(mixture.log_share))
    wanted = jnp.maximum(count, LEAST_PER_DIM * points.z.shape[1]) / jnp.maximum(count, 1)
    weight = wanted[which]
    return points.take(weights.systematic(key, weight / jnp.mean(weight), size))
