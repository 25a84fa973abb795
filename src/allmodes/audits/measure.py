"""Fresh draws of both sides, each in its basin: what shares are counted from."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from allmodes.audits.basins import Basins
from allmodes.audits.explorers import populations
from allmodes.audits.proposal import Proposal, log_mixture, refit
from allmodes.draws.estimates import Estimate, khat
from allmodes.draws.verdict import MAX_KHAT, MIN_EFFECTIVE
from allmodes.modes.masses import Shares, of_draws, of_mixture, of_populations
from allmodes.points.found import SearchResult
from allmodes.sampler import Sampler
from allmodes.target import Target

ADAPTED = 3  # rounds of population Monte Carlo, with a quarter of the draws each
MOST_DIM = 64  # above, a mixture of Gaussians is not tried
LEAST_EFFECTIVE = 0.02  # share of the mixture's draws, for their weights to be relied on
FALLBACK = 8  # populations of SMC, where they are not


@dataclasses.dataclass(frozen=True)
class Measured:
    """Draws of one side: points in the frame, their basins and log weights, and the shares of
    basins after `fold`.

    `fold` maps a basin to the one that it is counted with.
    """

    z: Float[np.ndarray, "n free"]
    label: Int[np.ndarray, " n"]
    log_weight: Float[np.ndarray, " n"]
    shares: Callable[[Int[np.ndarray, " basins"]], tuple[Shares, Estimate | None]]
    evaluations: int
    weighted: bool = True
    khat: float = 0.0


Measure = Callable[[Array, int], Measured]


def adapt(target: Target, basins: Basins, proposal: Proposal, key: Array, n: int) -> tuple[Proposal, int]:
    """Fit the mixture to the density in a few rounds of n draws; and the evaluations."""
    values, spent = _values(target, basins), 0
    for subkey in jax.random.split(key, ADAPTED):
        z, parts, log_weight, _ = _weighted(values, proposal, subkey, n)
        if not bool(jnp.any(log_weight > -jnp.inf)):
            return proposal, spent + len(z)
        counts = proposal.counts(n)
        share = jnp.asarray(counts / counts.sum(), jnp.float32)
        proposal, spent = refit(proposal, z, parts, log_weight, share), spent + len(z)
    return proposal, spent


def by_mixture(target: Target, basins: Basins, proposal: Proposal) -> Measure:
    """Masses by importance sampling from the mixture: a value for each draw, and what ascents to
    its peak take.
    """
    values, total = _values(target, basins), basins.count + 1

    def measure(key: Array, n: int) -> Measured:
        z, _, log_weight, stratum = _weighted(values, proposal, key, n)
        label, spent = basins.label(z)
        log_weight = np.asarray(log_weight, float)
        of = lambda fold: of_mixture(log_weight, fold[label], stratum, total)  # noqa: E731
        return Measured(np.asarray(z), label, log_weight, of, spent + len(z), True, khat(log_weight))

    return measure


def possible(target: Target) -> bool:
    """Whether a mixture of Gaussians is worth a trial: not for particles, whose basins are copied
    by symmetry.
    """
    return target.symmetry is None and target.dim <= MOST_DIM


def usable(measured: Measured, basins: int) -> bool:
    """Whether a mixture's weights can be relied on: enough of the draws are effective, and their
    tail is light.
    """
    if not measured.log_weight.max() > -np.inf:
        return False
    effective = measured.shares(np.arange(basins))[0].effective
    return measured.khat <= MAX_KHAT and effective >= max(MIN_EFFECTIVE, LEAST_EFFECTIVE * len(measured.z))


def by_populations(target: Target, basins: Basins, found: SearchResult) -> Measure:
    """Masses by the shares of eight fresh populations of tempered SMC; how many draws are asked for
    does not matter.
    """
    total = basins.count + 1

    def measure(key: Array, n: int) -> Measured:
        explored = populations(target, found, key, FALLBACK)
        z = np.concatenate([e.z for e in explored])
        label, spent = basins.label(z)
        log_zs = np.array([e.log_z for e in explored], float)
        ends = np.cumsum([len(e.z) for e in explored])[:-1]
        of = lambda fold: of_populations(np.split(fold[label], ends), log_zs, total)  # noqa: E731
        log_weight = np.repeat(log_zs, [len(e.z) for e in explored])
        return Measured(z, label, log_weight, of, spent + sum(e.evaluations for e in explored))

    return measure


def by_sampler(sampler: Sampler, basins: Basins) -> Measure:
    """Masses from the sampler's draws with their weights; equally weighted where those cannot be
    relied on.
    """
    total = basins.count + 1

    def measure(key: Array, n: int) -> Measured:
        draws = sampler.sample(n, key=key)
        log_weight = np.asarray(draws.log_weight, float)
        equal = bool(draws.chains) or bool(np.all(log_weight == log_weight[0]))
        effective = float(draws.ess)
        weighted = not equal and effective >= MIN_EFFECTIVE and draws.khat <= MAX_KHAT
        if not weighted:
            log_weight = np.zeros(n)
            effective = effective if equal else float(n)
        z = np.asarray(basins.frame.to_z(draws.x))
        label, spent = basins.label(z)
        of = lambda fold: (of_draws(log_weight, fold[label], total, effective), None)  # noqa: E731
        return Measured(z, label, log_weight, of, spent + draws.evaluations, weighted or equal)

    return measure


def _values(target: Target, basins: Basins) -> Callable[[Float[Array, "n free"]], Float[Array, " n"]]:
    return jax.jit(lambda z: basins.frame.values(target, z))


def _weighted(values: Callable[[Array], Array], proposal: Proposal, key: Array, n: int) -> tuple:
    """Stratified draws of the mixture, their log-densities by stratum, log weights, and strata."""
    counts = proposal.counts(n)
    stratum = np.repeat(np.arange(len(counts)), counts)
    z = proposal.draw(key, jnp.asarray(stratum))
    parts = proposal.log_parts(z)
    return z, parts, values(z) - log_mixture(parts, counts), stratum
