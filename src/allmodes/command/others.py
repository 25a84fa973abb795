"""The commands beside the main job: each parses its options, calls what does the work, and prints a
few lines.
"""

import dataclasses
import inspect
import shlex
import sys
from pathlib import Path
from typing import Any

from allmodes import interrupt
from allmodes.command.options import (
    Agree,
    Audit,
    Benchmark,
    Compare,
    Methods,
    Reference,
    Report,
    Sample,
    Study,
    Targets,
)
from allmodes.command.parse import parse
from allmodes.errors import ConfigError


def _again(command: str, argv: list[str]) -> None:
    """From now on an interruption says that the same command goes on."""
    interrupt.say(f"interrupted; go on with: allmodes {shlex.join([command, *argv])}")


def sample(argv: list[str]) -> int:
    """`allmodes sample`: more draws of a finished run, to a file."""
    import jax

    from allmodes.named import check_file
    from allmodes.runs import check_writable
    from allmodes.store import load

    args = parse(Sample, argv, "sample")
    if args.out.suffix != ".npy":
        check_file(args.out)
    check_writable(args.out)
    sampler = load(args.run)
    options = {name: getattr(args, name) for name in ("steps", "correct", "rounds", "moves")}
    options = {name: value for name, value in options.items() if value is not None}
    unknown = set(options) - set(inspect.signature(sampler.sample).parameters)
    if unknown:
        listed = ", ".join("--" + name for name in sorted(unknown))
        raise ConfigError(f"method {sampler.method.name} draws without {listed}: leave it out")
    if args.out.suffix == ".npy":
        _again("sample", argv)
        return _stream(args, sampler, options)
    draws = sampler.sample(args.n, key=jax.random.key(args.seed), **options)
    z = draws.log_z
    tail = f"R^ {draws.rhat:.3g}" if draws.chains else f"k^ {draws.khat:.2f}"
    told = "corrected" if args.correct else f"{draws.ess:.0f} of {len(draws)} effective, {tail}"
    print(f"log Z {z.value:.4f} +- {z.std_error:.4f}, {told}, {draws.evaluations:,} evaluations")
    draws.save(args.out, jax.random.fold_in(jax.random.key(args.seed), 1) if args.fair else None)
    interrupt.say(interrupt.WRITTEN)
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
    interrupt.say(interrupt.WRITTEN)
    print(args.out)
    return 0


def audit(argv: list[str]) -> int:
    """`allmodes audit`: 1 where basins differ."""
    import jax

    from allmodes.audit import audit
    from allmodes.audit.files import show, write
    from allmodes.runs import Run as Folder
    from allmodes.store import find_target, load

    args = parse(Audit, argv, "audit")
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
    interrupt.say(interrupt.WRITTEN)
    show(found)
    print(folder / "audit.png")
    return int(found.failed)


def report(argv: list[str]) -> int:
    """`allmodes report`: the page again, and the result printed."""
    from allmodes import store
    from allmodes.report.page import write_report
    from allmodes.report.tables import print_result
    from allmodes.runs import Run as Folder

    args = parse(Report, argv, "report")
    folder = Folder(args.run)
    result = folder.read_json("result.json")
    target = store.load(folder.path).target  # raises where the verdict is that of another state than the one there
    path = write_report(folder.path, target=target)
    print_result(result)
    print(path)
    return 0


def benchmark(argv: list[str]) -> int:
    """`allmodes benchmark`: the main job over targets and seeds."""
    from allmodes.benchmark import benchmark

    args = parse(Benchmark, argv, "benchmark")
    _again("benchmark", argv)
    options = {"n": args.n, "judge_repeats": args.judge_repeats, "quiet": args.quiet}
    benchmark(args.suite, args.method, args.seeds, args.out, **options)
    return 0


def compare(argv: list[str]) -> int:
    """`allmodes compare`: methods side by side."""
    from allmodes.compare import compare
    from allmodes.store import find_method

    args = parse(Compare, argv, "compare")
    _again("compare", argv)
    methods = [name.strip() for name in args.methods.split(",") if name.strip()]
    for name in methods:
        find_method(name, {})
    if not args.evaluations >= 1:
        raise ConfigError(f"evaluations must be at least 1, got {args.evaluations:g}")
    options = {"budgets": args.budgets, "n": args.n, "judge_repeats": args.judge_repeats, "quiet": args.quiet}
    compare(args.target, methods, int(args.evaluations), args.seeds, args.out, **options)
    return 0


def agree(argv: list[str]) -> int:
    """`allmodes agree`: 1 where two runs disagree."""
    import jax

    from allmodes.agreement import agreement
    from allmodes.store import load

    args = parse(Agree, argv, "agree")
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


def study(argv: list[str]) -> int:
    """`allmodes study`: an analysis with its figures."""
    from allmodes.studies import run_study

    args = parse(Study, argv, "study")
    _again("study", argv)
    out = args.out or Path("runs") / f"study-{args.name}"
    cases = None if args.cases is None else tuple(case.strip() for case in args.cases.split(";"))
    progress = lambda text: print(text, file=sys.stderr, flush=True)  # noqa: E731
    run_study(args.name, out, quick=args.quick, progress=progress, seeds=args.seeds, cases=cases)
    print(out)
    return 0


def reference(argv: list[str]) -> int:
    """`allmodes reference`: 1 where a check of it fails."""
    import numpy as np

    from allmodes import reference, targets
    from allmodes.report.tables import print_table
    from allmodes.runs import check_writable, write_atomically
    from allmodes.store import find_target

    args = parse(Reference, argv, "reference")
    if args.out is not None:
        check_writable(args.out)
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
        interrupt.say(interrupt.WRITTEN)
        print(args.out)
    if not made.passed:
        print(f"a check is off by more than {reference.SIGMAS:g} standard errors", file=sys.stderr)
    return int(not made.passed)


def targets(argv: list[str]) -> int:
    """`allmodes targets`: a table of the registered densities."""
    from allmodes import targets
    from allmodes.report.tables import print_table

    parse(Targets, argv, "targets")
    rows = [
        [name, str(entry.dim), entry.missing or entry.known, entry.summary, entry.source]
        for name, entry in targets.entries().items()
    ]
    print_table(["name", "dim", "known", "what", "source"], rows, title="targets")
    return 0


def methods(argv: list[str]) -> int:
    """`allmodes methods`: tables of their settings."""
    from allmodes.methods import METHODS
    from allmodes.report.tables import print_table

    parse(Methods, argv, "methods")
    for name, method in METHODS.items():
        rows = [[f.name, str(getattr(method, f.name))] for f in dataclasses.fields(method)]
        print_table(["setting", "default"], rows, title=f"{name}: {type(method).__doc__.splitlines()[0]}")
    return 0
