"""The audit of a sampler from beginning to end (`allmodes audit`)."""

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from allmodes.audits import compare
from allmodes.audits.basins import Basins, find_basins
from allmodes.audits.density import log_ratios, representatives
from allmodes.audits.explorers import EXPLORERS, Explored, Explorer, first_look, known, pool_weights
from allmodes.audits.listing import Compared, finders, in_bounds, listed, notes_on
from allmodes.audits.measure import Measure, Measured, adapt, by_mixture, by_populations, by_sampler, possible, usable
from allmodes.audits.proposal import first_proposal
from allmodes.audits.result import Audit
from allmodes.devices.callbacks import watched
from allmodes.devices.keys import Key, keyed
from allmodes.devices.precision import single
from allmodes.errors import ConfigError
from allmodes.points.found import SearchResult
from allmodes.sampler import Sampler
from allmodes.target import Target

DRAWS, PARTICLE_DRAWS = 20_000, 2000  # of each side
LEAST_DRAWS = 500
CLIMBS = 512, 4096  # from broad starts: a fifth of the draws, within these
OWN = 4000  # of the sampler's draws in the pool, at most
SHOWN = 3000  # of them kept for the picture
AGAIN = 4  # times as many draws where a difference is tested again
MIXTURE = "importance sampling from a mixture over the basins"
POPULATIONS = "shares of independent populations of tempered SMC"


Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class _Searched:
    """Points of the pool in the frame of what was found, the narrowest spread in it, the basins
    that they climb to, and some of the sampler's own draws.
    """

    found: SearchResult
    pool: list[Explored]
    points: Float[np.ndarray, "n free"]
    narrow: float
    basins: Basins
    label: Int[np.ndarray, " n"]
    own: Float[Array, "m dim"]


@dataclasses.dataclass(frozen=True)
class _Counted:
    """How each side measures masses, its first measurement, and what the audit's is called."""

    measure_ours: Measure
    measure_theirs: Measure
    ours: Measured
    theirs: Measured
    masses: str


