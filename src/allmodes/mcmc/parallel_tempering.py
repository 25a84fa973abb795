"""Non-reversible parallel tempering: swaps of even and odd gaps in turn, and a ladder adapted to
equal rejection (Syed et al. 2022, arXiv:1905.02939), its moves on BlackJAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.mcmc.hmc import LEAPS, Kind, drawn_steps, kind_of
from allmodes.points.frame import Frame
from allmodes.points.normal import log_normal
from allmodes.target import Target

NO_MASS = -1e30  # log-density of points of no mass: the difference of two of them stays finite, and so does 0 times it


class Replicas(eqx.Module):
    """Systems of one point at each temperature, with the target's log-density and gradient, in
    normalised coordinates.

    Temperature k of `temperatures` is `prior^(1 - beta_k) target^beta_k`; the first is the prior,
    the last the target. Where a replica has been is swapped with it: `is_fresh` is whether it has
    met the prior since it last met the target.
    """

    z: Float[Array, "systems temperatures dim"]
    log_prob: Float[Array, "systems temperatures"]
    grad: Float[Array, "systems temperatures dim"]
    is_fresh: Bool[Array, "systems temperatures"]


class Ladder(eqx.Module):
    """Inverse temperatures, rising from 0 to 1, and the leapfrog step at each of them but the
    first.
    """

    betas: Float[Array, " temperatures"]
    steps: Float[Array, " warm"]


class Seen(NamedTuple):
    """What a sweep shows of the ladder."""

    acceptance: Float[Array, " warm"]  # of moves at each temperature but the first
    rejection: Float[Array, " gaps"]  # expected rate at which a swap across each gap is refused
    log_ratio: Float[Array, "systems gaps"]  # (beta_{k+1} - beta_k) log target/prior at temperature k
    arrived: Int[Array, ""]  # systems in which a replica from the prior has come to the target: a round trip each


def first_ladder(temperatures: int, width: float, dim: int) -> Ladder:
    """Temperatures dense near the prior, where densities change most, to be adapted."""
    share = jnp.arange(temperatures) / (temperatures - 1)
    betas = share**4
    return Ladder(betas, 0.5 * width * dim**-0.25 / (1.0 + 4.0 * betas[1:]))


def evaluations_of(systems: int, temperatures: int) -> int:
    """Points at which a sweep computes the density: leapfrog steps, and each end once more."""
    return systems * ((temperatures - 1) * LEAPS + temperatures)


def sweeper(target: Target, frame: Frame, width: float) -> Callable[..., tuple[Replicas, Seen]]:
    """A function `(key, index, replicas, ladder)` that makes one sweep: a move at each temperature,
    then swaps.

    The prior is `N(0, width^2)` over the frame; at the first temperature a fresh draw of it is the
    move. Swaps take the even gaps and the odd ones in turn (`index`), which carries replicas along
    the ladder instead of letting them diffuse.
    """
    kind = kind_of(target.differentiable)

    def sweep(key: Array, index: Array, replicas: Replicas, ladder: Ladder) -> tuple[Replicas, Seen]:
        systems, _, dim = replicas.z.shape
        k_prior, k_step, k_move, k_swap = jax.random.split(key, 4)
        z, acceptance = moved(target, frame, width, kind, k_step, k_move, replicas, ladder)
        fresh = width * jax.random.normal(k_prior, (systems, 1, dim))
        moved_on = start(target, frame, jnp.concatenate([fresh, z], axis=1), replicas.is_fresh)
        replicas, rejection, log_ratio = swapped(k_swap, index, moved_on, ladder.betas, width)
        replicas, arrived = arrivals(replicas)
        return replicas, Seen(acceptance, rejection, log_ratio, arrived)

    return sweep


def log_prior(z: Float[Array, "*n dim"], width: float) -> Float[Array, "*n"]:
    """Log-density of the first temperature."""
    return log_normal(z, jnp.zeros_like(z), jnp.full(z.shape[-1:], width**2))


def moved(
    target: Target, frame: Frame, width: float, kind: Kind, k_step: Array, k_move: Array, replicas: Replicas,
    ladder: Ladder,
) -> tuple[Float[Array, "systems warm dim"], Float[Array, " warm"]]:  # fmt: skip
    """Where each replica but those at the first temperature is after a move that leaves its
    temperature invariant, and the acceptance at each temperature.
    """
    systems, temperatures, dim = replicas.z.shape
    warm = temperatures - 1
    # All points in a row, temperature by temperature.
    flat = jax.tree.map(lambda a: a[:, 1:].reshape(systems * warm, *a.shape[2:]), replicas)
    beta = jnp.tile(ladder.betas[1:], systems)
    step = jnp.tile(ladder.steps, systems) * drawn_steps(k_step, jnp.ones(()), systems * warm)
    keys = jax.random.split(k_move, systems * warm)
    each = (flat.z, flat.log_prob, flat.grad, beta, step, keys)
    move = mover(target, frame, width, kind)
    z, rate = jax.lax.map(lambda a: move(*a), each, batch_size=target.block(systems * warm))
    return z.reshape(systems, warm, dim), jnp.mean(rate.reshape(systems, warm), axis=0)


def mover(target: Target, frame: Frame, width: float, kind: Kind) -> Callable[..., tuple[Array, Scalar]]:
    """A function `(z, log_prob, grad, beta, step, key)` that makes the moves of one point."""
    import blackjax
    from blackjax.mcmc.hmc import HMCState

    kernel = blackjax.hmc.build_kernel()

    def move(z, log_prob, grad, beta, step, key):
        def tempered(z):
            return (1.0 - beta) * log_prior(z, width) + beta * jnp.maximum(frame.value(target, z), NO_MASS)

        prior_grad = -z / width**2
        here = (1.0 - beta) * log_prior(z, width) + beta * log_prob
        state = HMCState(z, here, (1.0 - beta) * prior_grad + beta * grad)

        def one(i, carry):
            state, rate = carry
            state, info = kernel(jax.random.fold_in(key, i), state, tempered, step, jnp.ones(z.shape), kind.leaps)
            return state, rate + info.acceptance_rate / kind.moves

        state, rate = jax.lax.fori_loop(0, kind.moves, one, (state, jnp.zeros(())))
        return state.position, rate

    return move


def swapped(
    key: Array, index: int | Scalar, replicas: Replicas, betas: Float[Array, " temperatures"], width: float
) -> tuple[Replicas, Float[Array, " gaps"], Float[Array, "systems gaps"]]:
    """Swap replicas across the even gaps or, by `index`, the odd ones, with the probability that
    leaves all temperatures invariant; the expected rate of refusals across each gap, and
    `(beta_{k+1} - beta_k) log target/prior` below it.
    """
    systems, temperatures = replicas.log_prob.shape
    ratio = replicas.log_prob - log_prior(replicas.z, width)  # log target over prior
    gap = jnp.diff(betas)
    log_accept = jnp.minimum(gap * (ratio[:, :-1] - ratio[:, 1:]), 0.0)
    rejection, log_ratio = 1.0 - jnp.mean(jnp.exp(log_accept), axis=0), gap * ratio[:, :-1]
    due = jnp.arange(temperatures - 1) % 2 == index % 2
    swap = due & (jnp.log(jax.random.uniform(key, log_accept.shape)) < log_accept)
    none = jnp.zeros((systems, 1), bool)
    up, down = jnp.concatenate([swap, none], axis=1), jnp.concatenate([none, swap], axis=1)
    place = jnp.arange(temperatures) + up.astype(int) - down.astype(int)
    taken = jax.tree.map(lambda a: jax.vmap(lambda row, index: row[index])(a, place), replicas)
    return taken, rejection, log_ratio


def arrivals(replicas: Replicas) -> tuple[Replicas, Int[Array, ""]]:
    """The replicas after it was seen who is at the prior and who at the target, and how many have
    come to the target from the prior.

    Each round trip has one such arrival, so that the two have the same rate.
    """
    is_fresh = replicas.is_fresh.at[:, 0].set(True)
    arrived = jnp.sum(is_fresh[:, -1], dtype=jnp.int32)
    return Replicas(replicas.z, replicas.log_prob, replicas.grad, is_fresh.at[:, -1].set(False)), arrived


def round_trip_rate(rejection: Float[Array, " gaps"]) -> Scalar:
    """Round trips of all replicas of a system a sweep, where moves make the next log-densities
    independent of the last: `1 / (2 + 2 sum r / (1 - r))` (Syed et al. 2022).

    Of many temperatures this is `1 / (2 + 2 barrier)`; with swaps at random it goes to zero.
    """
    return 0.5 / (1.0 + jnp.sum(rejection / (1.0 - rejection)))


def start(
    target: Target,
    frame: Frame,
    z: Float[Array, "systems temperatures dim"],
    is_fresh: Bool[Array, "systems temperatures"] | None = None,
) -> Replicas:
    """Replicas at given points, of which none has met the prior where it is not said."""
    e = frame.evaluate(target, z.reshape(-1, z.shape[-1]))
    log_prob = jnp.maximum(e.log_prob, NO_MASS)
    is_fresh = jnp.zeros(z.shape[:2], bool) if is_fresh is None else is_fresh
    return Replicas(z, log_prob.reshape(z.shape[:2]), e.grad.reshape(z.shape), is_fresh)


def adapt(
    ladder: Ladder, acceptance: Float[Array, " warm"], rejection: Float[Array, " gaps"], gain: Scalar, kind: Kind
) -> Ladder:
    """Move the ladder towards equal rejection across all gaps, and steps towards the wanted
    acceptance.

    The sum of the rejection rates up to a temperature is the communication barrier to it, which the
    ladder is to climb evenly (Syed et al. 2022, algorithm 2). `gain` in [0, 1] is the share of the
    way.
    """
    barrier = jnp.concatenate([jnp.zeros(1), jnp.cumsum(jnp.maximum(rejection, 1e-3))])
    even = jnp.interp(jnp.linspace(0.0, 1.0, len(barrier)) * barrier[-1], barrier, ladder.betas)
    betas = (ladder.betas + gain * (even - ladder.betas)).at[0].set(0.0).at[-1].set(1.0)
    steps = ladder.steps * jnp.exp(2.0 * gain * (acceptance - kind.acceptance))
    # A step belongs to its inverse temperature: where that moves, the step moves along.
    return Ladder(betas, jnp.exp(jnp.interp(betas[1:], ladder.betas[1:], jnp.log(steps))))
