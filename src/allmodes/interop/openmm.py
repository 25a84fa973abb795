"""Systems of OpenMM as targets: their Boltzmann distribution at a temperature, forces as gradients.

A molecule in empty space may be moved and turned without a change of its energy, and so has no
normalised density over all coordinates. Six of them are removed exactly: three atoms make a frame,
the first at the origin, the second on the x-axis, the third in the half plane y > 0. The volume of
all positions in that frame is `r^2 y dr dx dy` times that of the other atoms, r the distance from
the first to the second and (x, y) the third's place, up to the volume of the space and the
8 pi^2 of orientations, which log Z leaves out.
"""

import dataclasses
import threading
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.chart import Support
from allmodes.errors import ConfigError, TargetError
from allmodes.interop import numpy
from allmodes.target import Target

STILL = 1e-5  # of 1 + |E| / kT: less is no change, in double precision


def target(
    system: Any,
    *,
    temperature: Any,
    positions: Any,
    frame: Sequence[int] | None = None,
    platform: str = "CPU",
    name: str = "openmm",
    **more: Any,
) -> Target:
    """The Boltzmann distribution `exp(-E / kT)` of an `openmm.System`, over positions in nm.

    `draws.x` are the positions `(n, 3 atoms)`, atom by atom, `draws.log_prob` is `-E / kT`, and
    `draws.unravel()["positions"]` is `(n, atoms, 3)`. Of a system whose energy does not change when
    it is moved and turned, positions are those in the frame of three of its atoms, and log Z is the
    log of the configurational integral (nm^(3 atoms - 3)) per volume and per 8 pi^2 of
    orientations; mirror images are configurations of their own. Of one that an external force holds
    in place, all coordinates are free.

    - `temperature`: in kelvin, or a quantity of `openmm.unit`.
    - `positions`: `(atoms, 3)` in nanometres, or a quantity: where the search starts.
    - `frame`: the numbers of the three atoms; some in the middle, and not in a line, when not
      given. Best ones that are bonded to each other.
    - `platform`: of OpenMM. `more`: the other arguments of `Target`, but for `dim` and `location`.

    One Context is made, and evaluates one configuration at a time, energy and forces together:
    `am.interop.numpy.cost(target)` tells what that took. Density and forces are called on the host,
    so a sampler of it cannot be saved unless the target comes from a file (`am.find_target`).

    **Raises** `ConfigError` when OpenMM or its platform is missing; `TargetError` when positions,
    temperature or frame are not as said, the system is periodic, or has constraints, virtual sites
    or atoms without mass, which are no densities over positions; or when its energy does not
    change as it is moved but does as it is turned.
    """
    try:
        import openmm
        from openmm import unit
    except ImportError as error:
        raise ConfigError("OpenMM is not installed: pip install openmm") from error
    if not isinstance(system, openmm.System):
        raise TargetError(f"an openmm.System is needed, got a {type(system).__name__}")
    atoms = system.getNumParticles()
    _check(system)
    start = _numbers(positions, unit.nanometer, "positions", (atoms, 3))
    kelvin = float(_numbers(temperature, unit.kelvin, "temperature", ()))
    if not kelvin > 0:
        raise TargetError(f"temperature must be positive, in kelvin, got {temperature}")
    thermal = kelvin * unit.MOLAR_GAS_CONSTANT_R.value_in_unit(unit.kilojoule_per_mole / unit.kelvin)
    energies = _Energies(system, platform, thermal)
    more = {
        "name": name, "source": "an OpenMM system", "location": start.ravel(),
        "parameters": lambda x: {"positions": x.reshape(len(x), atoms, 3)},
    } | more  # fmt: skip
    if _is_free(_Energies(system, "Reference", thermal), start):
        body = Body.of(start, frame)
        more = {**more, "chart": body, "location": body.placed(start).ravel()}
    elif frame is not None:
        raise TargetError("the energy changes when the system is moved: it is held in place, and needs no frame")
    return numpy.target(energies.log_prob, 3 * atoms, grad=energies.grad, batched=True, **more)


