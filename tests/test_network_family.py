"""Every registered network, by its settings: it starts at zero, sees what it should, and is built
from its shapes alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes.diffusion.networks import NETWORKS, Denoiser, Equivariant, network_for
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame

SYMMETRY = am.ParticleSymmetry(3, 2)
ALL = pytest.mark.parametrize("name", NETWORKS)


def built(name):
    """The network, points that it takes, and its settings."""
    settings = NETWORKS[name](width=8, depth=1)
    of_particles = isinstance(settings, Equivariant)
    dim = SYMMETRY.free_dim if of_particles else 3
    z = jax.random.normal(jax.random.key(0), (100, dim))
    prepared, _ = settings.prepare(am.Target(lambda x: -0.5 * jnp.sum(x**2), dim), found(z), jax.random.key(1))
    network = settings.build(SYMMETRY if of_particles else dim, prepared, jax.random.key(2))
    return network, z, settings


def found(z):
    """Points of a standard normal density, as a search would have found them."""
    frame = Frame(jnp.zeros(z.shape[1]), jnp.ones(z.shape[1]))
    one, points = jnp.ones(()), Buffer(z, -0.5 * jnp.sum(z**2, axis=1), -z)
    return SearchResult(frame, points, one, jnp.ones(z.shape[1]), 0 * one, Evaluations.none())


@ALL
def test_what_it_learns_starts_at_a_denoiser_that_is_exact_for_something(name):
    """Zero, which the preconditioning makes the denoiser of a standard Gaussian; or the denoiser of
    a mixture, which is then that at high noise.
    """
    network, z, settings = built(name)
    denoiser = Denoiser(network, settings.predicts == "score")
    out = jax.vmap(denoiser, in_axes=(0, None))(z, jnp.asarray(0.5))
    assert out.shape == z.shape
    assert np.isfinite(out).all()
    if name != "AnchoredPerceptron":
        np.testing.assert_allclose(out, z / 1.25, atol=1e-5)


@ALL
def test_it_depends_on_the_point_and_on_the_level_once_it_has_learned(name):
    network, z, _ = built(name)
    leaves, structure = jax.tree.flatten(network)
    keys = jax.random.split(jax.random.key(3), len(leaves))
    leaves = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    moved = jax.vmap(jax.tree.unflatten(structure, leaves), in_axes=(0, None))
    low, high = moved(z, jnp.asarray(-2.0)), moved(z, jnp.asarray(1.0))
    assert float(jnp.min(jnp.std(low, axis=0))) > 0
    assert float(jnp.max(jnp.abs(low - high))) > 1e-3


@ALL
def test_the_template_has_the_shapes_of_what_is_built(name):
    network, z, settings = built(name)
    unprepared = settings.unprepared(*z.shape)
    size = SYMMETRY if isinstance(settings, Equivariant) else z.shape[1]
    template = jax.eval_shape(lambda p: settings.build(size, p, jax.random.key(0)), unprepared)
    assert [(a.shape, a.dtype) for a in jax.tree.leaves(template)] == [
        (a.shape, a.dtype) for a in jax.tree.leaves(network)
    ]


@ALL
def test_a_density_gets_one_that_fits_it(name):
    settings = NETWORKS[name](width=8, depth=1)
    assert isinstance(network_for(settings, SYMMETRY), Equivariant)
    chosen = network_for(settings, None)
    assert not isinstance(chosen, Equivariant)
    assert (chosen.width, chosen.depth) == (8, 1)
