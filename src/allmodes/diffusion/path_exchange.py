"""Independence Metropolis on whole paths of a sampler: exact whatever its network has learned."""

from jaxtyping import Array, Bool, Float

from allmodes.diffusion.paths import Process, noising
from allmodes.mcmc.metropolis import choose_by_weight
from allmodes.points.buffer import Buffer


def exchange(
    process: Process,
    key_path: Array,
    key_accept: Array,
    points: Buffer,
    fresh: Buffer,
    log_weight: Float[Array, " n"],
    steps: int,
) -> tuple[Buffer, Bool[Array, " n"]]:
    """Replace each point by a fresh draw with probability `min(1, w_fresh / w_point)`; which were
    replaced.

    `log_weight` are the path weights of the fresh draws; each point gets a noising path of its own,
    and its weight. Point and path together are then a state of the target times the noising
    process, which the exchange leaves invariant. A point that the sampler underrates has a large
    weight and stays: no mode is lost while the sampler is poor.
    """
    noised = noising(process, key_path, points.z, steps)
    return choose_by_weight(key_accept, points, noised.log_ratio + points.log_prob, fresh, log_weight)
