"""Draw from a density you can only evaluate, without missing a mode, and know how far to trust the
draws.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from allmodes import extend, interop, parts
    from allmodes.audits.agreement import Agreement, agreement
    from allmodes.audits.audit import audit
    from allmodes.audits.result import Audit
    from allmodes.devices.mesh import on_devices
    from allmodes.draws.draws import Draws
    from allmodes.errors import (
        AllmodesError,
        ConfigError,
        JobError,
        PriorWarning,
        RunError,
        RunWarning,
        SolverError,
        TargetError,
    )
    from allmodes.jobs.page import write_report
    from allmodes.methods import (
        CMCD,
        DDS,
        FAB,
        IDEM,
        IWSM,
        LRDS,
        NUTS,
        PIS,
        SMC,
        TB,
        TRLV,
        AdjointSampling,
        DiKL,
        Nested,
        Tempering,
    )
    from allmodes.modes.table import ModeTable
    from allmodes.priors.posterior import posterior
    from allmodes.sampler import Sampler
    from allmodes.store.find import find_target
    from allmodes.store.load import load
    from allmodes.symmetry import ParticleSymmetry
    from allmodes.target import Modes, Target
    from allmodes.training.fit import fit

__version__ = "0.1.0"

__all__ = [
    "CMCD",
    "DDS",
    "FAB",
    "IDEM",
    "IWSM",
    "LRDS",
    "NUTS",
    "PIS",
    "SMC",
    "TB",
    "TRLV",
    "AdjointSampling",
    "Agreement",
    "AllmodesError",
    "Audit",
    "ConfigError",
    "DiKL",
    "Draws",
    "JobError",
    "ModeTable",
    "Modes",
    "Nested",
    "ParticleSymmetry",
    "PriorWarning",
    "RunError",
    "RunWarning",
    "Sampler",
    "SolverError",
    "Target",
    "TargetError",
    "Tempering",
    "agreement",
    "audit",
    "extend",
    "find_target",
    "fit",
    "interop",
    "load",
    "on_devices",
    "parts",
    "posterior",
    "write_report",
]

# Module -> what of it is offered here. Imported when first asked for, so that the command line can
# guard itself against signals before JAX is there, and lists what there is at once.
_OFFERED = {
    "audits.agreement": ("Agreement", "agreement"),
    "audits.audit": ("audit",),
    "audits.result": ("Audit",),
    "devices.mesh": ("on_devices",),
    "draws.draws": ("Draws",),
    "errors": (
        "AllmodesError",
        "ConfigError",
        "JobError",
        "PriorWarning",
        "RunError",
        "RunWarning",
        "SolverError",
        "TargetError",
    ),
    "jobs.page": ("write_report",),
    "priors.posterior": ("posterior",),
    "modes.table": ("ModeTable",),
    "methods": (
        "CMCD",
        "DDS",
        "FAB",
        "IDEM",
        "IWSM",
        "LRDS",
        "NUTS",
        "PIS",
        "SMC",
        "TB",
        "TRLV",
        "AdjointSampling",
        "DiKL",
        "Nested",
        "Tempering",
    ),
    "sampler": ("Sampler",),
    "store.find": ("find_target",),
    "store.load": ("load",),
    "symmetry": ("ParticleSymmetry",),
    "target": ("Modes", "Target"),
    "training.fit": ("fit",),
}
_HOME = {name: module for module, names in _OFFERED.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in ("extend", "interop", "parts"):
        return importlib.import_module(f"allmodes.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'allmodes' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"allmodes.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
