"""Systems of OpenMM: energies and forces are its own, six coordinates are removed with the right
volume, and what is no density over positions is refused."""

import importlib.util
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes import ConfigError, TargetError

openmm = pytest.importorskip("openmm", reason="OpenMM is not installed: its interop is not tested")
app, unit = pytest.importorskip("openmm.app"), openmm.unit

KELVIN = 300.0
THERMAL = KELVIN * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)


def chain(atoms=5):
    """Bonded atoms of a zigzag, which attract each other from further away, with charges."""
    system, bonds, pairs = openmm.System(), openmm.HarmonicBondForce(), openmm.NonbondedForce()
    for atom in range(atoms):
        system.addParticle(12.0)
        pairs.addParticle(0.2 * (-1) ** atom, 0.25, 0.5)
    for atom in range(atoms - 1):
        bonds.addBond(atom, atom + 1, 0.15, 2000.0)
        pairs.addException(atom, atom + 1, 0.0, 0.25, 0.0)
    system.addForce(bonds)
    system.addForce(pairs)
    places = np.arange(atoms)
    return system, np.stack([0.13 * places, 0.08 * (places % 2), 0.03 * (places % 3)], axis=1)


def springs(stiffness):
    """Three atoms, each pair on a spring of length zero: the integral is known."""
    system, bonds = openmm.System(), openmm.HarmonicBondForce()
    for _ in range(3):
        system.addParticle(1.0)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        bonds.addBond(i, j, 0.0, stiffness)
    system.addForce(bonds)
    return system


def held(centres, stiffness):
    """Atoms at springs to places of their own."""
    system = openmm.System()
    force = openmm.CustomExternalForce("0.5 * k * ((x - x0)^2 + (y - y0)^2 + (z - z0)^2)")
    force.addGlobalParameter("k", stiffness)
    for word in ("x0", "y0", "z0"):
        force.addPerParticleParameter(word)
    for atom, centre in enumerate(centres):
        system.addParticle(1.0)
        force.addParticle(atom, list(centre))
    system.addForce(force)
    return system


