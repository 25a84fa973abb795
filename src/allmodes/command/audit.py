"""`allmodes audit`: search independently for what a sampler misses."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

import jax
from tyro.conf import Positional, arg

from allmodes.audits.audit import audit
from allmodes.audits.files import show, write
from allmodes.command.kept_programs import keep_programs
from allmodes.command.parse import parse
from allmodes.errors import ConfigError
from allmodes.files import interrupt
from allmodes.files.run_folder import Run as Folder
from allmodes.store.find import find_target
from allmodes.store.load import load


@dataclasses.dataclass(frozen=True)
class Audit:
    """Search independently for what the sampler of a run misses; exit with status 1 where basins
    differ.
    """

    run: Positional[Path]
    """The run folder."""
    against: str | None = None
    """Judge by this density, a registered name or FILE.py:FUNCTION; the run's own when not
    given."""
    dim: int | None = None
    """Dimension of such a function."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Draws of each side; 20,000, for particles 2,000."""
    seed: int = 0
    """Fixes everything random."""
    out: Path | None = None
    """Folder of audit.json and audit.png; the run folder when not given."""
    quiet: bool = False
    """Show no progress."""


def command(argv: list[str]) -> int:
    """`allmodes audit`: 1 where basins differ."""
    args = parse(Audit, argv, "audit")
    if args.dim is not None and args.against is None:
        raise ConfigError("--dim is that of the function that --against names: leave it out")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed must lie between 0 and 2^32 - 1, got {args.seed}")
    keep_programs()
    sampler = load(args.run)
    against = None if args.against is None else find_target(args.against, args.dim)
    folder = Folder(args.out or args.run).create()
    say = None if args.quiet else lambda text: print(text, file=sys.stderr, flush=True)
    found = audit(sampler, key=jax.random.key(args.seed), against=against, n=args.n, progress=say)
    line = "allmodes " + shlex.join(["audit", *argv])
    write(found, folder, against or sampler.target, {"run": str(args.run), "seed": args.seed, "command": line})
    interrupt.say(interrupt.WRITTEN)
    show(found)
    print(folder / "audit.png")
    return int(found.failed)
