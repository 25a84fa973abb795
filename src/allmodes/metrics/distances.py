"""Interatomic distances: the structure of a particle system, whatever its place, turn and order."""

import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics.metric import SampleMetric, is_of_particles
from allmodes.symmetry import ParticleSymmetry

BINS = 200


def distances(x: Float[Array | np.ndarray, "n dim"], symmetry: ParticleSymmetry) -> Float[np.ndarray, "n pairs"]:
    """All interatomic distances of each configuration."""
    p = np.asarray(x, np.float64).reshape(len(x), symmetry.particles, symmetry.dim)
    i, j = np.triu_indices(symmetry.particles, 1)
    with np.errstate(invalid="ignore"):  # inf - inf
        return np.linalg.norm(p[:, i] - p[:, j], axis=-1)


def distance_tv(
    x: Float[Array | np.ndarray, "n dim"], y: Float[Array | np.ndarray, "m dim"], symmetry: ParticleSymmetry
) -> float:
    """Total variation between the histograms of all interatomic distances: 200 bins on the range of
    y's.

    What of x lies outside of that range is counted too, which iDEM's figure leaves out.
    """
    ours, reference = distances(x, symmetry).ravel(), distances(y, symmetry).ravel()
    edges = np.linspace(reference.min(), reference.max(), BINS + 1)
    edges = np.concatenate([[-np.inf], edges, [np.inf]])
    shares = [np.histogram(d, edges)[0] / len(d) for d in (ours, reference)]
    return float(0.5 * np.sum(np.abs(shares[0] - shares[1])))


DISTANCE_TV = SampleMetric(
    name="distance_tv",
    label="Interatomic distances, total variation",
    meaning="The share of all distances that is out of place.",
    function=lambda a, b, target: distance_tv(a, b, target.symmetry),
    sees_target=True,
    symmetric=False,  # the bins are those of the exact ones
    applies=is_of_particles,
)
