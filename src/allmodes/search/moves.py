"""What both stages of the search do with points: climb, settle, and drop those of no mass."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Scalar

from allmodes.mcmc.mala import Moved, first_steps, mala
from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.search.ascent import Ascent, ascend, ascend_by_trial
from allmodes.target import Target

WIDER = 8.0  # first steps of a walk over those of trials, which get short near a peak
_WIDEST = 4.0  # first step of a local move, in the box: a density without a slope would have it leap out of the box


def effort(target: Target) -> int:
    """How many times as many steps a search without gradients takes: trials must find their
    direction among dim.
    """
    return 1 if target.differentiable else max(1, -(-target.free_dim // 2))


def ascend_from(target: Target, frame: Frame, z: Array, length: Array, limit: int, key: Array) -> Ascent:
    """Climb from each of z, with its own first length: by gradients, or by trial without them."""

    def evaluate(z):
        return frame.evaluate(target, z)

    none = Evaluations.none(target.differentiable)
    if target.differentiable:
        return ascend(evaluate, z, length, limit, none, key)
    return ascend_by_trial(evaluate, z, length / z.shape[1] ** 0.5, limit * effort(target), none, key)


def move_locally(
    target: Target, frame: Frame, c: Ascent, key: Array, steps: int, keep: int = 0
) -> tuple[Moved, Evaluations]:
    """Local moves of the points of a climb, and what both have cost; `keep` as `mala` has it."""
    steps = steps * effort(target)
    first = jnp.minimum(first_steps(c.points), _WIDEST) if target.differentiable else (WIDER * c.length) ** 2
    moved = mala(lambda z: frame.evaluate(target, z), c.points, first, key, steps, keep)
    return moved, c.evaluations.add_points(len(first) * steps, moved.nan, moved.zero)


def may_carry_mass(log_prob: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Points that may carry mass: within 20 + 5 dim of the best, generous for modes of very
    different widths.
    """
    return log_prob >= lowest_that_counts(jnp.max(log_prob), dim)


def has_arrived(log_prob: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Points within half of that: others are on their way."""
    best = jnp.max(log_prob)
    return log_prob >= 0.5 * (best + lowest_that_counts(best, dim))


def lowest_that_counts(best: Scalar | float, dim: int) -> Scalar | float:
    """The log-density below which a point carries next to no mass, beside the best one."""
    return best - (20.0 + 5.0 * dim)


def refill(key: Array, points: Buffer, alive: Bool[Array, " n"]) -> Buffer:
    """Replace the points that are not alive by copies of random ones that are."""
    index = jax.random.choice(key, points.size, (points.size,), p=alive / jnp.sum(alive))
    return choose(alive, points, points.take(index))
