"""`allmodes agree`: whether two independently seeded runs agree."""

import dataclasses
from pathlib import Path
from typing import Annotated

import jax
from tyro.conf import Positional, arg

from allmodes.audits.agreement import agreement
from allmodes.command.parse import parse
from allmodes.store.load import load


@dataclasses.dataclass(frozen=True)
class Agree:
    """Whether two independently seeded runs of one density agree. Exit status 1 if they do not."""

    first: Positional[Path]
    """A run folder."""
    second: Positional[Path]
    """Another one, of the same density and another seed."""
    n: Annotated[int, arg(aliases=["-n"])] = 4000
    """Draws of each."""
    seed: int = 1
    """Fixes the draws."""


def command(argv: list[str]) -> int:
    """`allmodes agree`: 1 where two runs disagree."""
    args = parse(Agree, argv, "agree")
    found = agreement(load(args.first), load(args.second), key=jax.random.key(args.seed), n=args.n)
    said = [f"cross ESS {ess:.2f}" for ess in found.cross_ess if ess is not None]
    said += [] if found.log_z_off is None else [f"log Z {found.log_z_off:.1f} standard errors apart"]
    said += [f"mean log-density {found.energy_off:.1f} standard errors apart"]
    print(("they agree: " if found.agree else "they disagree: ") + ", ".join(said))
    for reason in found.reasons:
        print(f"  - {reason}")
    if found.agree:
        print("  - what both miss stays unseen: `allmodes audit` looks for that")
    return int(not found.agree)
