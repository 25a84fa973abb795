"""Log-densities by the probability-flow ODE, against closed forms and quadrature."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closed_forms import CENTRES, LOG_Z, SHARES, WIDTHS, draw_mixture, log_mixture, make_process, run_noising

import allmodes as am
from allmodes.diffusion import blocks
from allmodes.diffusion import probability_flow as flow
from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.noise import Noise
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.points.frame import Frame

pytestmark = pytest.mark.trains

SIGMAS = 5.0  # bounds are this many standard errors
SIGMA_MAX = 2.5  # of `make_process`
TOL = 1e-5  # of the solver
CLOSE = 1e-3  # of log q, over all steps, with that tolerance in float32
GRID = 60  # of quadrature: points each way

run_flow = jax.jit(flow.log_density, static_argnums=3)


class Gaussian(Denoiser):
    """The exact denoiser of a Gaussian with one covariance `turn diag(variance) turn^T`."""

    mean: jax.Array = None
    variance: jax.Array = None
    turn: jax.Array = None

    def __call__(self, z, sigma):
        share = self.variance / (self.variance + sigma**2)
        return self.mean + self.turn @ (share * (self.turn.T @ (z - self.mean)))


class Mixture(Denoiser):
    """The exact denoiser of the mixture of `closed_forms`."""

    def __call__(self, z, sigma):
        variance = WIDTHS**2 + sigma**2
        share = jax.nn.softmax(jnp.log(SHARES / variance) - 0.5 * jnp.sum((z - CENTRES) ** 2, -1) / variance)
        return share @ (CENTRES + (WIDTHS**2 / variance)[:, None] * (z - CENTRES))


def gaussian_process(dim, seed=0, sigma_min=0.1):
    """A process that knows a Gaussian with correlated coordinates exactly, but for the prior, which
    is isotropic."""
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    arrays = [jnp.asarray(a, jnp.float32) for a in (rng.normal(size=dim), rng.uniform(0.3, 1.5, dim), turn)]
    process = make_process(dim, mean=0.2, variance=0.9, sigma_min=sigma_min)
    return eqx.tree_at(lambda p: p.denoiser, process, Gaussian(process.denoiser.network, False, *arrays))


def known(process):
    """Mean, variances and turn of the Gaussian, and by how much the flow stretches each principal
    coordinate.

    By `sqrt((variance + sigma_max^2) / (variance + sigma_min^2))` from sigma_min up, and below
    sigma_min, with its score held, by `exp(sigma_min^2 / (variance + sigma_min^2) / 2)`.
    """
    d, m2 = process.denoiser, float(process.noise.sigma_min) ** 2
    mean, variance, turn = (np.asarray(a, float) for a in (d.mean, d.variance, d.turn))
    stretch = np.sqrt((variance + SIGMA_MAX**2) / (variance + m2)) * np.exp(0.5 * m2 / (variance + m2))
    return mean, variance, turn, stretch


def log_flow(process, z):
    """Closed form of the flow's density."""
    mean, _, turn, stretch = known(process)
    top = mean + ((np.asarray(z, float) - mean) @ turn * stretch) @ turn.T
    return log_gaussian(top, 0.2, 0.9 + SIGMA_MAX**2) + np.sum(np.log(stretch))


def log_gaussian(z, mean, variance):
    return np.sum(-0.5 * (z - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance), axis=-1)


def points(dim, n=100):
    return jnp.asarray(np.random.default_rng(3).normal(size=(n, dim)), jnp.float32)


def grid(low, high):
    """Points of a square, and the area of each."""
    axes = [np.linspace(a, b, GRID) for a, b in zip(low, high, strict=True)]
    x = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    return jnp.asarray(x, jnp.float32), float(np.prod([axis[1] - axis[0] for axis in axes]))


# The flow of a process.


@pytest.mark.parametrize("dim", [1, 5])
def test_exact_divergence_gives_the_closed_form(dim):
    process, z = gaussian_process(dim), points(dim)
    log_q, error = run_flow(process, z, jax.random.key(0), 0, TOL, TOL)
    np.testing.assert_allclose(log_q, log_flow(process, z), atol=CLOSE)
    assert np.all(np.asarray(error) == 0.0)


def test_tolerances_are_what_the_error_follows():
    process, z = gaussian_process(5), points(5)
    expected = log_flow(process, z)
    errors = [
        np.abs(run_flow(process, z, jax.random.key(0), 0, tol, tol).log_density - expected).max()
        for tol in (1e-2, 1e-3, 1e-4, 1e-5)
    ]
    assert np.all(np.diff(errors) < 0), errors
    assert errors[-1] < CLOSE < errors[0]


