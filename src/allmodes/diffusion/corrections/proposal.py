"""What corrections start from: the weighted draws of any sampler, or the paths of a diffusion."""

import functools
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.diffusion import blocks
from allmodes.diffusion.corrections.chain_moves import Plan, chain_evaluations, chains
from allmodes.diffusion.paths import Process
from allmodes.draws.doubt import Forward
from allmodes.draws.estimates import Estimate, ess
from allmodes.draws.verdict import Finding
from allmodes.errors import ConfigError
from allmodes.points.frame import Frame
from allmodes.target import Target


class Raw(NamedTuple):
    """Weighted draws in normalised coordinates, and what they cost.

    `independent` is the share of their effective number that counts as such; `evidence` is log Z
    where it is not that of the weights; `rhat` is the R^ of those that come from chains;
    `findings` are what the sampler found out about them.
    """

    z: Float[Array, "n free"]
    log_weight: Float[Array, " n"]
    evaluations: int
    independent: float = 1.0
    evidence: Estimate | None = None
    rhat: float | None = None
    findings: tuple[Finding, ...] = ()


@runtime_checkable
class Proposal(Protocol):
    """What chains ask for. `process` is None where draws do not come by paths; `findings` are true
    of all draws.
    """

    target: Target
    frame: Frame
    process: Process | None
    findings: tuple[Finding, ...]

    def paths(self, key: Array, n: int, steps: int | None) -> Raw:
        """Draw n, with weights."""
        ...

    def chains(self, key: Array, z: Array, steps: int | None, plan: Plan) -> tuple[Array, Array, int]:
        """Give the ends of chains from z, in the user's coordinates, their log-densities, and what
        they cost.
        """
        ...

    def look_forward(self) -> tuple[Forward | None, int]:
        """Give what points of the target see, None where nothing tells, and what it cost."""
        ...


@runtime_checkable
class PathProposal(Proposal, Protocol):
    """What SMC along the path asks for besides."""

    def smc(self, key: Array, n: int, steps: int | None, settings: Any) -> tuple[Array, Array, Array, int]:
        """Draw one population of n by a `PathSMC`: x, log_prob, log_weight, and what it cost."""
        ...


class WeightedDraws:
    """The proposal of a sampler without paths: `sample`, whose draws have weights.

    Chains run in the frame of the sampler; where it has none, in the user's coordinates.

    **Raises** `ConfigError` when the density is in float64 and the sampler has no frame, because
    float32 would not resolve it.
    """

    process = None
    findings = ()  # each of the draws has its own

    def __init__(self, sampler: Any):
        self.sampler, self.target = sampler, sampler.target
        zero = np.zeros(self.target.free_dim)
        if sampler.frame is None and self.target.double:
            raise ConfigError("chains of a density in float64 need a sampler that has a frame")
        self.frame: Frame = sampler.frame or Frame.of(self.target, zero, zero + 1.0)

    def paths(self, key: Array, n: int, steps: int | None) -> Raw:
        """Draw n of the sampler."""
        draws = self.sampler.sample(n, key=key)
        log_weight = np.asarray(draws.log_weight, np.float64) - self.frame.constant
        effective = ess(draws.log_weight)
        share = min(1.0, draws.ess / effective) if effective else 1.0
        z = self.frame.to_z(draws.x)
        log_weight = jnp.asarray(log_weight, jnp.float32)
        return Raw(z, log_weight, draws.evaluations, share, draws.evidence, draws.rhat, draws.findings)

    def chains(self, key: Array, z: Array, steps: int | None, plan: Plan) -> tuple[Array, Array, int]:
        """Give the ends of chains from z, their log-densities, and what they cost."""
        x, log_prob = program(_chains, self.target, static=(3,))(self.frame, key, z, plan)
        return x, log_prob, len(z) * chain_evaluations(plan.rounds, plan.moves)

    def look_forward(self) -> tuple[None, int]:
        """Tell nothing: no path leads back from a point."""
        return None, 0


def _chains(target: Target, frame: Frame, key: Array, z: Array, plan: Plan) -> tuple[Array, Array]:
    functions = functools.partial(frame.evaluate, target), functools.partial(frame.value, target)
    block, differentiable = target.block(blocks.BLOCK), target.differentiable
    points = chains(None, *functions, key, z, 2, plan, block, differentiable)
    return frame.to_x(points.z), frame.log_prob(points.log_prob)


def proposal_of(sampler: Any) -> Proposal:
    """Give what a sampler offers to corrections: its paths, or else its weighted draws."""
    own = sampler.proposal()
    if own is not None:
        return own
    # Kept by the sampler, as its own compiled programs are: the next call compiles nothing.
    return vars(sampler).setdefault("_weighted_draws", WeightedDraws(sampler))
