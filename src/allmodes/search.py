"""Find where a density has its mass, from the density alone: location, scale and the regions around its modes.

Nothing here needs right weights: points that a search finds stand in the proportion of the basins' widths, and
training re-weights them. So it can be greedy, which is what finds modes that tempering loses.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Scalar

from allmodes.buffer import Buffer, choose
from allmodes.count import Evaluations
from allmodes.errors import TargetError
from allmodes.frame import Frame
from allmodes.mcmc.local import first_steps, mala
from allmodes.target import Evaluation, Target

# Starts of the first stage lie at distances between these, in units of the hint of scale (1 without one).
_SCALES = (1e-3, 1e4)
_SCOUTS = 1024
_STARTS = 8192  # most starts of the second stage; a larger buffer begins with copies, which local moves part
_REACH = 1.25  # the second stage's box over the extent of what the first found


class Found(NamedTuple):
    """What the search knows: a frame, points in it at local equilibrium, their step size and narrowest scale."""

    frame: Frame
    points: Buffer
    step_size: Scalar  # for MALA moves, normalised coordinates
    tau: Float[Array, " dim"]  # root of 1 / E[grad^2]: the narrowest scale along each coordinate
    edges: Scalar  # share of local proposals that met zero density
    evaluations: Evaluations


class Climb(NamedTuple):
    """A population on its way uphill."""

    points: Buffer
    length: Float[Array, " n"]
    settled: Bool[Array, " n"]
    steps: Array
    evaluations: Evaluations


def climb(
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    z: Float[Array, "n dim"],
    length: Float[Array, " n"],
    limit: int,
) -> Climb:
    """Move each point along its gradient until it is in the typical set of a mode, not at its peak.

    Steps have a length of their own for each point, doubled after a gain and quartered after a loss, so that any
    distance takes a logarithmic number of them. A point settles once a quadratic model along its gradient promises no
    more than dim/2 + 1 of log-density: that is how far below the peak the mass of a mode lies, and going on would
    end in spikes without mass. Stops when 99 % have settled, or after `limit` steps.
    """
    n, dim = z.shape

    def body(c: Climb) -> Climb:
        p = c.points
        norm = jnp.linalg.norm(p.grad, axis=-1)
        direction = p.grad / jnp.maximum(norm, 1e-30)[:, None]
        y = p.z + c.length[:, None] * direction
        e = evaluate(y)
        up = (e.log_prob > p.log_prob) & ~c.settled
        curvature = (norm - jnp.sum(e.grad * direction, axis=-1)) / c.length
        promise = 0.5 * norm**2 / jnp.maximum(curvature, 1e-30)
        local = (curvature > 0) & (c.length <= 4.0 * norm / jnp.maximum(curvature, 1e-30)) & (e.log_prob > -jnp.inf)
        settled = c.settled | (local & (promise <= 0.5 * dim + 1.0))
        length = jnp.where(up, 2.0 * c.length, 0.25 * c.length)
        points = choose(up & ~settled, Buffer.of(y, e), p)
        return Climb(points, length, settled, c.steps + 1, c.evaluations.add(e))

    def unfinished(c: Climb):
        return (c.steps < limit) & (jnp.mean(c.settled) < 0.99)

    e = evaluate(z)
    start = Climb(Buffer.of(z, e), length, jnp.zeros(n, bool), jnp.zeros((), jnp.int32), Evaluations.none().add(e))
    return jax.lax.while_loop(unfinished, body, start)


def _alive(log_prob: Float[Array, " n"], dim: int) -> Bool[Array, " n"]:
    """Points that may carry mass: within 20 + 5 dim of the best, generous for modes of very different widths."""
    return log_prob >= jnp.max(log_prob) - (20.0 + 5.0 * dim)


def _fill(key: Array, points: Buffer, alive: Bool[Array, " n"]) -> Buffer:
    """Replace the points that are not alive by copies of random ones that are."""
    index = jax.random.choice(key, points.size, (points.size,), p=alive / jnp.sum(alive))
    return choose(alive, points, points.take(index))


def scout(target: Target, key: Array, climb_limit: int = 120) -> tuple[Frame, Evaluations]:
    """The box that holds the regions of mass found from starts at distances spread over seven decades.

    Hints of location and scale in `target` replace the guesses of 0 and 1.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    dim = target.free_dim
    location = np.broadcast_to(np.asarray(0.0 if target.location is None else target.location, float), (dim,))
    scale = np.broadcast_to(np.asarray(1.0 if target.scale is None else target.scale, float), (dim,))
    decades = _SCALES if target.scale is None else (0.1, 10.0)
    rough = Frame(jnp.asarray(location, jnp.float32), jnp.asarray(scale, jnp.float32), target.symmetry)

    @jax.jit
    def explore(key):
        k_radius, k_direction = jax.random.split(key)
        low, high = jnp.log(decades[0]), jnp.log(decades[1])
        radius = jnp.exp(low + (high - low) * jax.random.uniform(k_radius, (_SCOUTS,)))
        z = radius[:, None] * jax.random.normal(k_direction, (_SCOUTS, dim))
        c = climb(lambda z: rough.evaluate(target, z), z, 0.1 * radius, climb_limit)
        alive = _alive(c.points.log_prob, dim)[:, None]
        # The box must not collapse on a density with a single peak: it is at least as wide as a mode.
        tau2 = jnp.sum(alive) / jnp.maximum(jnp.sum(jnp.where(alive, c.points.grad**2, 0.0), axis=0), 1e-30)
        low = jnp.min(jnp.where(alive, c.points.z, jnp.inf), axis=0)
        high = jnp.max(jnp.where(alive, c.points.z, -jnp.inf), axis=0)
        half = jnp.maximum(0.5 * (high - low), jnp.sqrt(tau2))
        middle = jnp.zeros(dim) if target.symmetry else 0.5 * (low + high)
        return middle, rough.even(half), jnp.max(c.points.log_prob), c.evaluations

    middle, half, best, evaluations = explore(key)
    if not np.isfinite(float(best)):
        nan, zero = int(evaluations.nan), int(evaluations.zero)
        raise TargetError(
            f"log_prob has no finite value at any of {_SCOUTS} starting points up to {decades[1]:g} scales from "
            f"{location} ({nan} NaN or +inf, {zero} -inf). Check log_prob, or say where the mass is: "
            "am.Target(log_prob, dim, location=.., scale=..)"
        )
    # Arithmetic on the location in double precision: modes may lie 10^4 scales from the origin.
    box = Frame(
        jnp.asarray(location + scale * np.asarray(middle, float), jnp.float32),
        jnp.asarray(scale * np.asarray(half, float), jnp.float32),
        target.symmetry,
    )
    return box, evaluations


