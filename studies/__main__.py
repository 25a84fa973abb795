"""`python -m studies NAME`: an analysis with its figures."""

import dataclasses
import shlex
import sys
from pathlib import Path

from tyro.conf import Positional

from allmodes.command.main import guarded
from allmodes.command.parse import parse
from allmodes.files import interrupt
from studies import run_study


@dataclasses.dataclass(frozen=True)
class Study:
    """An analysis that anyone can run again."""

    name: Positional[str]
    """bias-variance, ablation, dimension or free-energy."""
    out: Path | None = None
    """Folder of its JSON and plots; runs/study-NAME when not given."""
    quick: bool = False
    """A small version, to see that it works."""
    seeds: int | None = None
    """Seeds 0, 1, .. of each case, where the study is of trained samplers; its own number when not
    given."""
    cases: str | None = None
    """Some of the cases of dimension or free-energy, with semicolons between them; all when not
    given."""


def study(argv: list[str]) -> int:
    """Run a study; an interruption says how to go on with it."""
    args = parse(Study, argv, "study")
    interrupt.say(f"interrupted; go on with: python -m studies {shlex.join(argv)}")
    out = args.out or Path("runs") / f"study-{args.name}"
    cases = None if args.cases is None else tuple(case.strip() for case in args.cases.split(";"))
    progress = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    run_study(args.name, out, quick=args.quick, progress=progress, seeds=args.seeds, cases=cases)
    print(out)
    return 0


if __name__ == "__main__":
    interrupt.install()
    status = guarded(lambda: study(sys.argv[1:]))
    interrupt.over()
    sys.exit(status)
