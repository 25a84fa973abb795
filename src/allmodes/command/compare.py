"""`allmodes compare`: methods side by side."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from allmodes.command.parse import going_on, parse
from allmodes.errors import ConfigError
from allmodes.jobs.compare import compare
from allmodes.metrics.floor import REPEATS
from allmodes.store.find import find_method


@dataclasses.dataclass(frozen=True)
class Compare:
    """Methods side by side on one target: quality against evaluations and seconds, and what the
    next draws cost.
    """

    target: Positional[str]
    """A registered name."""
    methods: str = "iwsm,idem,smc,tempering,nuts"
    """Names that `allmodes methods` lists, with commas; iwsm is the target's own default of it."""
    evaluations: float = 1e7
    """The largest budget, for training and raw draws together."""
    budgets: int = 3
    """Budgets, each a quarter of the next."""
    seeds: int = 3
    """Seeds 0, 1, .."""
    n: Annotated[int, arg(aliases=["-n"])] = 10_000
    """Draws of each run."""
    out: Path = Path("runs/compare")
    """Run folders, table and plot go here; runs that are there already are kept."""
    judge_repeats: int = REPEATS
    """As of `allmodes run`."""
    quiet: bool = False
    """Show no progress."""


def command(argv: list[str]) -> int:
    """`allmodes compare`: methods side by side."""
    args = parse(Compare, argv, "compare")
    going_on("compare", argv)
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    for name in methods:
        find_method(name, {})
    if not args.evaluations >= 1:
        raise ConfigError(f"evaluations must be at least 1, got {args.evaluations:g}")
    options = {"budgets": args.budgets, "n": args.n, "judge_repeats": args.judge_repeats, "quiet": args.quiet}
    compare(args.target, methods, int(args.evaluations), args.seeds, args.out, **options)
    return 0
