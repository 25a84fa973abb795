"""All Markov kernels by one standard: exact draws of a mixture stay exact, and wrong ones come
nearer. A kernel is registered here, and every module of `mcmc/` has one; nothing is trained."""

import dataclasses
import functools
import pkgutil
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import TARGETS, check_mixture, draw_mixture, log_mixture, make_process

from allmodes import Target, mcmc
from allmodes.diffusion.corrections.chain_moves import renoised
from allmodes.diffusion.path_exchange import exchange
from allmodes.diffusion.paths import reverse
from allmodes.mcmc import parallel_tempering as parallel
from allmodes.mcmc.hmc import hmc, kind_of
from allmodes.mcmc.mala import mala, posterior_chain
from allmodes.mcmc.metropolis import choose_by_weight
from allmodes.points.buffer import Buffer
from allmodes.points.frame import Frame
from allmodes.points.normal import log_normal

N, STEPS, SIGMAS = 4000, 8, 4.0
WIDTH = 1.5  # of the normal that independence Metropolis and the first temperature draw from
SEEING = TARGETS["mixture"]
BLIND = Target(log_mixture, 2, differentiable=False)
PROCESS = make_process(perturbed=0.3)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel as a function `(key, points) -> points`, and the module that it is of."""

    module: str
    move: Callable
    target: Target = SEEING
    times: int = 1  # how often wrong points are moved


def fresh(key):
    """Draws of a normal, and log weights as the mixture sees them."""
    z = WIDTH * jax.random.normal(key, (N, 2))
    points = Buffer.of(z, SEEING.evaluate(z))
    return points, points.log_prob - log_prior(z)


def log_prior(z):
    return log_normal(z, jnp.zeros_like(z), jnp.full(2, WIDTH**2))


def langevin(target, key, points):
    return mala(lambda z, _: target.evaluate(z), points, jnp.asarray(0.2), key, 20).points


def posterior(key, points):
    """Noised, and moved given the noise: the point and the noisy one are a state of a joint law."""
    k_noise, k_chain = jax.random.split(key)
    z_t = points.z + 0.8 * jax.random.normal(k_noise, points.z.shape)
    ones = jnp.ones(N)
    return posterior_chain(SEEING.evaluate, points, z_t, 0.8 * ones, 0.1 * ones, k_chain, 8).points


def hamiltonian(target, key, points):
    step = jnp.asarray(0.3 if target.differentiable else 0.6)
    return hmc(target.value, points, step, key, 3, N, target.differentiable).points


def independence(key, points):
    k_fresh, k_accept = jax.random.split(key)
    new, log_w = fresh(k_fresh)
    return choose_by_weight(k_accept, points, points.log_prob - log_prior(points.z), new, log_w)[0]


def path_exchange(key, points):
    k_fresh, k_path, k_accept = jax.random.split(key, 3)
    path = reverse(PROCESS, k_fresh, N, STEPS)
    new = Buffer.of(path.z, SEEING.evaluate(path.z))
    return exchange(PROCESS, k_path, k_accept, points, new, path.log_ratio + new.log_prob, STEPS)[0]


def noising(level, key, points):
    return renoised(PROCESS, SEEING.evaluate, key, points, STEPS, level)[0]


def replicas_of(key, points):
    """Two temperatures: exact draws of the prior, and the points."""
    hot, _ = fresh(key)
    both = (jnp.stack(pair, axis=1) for pair in zip(*map(jax.tree.leaves, (hot, points)), strict=True))
    return parallel.Replicas(*both, jnp.zeros((N, 2), bool))


def cold(replicas):
    return Buffer(replicas.z[:, -1], replicas.log_prob[:, -1], replicas.grad[:, -1])


def swap(key, points):
    k_fresh, k_swap = jax.random.split(key)
    betas = jnp.array([0.0, 1.0])
    return cold(parallel.swapped(k_swap, 0, replicas_of(k_fresh, points), betas, WIDTH)[0])


def sweep(target, key, points):
    k_fresh, k_sweep = jax.random.split(key)
    ladder = parallel.Ladder(jnp.array([0.0, 1.0]), jnp.array([0.3 if target.differentiable else 0.6]))
    run = parallel.sweeper(target, Frame(jnp.zeros(2), jnp.ones(2)), WIDTH)
    return cold(run(k_sweep, jnp.zeros((), int), replicas_of(k_fresh, points), ladder)[0])


KERNELS = {
    "mala": Kernel("mala", functools.partial(langevin, SEEING)),
    "random walk of a population": Kernel("mala", functools.partial(langevin, BLIND), BLIND),
    "mala on a posterior": Kernel("mala", posterior, times=4),
    "hmc": Kernel("hmc", functools.partial(hamiltonian, SEEING)),
    "random walk of a chain": Kernel("hmc", functools.partial(hamiltonian, BLIND), BLIND),
    "independence Metropolis": Kernel("metropolis", independence, times=4),
    "path exchange": Kernel("path_exchange", path_exchange, times=4),
    "noising to the top": Kernel("chain_moves", functools.partial(noising, 0), times=4),
    "noising half way": Kernel("chain_moves", functools.partial(noising, 4), times=12),
    "swap": Kernel("parallel_tempering", swap, times=4),
    "sweep": Kernel("parallel_tempering", functools.partial(sweep, SEEING), times=2),
    "sweep of random walks": Kernel("parallel_tempering", functools.partial(sweep, BLIND), BLIND, times=2),
}
ALL = pytest.mark.parametrize("name", KERNELS)


@functools.cache
def compiled(name):
    return jax.jit(KERNELS[name].move)


def moved(name, z, times):
    points = Buffer.of(z, KERNELS[name].target.evaluate(z))
    for i in range(times):
        points = compiled(name)(jax.random.key(i), points)
    return points


@ALL
def test_exact_draws_stay_exact(name):
    z = draw_mixture(1, N)
    points = moved(name, z, 3)
    assert np.all(check_mixture(points.z) < SIGMAS)
    e = KERNELS[name].target.evaluate(points.z)
    np.testing.assert_allclose(points.log_prob, e.log_prob, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(points.grad, e.grad, rtol=1e-3, atol=1e-3)
    assert np.mean(np.any(np.asarray(points.z) != np.asarray(z), axis=1)) > 0.1


@ALL
def test_wrong_draws_come_nearer(name):
    wrong = 0.7 * draw_mixture(1, N) + 0.4
    after = moved(name, wrong, KERNELS[name].times)
    assert np.max(check_mixture(wrong)) > 8 * SIGMAS
    assert np.max(check_mixture(after.z)) < 0.6 * np.max(check_mixture(wrong))


def test_every_module_of_kernels_is_here():
    """Tempered SMC moves by the kernel of hmc, and draws a population instead of moving one:
    `test_plain` has it."""
    modules = {module.name for module in pkgutil.iter_modules(mcmc.__path__)}
    assert modules - {"tempered_smc"} <= {kernel.module for kernel in KERNELS.values()}


def test_without_a_gradient_as_many_evaluations_are_spent():
    assert len({kind_of(seeing).leaps * kind_of(seeing).moves for seeing in (True, False)}) == 1
