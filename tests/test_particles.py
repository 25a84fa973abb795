"""Particle systems: the mean-free subspace, densities, the equivariant network, and exactness on a
Gaussian."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import little

import allmodes as am
from allmodes import targets
from allmodes.devices import blocks
from allmodes.diffusion.networks import EGNN, Denoiser
from allmodes.mcmc import tempered_smc as smc
from allmodes.mcmc.metropolis import choose_by_weight
from allmodes.methods import default_for
from allmodes.metrics import geometric, w2
from allmodes.metrics.distances import distance_tv
from allmodes.metrics.energies import broken, energy_w2
from allmodes.metrics.geometric import geometric_w2
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult
from allmodes.points.frame import Frame
from allmodes.search import settle
from allmodes.search.effort import Search
from allmodes.symmetry import ParticleSymmetry
from allmodes.targets import reference as reference_module

pytestmark = pytest.mark.trains

SYSTEMS = ("dw4", "lj13", "lj55")
every_system = pytest.mark.parametrize("name", SYSTEMS)


def turned(symmetry, seed, mirror=True):
    """A random motion of free coordinates: turned, mirrored, particles exchanged."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(symmetry.dim, symmetry.dim)))
    turn[:, 0] *= np.sign(np.linalg.det(turn)) * (-1 if mirror else 1)
    order = rng.permutation(symmetry.particles)

    def move(x):
        particles = x.reshape(*x.shape[:-1], symmetry.particles, symmetry.dim)
        return (particles[..., order, :] @ jnp.asarray(turn, x.dtype)).reshape(x.shape)

    return move


# The subspace.


@pytest.mark.parametrize(("n", "d"), [(2, 1), (4, 2), (13, 3)])
def test_free_coordinates_are_those_of_an_orthonormal_basis(n, d):
    symmetry = ParticleSymmetry(n, d)
    assert symmetry.free_dim == (n - 1) * d
    z = jax.random.normal(jax.random.key(0), (5, symmetry.free_dim))
    x = symmetry.embed(z)
    assert x.shape == (5, n * d)
    np.testing.assert_allclose(x.reshape(5, n, d).mean(axis=1), 0.0, atol=1e-6)
    np.testing.assert_allclose(jnp.sum(x**2, axis=1), jnp.sum(z**2, axis=1), rtol=1e-5)
    np.testing.assert_allclose(symmetry.project(x), z, atol=1e-5)
    moved = (x.reshape(5, n, d) + 7.0).reshape(5, -1)
    np.testing.assert_allclose(symmetry.project(moved), z, atol=1e-5)


