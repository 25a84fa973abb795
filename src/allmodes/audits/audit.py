"""The audit of a sampler from beginning to end (`allmodes audit`)."""

import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.audits import compare
from allmodes.audits.basins import Basins, find_basins
from allmodes.audits.density import log_ratios, representatives
from allmodes.audits.explorers import EXPLORERS, Explored, Explorer, first_look, known, pool_weights
from allmodes.audits.masses import Shares
from allmodes.audits.measure import Measure, Measured, adapt, by_mixture, by_populations, by_sampler, possible, usable
from allmodes.audits.proposal import first_proposal
from allmodes.audits.result import ELSEWHERE, Audit, Basin
from allmodes.devices.precision import single
from allmodes.draws.verdict import MIN_EFFECTIVE
from allmodes.errors import ConfigError
from allmodes.points.found import Found
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


@single
def audit(
    sampler: Sampler,
    *,
    key: Array,
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
    target = sampler.target if against is None else against
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
    k_look, k_explore, k_own, k_adapt, k_first, k_again, k_ratio = jax.random.split(key, 7)

    say("searching from broad starts and by tempered SMC")
    found, looked = first_look(target, k_look, int(np.clip(n // 5, *CLIMBS)))
    explored = _explore(target, found, EXPLORERS if explorers is None else explorers, k_explore)
    own = sampler.sample(min(n, OWN), key=k_own)
    z = np.asarray(found.frame.to_z(own.x))
    pool = [*explored, Explored("the sampler", z[np.isfinite(z).all(axis=1)], 0)]
    spent = {"explore": looked + sum(e.evaluations for e in explored), "sampler": own.evaluations}

    say(f"climbing to the peaks from {sum(len(e.z) for e in pool):,} points")
    narrow = float(jnp.min(found.tau))
    points = np.concatenate([e.z for e in pool])
    basins, label, spent["basins"] = find_basins(target, found.frame, narrow, points, pool_weights(pool), known(pool))
    say(f"{basins.count} basins: counting {n:,} draws of each side")

    theirs = by_sampler(sampler, basins)
    ours, our, masses, spent["masses"] = _ours(target, found, basins, points, label, narrow, k_adapt, n)
    their = theirs(k_first, n)
    spent["masses"], spent["sampler"] = spent["masses"] + our.evaluations, spent["sampler"] + their.evaluations

    everything = np.arange(basins.count + 1)
    small = compare.small(our.shares(everything)[0], their.shares(everything)[0])
    fold = np.where(small, basins.count, everything)
    (audited, log_z), (sampled, _) = our.shares(fold), their.shares(fold)
    log_z = log_z._replace(value=log_z.value + basins.frame.constant)
    off, again = compare.z_scores(audited, sampled), None
    if compare.flags(off).any():
        say(f"{compare.flags(off).sum()} basins differ: testing them with {AGAIN * n:,} new draws of each side")
        k_ours, k_theirs = jax.random.split(k_again)
        our_new, their_new = ours(k_ours, AGAIN * n), theirs(k_theirs, AGAIN * n)
        spent["masses"], spent["sampler"] = (
            spent["masses"] + our_new.evaluations, spent["sampler"] + their_new.evaluations,
        )  # fmt: skip
        again = compare.z_scores(our_new.shares(fold)[0], their_new.shares(fold)[0])
    differs = np.zeros(len(off), bool) if again is None else compare.confirmed(off, again)

    say("asking the sampler for its density in each basin")
    ratios, asked = _ratios(sampler, target, basins, our, fold, log_z.value, k_ratio)
    spent["sampler"] += asked
    notes = _notes(basins, small, masses, their, sampled)
    listed = _listed(basins, audited, sampled, off, again, differs, ratios, _finders(pool, label, fold), small)
    return Audit(
        target.name, listed, compare.verdict(audited, sampled, differs, notes), masses, log_z, n,
        {"audit": round(audited.effective, 1), "sampler": round(sampled.effective, 1)}, int(small.sum()),
        basins.left_out, spent | {"all": sum(spent.values())}, round(time.monotonic() - begin, 1),
        np.asarray(own.x)[:SHOWN],
    )  # fmt: skip


def _explore(target: Target, found: Found, explorers: Sequence[Explorer], key: Array) -> list[Explored]:
    keys = jax.random.split(key, len(explorers))
    return [e for explore, subkey in zip(explorers, keys, strict=True) for e in explore(target, found, subkey)]


def _ours(
    target: Target,
    found: Found,
    basins: Basins,
    points: Float[np.ndarray, "n free"],
    label: Int[np.ndarray, " n"],
    narrow: float,
    key: Array,
    n: int,
) -> tuple[Measure, Measured, str, int]:
    """How the audit measures masses, its first measurement, its name, and evaluations spent on the
    way to it.
    """
    k_adapt, k_first, k_other = jax.random.split(key, 3)
    spent = 0
    if possible(target):
        of_each = np.bincount(basins.group, minlength=basins.count + 1)
        proposal = first_proposal(points, label, basins.count, of_each, narrow, 0)
        proposal, spent = adapt(target, basins, proposal, k_adapt, n // 4)
        measure = by_mixture(target, basins, proposal)
        first = measure(k_first, n)
        if usable(first, basins.count + 1):
            return measure, first, MIXTURE, spent
        spent += first.evaluations
    measure = by_populations(target, basins, found)
    return measure, measure(k_other, n), POPULATIONS, spent


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


def _finders(pool: list[Explored], label: Int[np.ndarray, " n"], fold: Int[np.ndarray, " basins"]) -> list[list[str]]:
    """For each basin, the names of the explorers that had a point in it."""
    ends = np.cumsum([len(e.z) for e in pool])[:-1]
    names: list[list[str]] = [[] for _ in fold]
    for e, part in zip(pool, np.split(fold[label], ends), strict=True):
        for basin in np.unique(part):
            if e.name not in names[basin]:
                names[basin].append(e.name)
    return names


def _notes(basins: Basins, small: Bool[np.ndarray, " b"], masses: str, their: Measured, sampled: Shares) -> list[str]:
    notes = [f"the audit's masses: {masses}"]
    if masses == POPULATIONS:
        notes.append("a basin that these lose on the way cannot be judged")
    if basins.left_out:
        notes.append(f"{basins.left_out} lighter basins beyond the {basins.count} heaviest are counted as {ELSEWHERE}")
    if small.any():
        least = f"{compare.LEAST:g} of the mass"
        notes.append(f"{small.sum()} basins to which neither side gives {least} are counted as {ELSEWHERE}")
    if not their.weighted:
        notes.append("the sampler's weights cannot be relied on: its draws are counted as they are")
    if sampled.effective < MIN_EFFECTIVE:
        notes.append(f"only {sampled.effective:.3g} of the sampler's draws are effective: little can be told from them")
    return notes


def _listed(
    basins: Basins,
    audited: Shares,
    sampled: Shares,
    off: Float[np.ndarray, " b"],
    again: Float[np.ndarray, " b"] | None,
    differs: Bool[np.ndarray, " b"],
    ratios: Float[np.ndarray, " b"],
    finders: list[list[str]],
    small: Bool[np.ndarray, " b"],
) -> list[Basin]:
    top = basins.top()
    peaks = np.asarray(basins.frame.to_x(jnp.asarray(basins.peaks[top])), float)
    heights = basins.heights[top] - float(basins.frame.log_det) + basins.frame.constant
    order = np.lexsort((-audited.mass, -np.abs(off) * differs))
    listed = []
    for i in order:
        last = i == basins.count
        if small[i] or (last and max(audited.mass[i], sampled.mass[i]) == 0.0):
            continue
        listed.append(
            Basin(
                ELSEWHERE if last else str(i + 1), None if last else peaks[i].tolist(),
                None if last else float(heights[i]), float(audited.mass[i]), float(audited.std_error[i]),
                float(sampled.mass[i]), float(sampled.std_error[i]),
                None if np.isnan(ratios[i]) else float(ratios[i]), float(off[i]),
                None if again is None or not compare.flags(off)[i] else float(again[i]), bool(differs[i]), finders[i],
            )
        )  # fmt: skip
    return listed
