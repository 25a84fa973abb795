"""A chain for each draw, which leaves the target invariant, from weighted draws of a sampler."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from allmodes.diffusion.blocks import blocks_of
from allmodes.diffusion.corrections.chain_moves import Plan, enough, starts
from allmodes.diffusion.corrections.correction import Correction
from allmodes.diffusion.corrections.proposal import Proposal, Raw, proposal_of
from allmodes.draws.doubt import Forward
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate, beyond_largest, ess, khat, log_z
from allmodes.draws.verdict import TRUSTED, Finding, Pool, of_chains
from allmodes.errors import ConfigError
from allmodes.progress.stages import parts_of
from allmodes.target import Target


@dataclasses.dataclass(frozen=True)
class Chains(Correction):
    """Each draw is the end of a chain of its own that leaves the target invariant.

    Raw draws, until `effective` for each chain are effective but at most `pool`, are resampled by
    their weights. Where so many would not give each chain one that is effective, it chooses between
    two of its own. Then come `rounds` of noising and denoising, for a sampler that draws by paths,
    and Hamiltonian `moves`. Draws of equal weight; log Z is that of all the raw ones;
    `n (raw + 1 + rounds + 10 moves)` evaluations, and those of the rounds' paths, where paths cost
    any.
    """

    rounds: int | None = None
    """Proposals by noising and denoising; 2 when not given, and none for particles, whose networks
    are dearer than their moves, where paths cost evaluations, and where there are no paths."""
    moves: int | None = None
    """Hamiltonian moves of a chain that is to forget the sampler's local errors; 5 when not given,
    for particles one for each free dimension, at least 30."""
    pool: int | None = None
    """Most raw draws for each chain, out of which it starts; 16 when not given, for particles 2,
    whose networks are dear."""
    effective: float = 4.0
    """Effective draws for each chain, after which no more are made: mode weights then err 1.12
    times as independent draws."""
    least: float = 1.0
    """Effective draws for each chain below which each chooses among draws of its own: to resample
    all together would make copies of few."""
    particle_moves: int = 30
    """Least number of moves for particles, whose energies are stiff, when `moves` is not given."""
    narrowest: float = 7.0
    """The narrowest scale of the target over the lowest noise, about: the first step of a random
    walk, where there is no gradient."""

    def __post_init__(self):
        for name, least in (("rounds", 0), ("moves", 1), ("pool", 1), ("particle_moves", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        for name in ("effective", "least", "narrowest"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")

    def for_target(self, target: Target, is_free: bool = True) -> "Chains":
        """Give the same with numbers where there were none; `is_free` where paths cost no
        evaluations.
        """
        particles = target.symmetry is not None
        moves, pool = (max(self.particle_moves, target.free_dim), 2) if particles else (5, 16)
        rounds = 2 if is_free and not particles else 0
        return dataclasses.replace(
            self,
            rounds=rounds if self.rounds is None else self.rounds,
            moves=moves if self.moves is None else self.moves,
            pool=pool if self.pool is None else self.pool,
        )

    def __call__(self, sampler: Any, n: int, *, key: Array, steps: int | None = None) -> Draws:
        """Draw n, a chain for each, a block of them at a time.

        **Raises** `ConfigError` when rounds are asked of a sampler without paths.
        """
        proposal = proposal_of(sampler)
        settings, (keys, size) = self._for_proposal(proposal), blocks_of(key, n)
        blocks = [settings._block(proposal, k, size, steps) for k in parts_of(keys, f"correcting {n:,}")]
        ends, raws, effective, cost = zip(*blocks, strict=True)
        x, log_prob = (jnp.concatenate(part)[:n] for part in zip(*ends, strict=True))
        raws = [raw for each in raws for raw in each]
        seen, spent = proposal.look_forward()
        evidence = evidence_of(raws, proposal.frame.constant)
        # Shares of modes keep the errors of the weighted draws that the chains start from, on top
        # of their own.
        independent = sum(effective) / (sum(effective) + n)
        found = (*proposal.findings, *findings_of(raws))
        return Draws(
            x, log_prob, jnp.zeros(n), sum(cost) + spent, evidence, independent=independent,
            parameters=proposal.target.parameters, pool=pool_of(raws, evidence, seen), findings=found,
        )  # fmt: skip

    def _for_proposal(self, proposal: Proposal) -> "Chains":
        process = proposal.process
        if process is None and self.rounds:
            raise ConfigError(f"rounds of noising need a sampler with a diffusion, got rounds={self.rounds}")
        return self.for_target(proposal.target, process is not None and not process.path_evaluations(1))

    def _block(
        self, proposal: Proposal, key: Array, size: int, steps: int | None
    ) -> tuple[tuple[Array, Array], list[Raw], float, int]:
        """Give the ends of one block of chains and their log-densities, the raw draws that they
        start from, how many of these are effective, and what all cost.
        """
        k_pool, k_start, k_move = jax.random.split(key, 3)
        raws, log_w = [], []
        while not raws or not enough(jnp.stack(log_w), self.pool, self.effective, self.least):
            raws.append(proposal.paths(jax.random.fold_in(k_pool, len(raws)), size, steps))
            log_w.append(raws[-1].log_weight)
        start = jnp.concatenate([raw.z for raw in raws])[starts(k_start, jnp.stack(log_w), self.least)]
        plan = Plan(self.rounds, self.moves, self.narrowest)
        x, log_prob, spent = proposal.chains(k_move, start, steps, plan)
        effective = ess(jnp.concatenate(log_w)) * min(raw.independent for raw in raws)
        return (x, log_prob), raws, effective, spent + sum(raw.evaluations for raw in raws)


def evidence_of(raws: Sequence[Raw], constant: float) -> Estimate:
    """Estimate log Z from all raw draws: from their weights, or as the mean of what each set of
    them says itself, NaN where one knows none; `constant` is what their weights are without.
    """
    own = [raw.evidence for raw in raws if raw.evidence is not None]
    if not own:
        value, std_error = log_z(jnp.concatenate([raw.log_weight for raw in raws]))
        return Estimate(value + constant, std_error)
    values, errors = np.array(own, float).T
    if not np.all(np.isfinite(values)):
        return Estimate(float("nan"), float("inf"))
    share = np.exp(values - np.max(values))
    error = np.sqrt(np.sum((share * errors) ** 2)) / np.sum(share)
    return Estimate(float(np.max(values) + np.log(np.mean(share))), float(error))


def pool_of(raws: Sequence[Raw], evidence: Estimate, seen: Forward | None) -> Pool | None:
    """Say what the weights of all raw draws show; None of chains, whose R^ does."""
    if raws[0].rhat is not None:
        return None
    log_w = jnp.concatenate([raw.log_weight for raw in raws])
    told = {} if seen is None else {"forward_ess": seen.ess, "doubt": seen.doubt(log_w)}
    shape = khat(log_w)
    return Pool(len(log_w), ess(log_w), shape, evidence.std_error, beyond=beyond_largest(log_w, shape), **told)


def findings_of(raws: Sequence[Raw]) -> tuple[Finding, ...]:
    """Give what was found out about the first set of raw draws, what is wrong with any other, and
    what R^ says of them: that of half of the sets is no larger.
    """
    first, *others = (raw.findings for raw in raws)
    wrong = (finding for each in others for finding in each if finding.word != TRUSTED)
    rhats = [raw.rhat for raw in raws if raw.rhat is not None]
    agree = (of_chains(float(np.median(rhats))),) if rhats else ()
    return tuple(dict.fromkeys((*agree, *first, *wrong)))