def test_held_score_leaves_little_of_the_blur_of_sigma_min():
    """The flow's law is the target's to fourth order in sigma_min; stopped there it would be so to
    second order."""
    biases = []
    for sigma_min in (0.1, 0.2):
        # With the prior that belongs to the Gaussian, what is left is what happens below sigma_min.
        _, variance, _, stretch = known(gaussian_process(4, sigma_min=sigma_min))
        axes = np.asarray(points(4), float) * np.sqrt(variance)
        log_q = log_gaussian(axes * stretch, 0.0, variance + SIGMA_MAX**2) + np.sum(np.log(stretch))
        biases.append(np.sqrt(np.mean((log_q - log_gaussian(axes, 0.0, variance)) ** 2)))
        assert biases[-1] < 4 * np.max(sigma_min**2 / variance) ** 2
    assert 10 < biases[1] / biases[0] < 17


@pytest.fixture(scope="module")
def estimates():
    """Exact log-densities of a Gaussian in 20 dimensions, and its estimates with few and many
    probes."""
    process, z = gaussian_process(20), points(20, 200)
    return log_flow(process, z), {k: run_flow(process, z, jax.random.key(1), k, TOL, TOL) for k in (4, 64)}


def test_probes_are_right_within_their_errors(estimates):
    exact, by_probes = estimates
    log_q, error = (np.asarray(part, float) for part in by_probes[64])
    off = (log_q - exact) / error
    assert np.abs(off).max() < SIGMAS
    # Of 200 points with probes of their own: neither biased, nor with errors of another size.
    assert abs(off.mean()) < SIGMAS / np.sqrt(200)
    assert abs(np.mean(off**2) - 1.0) < SIGMAS * np.sqrt(2.0 / 200) + 2.0 / 63


def test_more_probes_have_smaller_errors(estimates):
    exact, by_probes = estimates
    few, many = (by_probes[k] for k in (4, 64))
    assert 0.2 < np.median(many.std_error) / np.median(few.std_error) < 0.35  # 4, and 4 are few for a deviation
    spread = [np.std(r.log_density - exact) for r in (few, many)]
    assert 0.19 < spread[1] / spread[0] < 0.33


@pytest.mark.parametrize("perturbed", [0.0, 0.3], ids=["untrained", "perturbed"])
def test_density_is_normalised_whatever_the_network_is(perturbed):
    process = make_process(perturbed=perturbed, mean=0.2, variance=0.9)
    x, area = grid([-7.0, -7.0], [7.0, 7.0])
    log_q = np.asarray(run_flow(process, x, jax.random.key(0), 0, TOL, TOL).log_density, float)
    assert abs(area * np.exp(log_q).sum() - 1.0) < CLOSE
    far = log_gaussian(np.asarray(x, float), 0.0, 1.0) - log_q
    assert (np.abs(far[log_q > -6.0]).max() > 0.5) == (perturbed > 0.0)  # a random network's is not a Gaussian


@pytest.fixture(scope="module")
def mixture():
    process = make_process(mean=0.0, variance=1.0)
    centre = SHARES @ CENTRES
    variance = SHARES @ (CENTRES**2 + WIDTHS[:, None] ** 2) - centre**2
    f32 = [jnp.asarray(a, jnp.float32) for a in (centre, variance)]
    # Wide: the prior does not know that the coordinates of the mixture are correlated.
    noise = Noise(jnp.asarray(0.1), jnp.asarray(10.0))
    where = lambda p: (p.denoiser, p.noise, p.mean, p.variance)  # noqa: E731
    return eqx.tree_at(where, process, (Mixture(process.denoiser.network), noise, *f32))


def test_density_of_an_exact_denoiser_is_the_targets(mixture):
    z = draw_mixture(4, 1000)
    log_q = run_flow(mixture, z, jax.random.key(0), 0, TOL, TOL).log_density
    ratio = np.asarray(jax.vmap(log_mixture)(z) - LOG_Z - log_q, float)
    # What is left: a Gaussian prior at sigma_max, and the score held below sigma_min.
    assert abs(ratio.mean()) < 0.01
    assert ratio.std() < 0.02


def test_density_agrees_with_path_weights(mixture):
    """At a point, the mean of `q / pi` over noising paths is the density of the reverse SDE: here
    the same law."""
    z = draw_mixture(5, 4)
    log_q = run_flow(mixture, z, jax.random.key(0), 0, TOL, TOL).log_density
    path = run_noising(mixture, jax.random.key(6), jnp.repeat(z, 2000, axis=0), 64)
    ratio = np.exp(-np.asarray(path.log_ratio, float).reshape(4, 2000) - np.asarray(log_q, float)[:, None])
    error = ratio.std(axis=1) / np.sqrt(2000)
    # The reverse path has 64 steps of a Gaussian kernel, the flow has none: a few hundredths.
    np.testing.assert_allclose(ratio.mean(axis=1), 1.0, atol=0.05 + SIGMAS * error.max())


