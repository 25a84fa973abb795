"""Benchmark densities by name: `get("gmm40")`; the families that build them can be called with
other parameters.

To add a target: one file with the function that builds it, one line in `REGISTRY`, one test.
"""

import dataclasses
import importlib.util
from collections.abc import Callable
from functools import partial

from allmodes.doors import nearest
from allmodes.errors import TargetError
from allmodes.target import Target
from allmodes.targets.funnel import funnel
from allmodes.targets.gmm import gmm_jax, gmm_torch, two_modes
from allmodes.targets.manywell import five_wells, many_well
from allmodes.targets.mixture import affine, gaussian, gaussian_mixture, random_mixture
from allmodes.targets.particles import double_well, lennard_jones
from allmodes.targets.posteriors.cox import log_gaussian_cox
from allmodes.targets.posteriors.labels import mixture_labels
from allmodes.targets.posteriors.lattice import phi4
from allmodes.targets.posteriors.logistic import breast_cancer
from allmodes.targets.posteriors.radial_velocity import radial_velocity
from allmodes.targets.posteriors.sensors import sensors
from allmodes.targets.reference import pool
from allmodes.targets.shapes import ring, rings, two_moons
from allmodes.targets.warped import warped_mixture

__all__ = [
    "Entry",
    "affine",
    "breast_cancer",
    "double_well",
    "entries",
    "five_wells",
    "funnel",
    "gaussian",
    "gaussian_mixture",
    "get",
    "gmm_jax",
    "gmm_torch",
    "lennard_jones",
    "log_gaussian_cox",
    "many_well",
    "mixture_labels",
    "names",
    "phi4",
    "radial_velocity",
    "random_mixture",
    "ring",
    "rings",
    "sensors",
    "two_modes",
    "two_moons",
    "warped_mixture",
]


@dataclasses.dataclass(frozen=True)
class Entry:
    """One registered target: how to build it, and what can be said of it without building it."""

    build: Callable[[], Target]
    dim: int
    summary: str
    source: str
    reference: int | None = None  # draws of `allmodes reference` that stand in for exact ones
    known: str = ""  # what `build` gives, so that a list need not build it; all there is when not given
    needs: tuple[str, str] | None = None  # a module that it imports, and the package, where that is no dependency

    @property
    def missing(self) -> str:
        """What has to be installed before it can be built; empty where nothing has to."""
        if self.needs is None or importlib.util.find_spec(self.needs[0]) is not None:
            return ""
        return f"{self.needs[1]} is not installed: pip install {self.needs[1]}"

    def __post_init__(self) -> None:
        known = self.known or ("exact draws, log Z, modes" if self.reference is None else "reference draws")
        object.__setattr__(self, "known", known)


_NO_MODES, _SYMMETRIC = "exact draws, log Z", "reference draws, modes"
_TORCH = "FAB's and iDEM's GMM (torch family): means (u - 0.5) * 80, standard deviation softplus(1); arXiv 2208.01893"
_JAX = "Beyond ELBOs' and SCLD's GMM (JAX family): means uniform in [-40, 40]^d, standard deviation 1; arXiv 2406.07423"
_OWN = "allmodes"
_RANDOM = "allmodes: random_mixture with seed 7"
_WARPED = "allmodes: warped_mixture with seed 900 and the dimension"
_FAB = "many well of FAB; arXiv 2208.01893"
_TR_LV = "many well of TR-LV, wells (x^2 - 4)^2; arXiv 2508.12511"
_LABELS = "data of Jasra, Holmes and Stephens 2005; Del Moral, Doucet and Jasra 2006"
_SENSORS = "model of Ihler et al. 2005, constants of Ahn, Chen and Welling 2013; data of allmodes"
_ORBITS = "model of Ford 2005 and Price-Whelan et al. 2017; data of allmodes"
_LOGISTIC = "scikit-learn's breast-cancer data, prior N(0, 1): Arenz et al. 2020; arXiv 2406.07423"
_PHI4 = "Nicoli et al. 2020, 2021; kappa 0.3, lambda 0.022"
_COX = "Moller, Syversveen and Waagepetersen 1998; data of allmodes"
_IDEM = "iDEM's constants (every ordered pair counted); arXiv 2402.06121"


def _moved(scale: float, shift: float) -> Callable[[], Target]:
    return lambda: affine(random_mixture(7, 25, 2), scale, shift)


