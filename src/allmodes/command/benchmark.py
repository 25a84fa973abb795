"""`allmodes benchmark`: the main job over targets and seeds."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from allmodes.command import tables
from allmodes.command.parse import going_on, parse
from allmodes.jobs.benchmark import benchmark
from allmodes.metrics.floor import REPEATS


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The main job over the targets of a suite and several seeds, and a table of medians."""

    suite: Positional[str]
    """mixtures, shapes, curved, or one registered target; `tables` for the field's tables, which
    has options of its own."""
    method: str | None = None
    """One of those that `allmodes methods` lists; each target's default when not given."""
    n: Annotated[int, arg(aliases=["-n"])] = 10_000
    """Draws of each run."""
    seeds: int = 3
    """Seeds 0, 1, .."""
    out: Path = Path("runs/benchmark")
    """Run folders and the table go here; runs that are there already are kept."""
    judge_repeats: int = REPEATS
    """As of `allmodes run`."""
    quiet: bool = False
    """Show no progress."""


def command(argv: list[str]) -> int:
    """`allmodes benchmark`: the main job over targets and seeds."""
    if argv[:1] == ["tables"]:
        return tables.command(argv[1:])
    args = parse(Benchmark, argv, "benchmark")
    going_on("benchmark", argv)
    options = {"n": args.n, "judge_repeats": args.judge_repeats, "quiet": args.quiet}
    benchmark(args.suite, args.method, args.seeds, args.out, **options)
    return 0
