"""How often an answer is wrong and nobody is told: densities with exact answers, three seeds, by
IWSM and by the plain methods, each by its defaults.

    python -m benchmarks.silent --seeds 3          # all; goes on where it was stopped
    python -m benchmarks.silent --methods iwsm --cases gmm40 far --seeds 1
    python -m benchmarks.silent --write            # docs/results/silent.md, of the rows there are

A process for each row, which a limit of seconds ends. Rows are lines of a file, `--rows`; those
that are there are not made again. `benchmarks.cases` has the densities, and says what is wrong.
"""

import argparse
import json
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path

from allmodes.jobs.machine import machine
from benchmarks.cases import BATTERY, CASES, judged, kind_of

METHODS = "iwsm", "smc", "tempering", "nuts", "nested"
KINDS = "right, trusted", "right, with its weights", "right, flagged", "wrong, flagged", "silently wrong", "failed"
DRAWS, CORRECTED = 10_000, 4_000
PAGE = Path("docs/results/silent.md")
MARK = "<!-- rows -->"
WIDE = 100  # characters of a line of prose


def one(name, method, seed):
    """A row: the answers of one fit, raw draws by their weights and corrected ones apart."""
    import jax

    import allmodes as am

    case, begin = CASES[name](), time.monotonic()
    plain = {"smc": am.SMC(), "tempering": am.Tempering(), "nuts": am.NUTS(), "nested": am.Nested()}
    sampler = am.fit(case.target, plain.get(method), key=jax.random.key(seed), progress=False)
    raw = sampler.sample(DRAWS, key=jax.random.key(1000 + seed))
    row = {"raw": judged(case, raw), "evaluations": sampler.evaluations["log_prob"] + raw.evaluations}
    corrected = sampler.corrected(CORRECTED, key=jax.random.key(2000 + seed))
    if corrected is not None:
        row["corrected"] = judged(case, corrected)
    return row | {"seconds": round(time.monotonic() - begin, 1)}


def run(row, limit):
    """The row that a process of its own makes, or why there is none."""
    command = [sys.executable, "-m", "benchmarks.silent", "--one", row["case"], row["method"], str(row["seed"])]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return row | {"failed": f"not done in {limit:g} s"}
    made = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not made:
        return row | {"failed": (done.stderr.strip().splitlines() or ["no answer"])[-1][:300]}
    return row | json.loads(made[-1])


def read(path):
    """The rows that are there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def kinds(row):
    """Of the raw draws, and of the corrected ones where there are any."""
    if "failed" in row:
        return {"raw": "failed"}
    return {part: kind_of(row[part]) for part in ("raw", "corrected") if part in row}


def page(rows):
    """The tables of the page, in Markdown."""
    counts = Counter((row["method"], part, kind) for row in rows for part, kind in kinds(row).items())
    lines = ["| answers of | " + " | ".join(KINDS) + " |", "|---|" + "---|" * len(KINDS)]
    for method in METHODS:
        for part in ("raw", "corrected"):
            found = [counts[method, part, kind] for kind in KINDS]
            if sum(found):
                label = f"{method}, {'draws by their weights' if part == 'raw' else 'corrected draws'}"
                lines.append(f"| {label} | " + " | ".join(map(str, found)) + " |")
    trusted = [f"{word}: {right} of {n}" for word, right, n in _kept(rows)]
    kept = "Of IWSM's answers so called, how many are right: " + "; ".join(trusted) + "."
    lines += ["", textwrap.fill(kept, WIDE), ""]
    methods = [m for m in METHODS if any(row["method"] == m for row in rows)]
    lines += ["| density | " + " | ".join(methods) + " |", "|---|" + "---|" * len(methods)]
    for name in dict.fromkeys(row["case"] for row in rows):
        cells = []
        for method in methods:
            some = [row for row in rows if (row["case"], row["method"]) == (name, method)]
            found = Counter(kinds(row)["raw"] for row in some)
            cells.append(", ".join(f"{n} {kind}" for kind, n in found.items()))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    wrong = [
        textwrap.fill(
            f"- {row['case']}, {row['method']}, seed {row['seed']}, {part}: {'; '.join(row[part]['wrong'][:2])}",
            WIDE,
            subsequent_indent="  ",
        )
        for row in rows
        for part, kind in kinds(row).items()
        if kind == "silently wrong"
    ]
    lines += ["", "Silently wrong:" if wrong else "None is silently wrong.", "", *wrong]
    return "\n".join(lines).rstrip() + "\n"


def _kept(rows):
    """Of answers of IWSM by the word that they were given: how many are right, and how many there
    are."""
    parts = [row[part] for row in rows if row["method"] == "iwsm" for part in ("raw", "corrected") if part in row]
    for word in ("trusted", "use with correction", "do not use"):
        so_called = [part for part in parts if part["word"] == word]
        yield word, sum(not part["wrong"] for part in so_called), len(so_called)


def write(rows, where):
    """The page with these rows in the place of those that it has, and the rows beside it."""
    head = where.read_text().split(MARK)[0] if where.exists() else "# How often is an answer silently wrong?\n\n"
    where.write_text(f"{head}{MARK}\n\n{page(rows)}")
    result = {"command": "python -m benchmarks.silent --seeds 3", "machine": machine(), "rows": rows}
    where.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--cases", nargs="+", default=list(BATTERY), choices=BATTERY)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--limit", type=float, default=900, help="seconds of a row")
    parser.add_argument("--rows", type=Path, default=Path("runs/silent.jsonl"))
    parser.add_argument("--write", action="store_true", help="the page and its rows, of what is there; run nothing")
    parser.add_argument("--page", type=Path, default=PAGE, help="what --write writes")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "METHOD", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        name, method, seed = args.one
        print(json.dumps(one(name, method, int(seed))))
        return
    if args.write:
        write(read(args.rows), args.page)
        return
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    there = {(row["case"], row["method"], row["seed"]) for row in read(args.rows)}
    wanted = [(c, m, s) for s in range(args.seeds) for m in args.methods for c in args.cases]
    for name, method, seed in [w for w in wanted if w not in there]:
        row = run({"case": name, "method": method, "seed": seed}, args.limit)
        with args.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(name, method, seed, row.get("failed") or kinds(row), row.get("seconds", ""), flush=True)


if __name__ == "__main__":
    main()
