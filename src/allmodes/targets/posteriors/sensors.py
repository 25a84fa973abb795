"""Where eight sensors stand, from a few noisy distances: places that fold over one another."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from allmodes.target import Target

SENSORS, RANGE, NOISE = 8, 0.3, 0.02
ANCHORS = np.array([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])
CENTRE, WIDTH = 0.5, 0.5  # of the prior of each coordinate
SEED = 3  # see `sensors`
_FIRST, _SECOND = np.triu_indices(SENSORS + len(ANCHORS), 1)
_KEPT = _FIRST < SENSORS  # two anchors tell nothing
_FIRST, _SECOND = _FIRST[_KEPT].astype(np.int32), _SECOND[_KEPT].astype(np.int32)


def data(
    seed: int = SEED,
) -> tuple[Float[np.ndarray, "sensors 2"], Float[np.ndarray, " pairs"], Bool[np.ndarray, " pairs"]]:
    """True places, uniform in the unit square; then of each pair the noisy distance, and whether it
    was observed.
    """
    rng = np.random.default_rng(seed)
    places = rng.uniform(size=(SENSORS, 2))
    every = np.concatenate([places, ANCHORS])
    distance = np.linalg.norm(every[_FIRST] - every[_SECOND], axis=1)
    observed = rng.uniform(size=len(distance)) < np.exp(-(distance**2) / (2 * RANGE**2))
    return places, distance + NOISE * rng.normal(size=len(distance)), observed


def sensors(seed: int = SEED) -> Target:
    """Build the posterior of the places of eight sensors in the plane, 16-D; the unit is the side
    of their square.

    Two sensors, or a sensor and one of three anchors at known places, measure their distance d with
    probability `exp(-d^2 / (2 R^2))`, R = 0.3, with normal noise of standard deviation 0.02; that a
    pair did not measure tells that it is probably far apart, and is in the likelihood. Each
    coordinate has the prior Normal(0.5, 0.5^2). Log Z is the evidence, and `draws.unravel()` has
    `place`, `(8, 2)`. The model is that of Ihler, Fisher, Moses and Willsky 2005 (Nonparametric
    belief propagation for self-localization of sensor networks), with the constants of Ahn, Chen
    and Welling 2013 (Distributed and adaptive darting Monte Carlo through regenerations) and Lan,
    Streets and Shahbaba 2014 (Wormhole Hamiltonian Monte Carlo). Anchors and data are our own: of
    the seeds 0, 1, .. 3 is the first for which at least three sensors have, in draws of tempered
    SMC, two places apart (clusters by single linkage at 0.06) with 15 per cent of the mass each.

    What is hard: a sensor with two distances can stand on either side of the line between its
    neighbours, one with a single distance anywhere on a circle, and whole groups fold over at once;
    within a mode the density is 25 times narrower than the prior, and curved.
    """
    _, measured, observed = data(seed)

    def log_prob(parameters: dict[str, Float[Array, "sensors 2"]]) -> Float[Array, ""]:
        place = parameters["place"]
        every = jnp.concatenate([place, jnp.asarray(ANCHORS, place.dtype)])
        squared = jnp.sum((every[_FIRST] - every[_SECOND]) ** 2, axis=1) + 1e-12  # a gradient where two meet
        unlikely = squared / (2 * RANGE**2)
        off = (jnp.sqrt(squared) - jnp.asarray(measured, place.dtype)) / NOISE
        seen = -unlikely - 0.5 * off**2 - jnp.log(NOISE * jnp.sqrt(2 * jnp.pi))
        prior = -0.5 * ((place - CENTRE) / WIDTH) ** 2 - jnp.log(WIDTH * jnp.sqrt(2 * jnp.pi))
        return jnp.sum(jnp.where(observed, seen, jnp.log(-jnp.expm1(-unlikely)))) + jnp.sum(prior)

    return Target.of_tree(log_prob, {"place": jnp.zeros((SENSORS, 2))}, name="sensors")
