"""Local moves whose steps have the shape of the modes that they are in."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.blocks import batched_map
from allmodes.mcmc.mala import mala
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.target import Evaluation, Target

FIRST = 1.5  # step of a move, in units in which a mode is round: over the cube root of the dimension
AT_A_TIME = 1024  # points that are turned: each by a matrix of its own


def move_in_shapes(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, key: Array, steps: int, keep: int
) -> tuple[Buffer, Evaluations]:
    """Where the points are after each of the last `keep` of `steps` Langevin moves, and what these
    have cost: `steps` evaluations a point.

    Each point moves in the coordinates in which the component that it began with is a standard
    normal: modes of any condition number are left behind in a few moves.
    """
    which = mixture.component_of(points.z)
    mean, root = mixture.mean[which], jnp.sqrt(mixture.variance[which])

    def turned(k, v: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return batched_map(lambda one: one[1] @ mixture.axes[one[0]], (k, v), AT_A_TIME)

    def back(k, y: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return batched_map(lambda one: mixture.axes[one[0]] @ one[1], (k, y), AT_A_TIME)

    def evaluate(y: Float[Array, "n dim"]) -> Evaluation:
        e = frame.evaluate(target, mean + back(which, root * y))
        return e._replace(grad=root * turned(which, e.grad))

    start = Buffer(turned(which, points.z - mean) / root, points.log_prob, root * turned(which, points.grad))
    first = FIRST * points.z.shape[1] ** (-1.0 / 3.0)
    moved = mala(evaluate, start, jnp.full((points.size,), first), key, steps, keep)
    which, mean, root = (jnp.tile(a, (keep, *[1] * (a.ndim - 1))) for a in (which, mean, root))
    passed = moved.passed
    z, grad = mean + back(which, root * passed.z), back(which, passed.grad / root)
    spent = Evaluations.none(target.differentiable).add_points(points.size * steps, moved.nan, moved.zero)
    return Buffer(z, passed.log_prob, grad), spent
