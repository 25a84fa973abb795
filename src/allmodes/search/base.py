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

from allmodes.devices.blocks import batched_map
from allmodes.devices.compiled import program
from allmodes.points import weights
from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.progress.stages import stage
from allmodes.search.in_shapes import move_in_shapes
from allmodes.search.refit import refit
from allmodes.search.shapes import BELOW, fit_mixture, with_unexplained
from allmodes.target import Target

DRAWS = 4096  # of a round
ROUNDS = 3, 8  # of draws from the mixture, at most: before the points have moved, and after
REFITS = 2  # between rounds
ENOUGH = 0.95  # effective share of its draws, beyond which it is left as it is
GAIN, PATIENCE = 0.02, 4  # of the share, that one of so many rounds must have brought
FEWEST = 8.0  # draws of a component that may change its share, and that each has, on average, at least
SETTLED = 0.8  # effective share, below which the points need moves of their own
FARTHEST = 30.0  # nats that the mixture may be below the density at a point, where mixtures are compared
LEAST_PER_DIM = 2  # points of a component for each dimension, before they move
MOVES, KEPT = 6, (1, 4)  # of each time, and after how many of them the points are kept
FITTED = 16_384  # points, at most, that a mixture is fitted to at first
AT_A_TIME = 1024  # points


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
    k_fit, k_first, k_move, k_second = jax.random.split(key, 4)
    mixture = fit_mixture(found.points if found.passed is None else _thinned(found.passed), most, k_fit)
    found = found.filled(max(DRAWS, found.points.size))
    first, found = _rounds(target, found, mixture, k_first, ROUNDS[0])
    best = _best(first, found.points)
    if best.share >= SETTLED:
        return best, found
    stage("moving points in the shapes of their modes")
    mixture, points = best.mixture, program(_evened)(best.mixture, found.points, k_move)
    for i, keep in enumerate(KEPT):
        points, spent = program(move_in_shapes, target, static=(4, 5))(
            found.frame, mixture, points, jax.random.fold_in(k_move, i), MOVES, keep
        )
        found = found._replace(points=points, evaluations=jax.tree.map(jnp.add, found.evaluations, spent))
        mixture = _refitted(mixture, points, k_move)
    second, found = _rounds(target, found, mixture, k_second, ROUNDS[1])
    return _best([*first, *second], found.points), found


def _thinned(passed: Buffer) -> Buffer:
    """Some of the points of many moves."""
    return passed.take(jnp.arange(0, passed.size, -(-passed.size // FITTED)))


def _rounds(
    target: Target, found: SearchResult, mixture: GaussianMixture, key: Array, most: int
) -> tuple[list[Base], SearchResult]:
    """Draw, propose and refit until the mixture is the density, or gets no better: all mixtures on
    the way.
    """
    points, evaluations, tried, waited = found.points, found.evaluations, [], 0
    for i in range(most):
        turn = (i * DRAWS + jnp.arange(DRAWS)) % points.size
        k_draw, k_refit = jax.random.split(jax.random.fold_in(key, i))
        draws, points, nan, zero = program(_propose, target)(found.frame, mixture, points, turn, k_draw)
        evaluations = evaluations.add_points(DRAWS, nan, zero)
        share = float(program(_share_of_own)(mixture, draws))
        waited = 0 if share > max((b.share for b in tried), default=0.0) + GAIN else waited + 1
        tried.append(Base(mixture, share))
        if share > ENOUGH or waited == PATIENCE or i == most - 1:
            break
        mixture = _refitted(program(_with_shares)(mixture, draws), points, k_refit)
    return tried, found._replace(points=points, evaluations=evaluations)


def _refitted(mixture: GaussianMixture, points: Buffer, key: Array) -> GaussianMixture:
    for _ in range(REFITS):
        mixture = program(refit)(mixture, points)
    return with_unexplained(mixture, points, key)


def _evened(mixture: GaussianMixture, points: Buffer, key: Array) -> Buffer:
    """As many points, among them copies, so that components with few have some more."""
    which = batched_map(lambda z: jnp.argmax(mixture.log_parts(mixture.along(z))), points.z, AT_A_TIME)
    count = jnp.bincount(which, length=len(mixture.log_share))
    wanted = jnp.maximum(count, LEAST_PER_DIM * points.z.shape[1]) / jnp.maximum(count, 1)
    weight = wanted[which]
    return points.take(weights.systematic(key, weight / jnp.mean(weight), points.size))


def _best(tried: list[Base], points: Buffer) -> Base:
    """The mixture that the points are likeliest under. By its own draws the best would be one that
    lacks modes.
    """

    def likelihood(base: Base) -> float:
        log_density = program(GaussianMixture.log_density)(base.mixture, points.z)
        return float(jnp.mean(jnp.maximum(log_density, points.log_prob - FARTHEST)))

    return max(tried, key=likelihood)


def _propose(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, turn: Int[Array, " n"], key: Array
) -> tuple[_Draws, Buffer, Int[Array, ""], Int[Array, ""]]:
    """Draws of the mixture, some of each component that has any share, and the points after those
    whose turn it is were proposed to them.
    """
    k_draw, k_accept = jax.random.split(key)
    least = jnp.log(FEWEST / len(turn))
    log_share = jnp.where(mixture.log_share > -BELOW, jnp.maximum(mixture.log_share, least), -jnp.inf)
    proposal = dataclasses.replace(mixture, log_share=log_share - logsumexp(log_share))
    z, old = proposal.sample(k_draw, len(turn)), points.take(turn)
    e = frame.evaluate(target, z)
    draws = _Draws(Buffer.of(z, e), proposal.log_density(z))
    own = old.log_prob - proposal.log_density(old.z)
    accept = jnp.log(jax.random.uniform(k_accept, (len(turn),))) < draws.log_weight - own
    return draws, points.put(turn, choose(accept, draws.points, old)), e.nan, e.zero


def _with_shares(mixture: GaussianMixture, draws: _Draws) -> GaussianMixture:
    """The mixture with shares as draws have them, which may be those of another one.

    Each component's share is changed by the mass that the density has over the mass that the
    mixture has, where the component is: if the two are alike nothing changes, however few draws
    there are.
    """
    z = draws.points.z
    parts = batched_map(lambda one: jax.nn.log_softmax(mixture.log_parts(mixture.along(one))), z, AT_A_TIME)
    own = parts + (mixture.log_density(z) - draws.log_proposal)[:, None]
    known = jnp.exp(2.0 * logsumexp(own, axis=0) - logsumexp(2.0 * own, axis=0)) >= FEWEST
    change = logsumexp(parts + weights.truncate(draws.log_weight)[:, None], axis=0) - logsumexp(own, axis=0)
    usual = logsumexp(jnp.where(known, change + mixture.log_share, -jnp.inf)) - logsumexp(
        jnp.where(known, mixture.log_share, -jnp.inf)
    )
    log_share = mixture.log_share + jnp.where(known, change - jnp.where(jnp.any(known), usual, 0.0), 0.0)
    return dataclasses.replace(mixture, log_share=log_share - logsumexp(log_share))


def _share_of_own(mixture: GaussianMixture, draws: _Draws) -> Float[Array, ""]:
    """Effective share that draws of the mixture itself would have."""
    squares = logsumexp(draws.log_weight + draws.points.log_prob - mixture.log_density(draws.points.z))
    return jnp.exp(2.0 * logsumexp(draws.log_weight) - squares - jnp.log(draws.points.size))
