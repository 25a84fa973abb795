"""The command line: each command a small dataclass of options, parsed by tyro, and a thin function."""

import contextlib
import dataclasses
import inspect
import io
import os
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import arg

from allmodes.errors import AllmodesError, ConfigError, JobError
from allmodes.options import Agree, Audit, Benchmark, Compare, Reference, Report, Run, Sample, Study

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


# What may differ between a run and its going on.
_MAY_CHANGE = set(
    "resume seconds judge_seconds strict quiet devices distributed coordinator processes process_id".split()
)


def _run(argv: list[str]) -> int:
    from allmodes import devices
    from allmodes.methods import METHODS
    from allmodes.store import find_method

    name = _option(argv, "--method") or "iwsm"
    find_method(name, {})  # an unknown name, before its settings become options
    args = _parse(_with_settings(METHODS[name]), argv, "run")
    if not args.distributed and (args.coordinator, args.processes, args.process_id) != (None, None, None):
        raise ConfigError(
            "--coordinator, --processes and --process-id are for --distributed: add it, or leave them out"
        )
    if args.distributed:
        devices.join(args.coordinator, args.processes, args.process_id)
    with devices.on_devices("all" if args.distributed and args.devices is None else args.devices):
        return _run_on(args, name, argv)


def _run_on(args: Any, name: str, argv: list[str]) -> int:
    from allmodes import devices, job
    from allmodes.methods import METHODS, default_for
    from allmodes.report.tables import print_result
    from allmodes.runs import Run as Folder
    from allmodes.store import find_target

    if args.resume is not None:
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
        folder.create()
    else:
        if args.target is None:
            raise ConfigError("say what to run: a registered name (see `allmodes targets`) or FILE.py:FUNCTION")
        if args.n < 1:
            raise ConfigError(f"-n must be at least 1, got {args.n}")
        if not 0 <= args.seed < 2**32:
            raise ConfigError(f"--seed must lie between 0 and 2^32 - 1, got {args.seed}")
        for limit in ("seconds", "evaluations"):
            value = getattr(args, limit)
            if value is not None and not value > 0:
                raise ConfigError(f"{limit} must be positive, got {value}")
        target = find_target(args.target, args.dim)
        if args.method is None and default_for(target) != name:
            name = default_for(target)
            args = _parse(_with_settings(METHODS[name]), argv, "run")
        if METHODS[name].steps == 0 and devices.count() > 1:
            raise ConfigError(f"method {name} runs on one device: leave --devices and --distributed out")
        target.check()
        # One of several processes makes the folder, and the others find it there.
        path = args.out or _free(Path("runs") / f"{target.name}-{name}-{args.seed}")
        folder = Folder(devices.agreed_text(str(path)))
        line = "allmodes " + shlex.join(["run", *argv])
        if devices.leads():
            job.start(folder, target, args.settings, args.seed, args.n, line, args.evaluations)
        devices.agreed(True)
    try:
        if devices.agreed((folder / "report.html").exists()):  # it is written last
            result = folder.read_json("result.json")
        else:
            result = job.carry_out(folder, seconds=args.seconds, quiet=args.quiet, budget=args.judge_seconds)
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


def _sample(argv: list[str]) -> int:
    import jax

    from allmodes.named import check_file
    from allmodes.store import load

    args = _parse(Sample, argv, "sample")
    if args.out.suffix != ".npy":
        check_file(args.out)
    sampler = load(args.run)
    options = {name: getattr(args, name) for name in ("steps", "correct", "rounds", "moves")}
    options = {name: value for name, value in options.items() if value is not None}
    unknown = set(options) - set(inspect.signature(sampler.sample).parameters)
    if unknown:
        listed = ", ".join("--" + name for name in sorted(unknown))
        raise ConfigError(f"method {sampler.method.name} draws without {listed}: leave it out")
    if args.out.suffix == ".npy":
        return _stream(args, sampler, options)
    draws = sampler.sample(args.n, key=jax.random.key(args.seed), **options)
    z = draws.log_z
    tail = f"R^ {draws.rhat:.3g}" if draws.chains else f"k^ {draws.khat:.2f}"
    told = "corrected" if args.correct else f"{draws.ess:.0f} of {len(draws)} effective, {tail}"
    print(f"log Z {z.value:.4f} +- {z.std_error:.4f}, {told}, {draws.evaluations:,} evaluations")
    draws.save(args.out, jax.random.fold_in(jax.random.key(args.seed), 1) if args.fair else None)
    print(args.out)
    return 0


