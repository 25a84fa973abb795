"""Clusters of points, by k-means++."""

import warnings

import numpy as np
from jaxtyping import Float, Int

Places = Float[np.ndarray, "k dim"]


def kmeans(
    points: Float[np.ndarray, "n dim"], most: int, rounds: int, rng: np.random.Generator
) -> tuple[Places, Int[np.ndarray, " n"]]:
    """Centres of at most so many clusters, fewer where fewer points are distinct, and the cluster
    of each point. Seeds lie far apart, so that a region with few of the points has its own.
    """
    from scipy.cluster.vq import kmeans2

    count = min(most, len(np.unique(points, axis=0)))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="One of the clusters is empty")  # it keeps the place of its seed
        return kmeans2(points, count, minit="++", iter=rounds, rng=rng)
