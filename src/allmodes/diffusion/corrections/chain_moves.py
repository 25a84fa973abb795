"""What chains do: where they start, and moves that leave the target invariant."""

from collections.abc import Callable

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

NARROWEST = 7.0  # the narrowest scale of the target over the lowest noise, about


def chain_evaluations(rounds: int, moves: int) -> int:
    """Count the evaluations of one chain."""
    return 1 + rounds + moves * LEAPS


def enough(log_w: Float[Array, "each n"], most: int, effective: float = 4.0, least: float = 1.0) -> bool:
    """Whether to stop at the raw draws that there are for n chains, of at most `most` for each.

    Yes when `effective` are effective for each chain, or when after two for each it is plain that
    not even the most would give each an effective one.
    """
    each = log_w.shape[0]
    there = each * float(weights.ess_fraction(log_w.ravel()))
    return each >= most or there >= effective or (each > 1 and there * most < least * each)


@jax.jit
def starts(key: Array, log_w: Float[Array, "each n"]) -> Int[Array, " n"]:
    """Which of `each n` raw draws, counted row by row, the n chains start from, by their path
    weights.

    Where there is an effective draw for each chain, all are resampled together: mode weights are
    then as right as weighted averages are (consistent in n), with few copies, which the moves part.
    Where there is not, a few would crowd out all others: each chain chooses among `each` draws of
    its own instead (sampling importance resampling). A draw of the sampler comes with its path, so
    no path has to be made up for it.
    """
    each, n = log_w.shape

    def together(key):
        return weights.systematic(key, weights.normalise(log_w.ravel()), n)

    def apart(key):
        chosen = jax.random.categorical(key, jnp.where(jnp.max(log_w, axis=0) > -jnp.inf, log_w, 0.0), axis=0)
        return chosen * n + jnp.arange(n)

    return jax.lax.cond(each * weights.ess_fraction(log_w.ravel()) >= 1.0, together, apart, key)


def chains(
    process: Process | None,
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    value: Callable[[Float[Array, " dim"]], Scalar],
    key: Array,
    z: Float[Array, "n dim"],
    steps: int,
    rounds: int,
    moves: int,
    block: int,
    differentiable: bool,
) -> Buffer:
    """Each point the start of a chain of its own, whose every move leaves the target invariant;
    their ends.

    `rounds` proposals by `renoised`, from high noise to low; then `moves` of HMC, `block` points at
    a time. `n (1 + rounds + moves LEAPS)` evaluations.
    """
    k_rounds, k_local = jax.random.split(key)

    def one(i, points):
        k_level, k_move = jax.random.split(jax.random.fold_in(k_rounds, i))
        share = (i + jax.random.uniform(k_level)) / rounds  # of the way down: a stratum for each round
        level = jnp.minimum((share * steps).astype(jnp.int32), steps - 1)
        return renoised(process, evaluate, k_move, points, steps, level)[0]

    points = Buffer.of(z, evaluate(z))
    if rounds:
        points = jax.lax.fori_loop(0, rounds, one, points)
    step = jnp.sqrt(2.0 * jnp.median(first_steps(points))) if differentiable else narrow(process, z.shape[1])
    return hmc(value, points, step, k_local, moves, block, differentiable).points


def narrow(process: Process | None, dim: int) -> Scalar | float:
    """A first step of a random walk, to be adapted: of the order of the narrowest scale, less in
    many dimensions.
    """
    scale = 1.0 if process is None else NARROWEST * process.noise.sigma_min
    return scale / dim**0.5


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
