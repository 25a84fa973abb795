"""Corrections of draws, by the name that `sample(correct=..)` knows them by. A new one is one file,
and one line here.
"""

from allmodes.diffusion.corrections.chains import Chains
from allmodes.diffusion.corrections.correction import Correction
from allmodes.diffusion.corrections.path_smc import PathSMC
from allmodes.diffusion.corrections.snis import SNIS
from allmodes.errors import ConfigError

CORRECTIONS: dict[str, type[Correction]] = {"snis": SNIS, "smc": PathSMC, "mcmc": Chains}


def correction_of(wanted: str | Correction, **settings: int | None) -> Correction:
    """Give a correction by its name, with those settings that are not None and that it has.

    **Raises** `ConfigError` when there is none of that name, or a setting is wrong.
    """
    if isinstance(wanted, Correction):
        return wanted
    if wanted not in CORRECTIONS:
        raise ConfigError(f"correct must be {', '.join(map(repr, CORRECTIONS))} or None, got {wanted!r}")
    kind = CORRECTIONS[wanted]
    known = kind.__dataclass_fields__
    return kind(**{name: value for name, value in settings.items() if value is not None and name in known})


__all__ = ["CORRECTIONS", "SNIS", "Chains", "Correction", "PathSMC", "correction_of"]