@dataclasses.dataclass(frozen=True, eq=False)
class Body(Support):
    """Positions in the frame of three atoms. Free coordinates are the log of the distance of the
    first two, the third's x and log y, and the places of all others.
    """

    atoms: int
    frame: tuple[int, int, int]

    spread = None

    @classmethod
    def of(cls, positions: Float[np.ndarray, "atoms 3"], frame: Sequence[int] | None) -> "Body":
        """Check the frame, or find one: the most central atom, and of its four neighbours the two
        that make the widest triangle with it.
        """
        atoms = len(positions)
        if atoms < 3:
            raise TargetError(f"three atoms are needed to make a frame of a system that is free, got {atoms}")
        if frame is None:
            first = int(np.argmin(np.sum((positions - positions.mean(0)) ** 2, 1)))
            near = np.argsort(np.sum((positions - positions[first]) ** 2, 1))[1:5].tolist()
            pairs = [(i, j) for i in near for j in near if i < j]
            frame = (first, *max(pairs, key=lambda pair: _sine(positions, (first, *pair))))
        frame = tuple(int(i) for i in frame)
        if len(set(frame)) != 3 or len(frame) != 3 or not all(0 <= i < atoms for i in frame):
            raise TargetError(f"frame must be three different atoms of 0 to {atoms - 1}, got {frame}")
        if _sine(positions, frame) < 0.01:
            raise TargetError(f"the atoms {frame} lie in a line, and make no frame: name three others")
        return cls(atoms, frame)

    @property
    def free_dim(self) -> int:
        """Six less than there are coordinates."""
        return 3 * self.atoms - 6

    @property
    def _others(self) -> np.ndarray:
        return np.setdiff1d(np.arange(self.atoms), self.frame)

    def to_x(self, z: Float[Array, " free"]) -> Float[Array, " dim"]:
        """Give the positions."""
        _, second, third = self.frame
        x = jnp.zeros((self.atoms, 3), z.dtype)
        x = x.at[second, 0].set(jnp.exp(z[0]))
        x = x.at[third, :2].set(jnp.stack([z[1], jnp.exp(z[2])]))
        return x.at[self._others].set(z[3:].reshape(-1, 3)).ravel()

    def log_volume(self, z: Float[Array, " free"]) -> Scalar:
        """Of `r^2 y dr dx dy`, r and y being exponentials."""
        return 3.0 * z[0] + 2.0 * z[2]

    def to_free(self, key: Array, x: Float[Array, " dim"]) -> Float[Array, " free"]:
        """Give the free coordinates of positions in the frame."""
        x = x.reshape(self.atoms, 3)
        _, second, third = self.frame
        own = jnp.stack([jnp.log(x[second, 0]), x[third, 0], jnp.log(x[third, 1])])
        return jnp.concatenate([own, x[self._others].ravel()])

    def placed(self, positions: Float[np.ndarray, "atoms 3"]) -> Float[np.ndarray, "atoms 3"]:
        """Move and turn positions into the frame."""
        first, second, third = self.frame
        moved = positions - positions[first]
        ahead = moved[second] / np.linalg.norm(moved[second])
        aside = moved[third] - (moved[third] @ ahead) * ahead
        aside = aside / np.linalg.norm(aside)
        return moved @ np.stack([ahead, aside, np.cross(ahead, aside)], axis=1)


