"""What both stages of the search do with points: climb, settle, and drop those of no mass."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from allmodes.mcmc.mala import Moved, first_steps, mala
from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.search.ascent import Ascent, ascend
from allmodes.search.slopes import evaluator, price
from allmodes.target import Target

FEWEST = 128  # starts of a wave, and scouts, where there is no gradient
_WIDEST = 4.0  # first step of a local move, in the box: a density without a slope would have it leap out of the box


def fewer(target: Target, starts: int) -> int:
    """How many starts, or points that move, a search has for so many with gradients: as a step
    takes `dim + 1` evaluations without one, fewer, yet enough to meet modes.
    """
    return starts if target.differentiable else min(starts, max(FEWEST, starts // (target.free_dim + 1)))


def ascend_from(target: Target, frame: Frame, z: Array, length: Array, limit: int, key: Array) -> Ascent:
    """Climb from each of z, with its own first length."""
    none = Evaluations.none(target.differentiable)
    return ascend(evaluator(target, frame), z, length, limit, none, key, price(target))


def move_locally(
    target: Target, frame: Frame, c: Ascent, key: Array, steps: int, keep: int = 0
) -> tuple[Moved, Evaluations]:
    """Local moves of the points of a climb, and what both have cost; `keep` as `mala` has it."""
    first = jnp.minimum(first_steps(c.points), _WIDEST)
    moved = mala(evaluator(target, frame), c.points, first, key, steps, keep)
    return moved, c.evaluations.add_points(price(target) * len(first) * steps, moved.nan, moved.zero)


def may_carry_mass(log_prob: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Points that may carry mass: within 20 + 5 dim of the best, generous for modes of very
    different widths.
    """
    return log_prob >= lowest_that_counts(jnp.max(log_prob), dim)


def has_arrived(
    log_prob: Float[Array | np.ndarray, " n"], dim: int, best: Scalar | float
) -> Bool[Array | np.ndarray, " n"]:
    """Points within half of that of the best: others are on their way."""
    return log_prob >= 0.5 * (best + lowest_that_counts(best, dim))


def lowest_that_counts(best: Scalar | float, dim: int) -> Scalar | float:
    """The log-density below which a point carries next to no mass, beside the best one."""
    return best - (20.0 + 5.0 * dim)


def refill(key: Array, points: Buffer, alive: Bool[Array, " n"]) -> Buffer:
    """Replace the points that are not alive by copies of random ones that are."""
    index = jax.random.choice(key, points.size, (points.size,), p=alive / jnp.sum(alive))
    return choose(alive, points, points.take(index))
