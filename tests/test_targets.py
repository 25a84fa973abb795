"""Every registered target through the same checks, then the constants and the families."""

import dataclasses
import functools
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import listed

from allmodes import targets
from allmodes.errors import TargetError
from allmodes.target import Target
from allmodes.targets.components import chi2_quantile
from allmodes.targets.manywell import EVEN, TILTED
from allmodes.targets.shapes import ring_log_z

N = 20_000
SIGMAS = 5.0  # bounds are this many standard errors
MASS_ERROR = 1e-4  # standard error of modes.weights where components overlap


def value_and_grad(target, x):
    """Values and gradients at points, in the precision in force."""
    return jax.jit(jax.vmap(jax.value_and_grad(target.log_prob)))(jnp.asarray(x, float))


@functools.cache
def target_and_draws(name: str):
    """The target, N exact draws in float64, their values and gradients, and a function for more
    points; built once."""
    target = targets.get(name)
    f = jax.jit(jax.vmap(jax.value_and_grad(target.log_prob)))

    def evaluate(x):  # by blocks of N, so that one compilation does for all
        blocks = -(-len(x) // N)
        padded = np.concatenate([x, np.zeros((blocks * N - len(x), target.dim))]).reshape(blocks, N, target.dim)
        values, grads = zip(*(f(jnp.asarray(block, float)) for block in padded), strict=True)
        return (np.asarray(np.concatenate(a), float)[: len(x)] for a in (values, grads))

    x = np.asarray(target.sample(jax.random.key(0), N), float)
    return target, x, *evaluate(x), evaluate


def assert_near(values, expected, sigmas=SIGMAS):
    """The mean of `values` over axis 0 is `expected` within standard errors."""
    error = np.std(values, axis=0) / math.sqrt(len(values))
    assert np.all(error > 0)
    off = np.abs(np.mean(values, axis=0) - expected) / error
    assert np.all(off < sigmas), f"{np.max(off):.1f} standard errors off"


def grid_2d(x, pad=1.5, points=400):
    """Points covering the draws with a margin, and the area of one."""
    low, high = x.min(0) - pad, x.max(0) + pad
    axes = [np.linspace(a, b, points) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2)
    return grid, math.prod(axis[1] - axis[0] for axis in axes)


# Those with exact draws; particle systems and posteriors have references instead, and tests of
# their own.
def with_exact_draws(dim=None):
    return [
        name
        for name, entry in targets.entries().items()
        if entry.reference is None and dim in (None, entry.dim) and targets.get(name).sample is not None
    ]


every_target = pytest.mark.parametrize("name", with_exact_draws())


@every_target
def test_value_and_gradient(name):
    target, x, values, grads, evaluate = target_and_draws(name)
    entry = targets.entries()[name]
    assert (target.name, target.source, target.dim) == (name, entry.source, entry.dim)
    assert entry.summary
    assert entry.source
    target.check()
    assert np.all(np.isfinite(values))
    assert np.all(np.isfinite(grads))
    assert all(np.all(np.isfinite(a)) for a in evaluate(np.zeros((1, target.dim))))

    points = x[:16] + 0.3 * np.std(x, axis=0) * np.random.default_rng(0).normal(size=(16, target.dim))
    step = 1e-5 * np.eye(target.dim)[:, None]
    with jax.enable_x64(True):
        values_64, grads_64 = evaluate(np.concatenate([points, *(points + step), *(points - step), x[:200]]))
    up, down = values_64[16:-200].reshape(2, target.dim, 16)
    finite_difference = (up - down).T / 2e-5
    size = 1 + np.linalg.norm(grads_64[:16], axis=1, keepdims=True)
    assert np.max(np.abs(grads_64[:16] - finite_difference) / size) < 1e-5
    assert np.max(np.abs(values[:200] - values_64[-200:]) / (1 + np.abs(values_64[-200:]))) < 2e-5  # float32 is enough


@every_target
def test_draws_are_reproducible(name):
    target, x, *_ = target_and_draws(name)
    draws = target.sample(jax.random.key(0), N)
    assert draws.shape == (N, target.dim)
    assert draws.dtype == jnp.float32
    np.testing.assert_array_equal(draws, x)
    assert not np.any(np.all(x == np.asarray(target.sample(jax.random.key(4), N)), axis=1))
    # At 2.5e5 from the origin float32 numbers are 1/64 to 1/32 apart: a few draws meet.
    assert len(np.unique(x, axis=0)) > (0.98 if name == "mixture-2d-far" else 0.999) * N


@every_target
def test_draws_follow_the_density(name):
    """Stein's identities: `E[grad log p] = 0` and `E[x_i d_i log p] = -1`, the latter about the
    points' mean."""
    _, x, _, grads, _ = target_and_draws(name)
    assert_near(grads, 0.0)
    centred = x - x.mean(axis=0)
    assert_near(centred * grads, -1.0)
    assert_near(np.sum(centred * grads, axis=1), -x.shape[1])


@every_target
def test_modes(name):
    target, x, *_ = target_and_draws(name)
    if target.modes is None:
        return
    weights, means = target.modes.weights, target.modes.means
    assert np.all(weights > 0)
    assert math.isclose(weights.sum(), 1.0, abs_tol=1e-9)
    label = target.modes.assign(x)
    assert label.shape == (N,)
    assert np.sum(label < 0) <= 2  # about one in a million is expected
    frequency = np.bincount(label[label >= 0], minlength=len(weights)) / N
    error = np.sqrt(weights * (1 - weights) / N + MASS_ERROR**2)
    assert np.max(np.abs(frequency - weights) / error) < SIGMAS
    assert means.shape == (len(weights), target.dim)
    if name not in ("gmm80", "gmm120") and not name.startswith(
        ("mixture-2d", "warped-2d")
    ):  # there, some means lie in a neighbour's region
        np.testing.assert_array_equal(target.modes.assign(means), np.arange(len(weights)))
    far = np.full((1, target.dim), 1e8)
    np.testing.assert_array_equal(target.modes.assign(np.concatenate([far, far * np.nan])), [-1, -1])


@pytest.mark.parametrize("name", with_exact_draws(dim=2))
def test_log_z_masses_and_slope_by_quadrature(name):
    target, x, _, grads, evaluate = target_and_draws(name)
    grid, area = grid_2d(x)
    value, grad = evaluate(grid)
    density = np.exp(value)
    total = density.sum() * area
    assert abs(math.log(total) - target.log_z) < 2e-4
    if target.modes is not None:
        label = target.modes.assign(grid)
        assert density[label < 0].sum() * area / total < 1e-5
        masses = np.bincount(label[label >= 0], density[label >= 0], minlength=len(target.modes.weights)) * area / total
        assert np.max(np.abs(masses - target.modes.weights)) < SIGMAS * MASS_ERROR
    # How wide the density is, in places: E|grad|^2 by quadrature and over the draws.
    slope = np.sum(density * np.sum(grad**2, axis=1)) * area / total
    assert_near(np.sum(grads**2, axis=1), slope)


def test_the_target_of_contributing_passes_when_it_is_registered_and_one_without_draws_is_left_out(monkeypatch):
    page = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
    space = {"Entry": targets.Entry}
    exec(re.search(r"```python\n(# src/allmodes/targets/banana.py.*?)```", page, re.DOTALL).group(1), space)
    entry = eval(re.search(r'`"banana": (Entry\(.*?\))`', page).group(1), space)
    monkeypatch.setitem(targets.REGISTRY, "banana", entry)
    drawless = dataclasses.replace(entry, build=lambda: dataclasses.replace(entry.build(), sample=None))
    monkeypatch.setitem(targets.REGISTRY, "drawless", drawless)
    assert "banana" in with_exact_draws(dim=2)
    assert "drawless" not in with_exact_draws()
    for check in (test_value_and_gradient, test_draws_are_reproducible, test_draws_follow_the_density, test_modes):
        check("banana")
    test_log_z_masses_and_slope_by_quadrature("banana")


@pytest.mark.parametrize("name", ["gaussian", "mixture-10d", "two-modes", "manywell-8"])
def test_log_z_by_reversed_importance_sampling(name):
    """`E_p[q / exp(log_prob)] = 1 / Z` for a normalised q narrower than p: a Gaussian on the
    heaviest mode."""
    target, x, values, *_ = target_and_draws(name)
    one = x[: N // 2][target.modes.assign(x[: N // 2]) == np.argmax(target.modes.weights)]
    mean, cov = one.mean(axis=0), 0.6 * np.cov(one.T)
    z = np.linalg.solve(np.linalg.cholesky(cov), (x[N // 2 :] - mean).T)
    log_q = -0.5 * np.sum(z**2, axis=0) - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]
    ratio = np.exp(log_q - values[N // 2 :] + target.log_z)
    assert np.std(ratio) / math.sqrt(len(ratio)) < 0.05
    assert_near(ratio, 1.0)


def test_log_z_of_the_funnel():
    funnel = targets.get("funnel")
    z = np.random.default_rng(0).normal(size=(N, 10)).astype(np.float32)
    v, wide = 4.0 * z[:, :1], 1.2  # q: v ~ N(0, 4^2), x_i ~ N(0, 1.2^2 exp(v))
    x = np.concatenate([v, wide * np.exp(v / 2) * z[:, 1:]], axis=1)
    log_q = -0.5 * np.sum(z**2, 1) - 5 * math.log(2 * math.pi) - math.log(4.0) - 9 * (math.log(wide) + v[:, 0] / 2)
    assert_near(np.exp(np.asarray(value_and_grad(funnel, x)[0]) - log_q), 1.0)
    assert np.isfinite(value_and_grad(funnel, -100.0 * np.eye(10)[:1])[0])  # exp(100) is beyond float32


@every_target
def test_what_is_listed_is_known(name):
    listed(name, target_and_draws(name)[0])


def test_names():
    assert len(set(targets.names())) == len(targets.entries()) >= 14
    with pytest.raises(TargetError, match=r"'gmm4O'.*allmodes targets.*Did you mean gmm40\?") as error:
        targets.get("gmm4O")
    assert "\n" not in str(error.value)
    with pytest.raises(TargetError, match=r"'qqqq': `allmodes targets`"):
        targets.get("qqqq")


# The constants of the field's mixtures


def assert_equal_mixture(target, std):
    """The density is that of equal Gaussians at `modes.means`."""
    with jax.enable_x64(True):
        x = jnp.asarray([[0.0, 0.0], [-0.5, 20.0], [30.0, -7.0]])
        got, _ = value_and_grad(target, x)
    sq = np.sum((np.asarray(x)[:, None] - target.modes.means) ** 2, -1) / std**2
    np.testing.assert_allclose(got, np.log(np.mean(np.exp(-sq / 2), axis=1) / (2 * math.pi * std**2)), rtol=1e-12)


@pytest.mark.parametrize("modes", [40, 80, 120])
def test_gmm_torch_constants(modes):
    target = target_and_draws(f"gmm{modes}")[0]
    means = target.modes.means
    u = means / 80 + 0.5
    np.testing.assert_allclose(u.ravel()[:4], [0.49625659, 0.7682218, 0.08847743, 0.13203049], atol=5e-9)
    first = [(-0.29947, 21.45775), (-32.92181, -29.43756), (-15.40618, 10.72629)]
    np.testing.assert_allclose(means[:3], first, atol=5e-6)
    assert means.shape == (modes, 2)
    assert_equal_mixture(target, 1.3132616875182228)


def test_gmm_jax_constants():
    target = target_and_draws("gmm40-jax")[0]
    means = target.modes.means
    np.testing.assert_allclose(means[:2], [(-15.758228, 18.116531), (-34.80889, 21.225481)], atol=5e-6)
    if hasattr(jax, "threefry_partitionable"):  # off, it is JAX before 0.5
        with jax.threefry_partitionable(False):
            key = jax.random.key(0, impl="threefry2x32")
            expected = jax.random.uniform(key, (5, 3), minval=-1.0, maxval=1.0) * 40
            np.testing.assert_array_equal(targets.gmm_jax(5, 3).modes.means, expected)
    assert_equal_mixture(target, 1.0)


def test_two_modes():
    target = targets.two_modes(3, 0.5)
    np.testing.assert_array_equal(target.modes.means, [[-0.5] * 3, [0.5] * 3])
    (left, right), _ = value_and_grad(target, target.modes.means)
    assert math.isclose(left - right, math.log(2), rel_tol=1e-5)
    assert math.isclose(left, math.log(2 / 3) - 1.5 * math.log(0.1 * math.pi), rel_tol=1e-5)


def test_many_well_constants():
    per_pair = math.log(11784.50927) + 0.5 * math.log(2 * math.pi)
    assert math.isclose(targets.get("manywell-32").log_z, 16 * per_pair, rel_tol=1e-9)
    assert math.isclose(targets.get("manywell-32").log_z, 164.696, abs_tol=5e-4)
    pair = targets.many_well(2)
    x = pair.sample(jax.random.key(1), N)
    grid, area = grid_2d(np.asarray(x), pad=2.0)
    density = np.exp(value_and_grad(pair, grid)[0])
    assert math.isclose(math.log(density.sum() * area), pair.log_z, abs_tol=1e-4)
    assert pair.log_prob(jnp.array([1.0, 2.0])) == -1 + 6 + 0.5 - 2
    # The moments of the double well by quadrature.
    grid = np.linspace(-4, 4, 4001)
    p = np.exp(-(grid**4) + 6 * grid**2 + 0.5 * grid)
    coarse = TILTED.sample(jax.random.key(1), N, intervals=16)  # an envelope so loose that rejection matters
    for draws in (np.asarray(x[:, 0], float), np.asarray(coarse, float)):
        for power in (1, 2, 3, 4):
            assert_near(draws**power, np.sum(p * grid**power) / np.sum(p))
    np.testing.assert_allclose(np.abs(pair.modes.means[:, 0]), 1.7, atol=0.06)
    assert targets.many_well(14).modes is None
    assert len(targets.many_well(12).modes.weights) == 64
    for bad in (0, 7):
        with pytest.raises(TargetError, match="even"):
            targets.many_well(bad)


def test_five_wells_constants():
    """The evidence against quadrature of one well, 32 equal modes, and what a
    sampler of one mode alone would report: log 32 less."""
    target = targets.get("five-wells-50")
    x, step = np.linspace(-5, 5, 20_001, retstep=True)
    one = math.log(np.exp(-((x**2 - 4) ** 2)).sum() * step)
    assert math.isclose(target.log_z, 5 * one + 22.5 * math.log(2 * math.pi), rel_tol=1e-9)
    np.testing.assert_allclose(target.modes.weights, 1 / 32, rtol=1e-12)
    assert math.isclose(target.log_prob(jnp.ones(50)), -5 * 9 - 22.5)
    np.testing.assert_allclose(np.abs(target.modes.means[:, :5]), 2.0)
    assert EVEN.right_share() == pytest.approx(0.5, abs=1e-12)
    with pytest.raises(TargetError, match="at least 5, got 4"):
        targets.five_wells(4)


# Families


def mixture_by_numpy(x, means, covariances, weights):
    """The textbook formula in float64."""
    terms = []
    for mean, cov, weight in zip(means, covariances, weights / np.sum(weights), strict=True):
        d = x - mean
        sq = np.einsum("ni,ij,nj->n", d, np.linalg.inv(cov), d)
        terms.append(math.log(weight) - 0.5 * sq - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1])
    return np.logaddexp.reduce(terms, axis=0)


@pytest.mark.parametrize("form", ["scalar", "isotropic", "diagonal", "full"])
def test_mixture_is_the_textbook_formula(form):
    rng = np.random.default_rng(1)
    means, weights = rng.normal(size=(5, 3)), rng.uniform(0.5, 2, 5)
    a = rng.normal(size=(5, 3, 3))
    covariances = {
        "scalar": 0.7,
        "isotropic": rng.uniform(0.5, 2, 5),
        "diagonal": rng.uniform(0.5, 2, (5, 3)),
        "full": a @ a.swapaxes(1, 2) + 0.5 * np.eye(3),
    }[form]
    eye = np.eye(3)
    full = {
        "scalar": lambda c: np.tile(c * eye, (5, 1, 1)),
        "isotropic": lambda c: c[:, None, None] * eye,
        "diagonal": lambda c: c[:, :, None] * eye,
        "full": lambda c: c,
    }[form](covariances)
    target = targets.gaussian_mixture(means, covariances, weights, log_z=2.5)
    x = np.asarray(target.sample(jax.random.key(0), N), float)
    with jax.enable_x64(True):
        got, _ = value_and_grad(target, x[:50])
    np.testing.assert_allclose(got, mixture_by_numpy(x[:50], means, full, weights) + 2.5, rtol=1e-10)
    # Draws: the mixture's mean and second moments.
    w = weights / weights.sum()
    assert_near(x, w @ means)
    second = np.einsum("m,mij->ij", w, full + means[:, :, None] * means[:, None, :])
    assert_near(x[:, :, None] * x[:, None, :], second)


@pytest.mark.parametrize("form", ["isotropic", "full"])
def test_float32_holds_far_from_the_origin(form):
    rng = np.random.default_rng(2)
    means = np.round(rng.uniform(-1e4, 1e4, (4, 6)))  # representable in float32
    a = rng.normal(size=(4, 6, 6))
    cov = np.ones(4) if form == "isotropic" else a @ a.swapaxes(1, 2) + np.eye(6)
    target = targets.gaussian_mixture(means, cov)
    x = jnp.asarray(means + rng.normal(size=(4, 6)), jnp.float32)
    value, grad = value_and_grad(target, x)
    with jax.enable_x64(True):
        value64, grad64 = value_and_grad(target, np.asarray(x))
    np.testing.assert_allclose(value, value64, rtol=2e-6)
    np.testing.assert_allclose(grad, grad64, rtol=1e-4, atol=1e-5)


def test_second_derivatives_and_forward_mode():
    target = targets.get("gaussian")
    hessian = jax.jit(jax.hessian(target.log_prob))(jnp.ones(8))
    std, index = np.geomspace(0.5, 2.0, 8), np.arange(8)
    covariance = np.outer(std, std) * 0.8 ** np.abs(index[:, None] - index)
    np.testing.assert_allclose(-np.linalg.inv(np.asarray(hessian)), covariance, rtol=1e-3, atol=1e-3)
    x = jnp.linspace(0.0, 1.0, 8)
    np.testing.assert_allclose(
        jax.jit(jax.jacfwd(target.log_prob))(x),
        np.linalg.solve(covariance, np.linspace(-1, 1, 8) - x),
        rtol=1e-3,
        atol=1e-3,
    )


def test_masses_of_overlapping_components():
    """Unit Gaussians at 0 and 2 with weights .8 and .2 part at `1 + log(4) / 2`."""
    cut, tail = 1 + math.log(4) / 2, lambda z: 0.5 * math.erfc(z / math.sqrt(2))
    right = 0.8 * tail(cut) + 0.2 * tail(cut - 2)
    target = targets.gaussian_mixture([[0.0], [2.0]], 1.0, [0.8, 0.2])
    error = math.sqrt((0.8**2 * tail(cut) + 0.2**2 * tail(2 - cut)) / 20_000)
    assert abs(target.modes.weights[1] - right) < SIGMAS * error
    assert right < 0.19
    np.testing.assert_array_equal(target.modes.assign(np.array([[cut - 0.01], [cut + 0.01]])), [0, 1])


def test_random_mixture_is_the_trial_one():
    rng = np.random.default_rng(7)
    target = targets.get("mixture-10d")
    np.testing.assert_array_equal(target.modes.means, rng.uniform(-40, 40, (25, 10)))
    weights = target.modes.weights
    assert 5 < weights.max() / weights.min() <= 20
    spread = np.linalg.norm(np.asarray(target.sample(jax.random.key(0), N)), axis=1)
    assert spread.max() < 40 * math.sqrt(10) + 12
    assert targets.random_mixture(7, 3, 4, log_z=3.0).log_z == 3.0


def test_modes_of_a_warped_mixture_are_warped_normals():
    """Draws are told by their mode, and the masses of modes are those of draws, where they overlap
    too."""
    target = targets.warped_mixture(3, 5, 4, box=20.0)
    x = np.asarray(target.sample(jax.random.key(0), N))
    share = np.bincount(target.modes.assign(x), minlength=5) / N
    assert np.all(np.abs(share - target.modes.weights) < SIGMAS * np.sqrt(target.modes.weights / N) + 1e-3)
    near = targets.warped_mixture(3, 5, 2, box=3.0)
    x = np.asarray(near.sample(jax.random.key(1), N))
    share = np.bincount(near.modes.assign(x), minlength=5) / N
    error = np.sqrt(near.modes.weights / N + 0.25 / 5000)
    assert np.all(np.abs(share - near.modes.weights) < SIGMAS * error)
    assert np.all(near.modes.assign(np.full((1, 2), 300.0)) == -1)


def test_a_warped_mixture_that_is_not_warped_is_a_mixture_of_gaussians():
    plain = targets.warped_mixture(5, 3, 3, skew=0.0, tail=1.0, bend=0.0, log_z=2.0)
    x = np.asarray(plain.sample(jax.random.key(0), 200))
    rng = np.random.default_rng(5)
    means = rng.uniform(-40, 40, (3, 3))
    roots = [np.linalg.qr(rng.normal(size=(3, 3)))[0] * rng.uniform(0.7, 2.0, 3) for _ in range(3)]
    weights = np.exp(rng.uniform(0.0, 3.0, 3))
    gaussians = targets.gaussian_mixture(means, [r @ r.T for r in roots], weights, log_z=2.0)
    np.testing.assert_allclose(jax.vmap(plain.log_prob)(x), jax.vmap(gaussians.log_prob)(x), atol=2e-3)


def test_tails_of_a_warped_mixture_must_be_positive():
    with pytest.raises(TargetError, match=r"tail must be positive, got 0\.0"):
        targets.warped_mixture(0, 2, 2, tail=0.0)


def test_chi2_quantile():
    assert math.isclose(chi2_quantile(1, 0.05), 1.959963984540054**2, rel_tol=1e-9)
    assert math.isclose(chi2_quantile(2, 1e-6), -2 * math.log(1e-6), rel_tol=1e-9)
    assert math.isclose(chi2_quantile(7, 0.05), 14.067140449340169, rel_tol=1e-9)
    assert math.isclose(chi2_quantile(32, 0.01), 53.48577183623535, rel_tol=1e-9)


def test_ring_normalisation_where_the_hole_is_filled():
    """A ring of radius .3 and width .5: quadrature over the radius."""
    r, step = np.linspace(0, 8, 200_001, retstep=True)
    exact = math.log(np.sum(2 * np.pi * r * np.exp(-((r - 0.3) ** 2) / 0.5)) * step)
    assert math.isclose(ring_log_z(0.3, 0.5), exact, abs_tol=1e-7)
    target = targets.ring(0.3, 0.5)
    x = np.asarray(target.sample(jax.random.key(0), N), float)
    p = r * np.exp(-((r - 0.3) ** 2) / 0.5)
    for power in (1, 2, 4):
        assert_near(np.linalg.norm(x, axis=1) ** power, np.sum(p * r**power) / np.sum(p))
    assert_near(x, 0.0)
    np.testing.assert_allclose(target.log_prob(jnp.array([0.3, 0.4])), -2 * 0.2**2, rtol=1e-5)
    np.testing.assert_array_equal(jax.grad(target.log_prob)(jnp.zeros(2)), 0.0)


@pytest.mark.parametrize(("scale", "shift"), [(3.0, 0.0), (-0.5, 2.0), ((0.25, -2.0), (10.0, -5.0))])
def test_affine(scale, shift):
    scale, shift = np.array(scale), np.array(shift)
    base = dataclasses.replace(targets.get("rings"), location=1.0, scale=2.0)
    moved = targets.affine(base, scale, shift)
    moved.check()
    key = jax.random.key(0)
    x, y = np.asarray(base.sample(key, N), float), np.asarray(moved.sample(key, N), float)
    np.testing.assert_allclose(y, scale * x + shift, atol=1e-5)
    np.testing.assert_array_equal(moved.modes.assign(y), base.modes.assign(x))
    np.testing.assert_allclose(moved.modes.means, scale * base.modes.means + shift)
    np.testing.assert_array_equal(moved.modes.weights, base.modes.weights)
    np.testing.assert_allclose(moved.location, scale + shift)
    np.testing.assert_allclose(moved.scale, 2 * np.abs(scale))
    grid, area = grid_2d(y, pad=0.6 * np.abs(scale).max())
    density = np.exp(value_and_grad(moved, grid)[0])
    assert moved.log_z == base.log_z
    assert math.isclose(math.log(density.sum() * area), moved.log_z, abs_tol=1e-4)
    assert_near(value_and_grad(moved, y)[1], 0.0)


def test_affine_of_a_bare_density():
    moved = targets.affine(Target(lambda x: -0.5 * jnp.sum(x**2), dim=3), 2.0, 1.0)
    assert moved.sample is None
    assert moved.modes is None
    assert moved.log_z is None
    np.testing.assert_allclose(moved.log_prob(jnp.full(3, 3.0)), -1.5 - 3 * math.log(2), rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: targets.gaussian_mixture(np.zeros(3), 1.0), "means"),
        (lambda: targets.gaussian_mixture(np.zeros((3, 2)), np.ones(2)), "covariances"),
        (lambda: targets.gaussian_mixture(np.zeros((3, 2)), 0.0), "positive"),
        (lambda: targets.gaussian_mixture(np.zeros((1, 2)), np.array([[[1.0, 2.0], [2.0, 1.0]]])), "definite"),
        (lambda: targets.gaussian_mixture(np.zeros((1, 2)), np.array([[[1.0, 0.5], [0.0, 1.0]]])), "symmetric"),
        (lambda: targets.gaussian_mixture(np.zeros((3, 2)), 1.0, np.ones(2)), "weights"),
        (lambda: targets.gaussian_mixture(np.zeros((2, 2)), 1.0, np.array([1.0, 0.0])), "weights"),
        (lambda: targets.affine(targets.gaussian(3), 0.0, 1.0), "nonzero"),
        (lambda: targets.affine(targets.gaussian(3), 1.0, np.ones(2)), "shift"),
        (lambda: targets.funnel(1), "funnel"),
        (lambda: targets.rings((1.0, -2.0)), "positive"),
    ],
)
def test_misuse(make, match):
    with pytest.raises(TargetError, match=match):
        make()
