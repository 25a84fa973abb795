"""Draws as a forest that grows uphill: each hangs on the nearest one that is higher (Rodriguez and
Laio 2014), so that the roots of trees are where modes are. No evaluation: draws know their
densities.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BLOCK = 512  # draws whose distances from all others are held at a time
NEAR = 8  # a draw's own surroundings reach as far as its eighth neighbour


class Links(NamedTuple):
    """Of draws, highest first: what each hangs on, and how much in its surroundings it is the
    highest.

    **Attributes**, of n draws: `parent`, its index, -1 of the highest; `lower`, how many draws,
    all of them lower, are nearer than the parent; `far`, the distance of the parent; `near`, that
    of the eighth neighbour.
    """

    parent: Int[np.ndarray, " n"]
    lower: Int[np.ndarray, " n"]
    far: Float[np.ndarray, " n"]
    near: Float[np.ndarray, " n"]


def links(places: Float[np.ndarray, "n d"]) -> Links:
    """The links of distinct draws, which come highest first. Time is that of n^2 distances."""
    from scipy.spatial.distance import cdist

    n, k = len(places), min(NEAR, len(places) - 1)
    columns = np.arange(n)
    parts = []
    for i in range(0, n, BLOCK):
        own = columns[i : i + BLOCK]
        squared = cdist(places[own], places, "sqeuclidean")
        higher = np.where(columns < own[:, None], squared, np.inf)
        parent = np.argmin(higher, axis=1)
        far = higher[np.arange(len(own)), parent]
        lower = np.sum(squared < far[:, None], axis=1) - 1  # without itself
        parts.append((np.where(own > 0, parent, -1), lower, far, np.partition(squared, k, axis=1)[:, k]))
    parent, lower, far, near = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Links(parent, lower, np.sqrt(far), np.sqrt(near))


def nearest_of(
    points: Float[np.ndarray, "m d"], places: Float[np.ndarray, "n d"]
) -> tuple[Int[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """The nearest place of each point, and its distance."""
    from scipy.spatial.distance import cdist

    index, distance = np.zeros(len(points), int), np.zeros(len(points))
    for i in range(0, len(points), BLOCK):
        squared = cdist(points[i : i + BLOCK], places, "sqeuclidean")
        index[i : i + BLOCK] = np.argmin(squared, axis=1)
        distance[i : i + BLOCK] = np.sqrt(np.min(squared, axis=1))
    return index, distance


def roots(link: Links, sure: int, more: int, alone: int) -> Int[np.ndarray, " m"]:
    """Draws from which modes are worth looking for: those that are the highest of `sure` and more
    around them, the likeliest `more` of the others, and as many as `alone` that lie far from what
    they hang on, beside the surroundings of that: modes that few draws have met.
    """
    order = np.argsort(-link.lower, kind="stable")
    chosen = order[: int(np.sum(link.lower >= sure)) + more]
    apart = link.far[1:] / np.maximum(link.near[link.parent[1:]], 1e-300)
    return np.unique(np.concatenate([chosen, 1 + np.argsort(-apart, kind="stable")[:alone], [0]]))


def followed(link: Links, label: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The label of each draw: its own, where it has one that is not negative, else that of what it
    hangs on.
    """
    label = label.copy()
    for i in np.flatnonzero(label < 0):  # highest first: what it hangs on is known by then
        label[i] = label[link.parent[i]]
    return label
