"""Draw from a density you can only evaluate, without missing a mode, and know how far to trust the
draws.
"""

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allmodes import interop
    from allmodes.agreement import Agreement, agreement
    from allmodes.audit import Audit, audit
    from allmodes.devices import on_devices
    from allmodes.draws import Draws
    from allmodes.errors import AllmodesError, ConfigError, JobError, RunError, RunWarning, SolverError, TargetError
    from allmodes.fit import fit
    from allmodes.methods import IDEM, IWSM, NUTS, SMC, Tempering
    from allmodes.sampler import Sampler
    from allmodes.store import find_target, load
    from allmodes.symmetry import ParticleSymmetry
    from allmodes.target import Modes, Target

__version__ = "0.1.0"

__all__ = [
    "IDEM",
    "IWSM",
    "NUTS",
    "SMC",
    "Agreement",
    "AllmodesError",
    "Audit",
    "ConfigError",
    "Draws",
    "JobError",
    "Modes",
    "ParticleSymmetry",
    "RunError",
    "RunWarning",
    "Sampler",
    "SolverError",
    "Target",
    "TargetError",
    "Tempering",
    "agreement",
    "audit",
    "find_target",
    "fit",
    "interop",
    "load",
    "on_devices",
]

# Module -> what of it is offered here. Imported when first asked for, so that the command line can
# guard itself against signals before JAX is there, and lists what there is at once.
_OFFERED = {
    "agreement": ("Agreement", "agreement"),
    "audit": ("Audit", "audit"),
    "devices": ("on_devices",),
    "draws": ("Draws",),
    "errors": ("AllmodesError", "ConfigError", "JobError", "RunError", "RunWarning", "SolverError", "TargetError"),
    "fit": ("fit",),
    "methods": ("IDEM", "IWSM", "NUTS", "SMC", "Tempering"),
    "sampler": ("Sampler",),
    "store": ("find_target", "load"),
    "symmetry": ("ParticleSymmetry",),
    "target": ("Modes", "Target"),
}
_HOME = {name: module for module, names in _OFFERED.items() for name in names}


def __getattr__(name: str) -> Any:
    if name == "interop":
        return importlib.import_module("allmodes.interop")
    if name not in _HOME:
        raise AttributeError(f"module 'allmodes' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"allmodes.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(types.ModuleType):
    """Keeps `allmodes.fit` the function: importing the module of that name would bind the module
    here.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
