"""Where the audit looks: explorers that know nothing of the sampler. A new one is one function and
one line.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from allmodes.mcmc.tempered_smc import tempering
from allmodes.methods import Tempering
from allmodes.points.found import SearchResult
from allmodes.search.settle import locate
from allmodes.target import Target
from allmodes.training.fit import fit

POPULATIONS = 4  # independent ones of tempered SMC


class Explored(NamedTuple):
    """Points `(n, dim)` in the frame of what was found, what they cost, and log Z where they are a
    population of SMC.

    A population's points are equally weighted draws of the target, as far as it has reached it.
    """

    name: str
    z: Float[np.ndarray, "n dim"]
    evaluations: int
    log_z: float | None = None


Explorer = Callable[[Target, SearchResult, Array], list[Explored]]


def climbs(target: Target, found: SearchResult, key: Array) -> list[Explored]:
    """The climbs from broad starts that found the frame: nothing is evaluated again."""
    return [Explored("climbs", np.asarray(found.points.z), 0)]


def populations(target: Target, found: SearchResult, key: Array, count: int = POPULATIONS) -> list[Explored]:
    """Independent populations of adaptive tempered SMC, each half as large as the number of
    climbs.
    """
    found = found._replace(points=found.points.take(jnp.arange(max(1, found.points.size // 2))))
    run, before = tempering(target, found), int(found.evaluations.log_prob)
    explored = []
    for subkey in jax.random.split(key, count):
        end = run(subkey)
        cost = int(end.found.evaluations.log_prob) - before
        explored.append(Explored("tempered SMC", np.asarray(end.found.points.z), cost, end.log_z))
    return explored


def replicas(target: Target, found: SearchResult, key: Array) -> list[Explored]:
    """Parallel tempering, its ladder adapted a little: an eighth as many points as climbs, no more
    than 512.
    """
    k_fit, k_draw = jax.random.split(key)
    fitted = fit(target, Tempering(steps=20, sweeps=5, temperatures=12, thin=1), key=k_fit)
    draws = fitted.sample(min(512, max(1, found.points.size // 8)), key=k_draw)
    z = np.asarray(found.frame.to_z(draws.x))
    return [Explored("parallel tempering", z, fitted.evaluations["log_prob"] + draws.evaluations)]


EXPLORERS: tuple[Explorer, ...] = (climbs, populations, replicas)


def first_look(target: Target, key: Array, size: int) -> tuple[SearchResult, int]:
    """`size` climbs from broad starts, in a frame that fits the target, and their evaluations.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    k_search, k_settle = jax.random.split(key)
    found = locate(target, size, k_search, k_settle)
    return found, int(found.evaluations.log_prob)


def pool_weights(pool: list[Explored]) -> Float[np.ndarray, " n"]:
    """What a point counts when basins are ranked: populations by their estimates of Z, the others
    by their numbers.

    Populations share one unit, and the others a tenth each: where their points lie says little of
    the mass.
    """
    log_zs = np.array([-np.inf if e.log_z is None else e.log_z for e in pool])
    top = log_zs.max()
    share = np.exp(log_zs - top) if top > -np.inf else np.zeros(len(pool))
    share = share / max(share.sum(), 1e-300)
    each = [part if e.log_z is not None else 0.1 for e, part in zip(pool, share, strict=True)]
    return np.concatenate([np.full(len(e.z), part / max(len(e.z), 1)) for e, part in zip(pool, each, strict=True)])


def known(pool: list[Explored]) -> Bool[np.ndarray, " n"]:
    """Which points are about draws of the target: those of populations."""
    return np.concatenate([np.full(len(e.z), e.log_z is not None) for e in pool])
