"""Denoisers: what an untrained one gives, its preconditioning, and its range."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.devices import blocks
from allmodes.diffusion.networks import EGNN, MLP, Anchored, Denoiser, anchors_of
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


# Anchors.

PLACES = np.array([[0.0, 1.0, -1.0], [2.0, 0.0, 0.5], [-1.0, -1.0, 1.0]])
WIDTHS = np.array([0.1, 0.4, 0.2])


@functools.cache
def anchored(learned=None):
    """A fresh network of three anchors, or one whose zero layers have become random ones of this
    scale."""
    places, widths = jnp.asarray(PLACES, jnp.float32), jnp.asarray(WIDTHS, jnp.float32)
    network = Anchored(places, widths, 16, 2, 4, 8, key=jax.random.key(3))
    if learned is not None:
        rng = np.random.default_rng(4)
        layers = lambda m: (m.trunk.last.weight, m.up.weight, m.trunk.gain.weight)  # noqa: E731
        network = eqx.tree_at(
            layers, network, [jnp.asarray(learned * rng.normal(size=a.shape), jnp.float32) for a in layers(network)]
        )
    return Denoiser(network)


@pytest.mark.parametrize("sigma", [1e-3, 0.1, 0.5, 3.0, 50.0])
def test_untrained_anchors_are_the_denoiser_of_their_mixture(sigma):
    # E[z_0 | z] of an equal mixture of N(place, width^2), in double precision.
    z = np.concatenate([np.asarray(Z, float), PLACES + 0.01])
    variance = WIDTHS**2 + sigma**2
    offset = z[:, None] - PLACES
    log_share = -0.5 * (offset**2).sum(-1) / variance - 1.5 * np.log(variance)
    share = np.exp(log_share - log_share.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    exact = np.einsum("nk,nkd->nd", share, PLACES + (WIDTHS**2 / variance)[:, None] * offset)
    got = apply(anchored(), jnp.asarray(z, jnp.float32), jnp.asarray(sigma))
    np.testing.assert_allclose(got, exact, rtol=1e-4, atol=3e-5)


def test_what_anchors_learn_is_added_and_gives_each_a_linear_map_of_its_own():
    sigma, denoiser = jnp.asarray(0.05), anchored(0.3)
    assert float(jnp.max(jnp.abs(apply(denoiser, Z, sigma) - apply(anchored(), Z, sigma)))) > 1e-3
    slope = [np.asarray(jax.jacobian(lambda z: denoiser(z, sigma))(jnp.asarray(p, jnp.float32))) for p in PLACES]
    assert np.abs(slope[0] - slope[1]).max() > 0.01
    assert np.abs(slope[1] - np.diag(np.diag(slope[1]))).max() > 0.01


def test_every_region_has_an_anchor_however_few_its_points():
    rng = np.random.default_rng(6)
    centres = 10.0 * rng.normal(size=(12, 5))
    sizes = [400] * 11 + [4]
    z = np.concatenate([c + 0.1 * rng.normal(size=(n, 5)) for c, n in zip(centres, sizes, strict=True)])
    places, widths = anchors_of(jnp.asarray(z, jnp.float32), 20, jax.random.key(1))
    assert places.shape == (20, 5)
    distance = np.linalg.norm(np.asarray(places)[None] - centres[:, None], axis=-1)
    assert np.all(distance.min(axis=1) < 0.3)
    assert np.all((np.asarray(widths) > 0.005) & (np.asarray(widths) < 0.12))


def test_anchors_of_few_or_equal_points_have_a_width():
    for z in (jnp.ones((3, 2)), jnp.asarray([[0.0, 1.0], [2.0, 3.0], [2.0, 3.0]])):
        places, widths = anchors_of(z, 8, jax.random.key(0))
        assert places.shape == (3, 2)
        assert set(map(tuple, np.asarray(places))) == set(map(tuple, np.asarray(z)))
        assert np.all(np.asarray(widths) > 0)
        denoiser = Denoiser(Anchored(places, widths, 8, 1, 0, 4, key=jax.random.key(0)))
        assert np.all(np.isfinite(apply(denoiser, z + 0.1, jnp.asarray(0.3))))


def test_curves_change_nothing_until_they_learn_and_then_each_its_own_coordinate():
    plain, curved = (MLP(3, 16, 1, 2, curves=units, key=jax.random.key(0)) for units in (0, 8))
    z, level = jnp.asarray([0.3, -1.0, 2.0]), jnp.asarray(-0.5)
    np.testing.assert_array_equal(plain(z, level), curved(z, level))
    bent = eqx.tree_at(lambda m: m.curves.out, curved, curved.curves.out.at[1].set(0.1))
    jacobian = jax.jacobian(lambda z: bent(z, level) - curved(z, level))(z)
    assert abs(jacobian[1, 1]) > 1e-3
    assert float(jnp.abs(jacobian.at[1, 1].set(0.0)).max()) == 0.0
