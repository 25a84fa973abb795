"""Ways uphill for a population, each point by itself, along gradients."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from allmodes.points.buffer import Buffer, choose
from allmodes.points.count import Evaluations
from allmodes.search.slopes import Evaluate

# Among walls, where few ways lead on: a gain widens a point's steps by `WIDEN`, and sixteen losses
# undo that.
WIDEN = 1.5
PATIENT = 1 / 16
SHRUNK, FEWEST = 4, 32  # a population goes on alone as a part of so much, and of at least so many


class Ascent(NamedTuple):
    """A population on its way uphill."""

    points: Buffer
    length: Float[Array, " n"]
    settled: Bool[Array, " n"]
    walled: Bool[Array, " n"]  # has met the end of the support
    steps: Array
    evaluations: Evaluations


def ascend(
    evaluate: Evaluate,
    z: Float[Array, "n dim"],
    length: Float[Array, " n"],
    limit: int,
    evaluations: Evaluations,
    key: Array,
    price: int = 1,
) -> Ascent:
    """Move each point along its gradient until it is in the typical set of a mode, not at its peak.

    Steps have a length of their own for each point, doubled after a gain and quartered after a
    loss, so that any distance takes a logarithmic number of them. A point settles once a quadratic
    model along its gradient promises no more than dim/2 + 1 of log-density: that is how far below
    the peak the mass of a mode lies, and going on would end in spikes without mass.

    Where a step leaves the support, the gradient leads into a wall: from then on the point takes
    its gradient along a random half of the coordinates, by steps that shrink slowly, which finds
    ways along the wall (two atoms in the corner of a box can part in a few directions only). A
    start of zero density and no gradient stays where it is and costs nothing more.

    Stops when 99 % have settled, or after `limit` steps; those that have
    cost no evaluations once they are three quarters of the population, or of the rest.
    `evaluations` are those before, and `price` those of a value with a gradient.
    """

    def body(c: Ascent) -> Ascent:
        p, first = c.points, c.steps < 0  # the first pass evaluates the starts: compiled once for both
        n, dim = p.z.shape
        norm = jnp.linalg.norm(p.grad, axis=-1)
        half = jax.random.bernoulli(jax.random.fold_in(key, c.steps), shape=(n, dim))
        along = jnp.where(c.walled[:, None] & ~half, 0.0, p.grad)
        norm = jnp.where(c.walled, jnp.linalg.norm(along, axis=-1), norm)
        direction = along / jnp.maximum(norm, 1e-30)[:, None]
        y = p.z + c.length[:, None] * direction
        e = evaluate(y, c.length)
        up = (e.log_prob > p.log_prob) & ~c.settled
        curvature = (norm - jnp.sum(e.grad * direction, axis=-1)) / c.length
        promise = 0.5 * norm**2 / jnp.maximum(curvature, 1e-30)
        local = (curvature > 0) & (c.length <= 4.0 * norm / jnp.maximum(curvature, 1e-30)) & (e.log_prob > -jnp.inf)
        nowhere = (e.log_prob == -jnp.inf) & ~jnp.any(e.grad, axis=-1)  # where no gradient leads anywhere
        settled = c.settled | jnp.where(first, nowhere, local & (promise <= 0.5 * dim + 1.0))
        walled = c.walled | (~first & (e.log_prob == -jnp.inf))
        longer, shorter = jnp.where(walled, WIDEN, 2.0), jnp.where(walled, WIDEN**-PATIENT, 0.25)
        length = c.length * jnp.where(first, 1.0, jnp.where(up, longer, shorter))
        points = choose(first | (up & ~settled), Buffer.of(y, e), p)
        return Ascent(points, length, settled, walled, c.steps + 1, c.evaluations.add(e, price))

    n, no = len(z), jnp.zeros(len(z), bool)
    unseen = Buffer(z, jnp.full(n, -jnp.inf, z.dtype), jnp.zeros_like(z))
    start = Ascent(unseen, length, no, no, jnp.asarray(-1, jnp.int32), evaluations)
    return _compacting(start, body, limit, n // 100)


def _compacting(c: Ascent, body: Callable[[Ascent], Ascent], limit: int, few: int) -> Ascent:
    """Steps of those that have not settled, until these are `few`: whenever they are a quarter of
    the population, they go on as one of that size.
    """
    part_size = len(c.settled) // SHRUNK
    last = part_size <= max(few, FEWEST)
    left = few if last else part_size

    def unfinished(c: Ascent):
        return (c.steps < limit) & (jnp.sum(~c.settled) > left)

    c = jax.lax.while_loop(unfinished, body, c)
    if last:
        return c
    index = jnp.argsort(c.settled)[:part_size]  # those that have not come first
    part = Ascent(c.points.take(index), c.length[index], c.settled[index], c.walled[index], c.steps, c.evaluations)
    part = _compacting(part, body, limit, few)
    points = c.points.put(index, part.points)
    length, settled, walled = (a.at[index].set(b) for a, b in zip(c[1:4], part[1:4], strict=True))
    return Ascent(points, length, settled, walled, part.steps, part.evaluations)
