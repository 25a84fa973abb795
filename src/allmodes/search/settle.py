"""A frame as wide as the target, by small tempered runs, where the search's own may be too wide."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.mcmc.tempered_smc import tempering
from allmodes.points.found import SearchResult, normalise
from allmodes.search.search import search
from allmodes.target import Target

PILOT, FEW = 1024, 64  # particles of the runs that find the target's spread, and the fewest
PILOTS = 6
SETTLED = 0.1  # largest relative change of the spread between the last two of them


def warm_start(target: Target, found: SearchResult, key: Array) -> SearchResult:
    """Replace the search's points by as many particles of `tempering`, in a frame that fits
    them.
    """
    k_settle, k_temper = jax.random.split(key)
    if target.symmetry is not None:
        found = settle(target, found, k_settle, max(FEW, min(PILOT, found.points.size // 4)))
    return normalise(tempering(target, found)(k_temper).found, target.differentiable)


def locate(target: Target, size: int, k_search: Array, k_settle: Array) -> SearchResult:
    """Where the density has its mass, by a search; of particles, in a frame that is settled."""
    found = search(target, k_search, size).filled(size)
    return found if target.symmetry is None else settle(target, found, k_settle, PILOT)


def settle(target: Target, found: SearchResult, key: Array, size: int) -> SearchResult:
    """The same points in a frame as wide as the target.

    Climbs from scattered starts end in scattered particles, so the search's spread of a particle
    system can be several times too large. A small tempered run from it, of `size` particles, gives
    a better one, and so on until the spread stays. Where it does not within `PILOTS` runs, the last
    is taken.
    """
    few = found._replace(points=found.points.take(jnp.arange(size) % found.points.size))
    run = tempering(target, few)
    for subkey in jax.random.split(key, PILOTS):
        before, few = few.frame.scale, normalise(run(subkey, few).found)
        if jnp.all(jnp.abs(few.frame.scale / before - 1.0) < SETTLED):
            break
    return few._replace(points=few.points.take(jnp.arange(found.points.size) % size))


def gauging(target: Target, found: SearchResult) -> Callable[[Array], SearchResult]:
    """A function of a key: the same points in a frame as wide as what small tempered runs end with,
    taken together.

    Climbs also end in basins of next to no mass, and the search's frame is as wide as they are
    scattered. Of a Gaussian like that few particles come to where the mass is, and all the others
    descend from them: a run has right widths of modes and wrong masses, and may lose modes. So
    there are `PILOTS` runs that know nothing of each other, and none begins in the frame that
    another one made: what had been lost there would stay lost.
    """
    few = found._replace(points=found.points.take(jnp.arange(PILOT) % found.points.size))
    run = tempering(target, few)

    def gauge(key: Array) -> SearchResult:
        pilot, parts = few, []
        for subkey in jax.random.split(key, PILOTS):
            pilot = run(subkey, few._replace(evaluations=pilot.evaluations)).found
            parts.append(pilot.points)
        points = jax.tree.map(lambda *part: jnp.concatenate(part), *parts)
        wide = normalise(pilot._replace(points=points), target.differentiable)
        return wide._replace(points=wide.points.take(jnp.arange(found.points.size) % points.size))

    return gauge
