"""What makes draws of a diffusion right whatever its network has learned: chains, and SMC along the
reverse path.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar

from allmodes.diffusion.paths import Path, Process, denoise, noise
from allmodes.mcmc.hmc import hmc
from allmodes.mcmc.mala import first_steps
from allmodes.mcmc.metropolis import choose_by_weight
from allmodes.points import weights
from allmodes.points.buffer import Buffer
from allmodes.points.normal import log_normal
from allmodes.target import Evaluation, Target

MOVES = 5  # Hamiltonian moves of a chain
PARTICLE_MOVES = 30  # the same for particles, whose energies are stiff: one a free dimension, and so many at least
ROUNDS = 2  # proposals by noising and denoising
POOL = 16  # most raw draws for each chain, out of which it starts
PARTICLE_POOL = 2  # the same for particles, whose networks are dear
# Effective draws for each chain, after which no more are made: mode weights then err 1.12 times as
# independent draws.
ENOUGH = 4.0
ONE = 1.0  # effective draw for each chain, below which a joint resample would make copies of few

NARROWEST = 7.0  # the narrowest scale of the target over the lowest noise, about

LEAST = 0.5  # effective share below which SMC resamples

LEVELS = 12  # of a path at which SMC may resample
LOOKS = 8  # draws of the denoised posterior with which it looks ahead at each of them
WIDER = 1.5  # variance of those draws over that of the denoised posterior: a proposal must not be too narrow
NOISY = 0.05  # relative variance of what it sees there above which it does not


def moves_for(target: Target) -> int:
    """Moves of a chain that is to forget the sampler's local errors, when not said otherwise."""
    return MOVES if target.symmetry is None else max(PARTICLE_MOVES, target.free_dim)


def rounds_for(target: Target) -> int:
    """Proposals by noising, when not said otherwise; none for particles, whose networks are dearer
    than their moves.
    """
    return ROUNDS if target.symmetry is None else 0


def pool_for(target: Target) -> int:
    """Most raw draws for each chain, when not said otherwise."""
    return POOL if target.symmetry is None else PARTICLE_POOL


def enough(log_w: Float[Array, "each n"], most: int) -> bool:
    """Whether to stop at the raw draws that there are for n chains, of at most `most` for each.

    Yes when `ENOUGH` are effective for each chain, or when after two for each it is plain that not
    even the most would give each an effective one.
    """
    each = log_w.shape[0]
    effective = each * float(weights.ess_fraction(log_w.ravel()))
    return each >= most or effective >= ENOUGH or (each > 1 and effective * most < ONE * each)


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

    return jax.lax.cond(each * weights.ess_fraction(log_w.ravel()) >= ONE, together, apart, key)


def chains(
    process: Process,
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
    step = jnp.sqrt(2.0 * jnp.median(first_steps(points))) if differentiable else narrow(process)
    return hmc(value, points, step, k_local, moves, block, differentiable).points


def narrow(process: Process) -> Scalar:
    """A first step of a random walk, to be adapted: of the order of the narrowest scale, less in
    many dimensions.
    """
    return NARROWEST * process.noise.sigma_min / process.mean.shape[0] ** 0.5


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


def look_ahead(
    process: Process,
    values: Callable[[Float[Array, "n dim"]], Float[Array, " n"]],
    key: Array,
    z: Float[Array, "n dim"],
    sigma: Scalar,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Estimate `log p_t(z) + log Z` by importance sampling of p(z_0 | z), and its relative
    variance.

    The proposal is the Gaussian that the denoiser knows: its own value and its error at the level.
    The mean of `pi(z_0) N(z; z_0, sigma^2) / q(z_0)` over it is unbiased for `Z p_t(z)`. `LOOKS`
    evaluations a point.
    """
    mean, variance = process.denoiser.many(z, sigma), WIDER * process.error_at(sigma)
    n, dim = z.shape
    z_0 = mean[:, None] + jnp.sqrt(variance) * jax.random.normal(key, (n, LOOKS, dim))
    log_w = values(z_0.reshape(-1, dim)).reshape(n, LOOKS)
    centre = jnp.broadcast_to(z[:, None], z_0.shape)
    log_w += log_normal(z_0, centre, sigma[None] ** 2)
    log_w -= log_normal(z_0, jnp.broadcast_to(mean[:, None], z_0.shape), variance)
    fraction = weights.ess_fraction(log_w)
    noisy = jnp.where(fraction > 0, (1.0 / jnp.maximum(fraction, 1e-6) - 1.0) / LOOKS, 1.0)
    return logsumexp(log_w, axis=1) - jnp.log(LOOKS), noisy


def smc(
    process: Process, values: Callable[[Float[Array, "n dim"]], Float[Array, " n"]], key: Array, n: int, steps: int
) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
    """One population along the reverse path, resampled where its weights have become uneven: z,
    log_prob, log_weight.

    The target of a path that has come down to z is `Z p_t(z)`, times the noising kernels above it;
    at some levels `look_ahead` estimates it, and whatever it estimates cancels in the end: weights
    are exact, `mean(exp(log_weight))` is unbiased for Z but for the adaptive choice of where to
    resample, and averages are consistent in n (Del Moral et al. 2006; Doucet et al. 2022 for
    diffusions). A level whose estimates vary too much is passed by. `n (1 + LEVELS LOOKS)`
    evaluations.
    """
    sigmas = process.noise.grid(steps)
    stops = np.unique(np.round(np.linspace(0, steps, LEVELS + 2)).astype(int))
    k_prior, k_path, k_look, k_choose = jax.random.split(key, 4)
    z = process.prior(k_prior, n)
    # `since`: log weight since the last resampling without the look-ahead of now; `log_z`: of what
    # was resampled away.
    start = (z, -process.log_prior(z), jnp.zeros(()))

    def segment(carry, bounds):
        z, since, log_z = carry
        first, last = bounds
        path = denoise(process, k_path, z, sigmas, first, last)
        z, since = path.z, since + path.log_ratio
        seen, noisy = look_ahead(process, values, jax.random.fold_in(k_look, last), z, sigmas[last])
        log_w = since + seen
        uneven = weights.ess_fraction(log_w) < LEAST

        def resample(_):
            index = weights.systematic(jax.random.fold_in(k_choose, last), weights.normalise(log_w), n)
            return z[index], -seen[index], log_z + logsumexp(log_w) - jnp.log(n)

        clear = jnp.mean(jnp.minimum(noisy, 1.0)) < NOISY
        return jax.lax.cond(uneven & clear, resample, lambda _: (z, since, log_z), None), None

    (z, since, log_z), _ = jax.lax.scan(segment, start, (jnp.asarray(stops[:-2]), jnp.asarray(stops[1:-1])))
    path: Path = denoise(process, k_path, z, sigmas, int(stops[-2]), steps)
    log_prob = values(path.z)
    return path.z, log_prob, since + path.log_ratio + log_prob + log_z
