"""Hamiltonian moves of a population, on BlackJAX (Duane et al. 1987): for chains that must go far
from their start.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.devices.blocks import batched_map
from allmodes.points.buffer import Buffer

LEAPS = 10  # leapfrog steps of a move, an evaluation each
TARGET_ACCEPTANCE = 0.75
ROUNDS = 10  # of moves, after each of which the step follows the acceptance
LEAST_STEP = 0.4  # of the step: each move draws its own share, so that no orbit closes on itself


# Without a gradient a leapfrog step goes straight on: one of them is a random walk, and as many are
# made as would have been leapfrog steps, so that both cost the same.
WALK_ACCEPTANCE = 0.3


class Kind(NamedTuple):
    """What a move is, for a density with a gradient or without."""

    leaps: int  # leapfrog steps of a move, an evaluation each
    moves: int  # in place of one
    acceptance: float  # that the step is adapted to


def kind_of(differentiable: bool) -> Kind:
    """Hamiltonian moves, or random walks where there is no gradient."""
    return Kind(LEAPS, 1, TARGET_ACCEPTANCE) if differentiable else Kind(1, LEAPS, WALK_ACCEPTANCE)


class Moved(NamedTuple):
    """The population after its moves, the leapfrog step adapted to it, and the acceptance over the
    last moves.
    """

    points: Buffer
    step_size: Scalar
    acceptance: Scalar


def drawn_steps(key: Array, step_size: Scalar, n: int) -> Float[Array, " n"]:
    """A step for each of n moves, independent of their states."""
    return step_size * jax.random.uniform(key, (n,), minval=LEAST_STEP, maxval=1.0)


def hmc(
    log_prob: Callable[[Float[Array, " dim"]], Scalar],
    points: Buffer,
    step_size: Scalar,
    key: Array,
    moves: int,
    block: int,
    differentiable: bool = True,
) -> Moved:
    """`moves` of every point, each of `LEAPS` leapfrog steps with unit masses: `n moves LEAPS`
    evaluations.

    `log_prob` is of one point, in the points' coordinates, -inf where there is no mass. Where it
    has no gradient, moves are random walks, `LEAPS` in place of each. A block of points makes all
    moves of a round before the next block begins, so that its values stay in the cache.
    """
    import blackjax
    from blackjax.mcmc.hmc import HMCState

    n, dim = points.z.shape
    kernel, mass = blackjax.hmc.build_kernel(), jnp.ones(dim)
    kind = kind_of(differentiable)
    moves *= kind.moves
    rounds = min(ROUNDS, moves)
    lengths = [moves * (i + 1) // rounds - moves * i // rounds for i in range(rounds)]

    def chain(state, step_size, length, key):
        def one(i, carry):
            state, accepted = carry
            k_step, k_move = jax.random.split(jax.random.fold_in(key, i))
            step = drawn_steps(k_step, step_size, 1)[0]
            state, info = kernel(k_move, state, log_prob, step, mass, kind.leaps)
            return state, accepted + info.acceptance_rate

        state, accepted = jax.lax.fori_loop(0, length, one, (state, jnp.zeros(())))
        return state, accepted / length

    def advance(carry, length_and_key):
        state, step_size = carry
        length, key = length_and_key
        run = lambda point: chain(point[0], step_size, length, point[1])  # noqa: E731
        state, rates = batched_map(run, (state, jax.random.split(key, n)), min(block, n))
        rate = jnp.mean(rates)
        return (state, step_size * jnp.exp(rate - kind.acceptance)), rate

    start = HMCState(points.z, points.log_prob, points.grad), step_size
    lengths, keys = jnp.asarray(lengths), jax.random.split(key, rounds)
    (state, step_size), rates = jax.lax.scan(advance, start, (lengths, keys))
    return Moved(Buffer(state.position, state.logdensity, state.logdensity_grad), step_size, rates[-1])
