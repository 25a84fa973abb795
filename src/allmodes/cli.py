"""The command line: which commands there are, and how each ends."""

import os
import sys
import traceback
from collections.abc import Callable

from allmodes.command import others, run
from allmodes.errors import AllmodesError, ConfigError

USAGE = """allmodes: draw from a density you can only evaluate, without missing a mode

  allmodes run TARGET             train, draw, correct, evaluate, report: the main job
  allmodes run --resume RUN       go on with an interrupted one
  allmodes sample RUN -n N        more draws of a finished run
  allmodes audit RUN              search independently for what its sampler misses
  allmodes report RUN             write its report.html again, and print its result
  allmodes benchmark SUITE        the main job over targets and seeds, with a table
  allmodes compare TARGET         methods side by side: quality against evaluations and seconds
  allmodes agree RUN RUN          whether two independently seeded runs agree
  allmodes study NAME             an analysis with its figures: bias-variance, ablation, dimension, free-energy
  allmodes reference TARGET       draws of a density that has no exact sampler, with their checks
  allmodes targets                the registered densities
  allmodes methods                the methods and their settings

TARGET is a registered name (gmm40) or a function of your own (model.py:log_prob --dim 5).
`allmodes COMMAND --help` lists the options. Exit status: 0 done, 1 a check asked for failed,
2 wrong use or bad input, 130 interrupted and saved.
"""

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": run.run,
    "sample": others.sample,
    "audit": others.audit,
    "report": others.report,
    "benchmark": others.benchmark,
    "compare": others.compare,
    "agree": others.agree,
    "study": others.study,
    "reference": others.reference,
    "targets": others.targets,
    "methods": others.methods,
}


def main(argv: list[str] | None = None) -> None:
    """Entry point: exits with the status that `USAGE` states."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        sys.exit(0 if argv else 2)
    if argv[0] == "--version":
        from allmodes import __version__

        print(__version__)
        sys.exit(0)
    try:
        if argv[0] not in COMMANDS:
            raise ConfigError(f"unknown command {argv[0]!r}: there are {', '.join(COMMANDS)}")
        status = COMMANDS[argv[0]](argv[1:])
    except AllmodesError as error:
        print(f"allmodes: {' '.join(str(error).split())}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except Exception:
        if not _joined():
            raise
        traceback.print_exc()
        status = 1
    if status and _joined():
        # At once: the usual way out would wait for the other processes, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _joined() -> bool:
    """Whether this process is one of several that work together; JAX is not imported for the answer."""
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()
