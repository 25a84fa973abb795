"""Corrections of draws, by the name that `sample(correct=..)` knows them by. A new one is one file,
and one line here.
"""

from allmodes.diffusion.corrections.chains import Chains
from allmodes.diffusion.corrections.correction import Correction
from allmodes.diffusion.corrections.path_smc import PathSMC
from allmodes.diffusion.corrections.proposal import PathProposal, Proposal, proposal_of
from allmodes.diffusion.corrections.snis import SNIS
from allmodes.errors import ConfigError

CORRECTIONS: dict[str, type[Correction]] = {
    "snis": SNIS,
    "smc": PathSMC,
    "mcmc": Chains,
}


def correction_of(wanted: str | Correction, **settings: int | None) -> Correction:
    """Give a correction by its name, with those settings that are not None and that it has; one
    that is given itself has its own.

    **Raises** `ConfigError` when there is none of that name, a setting is wrong, or settings are
    given beside a correction.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if isinstance(wanted, Correction):
        if given:
            raise ConfigError(f"{', '.join(given)} belong into {type(wanted).__name__}(..), which was given itself")
        return wanted
    if wanted not in CORRECTIONS:
        raise ConfigError(f"correct must be {', '.join(map(repr, CORRECTIONS))} or None, got {wanted!r}")
    kind = CORRECTIONS[wanted]
    return kind(**{name: value for name, value in given.items() if name in kind.__dataclass_fields__})


__all__ = [
    "CORRECTIONS",
    "SNIS",
    "Chains",
    "Correction",
    "PathProposal",
    "PathSMC",
    "Proposal",
    "correction_of",
    "proposal_of",
]
