"""`allmodes reference`: draws that stand in for exact ones."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated

import numpy as np
from tyro.conf import Positional, arg

from allmodes import targets
from allmodes.command.parse import parse
from allmodes.files import interrupt
from allmodes.files.atomic import check_writable, write_atomically
from allmodes.report.tables import print_table
from allmodes.store.find import find_target
from allmodes.targets import reference


@dataclasses.dataclass(frozen=True)
class Reference:
    """Draws that stand in for exact ones: independent tempered runs that must agree, made once and
    kept.
    """

    target: Positional[str]
    """A registered name, or FILE.py:FUNCTION."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Number of draws; the registered number when not given."""
    dim: int | None = None
    """Dimension of a function of your own."""
    out: Path | None = None
    """Also write the draws here, as the array x (n, dim) of an .npz file."""


def command(argv: list[str]) -> int:
    """`allmodes reference`: 1 where a check of it fails."""
    args = parse(Reference, argv, "reference")
    if args.out is not None:
        check_writable(args.out)
    target = find_target(args.target, args.dim)
    target.check()
    entry = targets.entries().get(args.target)
    n = args.n if args.n is not None else (entry.reference if entry else None) or 10_000
    make = reference.load if entry else reference.make  # a user's function may change under its name
    made = make(target, n, progress=lambda text: print(text, file=sys.stderr, flush=True))
    rows = [[c.name, f"{c.value:.5g}", f"{c.expected:.5g}", f"{c.std_error:.2g}", f"{c.off:.1f}"] for c in made.checks]
    print_table(["check", "value", "expected", "standard error", "off by"], rows, title=f"{target.name}, {n:,} draws")
    print(f"log Z {made.log_z:.4f} +- {made.log_z_error:.4f}, {made.evaluations:,} evaluations")
    if args.out is not None:
        write_atomically(args.out, lambda file: np.savez(file, x=made.x), mode="wb")
        interrupt.say(interrupt.WRITTEN)
        print(args.out)
    if not made.passed:
        print(f"a check is off by more than {reference.SIGMAS:g} standard errors", file=sys.stderr)
    return int(not made.passed)
