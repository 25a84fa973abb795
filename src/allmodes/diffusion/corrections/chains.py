"""A chain for each draw, which leaves the target invariant, from weighted draws of a sampler."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from allmodes.diffusion.corrections.chain_moves import enough, starts
from allmodes.diffusion.corrections.correction import Correction, blocks_of
from allmodes.diffusion.corrections.proposal import proposal_of
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate, ess, khat, log_z
from allmodes.draws.verdict import Pool
from allmodes.errors import ConfigError
from allmodes.progress.stages import parts_of
from allmodes.target import Target

PARTICLE_MOVES = 30  # of particles, whose energies are stiff: one a free dimension, and so many at least


@dataclasses.dataclass(frozen=True)
class Chains(Correction):
    """Each draw is the end of a chain of its own that leaves the target invariant.

    Raw draws, until `effective` for each chain are effective but at most `pool`, are resampled by
    their weights. Where so many would not give each chain one that is effective, it chooses between
    two of its own. Then come `rounds` of noising and denoising, for a sampler whose paths cost no
    evaluations, and Hamiltonian `moves`. Draws of equal weight; log Z is that of all the raw ones;
    `n (raw + 1 + rounds + 10 moves)` evaluations.
    """

    rounds: int | None = None
    """Proposals by noising and denoising; 2 when not given, and none for particles, whose networks
    are dearer than their moves."""
    moves: int | None = None
    """Hamiltonian moves of a chain that is to forget the sampler's local errors; 5 when not given,
    for particles one for each free dimension, at least 30."""
    pool: int | None = None
    """Most raw draws for each chain, out of which it starts; 16 when not given, for particles 2,
    whose networks are dear."""
    effective: float = 4.0
    """Effective draws for each chain, after which no more are made: mode weights then err 1.12
    times as independent draws."""

    def __post_init__(self):
        for name, least in (("rounds", 0), ("moves", 1), ("pool", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}")
        if not self.effective > 0:
            raise ConfigError(f"effective must be positive, got {self.effective}")

    def for_target(self, target: Target) -> "Chains":
        """Give the same with numbers where there were none."""
        particles = target.symmetry is not None
        rounds, moves, pool = (0, max(PARTICLE_MOVES, target.free_dim), 2) if particles else (2, 5, 16)
        return dataclasses.replace(
            self,
            rounds=rounds if self.rounds is None else self.rounds,
            moves=moves if self.moves is None else self.moves,
            pool=pool if self.pool is None else self.pool,
        )

    def __call__(self, sampler: Any, n: int, *, key: Array, steps: int | None = None) -> Draws:
        """Draw n, a chain for each, a block of them at a time."""
        settings, proposal = self.for_target(sampler.target), proposal_of(sampler)
        is_free = proposal.process is not None and not proposal.process.path_evaluations(1)
        rounds = settings.rounds if is_free else 0
        keys, size = blocks_of(key, n)
        ends, log_weights, effective, cost = [], [], 0.0, 0
        for block in parts_of(keys, f"correcting {n:,}"):
            k_pool, k_start, k_move = jax.random.split(block, 3)
            z, log_w = [], []
            while not z or not enough(jnp.stack(log_w), settings.pool, self.effective):
                raw, log_weight, spent = proposal.paths(jax.random.fold_in(k_pool, len(z)), size, steps)
                z.append(raw)
                log_w.append(log_weight)
                cost += spent
            index = starts(k_start, jnp.stack(log_w))
            x, log_prob, spent = proposal.chains(k_move, jnp.concatenate(z)[index], steps, rounds, settings.moves)
            ends.append((x, log_prob))
            log_weights += log_w
            effective += ess(jnp.concatenate(log_w))
            cost += spent
        x, log_prob = (jnp.concatenate(part)[:n] for part in zip(*ends, strict=True))
        raw = jnp.concatenate(log_weights)
        value, std_error = log_z(raw)
        seen, spent = proposal.look_forward()
        evidence = Estimate(value + proposal.frame.constant, std_error)
        # Shares of modes keep the errors of the weighted draws that the chains start from, on top
        # of their own.
        independent = effective / (effective + n)
        return Draws(
            x, log_prob, jnp.zeros(n), cost + spent, evidence, independent=independent,
            parameters=proposal.target.parameters,
            pool=Pool(len(raw), ess(raw), khat(raw), std_error, seen),
        )  # fmt: skip
