"""To the peak: L-BFGS of a whole population (Liu and Nocedal 1989), each point with a step length
of its own.

Where a point ends names its basin. It matters little that a long step may end in a neighbour's
basin: the map is the same for whoever made the point, so shares of two sets can be compared all the
same.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.points.frame import Frame
from allmodes.target import Target

MEMORY = 6  # pairs of steps and changes of the gradient
PROMISE = 1e-4  # a point has arrived once the quadratic model promises less log-density than this
FAILS = 8  # refused steps in a row, each a quarter of the one before: rounding is in the way
SHORT, LONG = 24, 400  # steps of everyone, then of those that have not arrived
BLOCK, FEW = 4096, 512  # points in one compiled call of the two


class Ends(NamedTuple):
    """Where points have come to, a peak or ridge; its height and theirs; the narrowest width met on
    the last steps.
    """

    z: Float[np.ndarray, "n dim"]
    log_prob: Float[np.ndarray, " n"]
    began: Float[np.ndarray, " n"]
    width: Float[np.ndarray, " n"]

    def take(self, index: np.ndarray) -> "Ends":
        """Those at `index`."""
        return Ends(*(a[index] for a in self))


class _Climber(NamedTuple):
    z: Float[Array, "*n dim"]
    log_prob: Float[Array, "*n"]
    grad: Float[Array, "*n dim"]
    s: Float[Array, "*n memory dim"]
    y: Float[Array, "*n memory dim"]
    length: Float[Array, "*n"]  # longest step that is allowed
    curvature: Float[Array, "*n"]
    fails: Int[Array, "*n"]
    done: Bool[Array, "*n"]


def _start(z: Float[Array, " dim"], log_prob: Scalar, grad: Float[Array, " dim"], narrow: Scalar) -> _Climber:
    """Begin with half of the local width, as far as the gradient shows it, and of the narrowest one
    at most.
    """
    none = jnp.zeros((MEMORY, z.size))
    norm = jnp.linalg.norm(grad)
    length = 0.5 * jnp.minimum(z.size**0.5 / jnp.maximum(norm, 1e-30), narrow)
    still = (log_prob == -jnp.inf) | (norm == 0.0)
    return _Climber(z, log_prob, grad, none, none, length, jnp.zeros(()), jnp.zeros((), jnp.int32), still)


def _newton(c: _Climber) -> tuple[Float[Array, " dim"], Scalar]:
    """The quasi-Newton step and the log-density that it promises; along the gradient, of full
    length, at first.
    """
    sy = jnp.sum(c.s * c.y, axis=-1)
    known = sy > 0.0
    rho = jnp.where(known, 1.0 / jnp.where(known, sy, 1.0), 0.0)
    q, alpha = c.grad, []
    for i in range(MEMORY):  # newest first
        alpha.append(rho[i] * jnp.dot(c.s[i], q))
        q = q - alpha[i] * c.y[i]
    yy = jnp.dot(c.y[0], c.y[0])
    norm = jnp.maximum(jnp.linalg.norm(c.grad), 1e-30)
    q = q * jnp.where(known[0], sy[0] / jnp.where(yy > 0.0, yy, 1.0), c.length / norm)
    for i in reversed(range(MEMORY)):
        q = q + (alpha[i] - rho[i] * jnp.dot(c.y[i], q)) * c.s[i]
    promise = jnp.where(known[0], 0.5 * jnp.dot(c.grad, q), jnp.inf)
    return q, promise


def _propose(c: _Climber) -> tuple[Float[Array, " dim"], Scalar]:
    step, promise = _newton(c)
    norm = jnp.linalg.norm(step)
    return step * jnp.minimum(1.0, c.length / jnp.maximum(norm, 1e-30)), promise


def _advance(c: _Climber, step: Float[Array, " dim"], promise: Scalar, log_prob: Scalar, grad: Float[Array, " dim"]):
    """Take the step where it does not lead down, else quarter it and, the second time, forget the
    memory.
    """
    slack = 4e-7 * (1.0 + jnp.abs(c.log_prob))  # rounding of float32
    up = (log_prob >= c.log_prob - slack) & (log_prob > -jnp.inf)
    y, size = c.grad - grad, jnp.linalg.norm(step)
    sy = jnp.dot(step, y)
    pair = up & (sy > 1e-6 * size * jnp.linalg.norm(y))
    shift = lambda memory, new: jnp.where(pair, jnp.concatenate([new[None], memory[:-1]]), memory)  # noqa: E731
    forget = ~up & (c.fails >= 1)
    fails = jnp.where(up, 0, c.fails + 1)
    longer = jnp.where(size > 0.9 * c.length, 2.0 * c.length, c.length)
    bent = jnp.where(pair, jnp.maximum(0.5 * c.curvature, sy / jnp.maximum(size**2, 1e-30)), c.curvature)
    moved = _Climber(
        jnp.where(up, c.z + step, c.z), jnp.where(up, log_prob, c.log_prob), jnp.where(up, grad, c.grad),
        jnp.where(forget, 0.0, shift(c.s, step)), jnp.where(forget, 0.0, shift(c.y, y)),
        jnp.where(up, longer, 0.25 * size), bent, fails, (promise < PROMISE) | (fails >= FAILS),
    )  # fmt: skip
    return jax.tree.map(lambda new, old: jnp.where(c.done, old, new), moved, c)


def ascent(
    target: Target, frame: Frame, narrow: float, long: int = LONG, few: int = FEW
) -> Callable[[Float[np.ndarray, "n dim"]], tuple[Ends, int]]:
    """A function of points in the frame: where each ends, and how many evaluations that took.

    `narrow` is the narrowest width that a search has met; first steps are no longer than half of
    it. Everyone makes at most 24 steps; those that have not arrived then go on by themselves, `few`
    at a time, by up to `long` steps. A point without mass stays.
    """
    begin, climb = program(_begun, target), program(_climb, target)

    def run(z: Float[np.ndarray, "n dim"]) -> tuple[Ends, int]:
        n, spent, parts, began = len(z), 0, [], []
        for part in _blocks(z, BLOCK):
            first = begin(frame, part, narrow)
            began.append(np.asarray(first.log_prob, float))
            c, steps = climb(frame, first, SHORT, len(part) // 16)
            spent += len(part) * (1 + int(steps))
            parts.append(c)
        c = jax.tree.map(lambda *a: np.concatenate(a)[:n], *parts)
        late = np.flatnonzero(~c.done)
        for i in range(0, len(late), few):
            index = late[i : i + few]
            padded = np.resize(index, few)  # copies of the same points fill the block
            rest, steps = climb(frame, jax.tree.map(lambda a, rows=padded: jnp.asarray(a[rows]), c), long, 0)
            spent += few * int(steps)
            for whole, new in zip(c, rest, strict=True):
                whole[index] = np.asarray(new)[: len(index)]
        width = 1.0 / np.sqrt(np.maximum(np.asarray(c.curvature, float), 1e-30))
        return Ends(np.asarray(c.z), np.asarray(c.log_prob, float), np.concatenate(began)[:n], width), spent

    return run


def _begun(target: Target, frame: Frame, z: Float[Array, "n dim"], narrow: Scalar | float) -> _Climber:
    e = frame.evaluate(target, z)
    return jax.vmap(_start, (0, 0, 0, None))(z, e.log_prob, e.grad, jnp.asarray(narrow, z.dtype))


def _climb(
    target: Target, frame: Frame, c: _Climber, limit: Int[Array, ""] | int, enough: Int[Array, ""] | int
) -> tuple[_Climber, Int[Array, ""]]:
    """Steps of all, at most `limit`, until `enough` or fewer have not arrived; and how many."""

    def body(carry):
        c, steps = carry
        step, promise = jax.vmap(_propose)(c)
        e = frame.evaluate(target, c.z + step)
        return jax.vmap(_advance)(c, step, promise, e.log_prob, e.grad), steps + 1

    def unfinished(carry):
        c, steps = carry
        return (steps < limit) & (jnp.sum(~c.done) > enough)

    return jax.lax.while_loop(unfinished, body, (c, jnp.zeros((), jnp.int32)))


def _blocks(z: Float[np.ndarray, "n dim"], size: int) -> list[Float[Array, "m dim"]]:
    """Equal blocks of at most `size` points, the last one filled with copies of its last point."""
    size = min(size, 1 << (len(z) - 1).bit_length())  # few sizes, so that little is compiled
    padded = np.concatenate([z, np.broadcast_to(z[-1], (-len(z) % size, z.shape[1]))])
    return [jnp.asarray(padded[i : i + size]) for i in range(0, len(padded), size)]
