"""`allmodes benchmark tables`: a table of the field, methods down and metrics across."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from allmodes.command.parse import going_on, parse
from allmodes.errors import ConfigError
from allmodes.jobs.tables.cell import limits_of
from allmodes.jobs.tables.job import tables
from allmodes.metrics.floor import REPEATS


@dataclasses.dataclass(frozen=True)
class Tables:
    """A table of the field, methods down and metrics across, beside what others have published.
    Each cell is a run of its own, which is kept: the same command goes on where it was.
    """

    table: Positional[str]
    """iwsm, idem, sgds, trlv, asbs, or one registered target."""
    targets: str = ""
    """Those of the table's targets that are meant, with commas; all when not given."""
    methods: str = "iwsm,idem,dds,smc,tempering,nuts"
    """Names that `allmodes methods` lists, or FILE.py:NAME, with commas; iwsm is each target's own
    default of it."""
    evaluations: str = "1e7"
    """Limit of each cell for training and raw draws together; several with commas, for a curve."""
    seconds: float | None = None
    """Limit of each cell, from the search to the report, whichever ends first; for methods that
    train."""
    timeout: float | None = None
    """Seconds after which a cell that has not ended is ended and stays empty, whatever its method:
    twice --seconds when not given."""
    seeds: int = 3
    """Seeds 0, 1, .."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Draws of each cell: 10,000, or half of a reference, when not given."""
    judged: str = ""
    """Files of `allmodes judge --out`, with commas, which have a row in the table of their
    target."""
    again: bool = False
    """Try cells anew that failed or did not end."""
    out: Path = Path("runs/tables")
    """Run folders, the table and its plot go here."""
    judge_repeats: int = REPEATS
    """As of `allmodes run`."""
    quiet: bool = False
    """Say nothing of single cells."""


def command(argv: list[str]) -> int:
    """`allmodes benchmark tables`: fill what is not there yet of a table, and write it."""
    args = parse(Tables, argv, "benchmark tables")
    words = ["benchmark", "tables", *argv]
    going_on("benchmark", words[1:])
    if args.seeds < 1:
        raise ConfigError(f"seeds must be at least 1, got {args.seeds}")
    if args.n is not None and args.n < 2:
        raise ConfigError(f"-n must be at least 2, got {args.n}")
    for name, value in (("seconds", args.seconds), ("timeout", args.timeout)):
        if value is not None and not value > 0:
            raise ConfigError(f"{name} must be positive, got {value:g}")
    limits = [limits_of(n, args.seconds, args.timeout) for n in map(_evaluations, _words(args.evaluations))]
    say = (lambda text: None) if args.quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    tables(
        args.table, _words(args.methods), limits, args.seeds, args.out, targets=_words(args.targets), n=args.n,
        judged=[Path(path) for path in _words(args.judged)], judge_repeats=args.judge_repeats, again=args.again,
        command=shlex.join(["allmodes", *words]), say=say,
    )  # fmt: skip
    print(args.out / f"tables-{args.table}.md")
    return 0


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _evaluations(word: str) -> int:
    try:
        value = float(word)
    except ValueError:
        value = 0.0
    if not 1 <= value < 1e15:
        raise ConfigError(f"evaluations must be at least 1, got {word!r}")
    return int(value)