def test_the_frame_embeds_and_takes_gradients_along():
    symmetry = ParticleSymmetry(4, 2)
    frame = Frame(jnp.zeros(6), jnp.full(6, 1.7), symmetry)
    target = targets.get("dw4")
    z = jax.random.normal(jax.random.key(1), (8, 6))
    np.testing.assert_allclose(frame.to_z(frame.to_x(z)), z, atol=1e-5)
    e = frame.evaluate(target, z)
    values, grads = jax.vmap(jax.value_and_grad(lambda z: frame.values(target, z[None])[0]))(z)
    np.testing.assert_allclose(e.log_prob, values, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(e.grad, grads, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(frame.log_det, 6 * math.log(1.7), rtol=1e-6)
    np.testing.assert_allclose(frame.average_over_symmetry(jnp.arange(6.0)), 2.5)


# The densities.


def by_hand(name, x):
    """The published formulas, pair by pair, in float64."""
    n, d = (4, 2) if name == "dw4" else (int(name[2:]), 3)
    p = np.asarray(x, float).reshape(n, d)
    energy = 0.0
    for i in range(n):
        for j in range(i):
            r = np.linalg.norm(p[i] - p[j])
            energy += 0.9 * (r - 4) ** 4 - 4 * (r - 4) ** 2 if name == "dw4" else 2 * (r**-12 - 2 * r**-6)
    return -energy if name == "dw4" else -energy - 0.5 * np.sum((p - p.mean(axis=0)) ** 2)


def configurations(name, count=6):
    """Points where the density lives: particles on a lattice, a little displaced."""
    symmetry = targets.get(name).symmetry
    side = math.ceil(symmetry.particles ** (1 / symmetry.dim))
    lattice = np.stack(np.meshgrid(*[np.arange(side)] * symmetry.dim), -1).reshape(-1, symmetry.dim)
    lattice = (3.0 if name == "dw4" else 1.1) * lattice[: symmetry.particles]
    noise = 0.05 * np.random.default_rng(2).normal(size=(count, *lattice.shape))
    return jnp.asarray((lattice + noise).reshape(count, -1))


@every_system
def test_values_and_gradients(name):
    target = targets.get(name)
    assert target.dim == target.symmetry.particles * target.symmetry.dim
    target.check()
    x = configurations(name)
    values, grads = jax.vmap(jax.value_and_grad(target.log_prob))(x)
    np.testing.assert_allclose(values, [by_hand(name, row) for row in x], rtol=1e-5, atol=1e-3)
    with jax.enable_x64(True):
        f = jax.jit(target.log_prob)
        row = jnp.asarray(np.asarray(x[0]), float)
        step = 1e-6 * jnp.eye(target.dim)
        slope = [(f(row + s) - f(row - s)) / 2e-6 for s in step]
        np.testing.assert_allclose(jax.grad(target.log_prob)(row), slope, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(grads[0], slope, rtol=1e-3, atol=1e-2)


@every_system
def test_symmetries(name):
    target = targets.get(name)
    x = configurations(name)
    values = jax.vmap(target.log_prob)
    moved = turned(target.symmetry, 3)(x) + jnp.tile(
        jnp.arange(1.0, 1.0 + target.symmetry.dim), target.dim // target.symmetry.dim
    )
    np.testing.assert_allclose(values(moved), values(x), rtol=1e-4, atol=1e-3)


@every_system
@pytest.mark.parametrize("apart", [0.0, 1e-20, 1e-3, 0.29, 0.31])
def test_close_contact_is_safe(name, apart):
    target = targets.get(name)
    x = configurations(name, 1)[0].reshape(target.symmetry.particles, -1)
    x = x.at[1].set(x[0]).at[1, 0].add(apart).ravel()
    value, grad = jax.value_and_grad(target.log_prob)(x)
    assert np.isfinite(value)
    assert np.all(np.isfinite(grad))
    if name != "dw4":
        assert value < -1e6  # no mass
        if apart > 1e-6:
            assert grad[target.symmetry.dim] > 0 > grad[0]  # and still pushed apart


def test_the_core_joins_smoothly():
    target = targets.lennard_jones(2)
    energy = jax.vmap(lambda r: target.log_prob(jnp.zeros(6).at[3].set(r)))
    slope = jax.vmap(jax.grad(lambda r: target.log_prob(jnp.zeros(6).at[3].set(r))))
    r = jnp.asarray([0.2999, 0.3001])
    for f in (energy, slope):
        inside, outside = np.asarray(f(r), float)
        assert abs(inside / outside - 1) < 0.02


def test_settings_that_cannot_be_are_refused():
    for wrong in (dict(particles=1), dict(particles=4, dim=0)):
        with pytest.raises(am.TargetError, match="of a ParticleSymmetry must be a whole number"):
            ParticleSymmetry(**wrong)
    with pytest.raises(am.TargetError, match="4 particles in 2 dimensions have 8 coordinates, but dim is 9"):
        am.Target(lambda x: -jnp.sum(x**2), 9, symmetry=ParticleSymmetry(4, 2))
    with pytest.raises(am.TargetError, match="location must be left out"):
        am.Target(lambda x: -jnp.sum(x**2), 8, symmetry=ParticleSymmetry(4, 2), location=1.0)
    with pytest.raises(am.TargetError, match="oscillator must be positive"):
        targets.lennard_jones(13, oscillator=0.0)


FALSE = {
    "all particles are moved together": lambda x: -jnp.sum(x**2),
    "the whole is turned and mirrored": lambda x: -jnp.sum((x - jnp.tile(x.reshape(4, 2).mean(0), 4))[::2] ** 2),
    "particles are exchanged": lambda x: -jnp.sum((x[:2] - x[2:4]) ** 2),
}


@pytest.mark.parametrize("what", FALSE)
def test_a_symmetry_that_is_not_there_is_named(what):
    target = am.Target(FALSE[what], 8, symmetry=ParticleSymmetry(4, 2))
    with pytest.raises(
        am.TargetError, match=f"declared symmetric .4 particles in 2 dimensions. but changes when {what}"
    ):
        target.check()


def test_blocks_of_energies_change_nothing(monkeypatch):
    target = targets.get("dw4")
    x = target.symmetry.embed(2.0 * jax.random.normal(jax.random.key(3), (30, target.free_dim)))
    whole, values = target.evaluate(x), target.values(x)
    monkeypatch.setattr(blocks, "CACHE_BYTES", 7 * 24 * target.symmetry.pairs)
    assert target.block(30) == 7  # no divisor of 30
    parts = target.evaluate(x)
    for a, b in zip((*parts, target.values(x)), (*whole, values), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


# The network.


def perturbed(network, seed, size=0.3):
    """Weights that are not zero where the network starts at zero."""
    leaves, tree = jax.tree.flatten(network)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    noisy = [a + size * jax.random.normal(k, a.shape) for a, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, noisy)


@pytest.mark.parametrize(("n", "d"), [(4, 2), (13, 3)])
@pytest.mark.parametrize("sigma", [0.01, 1.0, 3.0])
def test_the_denoiser_is_equivariant(n, d, sigma):
    symmetry = ParticleSymmetry(n, d)
    denoiser = Denoiser(perturbed(EGNN(symmetry, 16, 2, key=jax.random.key(4)), 5))
    z = jax.random.normal(jax.random.key(6), (symmetry.free_dim,))
    move = turned(symmetry, 7)
    moved = lambda z: symmetry.project(move(symmetry.embed(z)))  # noqa: E731
    out = denoiser(z, jnp.asarray(sigma))
    assert jnp.linalg.norm(out - z / (1 + sigma**2)) > 1e-3  # it does something
    np.testing.assert_allclose(denoiser(moved(z), jnp.asarray(sigma)), moved(out), rtol=1e-3, atol=1e-4)


def test_the_network_starts_at_zero_and_is_smooth_at_contact():
    symmetry = ParticleSymmetry(4, 2)
    network = EGNN(symmetry, 16, 2, key=jax.random.key(4))
    z = jax.random.normal(jax.random.key(6), (6,))
    np.testing.assert_array_equal(network(z, jnp.zeros(())), 0.0)
    together = jnp.zeros(6)
    gradient = jax.jacobian(perturbed(network, 5))(together, jnp.zeros(()))
    assert np.all(np.isfinite(gradient))


# The whole way, where everything is known: particles on springs to their mean.


def springs(n=4, d=2, width=0.7):
    """`exp(-|x - mean|^2 / 2 width^2)`: a Gaussian on the mean-free subspace."""

    def log_prob(x):
        p = x.reshape(n, d)
        return -0.5 * jnp.sum((p - p.mean(axis=0)) ** 2) / width**2

    def sample(key, count):
        return symmetry.embed(width * jax.random.normal(key, (count, symmetry.free_dim)))

    symmetry = ParticleSymmetry(n, d)
    log_z = 0.5 * symmetry.free_dim * math.log(2 * math.pi * width**2)
    return am.Target(log_prob, n * d, "springs", symmetry=symmetry, sample=sample, log_z=log_z)


SMALL = little(steps=30, batch=64, buffer=1024, every=10, path_steps=20, neighbours=256, enough=None)


@pytest.fixture(scope="module")
def sampler():
    return am.fit(springs(), SMALL, key=jax.random.key(8))


def test_path_weights_of_particles_are_unbiased_for_z(sampler):
    # A network that has learned the wrong thing, too.
    wrong = jax.tree.map(lambda a: a, sampler.state)
    wrong = dataclasses.replace(wrong, average=perturbed(wrong.average, 9, 0.05))
    for state in (sampler.state, wrong):
        draws = dataclasses.replace(sampler, state=state).sample(4000, key=jax.random.key(10), steps=20)
        w = np.exp(np.asarray(draws.log_weight, float) - springs().log_z)
        assert abs(w.mean() - 1) < 5 * w.std() / math.sqrt(len(w))
        particles = np.asarray(draws.x).reshape(-1, 4, 2)
        np.testing.assert_allclose(particles.mean(axis=1), 0.0, atol=1e-5)
        assert np.std(draws.x) > 0.1


def test_an_untrained_network_is_exact_for_springs(sampler):
    draws = sampler.sample(4000, key=jax.random.key(11))
    assert draws.ess > 0.9 * len(draws)
    forward = sampler.log_weights(springs().sample(jax.random.key(12), 500), key=jax.random.key(13))
    assert abs(np.mean(forward) - springs().log_z) < 0.1
    radius = np.sum(np.asarray(draws.x) ** 2, axis=1) / 0.7**2  # chi-squared with six degrees of freedom
    assert abs(radius.mean() - 6) < 5 * math.sqrt(12 / len(radius)) + 0.1


def test_the_frame_of_particles_is_the_same_for_all_coordinates(sampler):
    frame = sampler.state.frame
    np.testing.assert_array_equal(frame.location, 0.0)
    assert np.ptp(frame.scale) == 0.0
    assert abs(float(frame.scale[0]) / 0.7 - 1) < 0.1
    for figure in (sampler.state.error, sampler.state.gate.numerator, sampler.process.variance):
        assert np.all(np.ptp(figure, axis=-1) <= 1e-6)


def test_particles_are_saved_and_loaded(sampler, tmp_path):
    sampler.save(tmp_path / "run")
    loaded = am.load(tmp_path / "run")
    assert loaded.target.symmetry == ParticleSymmetry(4, 2)
    a, b = (s.sample(16, key=jax.random.key(14), steps=10).x for s in (sampler, loaded))
    np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize(
    ("particles", "name"), [(4, "iwsm-few-particles"), (13, "iwsm-particles"), (55, "iwsm-many-particles")]
)
def test_the_default_method_goes_by_the_number_of_particles(particles, name):
    assert default_for(springs(particles)) == name


def test_populations_of_a_warm_start_are_no_larger_than_the_search():
    target = springs()
    start = dict(start="smc", search=Search(scouts=64, starts=256, moves=2, keep=0, unseen=None), opinion=0.0)
    spent = []
    for buffer in (256, 512):
        state = dataclasses.replace(SMALL, buffer=buffer, **start).init(target, jax.random.key(4))
        assert state.buffer.size == buffer
        np.testing.assert_allclose(
            state.buffer.log_prob, state.frame.values(target, state.buffer.z), rtol=1e-3, atol=1e-3
        )
        assert 1 < len(np.unique(state.buffer.log_prob)) <= 256
        spent.append(int(state.evaluations.log_prob))
    assert spent[0] == spent[1]


def test_a_frame_of_scattered_particles_settles_to_the_width_of_the_target():
    target, wide = springs(), Frame(jnp.zeros(6), jnp.full(6, 5.0), ParticleSymmetry(4, 2))
    z = jax.random.normal(jax.random.key(0), (64, 6))
    none = jnp.zeros(())
    points = Buffer.of(z, wide.evaluate(target, z))
    found = SearchResult(wide, points, none + 1.0, jnp.ones(6), none, Evaluations.none())
    settled = settle.settle(target, found, jax.random.key(1), 256)
    assert settled.points.size == 64
    # 256 points in six dimensions give the width to 2 %.
    np.testing.assert_allclose(settled.frame.scale, 0.7, rtol=0.1)
    np.testing.assert_allclose(settled.points.log_prob, settled.frame.values(target, settled.points.z), rtol=1e-4)
    assert int(settled.evaluations.log_prob) > 2 * 256 * (smc.PARTICLE_MOVES + 3)


# Corrected draws.


@pytest.mark.parametrize("exact", [True, False])
def test_an_exchange_by_weight_leaves_the_target_invariant(exact):
    """Target N(0, 1), draws of N(0.5, 1.5^2): an exchange keeps what is exact and mends what is
    not, by acceptance."""
    n = 20_000
    k_points, k_fresh, k_accept = jax.random.split(jax.random.key(3), 3)

    def drawn(key):
        return 0.5 + 1.5 * jax.random.normal(key, (n, 1))

    def weighed(z):
        log_w = -0.5 * z[:, 0] ** 2 + 0.5 * ((z[:, 0] - 0.5) / 1.5) ** 2
        return Buffer(z, -0.5 * z[:, 0] ** 2, -z), log_w

    start = jax.random.normal(k_points, (n, 1)) if exact else drawn(k_points)
    points, accept = choose_by_weight(k_accept, *weighed(start), *weighed(drawn(k_fresh)))
    np.testing.assert_array_equal(points.log_prob, -0.5 * points.z[:, 0] ** 2)
    off = [abs(float(np.mean(f)) - e) / (float(np.std(f)) / n**0.5) for f, e in (
        (points.z[:, 0], 0.0), (points.z[:, 0] ** 2, 1.0), (points.z[:, 0] ** 4, 3.0),
    )]  # fmt: skip
    assert 0.5 < float(np.mean(accept)) < 0.95
    assert max(off) < 5 if exact else max(off) > 5
    if not exact:  # nearer than it was
        assert abs(float(np.mean(points.z))) < 0.4 * abs(float(np.mean(start)))


def test_a_point_of_no_mass_is_always_exchanged():
    z = jnp.zeros((3, 1))
    dead, alive = jnp.full(3, -jnp.inf), jnp.zeros(3)
    _, accept = choose_by_weight(jax.random.key(0), Buffer(z, dead, z), dead, Buffer(z, alive, z), alive)
    assert np.all(accept)
    _, accept = choose_by_weight(jax.random.key(0), Buffer(z, alive, z), alive, Buffer(z, dead, z), dead)
    assert not np.any(accept)


def test_corrected_draws_follow_the_target(sampler):
    raw = sampler.sample(3000, key=jax.random.key(15), steps=20)
    draws = sampler.sample(3000, key=jax.random.key(15), steps=20, correct="mcmc", moves=10)
    np.testing.assert_array_equal(draws.log_weight, 0.0)
    assert draws.evaluations == 103 * 3000
    assert raw.evaluations == 3000
    assert abs(draws.log_z.value - raw.log_z.value) < 5 * raw.log_z.std_error
    np.testing.assert_allclose(draws.log_prob, jax.vmap(springs().log_prob)(draws.x), rtol=1e-4, atol=1e-4)
    radius = np.sum(np.asarray(draws.x, float) ** 2, axis=1) / 0.7**2
    for power, moment in ((1, 6.0), (2, 48.0)):  # of chi-squared with six degrees of freedom
        values = radius**power
        assert abs(values.mean() - moment) < 5 * values.std() / math.sqrt(len(values))


def test_a_correction_mends_a_wrong_sampler(sampler):
    wrong = dataclasses.replace(sampler.state, average=perturbed(sampler.state.average, 9, 0.2))
    wrong = dataclasses.replace(sampler, state=wrong)
    off = []
    for correct in (None, "mcmc"):
        x = wrong.sample(3000, key=jax.random.key(16), steps=20, correct=correct, moves=100).x
        radius = np.sum(np.asarray(x, float) ** 2, axis=1) / 0.7**2
        off.append(abs(radius.mean() - 6.0) / (radius.std() / math.sqrt(len(radius))))
    assert off[0] > 10 > 5 > off[1]


def test_an_unknown_correction_is_refused(sampler):
    with pytest.raises((am.ConfigError, TypeError), match="correct"):
        sampler.sample(10, key=jax.random.key(0), correct="magic")


# Metrics.


def random_particles(n, d, count, seed):
    return np.random.default_rng(seed).normal(size=(count, n * d))


def test_energy_w2_of_a_shift_is_the_shift():
    energy = np.random.default_rng(0).normal(size=500)
    assert energy_w2(energy, np.random.default_rng(1).permutation(energy + 2.5)) == pytest.approx(2.5)
    assert energy_w2(np.append(energy, np.nan), np.append(energy, 0.0)) == math.inf


def test_distance_tv_counts_what_lies_outside():
    symmetry = ParticleSymmetry(4, 2)
    x = random_particles(4, 2, 200, 0)
    assert distance_tv(x, x, symmetry) == 0.0
    assert distance_tv(100.0 * x, x, symmetry) > 0.95
    half = np.concatenate([x, 100.0 * x])
    assert distance_tv(half, x, symmetry) == pytest.approx(0.5, abs=0.03)


def test_broken_counts_the_worst_and_what_is_not_a_number():
    reference = np.arange(10.0)
    assert broken(np.array([0.0, 28.9, 29.1, np.nan, np.inf]), reference) == pytest.approx(3 / 5)


@pytest.mark.parametrize(("n", "d"), [(3, 2), (4, 2), (4, 3), (7, 3)])
def test_geometric_distance_is_zero_between_moved_copies(n, d):
    symmetry = ParticleSymmetry(n, d)
    x = random_particles(n, d, 12, 1)
    moved = np.asarray(turned(symmetry, 2)(jnp.asarray(x))) + 3.0
    order = np.random.default_rng(3).permutation(12)
    assert geometric_w2(moved[order], x, symmetry) < 2e-3
    plain = w2(x[order] - x.mean(), x - x.mean())
    assert plain == pytest.approx(0.0, abs=1e-6)
    assert w2(moved, x) > 1.0


def test_geometric_distance_of_a_stretched_pair():
    """Two particles at distance a and b: the best alignment leaves (a - b)^2 / 2."""
    a, b = 3.0, 4.2
    x, y = (np.array([[0.0, 0.0, 0.0, 0.0, 0.0, r]]) for r in (a, b))
    assert geometric_w2(x, y, ParticleSymmetry(2, 3)) == pytest.approx(math.sqrt((a - b) ** 2 / 2), rel=1e-4)


def test_matching_in_turn_finds_what_trying_every_order_finds():
    x, y = random_particles(4, 2, 20, 4), random_particles(4, 2, 20, 5)
    a, b = (v.reshape(20, 4, 2) - v.reshape(20, 4, 2).mean(axis=1, keepdims=True) for v in (x, y))
    exact = geometric._every_order(a, b)
    found = geometric._matched(np.repeat(a, 20, axis=0), np.tile(b, (20, 1, 1)), 10).reshape(20, 20)
    assert np.all(found >= exact - 1e-3)
    assert np.mean(found <= 1.05 * exact + 1e-3) > 0.5


# References.


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLMODES_CACHE", str(cache))
        patch.setattr(reference_module, "MOVES", 400)
        told = []
        made = reference_module.load(springs(), 2000, progress=told.append)
        again = reference_module.load(springs(), 2000, progress=told.append)
        yield made, again, cache, told


def test_a_reference_passes_its_checks(reference):
    made, again, _, told = reference
    assert made.x.shape == (2000, 8)
    assert made.passed, made.checks
    assert len(made.checks) == reference_module.RUNS + 4
    assert abs(made.log_z - springs().log_z) < 5 * made.log_z_error + 0.02
    np.testing.assert_array_equal(again.x, made.x)  # kept
    assert len(told) == reference_module.RUNS  # not made twice
    assert made.evaluations > 400 * 2000
    radius = np.sum(made.x.astype(float) ** 2, axis=1) / 0.7**2
    assert abs(radius.mean() - 6) < 5 * math.sqrt(12 / 2000)


def test_checks_fail_where_draws_are_wrong():
    check = reference_module.Check("virial", -5.0, -6.0, 0.2)
    assert check.off == pytest.approx(5.0)
    made = reference_module.Reference(np.zeros((8, 8)), 0.0, 0.1, [check], 0)
    assert not made.passed


def test_a_damaged_reference_is_named(reference, monkeypatch):
    _, _, cache, _ = reference
    monkeypatch.setenv("ALLMODES_CACHE", str(cache))
    kept = cache / "reference" / "springs-2000" / "draws.npz"
    whole = kept.read_bytes()
    kept.write_bytes(whole[:-10])
    with pytest.raises(am.RunError, match=r"draws\.npz is not what was written there: delete"):
        reference_module.load(springs(), 2000)
    kept.write_bytes(whole)


def test_a_reference_of_another_density_is_made_again(reference, monkeypatch):
    _, _, cache, _ = reference
    monkeypatch.setenv("ALLMODES_CACHE", str(cache))
    monkeypatch.setattr(reference_module, "make", lambda *_, **__: pytest.fail("made again"))
    reference_module.load(springs(), 2000)
    other = dataclasses.replace(springs(), log_prob=lambda x: springs().log_prob(x) + 0.1)
    with pytest.raises(pytest.fail.Exception, match="made again"):
        reference_module.load(other, 2000)


def test_a_pool_gives_no_draw_twice(reference, monkeypatch):
    _, _, cache, _ = reference
    monkeypatch.setenv("ALLMODES_CACHE", str(cache))
    sample = reference_module.pool(springs(), 2000)
    x = np.asarray(sample(jax.random.key(0), 1500))
    assert len(np.unique(x, axis=0)) == 1500
    np.testing.assert_array_equal(sample(jax.random.key(0), 1500), x)
    assert not np.array_equal(sample(jax.random.key(1), 1500), x)
    assert sample(jax.random.key(2), 4500).shape == (4500, 8)


def test_too_few_draws_are_refused():
    with pytest.raises(am.ConfigError, match="at least 8 draws, got 3"):
        reference_module.make(springs(), 3)
