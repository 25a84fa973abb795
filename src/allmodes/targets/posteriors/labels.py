"""A normal mixture of four components whose labels mean nothing: 24 modes of exactly equal mass."""

import itertools
import math

import numpy as np
from jaxtyping import Array, Float, Int

from allmodes.interop.numpyro import target
from allmodes.target import Modes, Target

CENTRES = np.array([-3.0, 0.0, 3.0, 6.0])
SPREAD = 0.55
REACH = 1.5  # half of the distance between centres: a mean further from its centre belongs to no labelling


def data(n: int = 100, seed: int = 0) -> Float[np.ndarray, " n"]:
    """N draws of the equal mixture of normals at -3, 0, 3 and 6 with standard deviation 0.55."""
    rng = np.random.default_rng(seed)
    return rng.normal(CENTRES[rng.integers(0, 4, n)], SPREAD)


def mixture_labels(n: int = 100, seed: int = 0) -> Target:
    """Build the posterior of a four-component normal mixture, 11-D; the classic test of label
    switching.

    `y_i ~ sum_k w_k Normal(mu_k, sd_k^2)` with `w ~ Dirichlet(1, 1, 1, 1)`,
    `mu_k ~ Normal(1.5, 6^2)` and `sd_k ~ LogNormal(log 0.5, 0.5^2)`, a NumPyro model;
    `draws.unravel()` has `mu`, `sd` and `w`, and log Z is the evidence. Data have no unit. They,
    the four components and the vague means are those of Jasra, Holmes and Stephens 2005 (Markov
    chain Monte Carlo methods and the label switching problem, section 4) and of Del Moral, Doucet
    and Jasra 2006 (Sequential Monte Carlo samplers, section 4.2), who follow Celeux, Hurn and
    Robert 2000; the prior of the standard deviations is a proper one of our own.

    What is hard: exchanging components changes nothing, so that there are 4! = 24 modes, each of
    mass 1/24. A chain that is confined to one of them looks converged. With four clear clusters in
    100 data, a posterior draw practically always has one mean to each cluster; a point with any of
    the sorted means further than 1.5 from its cluster's centre is in no mode.

    **Arguments**

    - `n`, `seed`: how many data, and NumPy's seed for them.

    **Raises** `ConfigError` when NumPyro is not installed.
    """
    posterior = target(_model, data(n, seed).astype(np.float32), name="mixture-labels")
    orders = np.array(list(itertools.permutations(range(4))))
    index = {tuple(order): i for i, order in enumerate(orders)}

    def assign(x: Float[Array | np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
        mu = np.asarray(x, float)[:, :4]  # sites stand in the order of their names: mu, sd, w
        rank = np.argsort(np.argsort(mu, axis=1), axis=1)  # component k has the cluster rank[k]
        on = np.all(np.abs(np.sort(mu, axis=1) - CENTRES) < REACH, axis=1)
        return np.where(on, [index[tuple(r)] for r in rank.tolist()], -1).astype(int)

    # All weights are equal at zero of the stick-breaking coordinates.
    rest = np.tile(np.r_[np.full(4, math.log(SPREAD)), np.zeros(3)], (24, 1))
    modes = Modes(np.full(24, 1 / 24), assign, np.concatenate([CENTRES[orders], rest], axis=1))
    return Target(posterior.log_prob, posterior.dim, posterior.name, modes=modes, parameters=posterior.parameters)


def _model(y):
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist

    w = numpyro.sample("w", dist.Dirichlet(jnp.ones(4)))
    mu = numpyro.sample("mu", dist.Normal(1.5, 6.0).expand([4]).to_event(1))
    sd = numpyro.sample("sd", dist.LogNormal(math.log(0.5), 0.5).expand([4]).to_event(1))
    numpyro.sample("y", dist.MixtureSameFamily(dist.Categorical(w), dist.Normal(mu, sd)).expand([len(y)]), obs=y)