def _stream(args: Any, sampler: Any, options: dict[str, Any]) -> int:
    import jax
    from rich.progress import Progress

    if args.fair:
        raise ConfigError("--fair resamples draws that are in memory: leave it out, or write .npz")
    with Progress(transient=True) as bar:
        task = bar.add_task(f"drawing {args.n:,}", total=args.n)
        progress = lambda done, n: bar.update(task, completed=done)  # noqa: E731
        sampler.stream(args.n, key=jax.random.key(args.seed), out=args.out, progress=progress, **options)
    print(args.out)
    return 0


def _audit(argv: list[str]) -> int:
    import jax

    from allmodes.audit import audit
    from allmodes.audit.files import show, write
    from allmodes.runs import Run as Folder
    from allmodes.store import find_target, load

    args = _parse(Audit, argv, "audit")
    if args.dim is not None and args.against is None:
        raise ConfigError("--dim is that of the function that --against names: leave it out")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed must lie between 0 and 2^32 - 1, got {args.seed}")
    sampler = load(args.run)
    against = None if args.against is None else find_target(args.against, args.dim)
    folder = Folder(args.out or args.run).create()
    say = None if args.quiet else lambda text: print(text, file=sys.stderr, flush=True)
    found = audit(sampler, key=jax.random.key(args.seed), against=against, n=args.n, progress=say)
    line = "allmodes " + shlex.join(["audit", *argv])
    write(found, folder, against or sampler.target, {"run": str(args.run), "seed": args.seed, "command": line})
    show(found)
    print(folder / "audit.png")
    return int(found.failed)


def _report(argv: list[str]) -> int:
    from allmodes.report.page import write_report
    from allmodes.report.tables import print_result
    from allmodes.runs import Run as Folder
    from allmodes.store import parse

    args = _parse(Report, argv, "report")
    folder = Folder(args.run)
    result = folder.read_json("result.json")
    path = write_report(folder.path, target=parse(folder)[0])
    print_result(result)
    print(path)
    return 0


def _benchmark(argv: list[str]) -> int:
    from allmodes.benchmark import benchmark

    args = _parse(Benchmark, argv, "benchmark")
    options = {"n": args.n, "judge_seconds": args.judge_seconds, "quiet": args.quiet}
    benchmark(args.suite, args.method, args.seeds, args.out, **options)
    return 0


def _compare(argv: list[str]) -> int:
    from allmodes.compare import compare
    from allmodes.store import find_method

    args = _parse(Compare, argv, "compare")
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    for name in methods:
        find_method(name, {})
    if not args.evaluations >= 1:
        raise ConfigError(f"evaluations must be at least 1, got {args.evaluations:g}")
    options = {"budgets": args.budgets, "n": args.n, "judge_seconds": args.judge_seconds, "quiet": args.quiet}
    compare(args.target, methods, int(args.evaluations), args.seeds, args.out, **options)
    return 0


def _agree(argv: list[str]) -> int:
    import jax

    from allmodes.agreement import agreement
    from allmodes.store import load

    args = _parse(Agree, argv, "agree")
    found = agreement(load(args.first), load(args.second), key=jax.random.key(args.seed), n=args.n)
    said = [f"cross ESS {ess:.2f}" for ess in found.cross_ess if ess is not None]
    said += [] if found.log_z_off is None else [f"log Z {found.log_z_off:.1f} standard errors apart"]
    said += [f"mean log-density {found.energy_off:.1f} standard errors apart"]
    print(("they agree: " if found.agree else "they disagree: ") + ", ".join(said))
    for reason in found.reasons:
        print(f"  - {reason}")
    if found.agree:
        print("  - what both miss stays unseen: `allmodes audit` looks for that")
    return int(not found.agree)