def search(target: Target, key: Array, size: int, climb_limit: int = 120, local_steps: int = 40) -> Found:
    """Fill the scouts' box with starts, climb each into the typical set that it can reach, then move it locally.

    **Raises** `TargetError` when no point with a finite density was found.
    """
    dim, wanted = target.free_dim, size
    size = min(size, _STARTS)
    k_scout, k_box = jax.random.split(key)
    box, evaluations = scout(target, k_scout, climb_limit)

    @jax.jit
    def fill_box(key, box):
        k_uniform, k_normal, k_fill, k_local = jax.random.split(key, 4)
        uniform = jax.random.uniform(k_uniform, (size - size // 2, dim), minval=-_REACH, maxval=_REACH)
        normal = 0.7 * jax.random.normal(k_normal, (size // 2, dim))
        z = jnp.concatenate([uniform, normal])
        c = climb(lambda z: box.evaluate(target, z), z, jnp.full((size,), 0.05 * dim**0.5), climb_limit)
        alive = _alive(c.points.log_prob, dim)
        points = _fill(k_fill, c.points, alive)
        steps = first_steps(points)
        moved = mala(lambda z: box.evaluate(target, z), points, steps, k_local, local_steps)
        evaluations = c.evaluations.add_points(size * local_steps, moved.nan, moved.zero)
        return moved, evaluations

    moved, more = fill_box(k_box, box)
    evaluations = jax.tree.map(jnp.add, evaluations, more)
    step_size = jnp.exp(jnp.mean(jnp.log(moved.step_size)))
    edges = (moved.zero + moved.nan) / (size * local_steps)
    found = normalise(Found(box, moved.points, step_size, jnp.ones(dim), edges, evaluations))
    return found._replace(points=found.points.take(jnp.arange(wanted) % size))


def normalise(found: Found) -> Found:
    """The same points in the frame in which their mean is zero and their spread one."""
    frame, points = found.frame, found.points
    mean = jnp.zeros(points.z.shape[1]) if frame.symmetry else jnp.mean(points.z, axis=0)
    spread = jnp.maximum(jnp.sqrt(frame.even(jnp.mean((points.z - mean) ** 2, axis=0))), 1e-6)
    new = Frame(frame.location + frame.scale * mean, frame.scale * spread, frame.symmetry)
    # Between the two frames without passing through x, whose float32 grid is coarse far from the origin.
    z = (points.z - (new.location - frame.location) / frame.scale) / spread
    grad = points.grad * spread
    tau2 = 1.0 / jnp.maximum(new.even(jnp.mean(grad**2, axis=0)), 1e-12)
    return found._replace(
        frame=new,
        points=Buffer(z, points.log_prob - frame.log_det + new.log_det, grad),
        step_size=found.step_size / jnp.mean(spread) ** 2,
        tau=jnp.sqrt(tau2),
    )


def broad(target: Target, key: Array, size: int) -> Found:
    """Points spread evenly over the box that the scouts span, unmoved: a start with no MCMC at all."""
    k_scout, k_box = jax.random.split(key)
    box, evaluations = scout(target, k_scout)
    z = jax.random.uniform(k_box, (size, target.free_dim), minval=-1.0, maxval=1.0)
    e = jax.jit(lambda z: box.evaluate(target, z))(z)
    return Found(
        box, Buffer.of(z, e), jnp.asarray(1e-3), jnp.full((target.free_dim,), 1e-4), jnp.zeros(()), evaluations.add(e)
    )


def nowhere(target: Target, size: int) -> Found:
    """A search's result with zeros in it: the shapes of one."""
    zero = jnp.zeros(())
    z = jnp.zeros((size, target.free_dim))
    points = Buffer(z, z[:, 0], z)
    return Found(Frame(z[0], z[0], target.symmetry), points, zero, z[0], zero, Evaluations.none())
