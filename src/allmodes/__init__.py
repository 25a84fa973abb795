"""Draw from a density you can only evaluate, without missing a mode, and know how far to trust the draws."""

from allmodes import interop
from allmodes.agreement import Agreement, agreement
from allmodes.audit import Audit, audit
from allmodes.devices import on_devices
from allmodes.draws import Draws
from allmodes.errors import AllmodesError, ConfigError, JobError, RunError, SolverError, TargetError
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