@watched
@keyed
@single
def audit(
    sampler: Sampler,
    *,
    key: Key,
    against: Target | None = None,
    n: int | None = None,
    explorers: Sequence[Explorer] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Audit:
    """Search the density for what the sampler misses, and compare the mass of each basin.

    Explorers that do not know the sampler, and its own draws, make a pool of points; each climbs to
    its peak, and peaks with no barrier between them are one basin. Then fresh draws of both sides
    are counted: the audit's by importance sampling from a mixture fitted to the basins (where that
    fails, and for particles, by populations of tempered SMC), the sampler's with their weights.
    What differs by more than three standard errors is tested again, with four times as many new
    draws of both, and counts when it differs again on the same side.

    **Arguments**

    - `against`: another density to judge by; the one that the sampler was made for when not given.
    - `n`: draws of each side; 20,000, for particles 2,000.
    - `explorers`: those of `allmodes.audit.pool` when not given.
    - `progress`: called with a line of text now and then.

    **Raises** `ConfigError` when n is below 500, the dimensions differ or the density has no
    gradient, `TargetError` when it has no mass that can be found.
    """
    begin, say = time.monotonic(), progress or (lambda text: None)
    chart, target = sampler.target.chart, sampler.target if against is None else against
    n = _checked(sampler, target, n)
    sampler, target = sampler.free, target.free
    k_look, k_explore, k_own, k_adapt, k_first, k_again, k_ratio = jax.random.split(key, 7)
    keys, spent = (k_look, k_explore, k_own), Counter()
    searched = _search(sampler, target, EXPLORERS if explorers is None else explorers, keys, n, spent, say)
    say(f"{searched.basins.count} basins: counting {n:,} draws of each side")
    counted = _count(sampler, target, searched, (k_adapt, k_first), n, spent)
    compared = _compare(counted, searched.basins, k_again, n, spent, say)
    say("asking the sampler for its density in each basin")
    log_z = compared.log_z.value
    ratios, asked = _ratios(sampler, target, searched.basins, counted.ours, compared.fold, log_z, k_ratio)
    spent["sampler"] += asked
    notes = notes_on(searched.basins, compared, counted.masses, counted.theirs, POPULATIONS)
    found_by = finders(searched.pool, searched.label, compared.fold)
    basins, shown = listed(searched.basins, compared, ratios, found_by), np.asarray(searched.own)[:SHOWN]
    if chart is not None:
        basins, shown = [in_bounds(basin, chart) for basin in basins], np.asarray(jax.vmap(chart.to_x)(shown))
    return Audit(
        target=target.name,
        basins=basins,
        verdict=compare.verdict(compared.audited, compared.sampled, compared.differs, notes),
        masses=counted.masses,
        log_z=compared.log_z,
        draws=n,
        effective={name: round(side.effective, 1) for name, side in compared.sides.items()},
        small=int(compared.small.sum()),
        left_out=searched.basins.left_out,
        evaluations=dict(spent) | {"all": spent.total()},
        seconds=round(time.monotonic() - begin, 1),
        shown=shown,
    )


def _checked(sampler: Sampler, target: Target, n: int | None) -> int:
    """The draws of each side. **Raises** as `audit` says."""
    if target.dim != sampler.target.dim:
        raise ConfigError(f"the run has dimension {sampler.target.dim}, the density to judge it by {target.dim}")
    if not target.differentiable:
        raise ConfigError(
            f"an audit climbs to peaks along gradients, and {target.name} has none: compare with "
            "another method instead (allmodes run .. --method smc), or give the gradient"
        )
    n = (DRAWS if target.symmetry is None else PARTICLE_DRAWS) if n is None else n
    if n < LEAST_DRAWS:
        raise ConfigError(f"an audit needs n of at least {LEAST_DRAWS}, got {n}")
    target.check()
    return n


def _search(
    sampler: Sampler,
    target: Target,
    explorers: Sequence[Explorer],
    keys: tuple[Array, Array, Array],
    n: int,
    spent: Counter,
    say: Say,
) -> _Searched:
    """Gather points of the explorers and of the sampler, and climb from them to the basins."""
    k_look, k_explore, k_own = keys
    say("searching from broad starts and by tempered SMC")
    found, looked = first_look(target, k_look, int(np.clip(n // 5, *CLIMBS)))
    explored = _explore(target, found, explorers, k_explore)
    own = sampler.sample(min(n, OWN), key=k_own)
    z = np.asarray(found.frame.to_z(own.x))
    pool = [*explored, Explored("the sampler", z[np.isfinite(z).all(axis=1)], 0)]
    spent["explore"] += looked + sum(e.evaluations for e in explored)
    spent["sampler"] += own.evaluations
    points, narrow = np.concatenate([e.z for e in pool]), float(jnp.min(found.tau))
    say(f"climbing to the peaks from {len(points):,} points")
    basins, label, climbed = find_basins(target, found.frame, narrow, points, pool_weights(pool), known(pool))
    spent["basins"] += climbed
    return _Searched(found, pool, points, narrow, basins, label, own.x)


def _explore(target: Target, found: SearchResult, explorers: Sequence[Explorer], key: Array) -> list[Explored]:
    keys = jax.random.split(key, len(explorers))
    return [e for explore, subkey in zip(explorers, keys, strict=True) for e in explore(target, found, subkey)]


def _count(
    sampler: Sampler, target: Target, searched: _Searched, keys: tuple[Array, Array], n: int, spent: Counter
) -> _Counted:
    """Draw afresh from both sides, and count in basins."""
    k_adapt, k_first = keys
    measure_theirs = by_sampler(sampler, searched.basins)
    measure_ours, ours, masses, adapting = _measured(target, searched, k_adapt, n)
    theirs = measure_theirs(k_first, n)
    spent["masses"] += adapting + ours.evaluations
    spent["sampler"] += theirs.evaluations
    return _Counted(measure_ours, measure_theirs, ours, theirs, masses)


def _measured(target: Target, searched: _Searched, key: Array, n: int) -> tuple[Measure, Measured, str, int]:
    """How the audit measures masses, its first measurement, its name, and evaluations spent on the
    way to it.
    """
    k_adapt, k_first, k_other = jax.random.split(key, 3)
    basins, spent = searched.basins, 0
    if possible(target):
        of_each = np.bincount(basins.group, minlength=basins.count + 1)
        proposal = first_proposal(searched.points, searched.label, basins.count, of_each, searched.narrow, 0)
        proposal, spent = adapt(target, basins, proposal, k_adapt, n // 4)
        measure = by_mixture(target, basins, proposal)
        first = measure(k_first, n)
        if usable(first, basins.count + 1):
            return measure, first, MIXTURE, spent
        spent += first.evaluations
    measure = by_populations(target, basins, searched.found)
    return measure, measure(k_other, n), POPULATIONS, spent


def _compare(counted: _Counted, basins: Basins, key: Array, n: int, spent: Counter, say: Say) -> Compared:
    """Compare the shares, small basins together; test again, with new draws, what differs."""
    everything = np.arange(basins.count + 1)
    small = compare.small(counted.ours.shares(everything)[0], counted.theirs.shares(everything)[0])
    fold = np.where(small, basins.count, everything)
    (audited, log_z), (sampled, _) = counted.ours.shares(fold), counted.theirs.shares(fold)
    log_z = log_z._replace(value=log_z.value + basins.frame.constant)
    off = compare.z_scores(audited, sampled)
    if not compare.flags(off).any():
        return Compared(fold, small, audited, sampled, log_z, off)
    say(f"{compare.flags(off).sum()} basins differ: testing them with {AGAIN * n:,} new draws of each side")
    k_ours, k_theirs = jax.random.split(key)
    ours, theirs = counted.measure_ours(k_ours, AGAIN * n), counted.measure_theirs(k_theirs, AGAIN * n)
    spent["masses"] += ours.evaluations
    spent["sampler"] += theirs.evaluations
    again = compare.z_scores(ours.shares(fold)[0], theirs.shares(fold)[0])
    return Compared(fold, small, audited, sampled, log_z, off, again)


def _ratios(
    sampler: Sampler,
    target: Target,
    basins: Basins,
    our: Measured,
    fold: Int[np.ndarray, " basins"],
    log_z: float,
    key: Array,
) -> tuple[Float[np.ndarray, " basins"], int]:
    """Mean log ratio of densities in each basin, NaN where it cannot be told; and the
    evaluations.
    """
    chosen = representatives(fold[our.label], our.log_weight, len(fold), 0)
    rows = np.flatnonzero((chosen >= 0).all(axis=1))
    means = np.full(len(fold), np.nan)
    if len(rows) == 0:
        return means, 0
    x = basins.frame.to_x(jnp.asarray(our.z[chosen[rows].ravel()]))
    ratios, spent = log_ratios(sampler, target, log_z, x, key=key)
    if ratios is not None:
        means[rows] = ratios.reshape(len(rows), -1).mean(axis=1)
    return np.where(np.isfinite(means), means, np.nan), spent