@pytest.mark.parametrize("platform", ["CPU", "Reference"])
def test_energy_and_forces_are_openmms_own(platform):
    system, positions = chain()
    target = am.interop.openmm.target(system, temperature=KELVIN, positions=positions, platform=platform)
    assert (target.dim, target.free.dim) == (15, 9)
    points = positions + 0.01 * np.random.default_rng(0).normal(size=(8, 5, 3))
    got = target.evaluate(jnp.asarray(points.reshape(8, 15), jnp.float32))
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), openmm.Platform.getPlatformByName("Reference"))
    for point, value, grad in zip(points, got.log_prob, got.grad, strict=True):
        context.setPositions(point)
        state = context.getState(energy=True, forces=True)
        energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
        forces = state.getForces(asNumpy=True).value_in_unit(unit.kilojoule_per_mole / unit.nanometer)
        np.testing.assert_allclose(-THERMAL * float(value), energy, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(
            THERMAL * np.asarray(grad).reshape(5, 3), forces, rtol=1e-4, atol=1e-4 * abs(forces).max()
        )
    assert am.interop.numpy.cost(target).points == 8  # energy and forces are one call


def test_the_gradient_in_the_frame_is_that_of_the_density():
    system, positions = chain()
    free = am.interop.openmm.target(
        system, temperature=KELVIN, positions=positions, platform="Reference", double=True
    ).free
    z = np.asarray(free.location) + 0.02 * np.random.default_rng(1).normal(size=9)
    step = 1e-5 * np.eye(9)
    with jax.enable_x64(True):
        got = jax.jit(free.evaluate)(jnp.asarray(np.concatenate([z[None], z + step, z - step])))
    values = np.asarray(got.log_prob)
    np.testing.assert_allclose(got.grad[0], (values[1:10] - values[10:]) / 2e-5, rtol=1e-4, atol=1e-3)


def test_a_frame_has_the_volume_of_what_it_leaves_out():
    """The integral over all coordinates is volume times 8 pi^2 times that over the frame's."""
    stiffness = 100.0
    positions = np.array([[0.0, 0.0, 0.0], [0.1, 0.02, 0.0], [0.03, 0.15, 0.01]])
    target = am.interop.openmm.target(
        springs(stiffness), temperature=KELVIN, positions=positions, frame=(0, 1, 2), platform="Reference"
    )
    axes = np.linspace(-7.0, 0.5, 61), np.linspace(-1.2, 1.2, 61), np.linspace(-7.0, 0.5, 61)
    z = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    # The energy as it is written here, for a quarter of a million points; at some it is OpenMM's.
    x = np.asarray(jax.vmap(target.chart.to_x)(jnp.asarray(z, jnp.float32)), float).reshape(-1, 3, 3)
    value = -0.5 * stiffness / THERMAL * sum(np.sum((x[:, i] - x[:, j]) ** 2, 1) for i, j in ((0, 1), (0, 2), (1, 2)))
    value += np.asarray(jax.vmap(target.chart.log_volume)(jnp.asarray(z, jnp.float32)), float)
    some = np.arange(0, len(z), 5000)
    np.testing.assert_allclose(target.free.values(jnp.asarray(z[some], jnp.float32)), value[some], rtol=1e-4, atol=1e-3)
    log_z = math.log(np.exp(value).sum() * math.prod(axis[1] - axis[0] for axis in axes))
    # Two atoms about the first: in each direction a normal of precision (2, -1; -1, 2) k / kT.
    exact = 3.0 * (math.log(2.0 * math.pi * THERMAL / stiffness) - 0.5 * math.log(3.0)) - math.log(8.0 * math.pi**2)
    assert log_z == pytest.approx(exact, abs=2e-3)


def test_positions_go_into_the_frame_and_come_back():
    system, positions = chain()
    target = am.interop.openmm.target(system, temperature=KELVIN * unit.kelvin, positions=positions * unit.nanometer)
    chart = target.chart
    placed = np.asarray(target.location).reshape(5, 3)
    first, second, third = chart.frame
    np.testing.assert_allclose(placed[first], 0.0, atol=1e-12)
    np.testing.assert_allclose(placed[second, 1:], 0.0, atol=1e-12)
    assert placed[third, 2] == pytest.approx(0.0, abs=1e-12)
    distances = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distances(placed), distances(positions), atol=1e-12)
    volume = lambda x: np.linalg.det(x[1:4] - x[0])  # noqa: E731, which a mirror image has with the other sign
    assert volume(placed) == pytest.approx(volume(positions))
    z = chart.to_free(jax.random.key(0), jnp.asarray(placed.ravel(), jnp.float32))
    np.testing.assert_allclose(chart.to_x(z), placed.ravel(), atol=1e-6)
    assert target.parameters(jnp.asarray(target.location)[None])["positions"].shape == (1, 5, 3)


def test_what_an_external_force_holds_keeps_all_its_coordinates():
    centres = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    target = am.interop.openmm.target(held(centres, 50.0), temperature=KELVIN, positions=centres)
    assert target.chart is None
    x = jnp.asarray([[0.1, 0.0, 0.0, 1.0, 0.2, 0.0]])
    np.testing.assert_allclose(target.values(x), -0.5 * 50.0 / THERMAL * 0.05, rtol=1e-4)
    with pytest.raises(TargetError, match="needs no frame"):
        am.interop.openmm.target(held(centres, 50.0), temperature=KELVIN, positions=centres, frame=(0, 1, 2))


@pytest.mark.trains
def test_a_short_run_ends_with_the_integral():
    """Of two atoms that are held at their places: a normal, which leaves nothing to train."""
    centres, stiffness = np.array([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0]]), 200.0
    target = am.interop.openmm.target(held(centres, stiffness), temperature=KELVIN, positions=centres)
    sampler = am.fit(target, key=jax.random.key(0), evaluations=8000, progress=False)
    draws = sampler.sample(200, key=jax.random.key(1))
    exact = 3.0 * math.log(2.0 * math.pi * THERMAL / stiffness)
    assert abs(draws.log_z.value - exact) < 5.0 * draws.log_z.std_error + 0.02
    assert draws.unravel()["positions"].shape == (200, 2, 3)


