"""Modes that known ones become where coordinates are exchanged, or their signs.

Labels of components, waves in either order, factors of either sign: to exchange them leaves such a
density as it is, or nearly so, and a search that has met one order need not have met the others. An
evaluation tells.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.devices.compiled import program
from allmodes.devices.precision import double
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.search.fitting import BADLY, UNEXPLAINED, unexplained, with_missing
from allmodes.search.parts import Parts
from allmodes.search.slopes import evaluator, price
from allmodes.target import Target

MOST, LARGEST = 1024, 64  # exchanges that are tried; dimensions, beyond which so few tell nothing
AT_A_TIME = 16  # points that are evaluated together, the last ones over and over
ROUNDS = 8  # each with the modes of those before
IMAGES, POINTS = 16, 32  # of modes in a round, and points of each
MINOR = 7.0  # nats below the share of the largest mode, at which images of another one are not worth it
WORSE, WORSE_PER_DIM = 10.0, 1.0  # nats that an image may be below its point: the other order may have another prior
DISTANCE = 0.1  # over which slopes are taken where there is no gradient


class Exchanges(NamedTuple):
    """Of coordinates: `x -> sign x[index]`."""

    index: Int[np.ndarray, "n dim"]
    sign: Float[np.ndarray, "n dim"]

    @classmethod
    def of(cls, dim: int) -> "Exchanges":
        """All signs at once, and each; blocks of coordinates with blocks of the same length, and
        each of some coordinates at equal distances with its neighbour some places on: parameters
        may be listed by component, or all of one kind first. At most `MOST`, chosen by chance.
        """
        signs = np.concatenate([-np.ones((1, dim)), 1.0 - 2.0 * np.eye(dim)])
        swaps = [
            (first, first + shift, stride, count)
            for stride in range(1, dim)
            for shift in range(1, dim if stride == 1 else stride)
            for count in range(1 if stride == 1 else 2, shift + 1 if stride == 1 else dim)
            for first in range(dim - shift - stride * (count - 1))
        ]
        some = np.random.default_rng(0).permutation(len(swaps))[: MOST - len(signs)]
        index = np.tile(np.arange(dim), (len(signs) + len(some), 1))
        for row, i in zip(index[len(signs) :], some, strict=True):
            one, other, stride, count = swaps[i]
            a, b = one + stride * np.arange(count), other + stride * np.arange(count)
            row[a], row[b] = b, a
        return cls(index, np.concatenate([signs, np.ones((len(some), dim))]))

    def images(
        self, frame: Frame, z: Float[np.ndarray, "m dim"], which: Int[np.ndarray, " m"]
    ) -> Float[Array, "m dim"]:
        """Each point after one of the exchanges."""
        x = np.asarray(frame.to_x(jnp.asarray(z, jnp.float32)))
        x = self.sign[which].astype(x.dtype) * np.take_along_axis(x, self.index[which], axis=1)
        with double(frame.double):
            return frame.to_z(jnp.asarray(x))


def with_exchanged(
    target: Target, found: SearchResult, mixture: GaussianMixture, key: Array
) -> tuple[GaussianMixture, SearchResult]:
    """The mixture and the points with modes that exchanges have shown.

    The highest point is tried with all of them; then the highest ones of all modes with those that
    have led it to where the density may have mass, or to where the mixture has some.
    """
    if not 1 < target.free_dim <= LARGEST or target.symmetry is not None:
        return mixture, found
    exchanges, parts = Exchanges.of(target.free_dim), Parts.of_mixture(mixture)
    every = np.arange(len(exchanges.index))
    of_top, which = _new_places(parts, found, exchanges, _highest(parts, found.points)[0][:1], every)
    seen, found = _evaluated(target, found, exchanges, of_top, which)
    kept = np.setdiff1d(every, which[~_are_new(mixture, found, of_top, seen)])
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    for i in range(ROUNDS):
        parts = Parts.of_mixture(mixture)
        tops, own = _highest(parts, found.points)
        tops, which = _new_places(parts, found, exchanges, tops, kept)
        if not len(which):
            break
        chosen = rng.permutation(len(which))[:IMAGES]
        tops, which = tops[chosen], which[chosen]
        seen, found = _evaluated(target, found, exchanges, tops, which)
        new = np.flatnonzero(_are_new(mixture, found, tops, seen))
        if not len(new):
            break
        new = np.resize(new, IMAGES)
        of_modes = np.concatenate([rng.choice(np.flatnonzero(own == own[top]), POINTS) for top in tops[new]])
        seen, found = _evaluated(target, found, exchanges, of_modes, np.repeat(which[new], POINTS))
        new = np.flatnonzero(_are_new(mixture, found, of_modes, seen))
        if not len(new):
            break
        # As many each time, some of them twice: no other number of points is compiled.
        new = seen.take(np.resize(new, IMAGES * POINTS))
        points = jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.asarray(b)]), found.points, new)
        mixture, found = with_missing(mixture, points, jax.random.fold_in(key, i)), found._replace(points=points)
    return mixture, found


def _highest(parts: Parts, points: Buffer) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " n"]]:
    """The highest point of each mode that has mass, the highest ones first; and whose all are."""
    own, log_prob = parts.log_joint(np.asarray(points.z, float)).argmax(axis=1), np.asarray(points.log_prob, float)
    order = np.argsort(-log_prob)
    order = order[parts.log_mass[own[order]] > np.max(parts.log_mass) - MINOR]
    return order[np.sort(np.unique(own[order], return_index=True)[1])], own


def _new_places(
    parts: Parts,
    found: SearchResult,
    exchanges: Exchanges,
    tops: Int[np.ndarray, " k"],
    kept: Int[np.ndarray, " m"],
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Which of the points, by which of the exchanges, come to where the mixture has far less, if
    the density has as much there as it has at the points: no evaluation.
    """
    which, tops = np.tile(kept, len(tops)), np.repeat(tops, len(kept))
    z = np.asarray(found.points.z)[tops]
    images = exchanges.images(found.frame, z, which)
    far = parts.log_density(images) < parts.log_density(z) - UNEXPLAINED - BADLY[1] * z.shape[1]
    return tops[far], which[far]


