"""A table of the field, made by one command: each cell a run that is kept."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from allmodes.errors import ConfigError
from allmodes.files.atomic import write_atomically
from allmodes.files.run_folder import Run
from allmodes.jobs.machine import versions
from allmodes.jobs.tables import page
from allmodes.jobs.tables.cell import Limits, Work, fill
from allmodes.jobs.tables.published import SOURCES, published_of
from allmodes.jobs.tables.rows import rows_of
from allmodes.jobs.tables.suites import SUITES, Suite, draws_of
from allmodes.methods import default_for
from allmodes.metrics.floor import REPEATS
from allmodes.store.find import find_method
from allmodes.targets import get, names, reference


def tables(
    suite: str,
    methods: Sequence[str],
    limits: Sequence[Limits],
    seeds: int,
    out: Path,
    *,
    targets: Sequence[str] = (),
    n: int | None = None,
    judged: Sequence[Path] = (),
    judge_repeats: int = REPEATS,
    again: bool = False,
    command: str = "",
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Fill the cells of a table that are not there yet, and write `tables-SUITE.json`, `.md` and
    `.png` into `out`.

    - `suite`: one of `SUITES`, or a registered target; `targets`: those of it that are meant.
    - `methods`: registered names or FILE.py:NAME; iwsm is the target's own default of it.
    - `limits`: of each cell; of several, there is a row for each.
    - `n`: draws of a cell; those of `draws_of` when not given.
    - `judged`: files of `allmodes judge`, which have a row where the target is theirs.
    - `again`: try those cells anew that failed.
    - `command`: what the table says it was made by; `say` hears of each cell.

    The table is written after each target, so that a part of it is there before the end.

    **Raises** `ConfigError` for an unknown suite, target or method, or no seed; `RunError` where a
    file of `judged` cannot be read.
    """
    chosen = _suite(suite, targets)
    if min(seeds, len(methods), len(limits)) < 1:
        raise ConfigError(f"a table needs a method, a seed and a budget, got {list(methods)}, {seeds}, {len(limits)}")
    known = {asked: find_method(asked) for asked in methods}
    lines = [_judged(path) for path in judged]
    made: dict[str, list[dict]] = {}
    for target in chosen.targets:
        _reference(target, say)
        draws, rows = n or draws_of(target), []
        for asked in methods:
            own = default_for(get(target)) if asked == "iwsm" else asked
            method = known.setdefault(own, find_method(own))
            for limit in limits:
                work = [Work(target, own, method, seed, draws) for seed in range(seeds)]
                rows += _filled(work, out, limit, judge_repeats, again, say)
        rows += [row for line in lines if line["target"] == target for row in _foreign(line)]
        made[target] = rows
        table = _table(suite, chosen, made, seeds, limits, command)
        _write(table, out, suite)
    return table


def _suite(suite: str, targets: Sequence[str]) -> Suite:
    """The table that is meant, of those of its targets that are."""
    chosen = SUITES.get(suite) or (Suite(suite, (suite,)) if suite in names() else None)
    if chosen is None:
        raise ConfigError(f"unknown table {suite!r}: there are {', '.join(SUITES)}, and the registered targets")
    unknown = [target for target in targets if target not in chosen.targets]
    if unknown:
        raise ConfigError(f"{unknown[0]!r} is no target of the table {suite}: it has {', '.join(chosen.targets)}")
    return chosen._replace(targets=tuple(targets)) if targets else chosen


def _reference(target: str, say: Callable[[str], None]) -> None:
    """Make the draws that stand in for exact ones, so that no cell's clock has them."""
    density = get(target)
    if density.reference is not None:
        reference.load(density, density.reference, progress=say)


def _filled(
    work: Sequence[Work], out: Path, limits: Limits, repeats: int, again: bool, say: Callable[[str], None]
) -> list[dict]:
    """The rows of a method within limits, over its seeds."""
    results, reasons = {}, {}
    for one in work:
        name = f"{one.target}, {one.method.name}, {limits.label}, seed {one.seed}"
        say(f"{name}: ..")
        cell = fill(one, out, limits, repeats, again)
        say(f"{name}: {cell.reason or cell.result['verdict']['word']}")
        if cell.result is None:
            reasons[one.seed] = cell.reason
        else:
            results[one.seed] = cell.result
    return rows_of(work[0].method.name, limits.evaluations, results, reasons)


def _judged(path: Path) -> dict[str, Any]:
    """What `allmodes judge` has written."""
    line = Run(path.parent).read_json(path.name)
    if not {"target", "method", "metrics"} <= set(line):
        raise ConfigError(f"{path} is no file of `allmodes judge --out`: it has no target, method and metrics")
    return line


def _foreign(line: dict[str, Any]) -> list[dict]:
    """The row of draws from elsewhere."""
    return [row | {"judged": True} for row in rows_of(line["method"], None, {0: line}, {})]


def _table(
    suite: str, chosen: Suite, made: dict[str, list[dict]], seeds: int, limits: Sequence[Limits], command: str
) -> dict[str, Any]:
    """All that the table says."""
    others = {target: [row._asdict() for row in published_of(target)] for target in made}
    used = {row["source"] for rows in others.values() for row in rows}
    return {
        "table": suite, "title": chosen.title, "command": command, "seeds": seeds,
        "limits": [limit._asdict() for limit in limits], **versions(),
        "targets": {target: {"rows": rows, "published": others[target]} for target, rows in made.items()},
        "sources": {name: text for name, text in SOURCES.items() if name in used},
    }  # fmt: skip


def _write(table: dict[str, Any], out: Path, suite: str) -> None:
    """JSON, Markdown and plot, from the same data."""
    Run(out).create().write_json(f"tables-{suite}.json", table)
    text, picture = page.markdown(table), page.plot(table)
    write_atomically(out / f"tables-{suite}.md", lambda file: file.write(text))
    if picture is not None:
        write_atomically(out / f"tables-{suite}.png", lambda file: file.write(picture), mode="wb")
