"""`allmodes run`: the main job begun or gone on with, on one device or several, by one process or
several.
"""

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from allmodes import interrupt
from allmodes.command.options import Run
from allmodes.command.parse import option_of, parse
from allmodes.errors import ConfigError, JobError
from allmodes.lock import InUseError
from allmodes.runs import Run as Folder

# What may differ between a run and its going on.
_MAY_CHANGE = set(
    "resume seconds judge_repeats strict quiet devices distributed coordinator processes process_id".split()
)


def run(argv: list[str]) -> int:
    """Do the main job; 1 where `--strict` asks for `trusted` draws and they are not."""
    from allmodes import devices
    from allmodes.methods import METHODS
    from allmodes.store import find_method

    name = option_of(argv, "--method") or "iwsm"
    find_method(name, {})  # an unknown name, before its settings become options
    args = parse(_with_settings(METHODS[name]), argv, "run")
    if not args.distributed and (args.coordinator, args.processes, args.process_id) != (None, None, None):
        raise ConfigError(
            "--coordinator, --processes and --process-id are for --distributed: add it, or leave them out"
        )
    if args.judge_repeats < 2:
        raise ConfigError(f"--judge-repeats must be at least 2, for a standard error, got {args.judge_repeats}")
    if args.distributed:
        devices.join(args.coordinator, args.processes, args.process_id)
    with (
        devices.on_devices("all" if args.distributed and args.devices is None else args.devices),
        contextlib.ExitStack() as held,  # the lock of the folder, up to the end
    ):
        folder = _begun(args, name, argv, held) if args.resume is None else _resumed(args, name, held)
        interrupt.say(lambda: _last_words(folder) if devices.leads() else "")
        return _carried_out(folder, args)


def _going_on(folder: Folder) -> str:
    return f"allmodes run --resume {shlex.quote(str(folder.path))}"


def _last_words(folder: Folder) -> str:
    begun = (folder / "config.json").exists()
    return f"interrupted; go on with: {_going_on(folder)}" if begun else interrupt.NOTHING


def _resumed(args: Any, name: str, held: contextlib.ExitStack) -> Folder:
    """The folder to go on with, by the options that it was begun with."""
    from allmodes import devices
    from allmodes.methods import METHODS

    if args.target is not None:
        raise ConfigError(f"--resume {args.resume} already says what to run: leave {args.target!r} out")
    other = [f for f in dataclasses.fields(Run) if f.name not in _MAY_CHANGE]
    changed = [f.name for f in other if getattr(args, f.name) != f.default]
    changed += [k for k, v in dataclasses.asdict(METHODS[name]).items() if getattr(args.settings, k) != v]
    if changed:
        options = ", ".join("-n" if key == "n" else "--" + key.replace("_", "-") for key in changed)
        raise ConfigError(f"--resume {args.resume} goes on as the run was begun: leave {options} out")
    folder = Folder(args.resume)
    folder.read_json("config.json")
    if devices.leads():
        held.enter_context(folder.locked())
    return folder


def _begun(args: Any, name: str, argv: list[str], held: contextlib.ExitStack) -> Folder:
    """A new folder, with what is asked for in it."""
    from allmodes import devices, job
    from allmodes.methods import METHODS, default_for
    from allmodes.store import find_target

    if args.target is None:
        raise ConfigError("say what to run: a registered name (see `allmodes targets`) or FILE.py:FUNCTION")
    if args.n < 1:
        raise ConfigError(f"-n must be at least 1, got {args.n}")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed must lie between 0 and 2^32 - 1, got {args.seed}")
    if args.seconds is not None and not args.seconds > 0:
        raise ConfigError(f"seconds must be positive, got {args.seconds}")
    if args.evaluations is not None and not args.evaluations >= 1:
        raise ConfigError(f"evaluations must be at least 1, got {args.evaluations:g}")
    target = find_target(args.target, args.dim)
    if args.seconds is not None and METHODS[name].steps == 0:
        raise ConfigError(f"method {name} trains nothing that could end sooner: leave --seconds out (--evaluations)")
    if args.method is None and default_for(target) != name:
        name = default_for(target)
        args = parse(_with_settings(METHODS[name]), argv, "run")
    if METHODS[name].steps == 0 and devices.count() > 1:
        raise ConfigError(f"method {name} runs on one device: leave --devices and --distributed out")
    target.check()
    # One of several processes makes the folder, and the others find it there.
    folder = Folder(args.out) if args.out else Folder(Path("runs") / f"{target.name}-{name}-{args.seed}")
    if devices.leads():
        folder = _entered(folder, held) if args.out else _free(folder.path, held)
        interrupt.say(lambda: _last_words(folder))
        line = "allmodes " + shlex.join(["run", *argv])
        limit = None if args.evaluations is None else int(args.evaluations)
        job.start(folder, target, args.settings, args.seed, args.n, line, limit)
    return Folder(devices.agreed_text(str(folder.path)))


def _carried_out(folder: Folder, args: Any) -> int:
    """Do the job of the folder, from wherever it stands, and print what came of it."""
    from allmodes import devices, job
    from allmodes.report.tables import print_result

    try:
        result = job.finished(folder) if devices.leads() else None
        if not devices.agreed(result is not None):
            result = job.carry_out(folder, seconds=args.seconds, quiet=args.quiet, repeats=args.judge_repeats)
    except (RuntimeError, ValueError) as error:
        if not devices.lost(error):
            raise
        raise JobError(
            "another process of this job has ended, and this one ends with it "
            f"({str(error).strip().splitlines()[0]}). The last checkpoint is kept; go on, with any number of "
            f"processes and devices, by: {_going_on(folder)}"
        ) from error
    if not devices.leads():
        return 0
    print_result(result)
    print(f"{folder / 'report.html'}")
    return int(args.strict and result["verdict"]["word"] != "trusted")


def _with_settings(method: Any) -> type:
    """`Run` with the settings of a method as options."""
    # pyrefly: ignore[invalid-annotation] -- the type is known at run time alone, and so is the class made of it.
    settings = Annotated[type(method), arg(name="", help="")]
    fields = [("settings", settings, dataclasses.field(default=method))]
    made = dataclasses.make_dataclass("Run", fields, bases=(Run,), frozen=True)
    made.__doc__ = Run.__doc__
    return made


def _entered(folder: Folder, held: contextlib.ExitStack) -> Folder:
    """The same folder, in which no other process can be at work."""
    held.enter_context(folder.locked())
    return folder


def _free(path: Path, held: contextlib.ExitStack) -> Folder:
    """The folder itself, or with the first number of one that holds no run and in which no process
    is at work.

    Of two commands at the same moment the lock gives each one of its own.
    """
    number, folder = 1, Folder(path)
    while True:
        if not (folder / "config.json").exists():
            attempt = contextlib.ExitStack()
            with contextlib.suppress(InUseError):
                attempt.enter_context(folder.locked())
                if not (folder / "config.json").exists():  # the one that was at work there has ended in the meantime
                    held.push(attempt.pop_all())
                    return folder
            attempt.close()
        number += 1
        folder = Folder(path.with_name(f"{path.name}-{number}"))
