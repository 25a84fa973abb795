"""`allmodes run`: the main job begun or gone on with, on one device or several, by one process or
several.
"""

import contextlib
import dataclasses
import shlex
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from allmodes import targets
from allmodes.command.kept_programs import keep_programs
from allmodes.command.options import Run
from allmodes.command.parse import option_of, parse
from allmodes.command.settings import choice_fields, options_of, settings_from, with_chosen
from allmodes.command.support import support_of
from allmodes.devices import mesh, processes
from allmodes.errors import ConfigError, JobError
from allmodes.files import interrupt
from allmodes.files.lock import InUseError
from allmodes.files.run_folder import Run as Folder
from allmodes.jobs import run_job
from allmodes.method import Method
from allmodes.methods import default_for
from allmodes.report.tables import print_result
from allmodes.store.find import find_method, find_target

# What may differ between a run and its going on.
_MAY_CHANGE = {"resume", "seconds", "judge_repeats", "strict", "quiet", "compile_cache"}
_MAY_CHANGE |= {"devices", "distributed", "coordinator", "processes", "process_id"}


def command(argv: list[str]) -> int:
    """Do the main job; 1 where `--strict` asks for `trusted` draws and they are not."""
    method = find_method(option_of(argv, "--method") or _default_by_name(argv))
    args = _parsed(method, argv)
    if not args.distributed and (args.coordinator, args.processes, args.process_id) != (None, None, None):
        raise ConfigError(
            "--coordinator, --processes and --process-id are for --distributed: add it, or leave them out"
        )
    if args.judge_repeats < 2:
        raise ConfigError(f"--judge-repeats must be at least 2, for a standard error, got {args.judge_repeats}")
    if args.compile_cache:
        keep_programs()
    if args.distributed:
        processes.join(args.coordinator, args.processes, args.process_id)
    with (
        mesh.on_devices("all" if args.distributed and args.devices is None else args.devices),
        contextlib.ExitStack() as held,  # the lock of the folder, up to the end
    ):
        folder = _begun(args, method, argv, held) if args.resume is None else _resumed(args, method, held)
        interrupt.say(lambda: _last_words(folder) if processes.is_main_process() else "")
        return _carried_out(folder, args)


def _default_by_name(argv: list[str]) -> str:
    """The name of the method that a registered target gets: options are first read as its own, as
    those of another method may not go together with what is given.
    """
    registered = next((word for word in argv if word in targets.names()), None)
    return "iwsm" if registered is None else default_for(targets.get(registered))


def _going_on(folder: Folder) -> str:
    return f"allmodes run --resume {shlex.quote(str(folder.path))}"


def _last_words(folder: Folder) -> str:
    begun = (folder / "config.json").exists()
    return f"interrupted; go on with: {_going_on(folder)}" if begun else interrupt.NOTHING


def _resumed(args: Any, method: Method, held: contextlib.ExitStack) -> Folder:
    """The folder to go on with, by the options that it was begun with."""
    if args.target is not None:
        raise ConfigError(f"--resume {args.resume} already says what to run: leave {args.target!r} out")
    other = [f for f in dataclasses.fields(Run) if f.name not in _MAY_CHANGE]
    changed = [f.name for f in other if getattr(args, f.name) != f.default]
    changed += _differing(args.settings, method)
    if changed:
        options = ", ".join("-n" if key == "n" else "--" + key.replace("_", "-") for key in changed)
        raise ConfigError(f"--resume {args.resume} goes on as the run was begun: leave {options} out")
    folder = Folder(args.resume)
    folder.read_json("config.json")
    if processes.is_main_process():
        held.enter_context(folder.locked())
    return folder


def _differing(settings: Any, others: Any, prefix: str = "") -> list[str]:
    """The options of settings that differ."""
    differ: list[str] = []
    for name, value in ((field.name, getattr(settings, field.name)) for field in dataclasses.fields(settings)):
        other = getattr(others, name, None)
        if dataclasses.is_dataclass(value) and type(value) is type(other):
            differ += _differing(value, other, f"{prefix}{name}.")
        elif value != other:
            differ.append(prefix + name)
    return differ


def _begun(args: Any, method: Method, argv: list[str], held: contextlib.ExitStack) -> Folder:
    """A new folder, with what is asked for in it."""
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
    target = find_target(args.target, args.dim, **support_of(args.names, args.bounds, args.periodic))
    if args.seconds is not None and method.steps == 0:
        raise ConfigError(
            f"method {method.name} trains nothing that could end sooner: leave --seconds out (--evaluations)"
        )
    if args.method is None and default_for(target) != method.name:
        method = find_method(default_for(target))
        args = _parsed(method, argv)
    if method.steps == 0 and mesh.count() > 1:
        raise ConfigError(f"method {method.name} runs on one device: leave --devices and --distributed out")
    target.check()
    # One of several processes makes the folder, and the others find it there.
    folder = Folder(args.out) if args.out else Folder(Path("runs") / f"{target.name}-{args.settings.name}-{args.seed}")
    if processes.is_main_process():
        folder = _entered(folder, held) if args.out else _free(folder.path, held)
        interrupt.say(lambda: _last_words(folder))
        line = "allmodes " + shlex.join(["run", *argv])
        limit = None if args.evaluations is None else int(args.evaluations)
        run_job.start(folder, target, args.settings, args.seed, args.n, line, limit)
    return Folder(processes.broadcast_text(str(folder.path)))


def _carried_out(folder: Folder, args: Any) -> int:
    """Do the job of the folder, from wherever it stands, and print what came of it."""
    try:
        result = run_job.finished(folder) if processes.is_main_process() else None
        if not processes.broadcast(result is not None):
            result = run_job.run_job(folder, seconds=args.seconds, quiet=args.quiet, repeats=args.judge_repeats)
    except (RuntimeError, ValueError) as error:
        if not processes.lost(error):
            raise
        raise JobError(
            "another process of this job has ended, and this one ends with it "
            f"({str(error).strip().splitlines()[0]}). The last checkpoint is kept; go on, with any number of "
            f"processes and devices, by: {_going_on(folder)}"
        ) from error
    if not processes.is_main_process():
        return 0
    print_result(result)
    print(f"{folder / 'report.html'}")
    return int(args.strict and result["verdict"]["word"] != "trusted")


def _parsed(method: Method, argv: list[str]) -> Any:
    """The options, with those of a method's settings among them."""
    chosen = with_chosen(method, argv)
    settings = options_of(chosen)
    fields = [
        *choice_fields(chosen),
        # pyrefly: ignore[invalid-annotation] -- the type is known at run time alone
        ("settings", Annotated[type(settings), arg(name="", help="")], dataclasses.field(default=settings)),
    ]
    made = dataclasses.make_dataclass("Run", fields, bases=(Run,), frozen=True)
    made.__doc__ = Run.__doc__
    args = parse(made, argv, "run")
    return dataclasses.replace(args, settings=settings_from(args.settings))


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