def test_what_is_no_density_over_positions_is_refused():
    system, positions = chain()
    make = lambda **more: am.interop.openmm.target(  # noqa: E731
        **{"system": system, "temperature": KELVIN, "positions": positions} | more
    )
    with pytest.raises(TargetError, match=r"an openmm\.System is needed, got a str"):
        make(system="a molecule")
    with pytest.raises(TargetError, match=r"positions must be finite numbers of shape \(5, 3\), got shape \(4, 3\)"):
        make(positions=positions[1:])
    with pytest.raises(TargetError, match="temperature must be positive"):
        make(temperature=0.0)
    with pytest.raises(TargetError, match="positions must be in nanometer"):
        make(positions=positions * unit.kelvin)
    with pytest.raises(TargetError, match="three different atoms of 0 to 4"):
        make(frame=(0, 1, 1))
    with pytest.raises(TargetError, match="lie in a line"):
        make(positions=np.stack([0.15 * np.arange(5), np.zeros(5), np.zeros(5)], 1), frame=(0, 1, 2))
    with pytest.raises(ConfigError, match="no platform 'Abacus'"):
        make(platform="Abacus")
    two, of_two = chain(2)
    with pytest.raises(TargetError, match="three atoms are needed"):
        make(system=two, positions=of_two)
    for change, words in (
        (lambda s: s.addConstraint(0, 1, 0.15), "1 constraints"),
        (lambda s: s.setParticleMass(2, 0.0), "atom 2 has no mass"),
        (lambda s: s.setVirtualSite(2, openmm.TwoParticleAverageSite(0, 1, 0.5, 0.5)), "atom 2 is a virtual site"),
        (lambda s: s.getForce(1).setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic), "is periodic"),
    ):
        changed, _ = chain()
        change(changed)
        with pytest.raises(TargetError, match=words):
            make(system=changed)


def test_a_field_that_knows_directions_but_no_place_is_refused():
    system, positions = chain()
    field = openmm.CustomBondForce("k * (r - 0.1)^2")  # moved and turned alike: no reason to refuse
    field.addGlobalParameter("k", 1.0)
    field.addBond(0, 2, [])
    system.addForce(field)
    am.interop.openmm.target(system, temperature=KELVIN, positions=positions)
    upright = openmm.CustomCompoundBondForce(2, "20 * (z1 - z2)")
    upright.addBond([0, 1], [])
    system.addForce(upright)
    with pytest.raises(TargetError, match="not when it is turned"):
        am.interop.openmm.target(system, temperature=KELVIN, positions=positions)


def test_without_openmm_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "openmm", None)
    with pytest.raises(ConfigError, match="pip install openmm"):
        am.interop.openmm.target(None, temperature=KELVIN, positions=[])


WELLS = ((3, 0.0, 8.0), (1, 0.0, 2.0))  # of a torsion: periodicity, phase, kJ/mol


def butane():
    """Four atoms with bonds, angles and a torsion of three wells, of which the one at 180 degrees
    is the deepest."""
    system, bonds, angles = openmm.System(), openmm.HarmonicBondForce(), openmm.HarmonicAngleForce()
    torsion = openmm.PeriodicTorsionForce()
    for _ in range(4):
        system.addParticle(12.0)
    for atom in range(3):
        bonds.addBond(atom, atom + 1, 0.15, 2000.0)
    for atom in range(2):
        angles.addAngle(atom, atom + 1, atom + 2, 2.0, 100.0)
    for well in WELLS:
        torsion.addTorsion(0, 1, 2, 3, *well)
    for force in (bonds, angles, torsion):
        system.addForce(force)
    return system, [[0.0, 0.0, 0.0], [0.15, 0.0, 0.0], [0.21, 0.14, 0.0], [0.36, 0.14, 0.02]]


