"""Denoisers: what an untrained one gives, its preconditioning, and its range."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes import blocks
from allmodes.networks import EGNN, MLP, Denoiser
from allmodes.symmetry import ParticleSymmetry


@functools.cache
def make(dim=3, predicts_score=False, frequencies=4, scale=None):
    """A fresh denoiser, or one with a random last layer of this scale."""
    network = MLP(dim, 16, 2, frequencies, key=jax.random.key(0))
    if scale is not None:
        weight = scale * np.random.default_rng(1).normal(size=network.last.weight.shape)
        network = eqx.tree_at(lambda m: m.last.weight, network, jnp.asarray(weight, jnp.float32))
    return Denoiser(network, predicts_score)


@jax.jit
def apply(denoiser, z, sigma):
    return jax.vmap(denoiser, (0, None))(z, sigma)


Z = jnp.asarray(np.random.default_rng(2).normal(size=(10, 3)), jnp.float32)


@pytest.mark.parametrize("sigma", [1e-4, 0.3, 1.0, 50.0])
def test_untrained_network_is_the_denoiser_of_a_standard_gaussian(sigma):
    got = apply(make(), Z, jnp.asarray(sigma))
    np.testing.assert_allclose(got, np.asarray(Z, float) / (1 + sigma**2), rtol=1e-5)


@pytest.mark.parametrize("sigma", [1e-4, 0.3, 50.0])
def test_untrained_score_network_is_the_identity(sigma):
    assert np.array_equal(apply(make(predicts_score=True), Z, jnp.asarray(sigma)), Z)


class Constant(eqx.Module):
    """A network that returns what it is given."""

    def __call__(self, z, log_sigma):
        return z + 0.0 * log_sigma


@pytest.mark.parametrize("sigma", [0.05, 1.0, 4.0])
def test_preconditioning_is_edm(sigma):
    # EDM's table 1 with sigma_data = 1.
    c_skip, c_out, c_in = 1 / (1 + sigma**2), sigma / np.sqrt(1 + sigma**2), 1 / np.sqrt(1 + sigma**2)
    z = np.array([0.5, -2.0])
    got = Denoiser(Constant())(jnp.asarray(z, jnp.float32), jnp.asarray(sigma))
    np.testing.assert_allclose(got, c_skip * z + c_out * c_in * z, rtol=1e-5)
    np.testing.assert_allclose(Denoiser(Constant()).loss_weight(jnp.asarray(sigma)), 1 / c_out**2, rtol=1e-5)


def test_score_network_is_the_score():
    # D = z + sigma^2 F, so that (D - z) / sigma^2 = F.
    sigma, z = 0.7, np.array([0.5, -2.0])
    got = Denoiser(Constant(), True)(jnp.asarray(z, jnp.float32), jnp.asarray(sigma))
    np.testing.assert_allclose(got, z + sigma**2 * z, rtol=1e-6)
    np.testing.assert_allclose(Denoiser(Constant(), True).loss_weight(jnp.asarray(sigma)), sigma**-4, rtol=1e-5)


@pytest.mark.parametrize("predicts_score", [False, True])
def test_loss_weight_is_one_over_the_square_of_what_multiplies_the_network(predicts_score):
    denoiser = make(predicts_score=predicts_score, scale=1.0)
    bias = lambda b: eqx.tree_at(lambda d: d.network.last.bias, denoiser, jnp.full(3, b))  # noqa: E731
    for sigma in (0.1, 1.0, 3.0):
        level = jnp.asarray(sigma)
        gain = (apply(bias(1.0), Z, level) - apply(bias(0.0), Z, level))[0]
        np.testing.assert_allclose(denoiser.loss_weight(level) * gain**2, 1.0, rtol=1e-2)


@pytest.mark.parametrize("dim", [1, 2, 10])
@pytest.mark.parametrize("frequencies", [0, 3])
def test_shapes(dim, frequencies):
    def build():  # traced only
        denoiser = Denoiser(MLP(dim, 16, 2, frequencies, key=jax.random.key(0)))
        one = denoiser(jnp.ones(dim), jnp.ones(()))
        batch = jax.vmap(denoiser)(jnp.ones((7, dim)), jnp.ones(7))
        return one, batch, denoiser.loss_weight(jnp.ones(7))

    shapes = [(a.shape, a.dtype) for a in jax.eval_shape(build)]
    assert shapes == [((dim,), jnp.float32), ((7, dim), jnp.float32), ((7,), jnp.float32)]


@jax.jit
@jax.value_and_grad
def value_and_gradient(denoiser, z, sigma):
    return jnp.sum(jax.vmap(denoiser, (0, None))(z, sigma) ** 2)


@pytest.mark.parametrize("sigma", [1e-5, 1e-3, 1e3])
def test_finite_with_finite_gradients_at_extreme_noise(sigma):
    denoiser = make(frequencies=8, scale=1.0)
    z = sigma * jnp.asarray([[1.0, -1.0, 0.0], [5.0, 0.1, -3.0]]) + jnp.asarray([[0.0] * 3, [10.0] * 3])

    value, gradient = value_and_gradient(denoiser, z, jnp.asarray(sigma))
    assert np.isfinite(value)
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(gradient))


def test_network_knows_the_point_and_the_level():
    denoiser = make(scale=1.0)
    f = denoiser.network
    z = jnp.ones(3)
    assert not np.allclose(f(z, jnp.asarray(0.0)), f(z, jnp.asarray(-1.0)), atol=1e-3)
    assert not np.allclose(f(z, jnp.asarray(0.0)), f(1.1 * z, jnp.asarray(0.0)), atol=1e-3)


def test_every_parameter_learns_once_the_output_has_left_zero():
    _, gradient = value_and_gradient(make(frequencies=8, scale=1.0), Z[:2], jnp.asarray(0.5))
    assert all(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(gradient))


# In blocks.


def particles():
    """A denoiser of four particles, whose messages take 6 x 8 numbers, and points for it."""
    denoiser = Denoiser(EGNN(ParticleSymmetry(4, 2), 8, 2, key=jax.random.key(3)))
    leaves, tree = jax.tree.flatten(denoiser)
    keys = jax.random.split(jax.random.key(4), len(leaves))
    noisy = [a + 0.3 * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy), jax.random.normal(jax.random.key(5), (30, 6))


@pytest.mark.parametrize("fit", [0, 4, 100])
def test_blocks_change_nothing(monkeypatch, fit):
    # `fit` configurations have room in the cache; 30 points are no multiple of 4.
    denoiser, z = particles()
    monkeypatch.setattr(blocks, "CACHE_BYTES", fit * 4 * 6 * 8)
    assert denoiser.block(30) == max(1, min(fit, 30))
    sigma = jnp.asarray(0.5)
    np.testing.assert_allclose(jax.jit(lambda d: d.many(z, sigma))(denoiser), apply(denoiser, z, sigma), rtol=1e-5)

    def objective(d, z, weight):
        out = jax.vmap(d, (0, None))(z, sigma)
        return jnp.sum(weight * jnp.sum(out**2, axis=1)), (out, jnp.sum(z, axis=1))

    weight = jnp.arange(30.0)
    whole = jax.jit(jax.value_and_grad(objective, has_aux=True))(denoiser, z, weight)
    parts = jax.jit(lambda d: blocks.value_and_grad(objective, d, (z, weight), d.block(30)))(denoiser)
    for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * float(jnp.max(jnp.abs(b))))


def test_a_network_that_does_not_say_takes_all_points_at_once(monkeypatch):
    monkeypatch.setattr(blocks, "CACHE_BYTES", 1)
    assert make().block(1000) == 1000
