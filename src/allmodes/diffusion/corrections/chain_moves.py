"""What chains do: where they start, and moves that leave the target invariant."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.diffusion.paths import Process, denoise, noise
from allmodes.mcmc.hmc import LEAPS, hmc
from allmodes.mcmc.mala import first_steps
from allmodes.mcmc.metropolis import choose_by_weight
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.target import Evaluation


class Plan(NamedTuple):
    """What each chain does: `rounds` of noising and denoising, then Hamiltonian `moves`.

    `narrowest` is the narrowest scale of the target over the lowest noise, about.
    """

    rounds: int
    moves: int
    narrowest: float = 7.0


def chain_evaluations(rounds: int, moves: int) -> int:
    """Count the evaluations of one chain, beside those on the paths of its rounds."""
    return 1 + rounds + moves * LEAPS


def steps_of_rounds(key: Array, rounds: int, steps: int) -> int:
    """Count the steps of paths, up and down, that the rounds of `chains` walk with a key."""
    k_rounds, _ = jax.random.split(key)
    return sum(2 * (steps - int(level_of(k_rounds, i, rounds, steps)[0])) for i in range(rounds))


def level_of(key: Array, i: int | Scalar, rounds: int, steps: int) -> tuple[Int[Array, ""], Array]:
    """Draw the level that round i noises to, and give the key of its moves."""
    k_level, k_move = jax.random.split(jax.random.fold_in(key, i))
    share = (i + jax.random.uniform(k_level)) / rounds  # of the way down: a stratum for each round
    return jnp.minimum((share * steps).astype(jnp.int32), steps - 1), k_move


def enough(log_w: Float[Array, "each n"], most: int, effective: float = 4.0, least: float = 1.0) -> bool:
    """Whether to stop at the raw draws that there are for n chains, of at most `most` for each.

    Yes when `effective` are effective for each chain, or when after two for each it is plain that
    not even the most would give each an effective one.
    """
    each = log_w.shape[0]
    there = each * float(weights.ess_fraction(log_w.ravel()))
    return each >= most or there >= effective or (each > 1 and there * most < least * each)


@functools.partial(jax.jit, static_argnums=2)
def starts(key: Array, log_w: Float[Array, "each n"], least: float = 1.0) -> Int[Array, " n"]:
    """Which of `each n` raw draws, counted row by row, the n chains start from, by their path
    weights.

    Where there are `least` effective draws for each chain, all are resampled together: mode weights
    are then as right as weighted averages are (consistent in n), with few copies, which the moves
    part. Where there are not, a few would crowd out all others: each chain chooses among `each`
    draws of its own instead (sampling importance resampling). A draw of the sampler comes with its
    path, so no path has to be made up for it.
    """
    each, n = log_w.shape

    def together(key):
        return weights.systematic(key, weights.normalise(log_w.ravel()), n)

    def apart(key):
        chosen = jax.random.categorical(key, jnp.where(jnp.max(log_w, axis=0) > -jnp.inf, log_w, 0.0), axis=0)
        return chosen * n + jnp.arange(n)

    return jax.lax.cond(each * weights.ess_fraction(log_w.ravel()) >= least, together, apart, key)


def chains(
    process: Process | None,
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    value: Callable[[Float[Array, " dim"]], Scalar],
    key: Array,
    z: Float[Array, "n dim"],
    steps: int,
    plan: Plan,
    block: int,
    differentiable: bool,
) -> Buffer:
    """Each point the start of a chain of its own, whose every move leaves the target invariant;
    their ends.

    Its rounds are proposals by `renoised`, from high noise to low; then come moves of HMC, `block`
    points at a time. `n (1 + rounds + moves LEAPS)` evaluations.
    """
    k_rounds, k_local = jax.random.split(key)

    def one(i, points):
        level, k_move = level_of(k_rounds, i, plan.rounds, steps)
        return renoised(process, evaluate, k_move, points, steps, level)[0]

    points = Buffer.of(z, evaluate(z))
    if plan.rounds:
        points = jax.lax.fori_loop(0, plan.rounds, one, points)
    first = jnp.sqrt(2.0 * jnp.median(first_steps(points))) if differentiable else narrow(process, points, plan)
    return hmc(value, points, first, k_local, plan.moves, block, differentiable).points


def narrow(process: Process | None, points: Buffer, plan: Plan) -> Scalar:
    """Give a random walk its first step, to be adapted: of the order of the narrowest scale, less
    in many dimensions.
    """
    scale = jnp.ones(()) if process is None else plan.narrowest * process.noise.sigma_min
    return scale / points.z.shape[1] ** 0.5


def renoised(
    process: Process,
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    key: Array,
    points: Buffer,
    steps: int,
    level: int | Scalar,
) -> tuple[Buffer, Float[Array, " n"]]:
    """Noise each point to step `level` of the path, denoise it, and accept by the weights of the
    two partial paths.

    Given the noisy end, the old path and the new one are two points of one space, on which the
    target times the noising process has a density and the reverse kernels propose: independence
    Metropolis again, local in as far as the level is low. Returns also which points moved, as 0 or
    1. An evaluation a point.
    """
    k_up, k_down, k_accept = jax.random.split(key, 3)
    sigmas = process.noise.grid(steps)
    up = noise(process, k_up, points.z, sigmas, level, steps)
    down = denoise(process, k_down, up.z, sigmas, level, steps)
    new = Buffer.of(down.z, evaluate(down.z))
    points, accept = choose_by_weight(
        k_accept, points, up.log_ratio + points.log_prob, new, down.log_ratio + new.log_prob
    )
    return points, accept.astype(jnp.float32)