def _evaluated(
    target: Target,
    found: SearchResult,
    exchanges: Exchanges,
    points: Int[np.ndarray, " n"],
    which: Int[np.ndarray, " n"],
) -> tuple[Buffer, SearchResult]:
    """The points after the exchanges, and what was found with what they have cost."""
    if not len(points):
        return found.points.take(points), found
    z = exchanges.images(found.frame, np.asarray(found.points.z)[points], which)
    padded = z[np.arange(-(-len(z) // AT_A_TIME) * AT_A_TIME) % len(z)]
    parts, spent = [], found.evaluations
    for i in range(0, len(padded), AT_A_TIME):
        part, cost = program(_evaluate, target)(found.frame, padded[i : i + AT_A_TIME])
        parts, spent = [*parts, part], jax.tree.map(jnp.add, spent, cost)
    return jax.tree.map(lambda *a: np.concatenate(a)[: len(z)], *parts), found._replace(evaluations=spent)


def _evaluate(target: Target, frame: Frame, z: Float[Array, "n dim"]) -> tuple[Buffer, Evaluations]:
    e = evaluator(target, frame)(z, jnp.full((len(z),), DISTANCE))
    return Buffer.of(z, e), Evaluations.none(target.differentiable).add(e, price(target))


def _are_new(
    mixture: GaussianMixture, found: SearchResult, points: Int[np.ndarray, " n"], images: Buffer
) -> Bool[np.ndarray, " n"]:
    """Images nearly as high as their points, and of which the mixture has far too little."""
    worse = np.asarray(found.points.log_prob)[points] - np.asarray(images.log_prob)
    return unexplained(mixture, found.points, images) & (worse < WORSE + WORSE_PER_DIM * images.z.shape[1])
