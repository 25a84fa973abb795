"""`allmodes run`: the main job begun or gone on with, on one device or several, by one process or several."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from allmodes.command.options import Run
from allmodes.command.parse import option_of, parse
from allmodes.errors import ConfigError, JobError
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
    with devices.on_devices("all" if args.distributed and args.devices is None else args.devices):
        folder = _begun(args, name, argv) if args.resume is None else _resumed(args, name)
        return _carried_out(folder, args)


def _resumed(args: Any, name: str) -> Folder:
    """The folder to go on with, by the options that it was begun with."""
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
    return folder.create()


def _begun(args: Any, name: str, argv: list[str]) -> Folder:
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
    path = args.out or _free(Path("runs") / f"{target.name}-{name}-{args.seed}")
    folder = Folder(devices.agreed_text(str(path)))
    line = "allmodes " + shlex.join(["run", *argv])
    if devices.leads():
        limit = None if args.evaluations is None else int(args.evaluations)
        job.start(folder, target, args.settings, args.seed, args.n, line, limit)
    devices.agreed(True)
    return folder


def _carried_out(folder: Folder, args: Any) -> int:
    """Do the job of the folder, from wherever it stands, and print what came of it."""
    from allmodes import devices, job
    from allmodes.report.tables import print_result

    try:
        if devices.agreed((folder / "report.html").exists()):  # it is written last
            result = folder.read_json("result.json")
        else:
            result = job.carry_out(folder, seconds=args.seconds, quiet=args.quiet, repeats=args.judge_repeats)
    except KeyboardInterrupt:
        print(f"interrupted; go on with: allmodes run --resume {shlex.quote(str(folder.path))}", file=sys.stderr)
        return 130
    except (RuntimeError, ValueError) as error:
        if not devices.lost(error):
            raise
        raise JobError(
            "another process of this job has ended, and this one ends with it "
            f"({str(error).strip().splitlines()[0]}). The last checkpoint is kept; go on, with any number of "
            f"processes and devices, by: allmodes run --resume {shlex.quote(str(folder.path))}"
        ) from error
    if not devices.leads():
        return 0
    print_result(result)
    print(f"{folder / 'report.html'}")
    return int(args.strict and result["verdict"]["word"] != "trusted")


def _with_settings(method: Any) -> type:
    """`Run` with the settings of a method as options."""
    settings = Annotated[type(method), arg(name="", help="")]
    fields = [("settings", settings, dataclasses.field(default=method))]
    made = dataclasses.make_dataclass("Run", fields, bases=(Run,), frozen=True)
    made.__doc__ = Run.__doc__
    return made


def _free(path: Path) -> Path:
    """The path itself, or with the first number that makes it new."""
    number, free = 1, path
    while (free / "config.json").exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