def _study(argv: list[str]) -> int:
    from allmodes.studies import run_study

    args = _parse(Study, argv, "study")
    out = args.out or Path("runs") / f"study-{args.name}"
    cases = None if args.cases is None else tuple(case.strip() for case in args.cases.split(";"))
    progress = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    run_study(args.name, out, quick=args.quick, progress=progress, seeds=args.seeds, cases=cases)
    print(out)
    return 0


def _reference(argv: list[str]) -> int:
    import numpy as np

    from allmodes import reference, targets
    from allmodes.report.tables import print_table
    from allmodes.runs import write_atomically
    from allmodes.store import find_target

    args = _parse(Reference, argv, "reference")
    target = find_target(args.target, args.dim)
    target.check()
    entry = targets.entries().get(args.target)
    n = args.n if args.n is not None else (entry.reference if entry else None) or 10_000
    make = reference.load if entry else reference.make  # a user's function may change under its name
    made = make(target, n, progress=lambda text: print(text, file=sys.stderr, flush=True))
    rows = [[c.name, f"{c.value:.5g}", f"{c.expected:.5g}", f"{c.std_error:.2g}", f"{c.off:.1f}"] for c in made.checks]
    print_table(["check", "value", "expected", "standard error", "off by"], rows, title=f"{target.name}, {n:,} draws")
    print(f"log Z {made.log_z:.4f} +- {made.log_z_error:.4f}, {made.evaluations:,} evaluations")
    if args.out is not None:
        write_atomically(args.out, lambda file: np.savez(file, x=made.x), mode="wb")
        print(args.out)
    if not made.passed:
        print(f"a check is off by more than {reference.SIGMAS:g} standard errors", file=sys.stderr)
    return int(not made.passed)


def _targets(argv: list[str]) -> int:
    from allmodes import targets
    from allmodes.errors import ConfigError
    from allmodes.report.tables import print_table

    rows = []
    for name, entry in targets.entries().items():
        draws = "exact draws" if entry.reference is None else "reference draws"
        try:
            target = targets.get(name)
            known = {draws: target.sample, "log Z": target.log_z, "modes": target.modes}
            listed = ", ".join(what for what, value in known.items() if value is not None)
        except ConfigError as error:  # its model or data come from a package that is not here
            listed = str(error)
        rows.append([name, str(entry.dim), listed, entry.summary, entry.source])
    print_table(["name", "dim", "known", "what", "source"], rows, title="targets")
    return 0


def _methods(argv: list[str]) -> int:
    from allmodes.methods import METHODS
    from allmodes.report.tables import print_table

    for name, method in METHODS.items():
        rows = [[f.name, str(getattr(method, f.name))] for f in dataclasses.fields(method)]
        print_table(["setting", "default"], rows, title=f"{name}: {type(method).__doc__.splitlines()[0]}")
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "run": _run,
    "sample": _sample,
    "audit": _audit,
    "report": _report,
    "benchmark": _benchmark,
    "compare": _compare,
    "agree": _agree,
    "study": _study,
    "reference": _reference,
    "targets": _targets,
    "methods": _methods,
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


def _option(argv: list[str], name: str) -> str | None:
    """The value of an option before the parser is built, for those that decide which other options there are."""
    for i, text in enumerate(argv):
        if text == name and i + 1 < len(argv):
            return argv[i + 1]
        if text.startswith(name + "="):
            return text.split("=", 1)[1]
    return None


def _parse(cls: type, argv: list[str], command: str) -> Any:
    """tyro, with its boxed errors folded into one line."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(cls, args=argv, prog=f"allmodes {command}")
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        text = " ".join("".join(c for c in errors.getvalue() if c not in "╭╮╰╯│─").split())
        raise ConfigError(text or "wrong use") from None


def _free(path: Path) -> Path:
    """The path itself, or with the first number that makes it new."""
    number, free = 1, path
    while (free / "config.json").exists():
        number += 1
        free = path.with_name(f"{path.name}-{number}")
    return free
