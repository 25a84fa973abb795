"""`allmodes judge`: draws of any library by what is known of a target."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from allmodes.command.parse import parse
from allmodes.errors import ConfigError
from allmodes.files import interrupt
from allmodes.files.atomic import check_writable
from allmodes.files.run_folder import Run
from allmodes.jobs.judge import check, judge, read
from allmodes.metrics.floor import REPEATS
from allmodes.progress.numbers import count, duration, number, percent, with_error
from allmodes.report.tables import metric_cells, print_table
from allmodes.report.words import METRICS
from allmodes.store.find import find_target


@dataclasses.dataclass(frozen=True)
class Judge:
    """Judge draws of any library by what is known of a target, as those of a run are.

    FILE.npz holds an array x (n, dim) and, where they are weighted, log_weight (n,). It may say
    `normalised` = 1 (the mean of the weights is an estimate of Z), or state log_z and log_z_error;
    and what the draws have cost: evaluations, seconds. Weighted draws are resampled by their
    weights, so that where few are effective their ratios exceed 1 by that alone.
    """

    draws: Positional[Path]
    """The .npz file."""
    target: str
    """A registered name, or FILE.py:NAME of a Target with exact draws or modes."""
    name: str | None = None
    """What the line is called; the file's name when not given."""
    raw: bool = False
    """Leave log_weight aside, and judge the draws as if they all weighed the same."""
    out: Path | None = None
    """Also write the line here, as JSON: `allmodes benchmark tables .. --judged` has it beside
    runs."""
    seed: int = 0
    """Fixes the exact draws that the draws are compared with."""
    judge_repeats: int = REPEATS
    """As of `allmodes run`."""


def command(argv: list[str]) -> int:
    """`allmodes judge`: a line of metrics, printed and written."""
    args = parse(Judge, argv, "judge")
    if args.judge_repeats < 2:
        raise ConfigError(f"--judge-repeats must be at least 2, for a standard error, got {args.judge_repeats}")
    if not 0 <= args.seed < 2**32:
        raise ConfigError(f"--seed must lie between 0 and 2^32 - 1, got {args.seed}")
    if args.out is not None:
        check_writable(args.out)
    draws, target = read(args.draws), find_target(args.target)
    draws = draws._replace(log_weight=None, normalised=False) if args.raw else draws
    check(target, draws)
    name = args.draws.stem if args.name is None else args.name
    line = judge(target, draws, seed=args.seed, repeats=args.judge_repeats, name=name)
    print_line(line)
    if args.out is not None:
        Run(args.out.parent).write_json(args.out.name, line)
        interrupt.say(interrupt.WRITTEN)
        print(args.out)
    return 0


def print_line(line: Mapping[str, Any]) -> None:
    """Print the line as a table: a row for each metric, with its floor and their ratio."""
    effective = f", weighted: {line['ess']:,.0f} effective" if "ess" in line else ""
    rows = [
        ["draws", f"{line['draws']:,}{effective}", "", ""],
        *(_row(key, entry) for key, entry in line["metrics"].items()),
    ]
    log_z = line.get("log_z")
    if log_z:
        told = with_error(log_z["value"], log_z["std_error"])
        rows.append([f"log Z, by {log_z['by']}", told, number(log_z.get("truth")), ""])
    rows += [["evaluations", count(sum(line["evaluations"].values())), "", ""]] if "evaluations" in line else []
    rows += [["time", duration(sum(line["seconds"].values())), "", ""]] if "seconds" in line else []
    columns = ("metric", "value", "floor or truth", "ratio")
    print_table(columns, [row for row in rows if row[1]], title=f"{line['target']}: {line['method']}")


def _row(key: str, entry: Mapping[str, Any]) -> list[str]:
    label = METRICS[key].label if key in METRICS else key
    if "floor" in entry or "of" in entry:
        return [label, *metric_cells(entry)]
    value = percent(entry["value"]) if key.endswith("_ess") else with_error(entry["value"], entry.get("std_error"))
    return [label, value, "", ""]
