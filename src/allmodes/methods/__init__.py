"""The methods, by the name that the command line knows them by. A new one is one file and one line
here.
"""

from allmodes.method import Method
from allmodes.methods.cmcd import CMCD
from allmodes.methods.dikl import DiKL
from allmodes.methods.fab import FAB
from allmodes.methods.iwsm import IDEM, IWSM
from allmodes.methods.nested import Nested
from allmodes.methods.nuts import NUTS
from allmodes.methods.paths import DDS, LRDS, PIS, TB, TRLV, AdjointSampling
from allmodes.methods.smc import SMC
from allmodes.methods.tempering import Tempering
from allmodes.target import Target

# Name -> configuration: several may be of one class.
METHODS: dict[str, Method] = {
    "iwsm": IWSM(),
    "iwsm-thorough": IWSM.thorough(),
    "iwsm-many-dimensions": IWSM.many_dimensions(),
    "iwsm-particles": IWSM.particles(),
    "iwsm-few-particles": IWSM.few_particles(),
    "iwsm-many-particles": IWSM.many_particles(),
    "iwsm-paper": IWSM.paper(),
    "idem": IDEM(),
    "dds": DDS(),
    "pis": PIS(),
    "tb": TB(),
    "trlv": TRLV(),
    "lrds": LRDS(),
    "adjoint": AdjointSampling(),
    "cmcd": CMCD(),
    "fab": FAB(),
    "fab-paper": FAB.paper(),
    "dikl": DiKL(),
    "smc": SMC(),
    "tempering": Tempering(),
    "nuts": NUTS(),
    "nested": Nested(),
}


def default_for(target: Target) -> str:
    """The name of the method that a target gets when none is asked for."""
    if target.symmetry is None:
        return "iwsm"
    n = target.symmetry.particles
    return "iwsm-few-particles" if n <= 6 else "iwsm-particles" if n <= 30 else "iwsm-many-particles"


__all__ = [
    "CMCD",
    "DDS",
    "FAB",
    "IDEM",
    "IWSM",
    "LRDS",
    "METHODS",
    "NUTS",
    "PIS",
    "SMC",
    "TB",
    "TRLV",
    "AdjointSampling",
    "DiKL",
    "Method",
    "Nested",
    "Tempering",
    "default_for",
]