REGISTRY: dict[str, Entry] = {
    "gaussian": Entry(gaussian, 8, "one correlated Gaussian, for checks in closed form", _OWN),
    "gmm40": Entry(partial(gmm_torch, 40), 2, "40 equal modes in a box of side 80", _TORCH),
    "gmm80": Entry(partial(gmm_torch, 80), 2, "80 equal modes, same box", _TORCH),
    "gmm120": Entry(partial(gmm_torch, 120), 2, "120 equal modes, same box, many touching", _TORCH),
    "gmm40-jax": Entry(gmm_jax, 2, "40 equal modes, the other density of this name", _JAX),
    "mixture-2d": Entry(partial(random_mixture, 7, 25, 2), 2, "25 modes, weights 1 to 20, unequal shapes", _RANDOM),
    "mixture-2d-small": Entry(_moved(1e-2, 0.0), 2, "mixture-2d scaled by 0.01", _RANDOM),
    "mixture-2d-large": Entry(_moved(1e3, 0.0), 2, "mixture-2d scaled by 1,000", _RANDOM),
    "mixture-2d-far": Entry(_moved(1.0, 2.5e5), 2, "mixture-2d shifted by 10,000 times its spread", _RANDOM),
    "mixture-10d": Entry(partial(random_mixture, 7, 25, 10), 10, "25 modes, weights 1 to 20, unequal shapes", _RANDOM),
    "warped-2d": Entry(partial(warped_mixture, 902, 40, 2), 2, "40 modes, skewed, heavy in the tails, bent", _WARPED),
    "warped-8d": Entry(partial(warped_mixture, 908, 40, 8), 8, "40 modes, skewed, heavy in the tails, bent", _WARPED),
    "two-modes": Entry(two_modes, 8, "weights 2/3 and 1/3, far apart", "Grenioux et al. 2025, a = 1"),
    "ring": Entry(ring, 2, "one ring of radius 3, unnormalised", _OWN),
    "rings": Entry(rings, 2, "two concentric rings, radii 1 and 3", _OWN),
    "two-moons": Entry(two_moons, 2, "two interleaved half circles", "geometry of scikit-learn's make_moons"),
    "funnel": Entry(
        funnel, 10, "widths over five orders of magnitude", "Neal 2003, Slice sampling, section 8", known=_NO_MODES
    ),
    "manywell-8": Entry(partial(many_well, 8), 8, "16 modes of unequal weight, unnormalised", _FAB),
    "manywell-32": Entry(
        partial(many_well, 32), 32, "65,536 modes of unequal weight, unnormalised", _FAB, known=_NO_MODES
    ),
    "manywell-64": Entry(
        partial(many_well, 64), 64, "2^32 modes of unequal weight, unnormalised", _FAB, known=_NO_MODES
    ),
    "manywell-128": Entry(
        partial(many_well, 128), 128, "2^64 modes of unequal weight, unnormalised", _FAB, known=_NO_MODES
    ),
    "five-wells-50": Entry(partial(five_wells, 50), 50, "32 equal modes, five wells among normals", _TR_LV),
    "five-wells-100": Entry(partial(five_wells, 100), 100, "32 equal modes, five wells among normals", _TR_LV),
    "five-wells-200": Entry(partial(five_wells, 200), 200, "32 equal modes, five wells among normals", _TR_LV),
    "dw4": Entry(double_well, 8, "4 particles in 2-D, double wells between pairs", _IDEM, 20_000),
    "lj13": Entry(partial(lennard_jones, 13), 39, "13 Lennard-Jones particles in 3-D", _IDEM, 20_000),
    "lj55": Entry(partial(lennard_jones, 55), 165, "55 Lennard-Jones particles in 3-D", _IDEM, 2000),
    "mixture-labels": Entry(
        mixture_labels,
        11,
        "posterior of a mixture: 24 labellings, equal masses",
        _LABELS,
        4000,
        known=_SYMMETRIC,
        needs=("numpyro", "numpyro"),
    ),
    "sensors": Entry(sensors, 16, "posterior of 8 places from few distances", _SENSORS, 8000),
    "radial-velocity": Entry(radial_velocity, 7, "posterior of an orbit: aliases of its period", _ORBITS, 4000),
    "breast-cancer": Entry(
        breast_cancer,
        31,
        "posterior of a logistic regression, one mode",
        _LOGISTIC,
        4000,
        needs=("sklearn", "scikit-learn"),
    ),
    "phi4": Entry(phi4, 64, "field on an 8 x 8 lattice, two signs of equal mass", _PHI4, 8000, known=_SYMMETRIC),
    "cox": Entry(log_gaussian_cox, 256, "posterior of a Cox process on 16 x 16 cells, one mode", _COX, 2000),
}


def get(name: str) -> Target:
    """Build a registered target. **Raises** `TargetError` for an unknown name.

    Where no exact sampler is known, `sample` draws from the reference that its first call makes
    (`allmodes reference`).
    """
    entry = REGISTRY.get(name)
    if entry is None:
        raise TargetError(
            f"there is no target called {name!r}: `allmodes targets` lists them.{nearest(name, REGISTRY)}"
        )
    target = dataclasses.replace(entry.build(), name=name, source=entry.source)
    if entry.reference is not None:
        target = dataclasses.replace(target, sample=pool(target, entry.reference), reference=entry.reference)
    return target


def names() -> tuple[str, ...]:
    """List the registered names, in the order of `allmodes targets`."""
    return tuple(REGISTRY)


def entries() -> dict[str, Entry]:
    """Return a copy of the registry: name to `Entry`."""
    return dict(REGISTRY)