class _Energies:
    """`-E / kT` and its gradient at points `(n, 3 atoms)`, by one Context.

    OpenMM gives both at the cost of one, so gradients are kept for the question that comes next.
    """

    def __init__(self, system: Any, platform: str, thermal: float):
        import openmm

        try:
            chosen = openmm.Platform.getPlatformByName(platform)
        except openmm.OpenMMException as error:
            raise ConfigError(f"OpenMM has no platform {platform!r} here: {error}") from error
        one = {"Threads": "1"} if platform == "CPU" else {}  # it is called for small systems, many times
        # The Context keeps the integrator, which is never stepped, and a copy of the system.
        self._context = openmm.Context(system, openmm.VerletIntegrator(0.001), chosen, one)
        self._thermal, self._lock, self._kept = thermal, threading.Lock(), (np.empty(0), np.empty(0))

    def log_prob(self, points: np.ndarray) -> np.ndarray:
        return self._both(points)[0]

    def grad(self, points: np.ndarray) -> np.ndarray:
        kept, grads = self._kept
        return grads if np.array_equal(points, kept) else self._both(points)[1]

    def _both(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._lock:
            found = [self._at(point.reshape(-1, 3)) for point in points]
        values, grads = np.array([value for value, _ in found]), np.array([grad for _, grad in found])
        self._kept = points.copy(), grads
        return values, grads

    def _at(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        if not np.all(np.isfinite(positions)):  # which a Context raises an error for
            return np.nan, np.zeros(positions.size)
        self._context.setPositions(positions)
        state = self._context.getState(energy=True, forces=True)
        forces = state.getForces(asNumpy=True)._value  # kJ / mol / nm
        return -state.getPotentialEnergy()._value / self._thermal, forces.ravel() / self._thermal


def _check(system: Any) -> None:
    if system.usesPeriodicBoundaryConditions():
        raise TargetError("the system is periodic: a target needs one without a box (NonbondedMethod NoCutoff)")
    if system.getNumConstraints():
        raise TargetError(
            f"the system has {system.getNumConstraints()} constraints, and so no density over its positions: make it "
            "with constraints=None and rigidWater=False"
        )
    for atom in range(system.getNumParticles()):
        if system.isVirtualSite(atom):
            raise TargetError(f"atom {atom} is a virtual site, which has no coordinates of its own")
        if not system.getParticleMass(atom)._value > 0:
            raise TargetError(f"atom {atom} has no mass, so OpenMM holds it fixed: hold it by a force instead")


def _numbers(given: Any, unit: Any, what: str, shape: tuple[int, ...]) -> np.ndarray:
    """In a unit, with or without one of their own."""
    try:
        array = np.asarray(given.value_in_unit(unit) if hasattr(given, "value_in_unit") else given, float)
    except (TypeError, ValueError) as error:
        raise TargetError(f"{what} must be in {unit}, or a quantity of openmm.unit: {error}") from error
    if array.shape != shape or not np.all(np.isfinite(array)):
        raise TargetError(f"{what} must be finite numbers of shape {shape}, got shape {array.shape}: {given}")
    return array


def _is_free(energies: _Energies, positions: Float[np.ndarray, "atoms 3"]) -> bool:
    """Whether the energy stays the same when all is moved, and when all is turned."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))
    turn = turn * np.linalg.det(turn)  # no mirror
    others = np.stack([positions, positions + np.array([3.1, -1.7, 2.3]), positions @ turn.T])
    at, moved, turned = energies.log_prob(others.reshape(3, -1))
    if not np.isfinite(at):
        raise TargetError(f"the energy at the positions is not finite: {at}")
    is_same = [bool(abs(other - at) < STILL * (1.0 + abs(at))) for other in (moved, turned)]
    if is_same[0] and not is_same[1]:
        raise TargetError(
            "the energy stays the same when the system is moved, but not when it is turned: hold one atom by an "
            "external force (openmm.CustomExternalForce)"
        )
    return is_same[0]


def _sine(positions: Float[np.ndarray, "atoms 3"], three: Sequence[int]) -> float:
    """Of the angle at the first of three atoms."""
    a, b = (positions[i] - positions[three[0]] for i in three[1:])
    long = np.linalg.norm(a) * np.linalg.norm(b)
    return float(np.linalg.norm(np.cross(a, b)) / long) if long > 0 else 0.0
