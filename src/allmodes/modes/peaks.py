"""Which of the ends of ascents are one peak, and which peaks belong together: no barrier between
them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.devices.compiled import program
from allmodes.points.frame import Frame
from allmodes.points.segments import COST, fall_between
from allmodes.target import Target

SAME = 0.1  # ends nearer than this share of the narrowest width are one peak
BARRIER = 1.0  # log-density below the lower of two peaks that parts them: less is a shoulder or a ripple
NEIGHBOURS = 6
ROUNDS = 6
MOST_PEAKS = 2000

Barrier = Callable[[Float[np.ndarray, "n dim"], Float[np.ndarray, "n dim"]], Float[np.ndarray, " n"]]


def barrier(target: Target, frame: Frame) -> Barrier:
    """A function of pairs of points: how far the log-density falls between them below the lower of
    the two.

    See `fall_between`; `cost` says how many evaluations it takes.
    """
    fall = program(_fall, target)

    def run(a: Float[np.ndarray, "n dim"], b: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
        n = len(a)
        if n == 0:
            return np.zeros(0)
        size, rows = _blocked(n)
        rows = np.resize(np.arange(n), rows)
        parts = [fall(frame, a[rows[i : i + size]], b[rows[i : i + size]]) for i in range(0, len(rows), size)]
        # NaN, where both ends have no mass, is a barrier.
        return np.nan_to_num(np.concatenate(parts)[:n].astype(float), nan=np.inf)

    return run


def _fall(target: Target, frame: Frame, a: Float[Array, "n dim"], b: Float[Array, "n dim"]) -> Float[Array, " n"]:
    return fall_between(lambda z: frame.values(target, z), a, b)


def cost(n: int) -> int:
    """The evaluations of n pairs, with those of the copies that fill the last block."""
    return COST * _blocked(n)[1] if n else 0


def _blocked(n: int) -> tuple[int, int]:
    """The size of a block of n pairs, and the pairs of all blocks."""
    size = min(1024, 1 << (n - 1).bit_length())
    return size, -(-n // size) * size


@partial(jax.jit, static_argnames="most")
def distinct(
    points: Float[Array, "n d"], radius: Float[Array, " n"], alive: Bool[Array, " n"], most: int
) -> tuple[Int[Array, " n"], Int[Array, " most"], Int[Array, ""]]:
    """Greedy leaders: the first point that has no leader becomes one, of all that lie within both
    their radii.

    Returns each point's leader or -1, the leaders' indices, and how many there are. Points come
    highest first.
    """

    def unfinished(carry):
        owner, _, count = carry
        return (count < most) & jnp.any(alive & (owner < 0))

    def body(carry):
        owner, index, count = carry
        free = alive & (owner < 0)
        i = jnp.argmax(free)
        d2 = jnp.sum((points - points[i]) ** 2, axis=-1)
        near = free & (d2 <= jnp.minimum(radius, radius[i]) ** 2)
        owner = jnp.where(near.at[i].set(True), count, owner)
        return owner, index.at[count].set(i), count + 1

    start = jnp.full(len(points), -1, jnp.int32), jnp.zeros(most, jnp.int32), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(unfinished, body, start)


def merged(
    z: Float[np.ndarray, "m dim"],
    fall: Barrier,
    features: Float[np.ndarray, "m features"] | None = None,
    neighbours: int = NEIGHBOURS,
) -> tuple[Int[np.ndarray, " m"], int]:
    """A label for each peak, the same for peaks joined by a chain of neighbours without barriers;
    and the evaluations.

    Near is what is so by `features`, or by place when these are not given. First each peak and its
    nearest ones are tried, then each group and the nearest of others, until nothing joins. So a
    ring, whose peaks lie anywhere along it, is one basin.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import cdist

    m, spent = len(z), 0
    seen = (z if features is None else features).astype(float)
    distance = cdist(seen, seen)
    label, edges, tried = np.arange(m), np.zeros((0, 2), int), np.zeros((m, m), bool)
    for _ in range(ROUNDS):
        pairs = _candidates(distance, label, tried, neighbours)
        if len(pairs) == 0:
            break
        tried[pairs[:, 0], pairs[:, 1]] = tried[pairs[:, 1], pairs[:, 0]] = True
        low = fall(z[pairs[:, 0]], z[pairs[:, 1]]) < BARRIER
        spent += cost(len(pairs))
        if not low.any():
            break
        edges = np.concatenate([edges, pairs[low]])
        graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(m, m))
        label = connected_components(graph, directed=False)[1]
    return np.unique(label, return_inverse=True)[1], spent


def _candidates(
    distance: Float[np.ndarray, "m m"], label: Int[np.ndarray, " m"], tried: Bool[np.ndarray, "m m"], neighbours: int
) -> Int[np.ndarray, "pairs 2"]:
    """Untried pairs of near peaks of different groups: of each group the nearest peaks of so many
    others.
    """
    m, groups = len(label), label.max() + 1
    apart = np.where(label[:, None] == label[None, :], np.inf, distance)
    k = min(neighbours, groups - 1)
    if k < 1:
        return np.zeros((0, 2), int)
    between = apart
    if groups < m:
        order = np.argsort(label, kind="stable")
        first = np.searchsorted(label[order], np.arange(groups))
        between = np.minimum.reduceat(apart[order], first, axis=0)
        between = np.minimum.reduceat(between[:, order], first, axis=1)
    other = np.argpartition(between, k - 1, axis=1)[:, :k]
    pairs = np.stack([np.repeat(np.arange(groups), k), other.ravel()], axis=1)
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    if groups < m:
        pairs = np.array([_closest(apart, label, int(a), int(b)) for a, b in pairs])
    return pairs[~tried[pairs[:, 0], pairs[:, 1]]]


def _closest(apart: np.ndarray, label: np.ndarray, a: int, b: int) -> tuple[int, int]:
    rows, columns = np.flatnonzero(label == a), np.flatnonzero(label == b)
    i, j = np.unravel_index(np.argmin(apart[np.ix_(rows, columns)]), (len(rows), len(columns)))
    return int(rows[i]), int(columns[j])