def torsion_of(x):
    """The angle in degrees, 180 where the chain is stretched."""
    a, b, c = x[:, 1] - x[:, 0], x[:, 2] - x[:, 1], x[:, 3] - x[:, 2]
    first, second = np.cross(a, b), np.cross(b, c)
    along = np.sum(np.cross(first, second) * b, 1) / np.linalg.norm(b, axis=1)
    return np.degrees(np.arctan2(along, np.sum(first * second, 1)))


@pytest.mark.slow
@pytest.mark.trains
def test_a_chain_of_four_has_its_integral_and_its_three_wells():
    """In bond lengths, angles and the torsion the integral is a product, of volume
    `r^2 sin(angle)`."""
    system, positions = butane()
    target = am.interop.openmm.target(system, temperature=KELVIN, positions=positions)
    draws = am.fit(target, key=0, progress=False).sample(10_000, key=1)
    r, angle, phi = (np.linspace(low, high, 20_001) for low, high in ((0.0, 0.5), (0.0, np.pi), (-np.pi, np.pi)))
    bond = np.trapezoid(r**2 * np.exp(-1000.0 * (r - 0.15) ** 2 / THERMAL), r)
    bend = np.trapezoid(np.sin(angle) * np.exp(-50.0 * (angle - 2.0) ** 2 / THERMAL), angle)
    turn = np.exp(-sum(k * (1.0 + np.cos(n * phi - phase)) for n, phase, k in WELLS) / THERMAL)
    exact = 3.0 * math.log(bond) + 2.0 * math.log(bend) + math.log(np.trapezoid(turn, phi))
    assert float(draws.log_z.value) == pytest.approx(exact, abs=4.0 * draws.log_z.std_error + 0.01)
    weight = np.exp(np.asarray(draws.log_weight, float))
    found = torsion_of(np.asarray(draws.unravel()["positions"], float))
    for low, high in ((-120.0, 0.0), (0.0, 120.0)):
        share = weight[(low < found) & (found < high)].sum() / weight.sum()
        inside = (np.radians(low) < phi) & (phi < np.radians(high))
        wanted = turn[inside].sum() / turn.sum()
        assert share == pytest.approx(wanted, abs=4.0 * math.sqrt(wanted * (1.0 - wanted) / draws.ess) + 1e-3)
    assert draws.verdict().word in ("trusted", "use with correction")


@pytest.mark.slow
@pytest.mark.trains
def test_alanine_dipeptide_as_openmmtools_has_it():
    """Amber's ff96 with an implicit solvent; openmmtools itself, which needs more, is not
    imported."""
    tools = importlib.util.find_spec("openmmtools")
    if tools is None:
        pytest.skip("openmmtools is not installed: its files are not read")
    (folder,) = tools.submodule_search_locations
    files = Path(folder) / "data" / "alanine-dipeptide-gbsa" / "alanine-dipeptide"
    topology, places = app.AmberPrmtopFile(f"{files}.prmtop"), app.AmberInpcrdFile(f"{files}.crd")
    system = topology.createSystem(implicitSolvent=app.OBC1, constraints=None, nonbondedMethod=app.NoCutoff)
    target = am.interop.openmm.target(system, temperature=KELVIN, positions=places.positions, name="alanine")
    assert (target.dim, target.free.dim) == (66, 60)
    start = jnp.asarray(target.location, jnp.float32)[None]
    assert -THERMAL * float(target.values(start)[0]) == pytest.approx(-138.9697, abs=0.01)  # kJ/mol
    sampler = am.fit(target, key=jax.random.key(0), evaluations=20_000, progress=False)
    draws = sampler.sample(200, key=jax.random.key(1))
    assert draws.unravel()["positions"].shape == (200, 22, 3)
    assert np.all(np.isfinite(np.asarray(draws.x)))
    assert am.interop.numpy.cost(target).points >= sampler.evaluations["log_prob"]
