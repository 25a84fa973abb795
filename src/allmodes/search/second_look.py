"""What draws of a plain method cannot show by themselves: that they have not settled, and where
none of them is.

Populations and chains that share a frame and a schedule agree on what all of them miss. So two
things are looked at that do not depend on that agreement:

- **Drift.** Local moves leave the target invariant, so the mean log-density of right draws stays
  what it is. Where narrow parts hold less than their share (the neck of a funnel), moves carry
  draws into them, and it rises.
- **Elsewhere.** Points that the method did not make, of the search and of populations from
  Gaussians ten times as wide: is each in a region in which there are draws? Of those that are not,
  an estimate of the mass around them (height and widths) says whether they matter.

Neither can see a region that no such point is in.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from allmodes.devices.compiled import program
from allmodes.draws.verdict import DO_NOT_USE, TRUSTED, Finding
from allmodes.mcmc.mala import first_steps, mala
from allmodes.mcmc.tempered_smc import UnreachedError
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.points.segments import COST, fall_between, nearest
from allmodes.search.mass import local_mass
from allmodes.target import Target

WIDER = (10.0, 10.0)  # frames of the wide populations, over the method's own
EXPLORERS = 256  # points from elsewhere: half of the search, half of the wide populations
DRAWS = 4096  # that are moved, at most
LEAST = 100  # draws, below which none is told anything
MOVES = 40
NEIGHBOURS = 2  # nearest draws that a point from elsewhere is tried with
DRIFT = 4.0  # standard errors between the mean log-density before and after the moves
FALL, FALL_PER_DIM = 5.0, 0.5  # of the log-density between points that are still in one region: regions may be bent
WORTH = 4.0  # log of the mass around a draw over that around a point from elsewhere, beyond which it is left out
FEW = 2  # points from elsewhere that tell of a region: the mass around a single one may be misjudged


class Look(NamedTuple):
    """What was found, and the evaluations that it took."""

    findings: tuple[Finding, ...]
    evaluations: int


def nowhere_else(target: Target) -> Float[Array, "explored free"] | None:
    """The shape of points from elsewhere; None of particles, which are everywhere alike."""
    return jnp.zeros((EXPLORERS, target.free_dim)) if target.symmetry is None else None


def explore(
    target: Target, searched: SearchResult, frame: Frame, temper: Callable[..., Any], key: Array
) -> tuple[Float[Array, "explored free"] | None, Evaluations]:
    """Points from elsewhere, in `frame`, and what is spent in all: `searched.evaluations` and that
    of the populations.

    `temper` is a function of `mcmc.smc.tempering`, for as many particles as `searched` has points.
    A population that does not reach the target has no part in it.
    """
    count, spent = EXPLORERS, searched.evaluations
    if target.symmetry is not None:
        return None, spent
    wide_points: list[Array] = []
    for i, wider in enumerate(WIDER):
        wide = dataclasses.replace(frame, scale=frame.scale * wider)
        try:
            points = temper(jax.random.fold_in(key, i), searched._replace(frame=wide, evaluations=spent)).found
        except UnreachedError as error:
            spent = error.evaluations
            continue
        spent = points.evaluations
        wide_points.append(wider * spread_out(points.points.z, count // 2 // len(WIDER)))
    # The search has the rest, so that no point is there twice where a population has failed.
    rest = spread_out(searched.points.z, count - sum(len(z) for z in wide_points))
    return jnp.concatenate([frame.from_frame(searched.frame, rest), *wide_points]), spent


def cost(target: Target) -> int:
    """Evaluations of a look."""
    elsewhere = EXPLORERS if target.symmetry is None else 0
    return DRAWS * (1 + MOVES) + elsewhere * (1 + MOVES + NEIGHBOURS * COST)


def looking(target: Target, frame: Frame) -> Callable[..., Look]:
    """A function `(key, z, explored)` of draws `(n, free)` and points from elsewhere, both in the
    frame.

    One program serves any number of draws: of fewer than `DRAWS` copies are moved. Fewer than
    `LEAST` tell nothing and cost nothing.
    """

    def run(key: Array, z: Float[Array, "n free"], elsewhere: Float[Array, "explored free"] | None) -> Look:
        n = min(len(z), DRAWS)
        if n < LEAST:
            return Look((), 0)
        rise, mass, connected = program(_look, target)(frame, key, z[jnp.arange(DRAWS) % n], elsewhere)
        findings = [_drift(rise[:n])]
        if elsewhere is not None:
            findings.append(_elsewhere(mass, connected))
        return Look(tuple(findings), cost(target))

    return run


def _look(
    target: Target, frame: Frame, key: Array, z: Float[Array, "n free"], elsewhere: Float[Array, "explored free"] | None
) -> tuple[Float[Array, " n"], Float[Array, " explored"] | None, Bool[Array, " explored"] | None]:
    """By how much each draw rises by moves; the mass around each point from elsewhere over that
    around a draw, and whether a way leads from there to one.
    """

    def evaluate(z, _=None):
        return frame.evaluate(target, z)

    def first(points):
        return first_steps(points) if target.differentiable else jnp.full(points.size, 1.0 / points.z.shape[1])

    k_draws, k_elsewhere = jax.random.split(key)
    start = Buffer.of(z, evaluate(z))
    # One step for all leaves the target invariant.
    draws = mala(evaluate, start, jnp.median(first(start)), k_draws, MOVES)
    rise = draws.points.log_prob - start.log_prob
    if elsewhere is None:
        return rise, None, None
    # A step for each: they may be in regions of any width, whose mass alone is asked for.
    others = Buffer.of(elsewhere, evaluate(elsewhere))
    others = mala(evaluate, others, first(others), k_elsewhere, MOVES)
    mass = local_mass(others, target.differentiable) - jnp.median(local_mass(draws, target.differentiable))
    return rise, mass, _connected(lambda z: frame.values(target, z), others.points.z, draws.points.z)


def spread_out(z: Float[Array, "n ..."], most: int) -> Float[Array, "kept ..."]:
    """At most so many, evenly over their order: relatives stand side by side, as do times of a
    chain.
    """
    kept = max(1, min(len(z), most))
    return z[np.arange(kept) * len(z) // kept]  # NumPy counts in 64 bits


def thinned(z: Float[Array, "each chains free"]) -> Float[Array, "n free"]:
    """At most `DRAWS` draws of chains, evenly over their time."""
    return spread_out(z, DRAWS // z.shape[1]).reshape(-1, z.shape[2])


def _connected(values: Callable, z: Float[Array, "m free"], draws: Float[Array, "n free"]) -> Bool[Array, " m"]:
    """Whether the way from each point to one of the nearest draws leads over no barrier."""
    _, index = nearest(z, draws, NEIGHBOURS)
    falls = fall_between(values, jnp.repeat(z, NEIGHBOURS, axis=0), draws[index.ravel()])
    return jnp.any(falls.reshape(index.shape) < FALL + FALL_PER_DIM * z.shape[1], axis=1)


def _drift(rise: Float[Array, " n"]) -> Finding:
    mean, error = float(jnp.mean(rise)), float(jnp.std(rise)) / len(rise) ** 0.5
    off = abs(mean) / max(error, 1e-30)
    if not off <= DRIFT:
        text = "are still on their way: local moves change their mean log-density"
        return Finding(DO_NOT_USE, f"the draws {text} by {mean:+.2g}, {off:.1f} standard errors")
    return Finding(
        TRUSTED, f"local moves leave the draws' mean log-density as it is (within {off:.1f} standard errors)"
    )


def _elsewhere(mass: Float[Array, " m"], connected: Bool[Array, " m"]) -> Finding:
    lost = ~connected & (mass > -WORTH)
    count, n = int(jnp.sum(lost)), len(mass)
    if count >= FEW:
        best = float(jnp.max(jnp.where(lost, mass, -jnp.inf)))
        return Finding(
            DO_NOT_USE,
            f"{count} of {n} points from elsewhere lie where there is no draw, the mass around the best about "
            f"{_times(best)} that around a draw: a region is missing",
        )
    return Finding(
        TRUSTED, f"none of {n} points from elsewhere (search, wider populations) shows a region without draws"
    )


def _times(log: float) -> str:
    return f"{math.exp(min(log, 700.0)):.2g} times"