# The sampler's.


@dataclasses.dataclass(frozen=True)
class Known(am.IWSM):
    """A method whose state is its frame and process."""

    def process(self, target, state):
        return state


PARTICLES = am.ParticleSymmetry(3, 2)


def sampler_of(frame, process, symmetry=None):
    dim = len(frame.scale) if symmetry is None else symmetry.particles * symmetry.dim
    target = am.Target(lambda x: -0.5 * jnp.sum(x**2), dim, symmetry=symmetry)
    return DiffusionSampler(target, Known(), (frame, process))


def particle_sampler():
    """Three particles in the plane, the exact denoiser of a Gaussian in the mean-free coordinates,
    scale 3."""
    frame = Frame(jnp.zeros(4), jnp.full(4, 3.0), PARTICLES)
    return sampler_of(frame, gaussian_process(4), PARTICLES)


@pytest.fixture(scope="module")
def particles():
    return particle_sampler()


def test_particles_have_a_density_on_the_mean_free_subspace(particles):
    z = points(4, 20)
    x = PARTICLES.embed(3.0 * z)
    expected = log_flow(particles.process, z) - 4 * np.log(3.0)
    for moved in (x, x + jnp.tile(jnp.array([7.0, -2.0]), 3)):
        log_q, error = particles.log_density(moved)
        np.testing.assert_allclose(log_q, expected, atol=CLOSE)
        assert not np.any(error)


def test_points_in_blocks_do_not_feel_each_other(particles, monkeypatch):
    x = PARTICLES.embed(points(4, 13))
    whole = particles.log_density(x)
    monkeypatch.setattr(blocks, "BLOCK", 40)  # 8 points with 4 directions each
    parts = particles.log_density(x)
    assert parts.log_density.shape == parts.std_error.shape == (13,)
    np.testing.assert_allclose(parts.log_density, whole.log_density, atol=1e-4)


def test_probes_are_fixed_by_the_key(particles):
    x = PARTICLES.embed(points(4, 5))
    first, again, other = (particles.log_density(x, key=jax.random.key(seed), probes=4) for seed in (1, 1, 2))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, c)


def test_probes_are_the_default_in_many_dimensions():
    dim = flow.EXACT + 1
    sampler = sampler_of(Frame(jnp.zeros(dim), jnp.ones(dim)), gaussian_process(dim))
    x = points(dim, 5)
    with pytest.raises(am.ConfigError, match=r"17 dimensions draws 16 probes: give it a key, or probes=0"):
        sampler.log_density(x)
    log_q, error = sampler.log_density(x, key=jax.random.key(0))
    assert np.all(np.asarray(error) > 0.0)
    exact = sampler.log_density(x, probes=0)
    np.testing.assert_allclose(exact.log_density, log_flow(sampler.process, x), atol=CLOSE)
    assert np.all(np.abs(log_q - exact.log_density) < 2 * SIGMAS * error)  # 16 probes: Student's


@pytest.mark.parametrize(
    ("n", "settings", "message"),
    [
        (0, {}, "at least 1 point"),
        (2, {"rtol": 0.0}, r"positive and finite, got rtol=0.0"),
        (2, {"atol": -1.0}, r"positive and finite.*atol=-1.0"),
        (2, {"rtol": float("nan")}, "positive and finite"),
        (2, {"atol": float("inf")}, "positive and finite"),
        (2, {"probes": 1}, "at least 2, or 0 .*got 1"),
        (2, {"probes": -4}, "at least 2, or 0 .*got -4"),
        (2, {"probes": 4}, "give it a key"),
    ],
)
def test_wrong_use_is_refused(particles, n, settings, message):
    with pytest.raises(am.ConfigError, match=message):
        particles.log_density(jnp.zeros((n, 6)), **settings)


def test_points_that_were_not_solved_are_counted(monkeypatch):
    monkeypatch.setattr(flow, "MAX_STEPS", 50)
    particles = particle_sampler()  # compiled with so few
    x = PARTICLES.embed(points(4, 5))
    particles.log_density(x)
    with pytest.raises(am.SolverError, match=r"flow of 1 of 5 points was not solved with rtol=1e-05"):
        particles.log_density(x.at[2].set(jnp.inf))
    with pytest.raises(am.SolverError, match=r"flow of 5 of 5 points .*too tight for float32"):
        particles.log_density(x, rtol=1e-12, atol=1e-12)
