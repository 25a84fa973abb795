"""The command line: which commands there are, and how each ends."""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from allmodes.doors import nearest
from allmodes.errors import AllmodesError, ConfigError, RunWarning
from allmodes.files import interrupt

USAGE = """allmodes: draw from a density you can only evaluate, without missing a mode

  allmodes run TARGET             train, draw, correct, evaluate, report: the main job
  allmodes run --resume RUN       go on with an interrupted one
  allmodes sample RUN -n N        more draws of a finished run
  allmodes audit RUN              search independently for what its sampler misses
  allmodes report RUN             write its report.html again, and print its result
  allmodes benchmark SUITE        the main job over targets and seeds, with a table
  allmodes benchmark tables NAME  the field's tables: methods, metrics, published figures beside
  allmodes judge FILE.npz         draws of any library, by what is known of a target
  allmodes compare TARGET         methods side by side: quality against evaluations and seconds
  allmodes agree RUN RUN          whether two independently seeded runs agree
  allmodes reference TARGET       draws of a density that has no exact sampler, with their checks
  allmodes targets                the registered densities
  allmodes methods                the methods and their settings

TARGET is a registered name (gmm40) or a function of your own (model.py:log_prob --dim 5), of JAX or of NumPy; or a
Target, a PyMC model or a NumPyro model without arguments (model.py:model).
`allmodes COMMAND --help` lists the options. Exit status: 0 done, 1 a check asked for failed,
2 wrong use or bad input, 130 interrupted (Ctrl-C, SIGTERM, SIGHUP), with the line that goes on, if there is something
to go on with.
"""

# Each is a module with a function `command`, imported when it is asked for.
COMMANDS = (
    "run", "sample", "audit", "report", "benchmark", "judge", "compare", "agree", "reference", "targets", "methods",
)  # fmt: skip


def main(argv: list[str] | None = None) -> None:
    """Entry point: exits with the status that `USAGE` states."""
    undo = interrupt.install()
    try:
        status = _main(sys.argv[1:] if argv is None else argv)
        interrupt.say(interrupt.WRITTEN)
        if status and _joined():
            # At once: the usual way out would wait for the other processes, which wait for this
            # one.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    finally:
        if argv is not None:  # called from Python: the process goes on, else it is guarded up to its end
            undo()
        else:
            interrupt.over()
    sys.exit(status)


def _main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE, end="")
        return 0 if argv else 2
    if argv[0] == "--version":
        from allmodes import __version__

        print(__version__)
        return 0
    if argv[0] not in COMMANDS:
        words = f"unknown command {argv[0]!r}: there are {', '.join(COMMANDS)}.{nearest(argv[0], COMMANDS)}"
        return _refused(ConfigError(words))
    with warnings.catch_warnings():
        warnings.simplefilter("always", RunWarning)
        warnings.showwarning = _one_line(warnings.showwarning)
        return _command(argv[0], argv[1:])


def _command(name: str, argv: list[str]) -> int:
    return guarded(lambda: importlib.import_module(f"allmodes.command.{name}").command(argv))


def guarded(command: Callable[[], int]) -> int:
    """The exit status of a command, with its errors in one line of stderr."""
    try:
        return command()
    except AllmodesError as error:
        return _refused(error)
    except KeyboardInterrupt:
        interrupt.speak()
        return interrupt.STATUS
    except Exception:
        if not _joined():
            raise
        traceback.print_exc()
        return 1


def _refused(error: AllmodesError) -> int:
    print(f"allmodes: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _one_line(show: Callable[..., None]) -> Callable[..., None]:
    """Show what is to be said of a run folder as errors are, and other warnings as before."""

    def shown(message: Warning | str, category: type[Warning], *more: Any) -> None:
        if issubclass(category, RunWarning):
            print(f"allmodes: {' '.join(str(message).split())}", file=sys.stderr, flush=True)
        else:
            show(message, category, *more)

    return shown


def _joined() -> bool:
    """Whether this process is one of several that work together; JAX is not imported for the
    answer.
    """
    return "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized()
