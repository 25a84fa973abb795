"""The page of the comparison, from its rows: every figure and every claim of it.

    python benchmarks/tools/table.py ROWS.jsonl ..    # to docs/results/tools.json and tools.md
    python benchmarks/tools/table.py                  # the page again, from tools.json

Where there are several seeds of a run, figures are medians.
"""

import argparse
import json
import math
import textwrap
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parents[2] / "docs" / "results"
TOOLS = {
    "ours": "ours", "nautilus": "nautilus", "pocomc": "pocoMC", "dynesty": "dynesty", "ultranest": "UltraNest",
}  # fmt: skip
DIMS = {"gmm40": 2, "box-and-angle": 3, "loggamma-10": 10, "rosenbrock-10": 10, "modes-16": 16, "loggamma-30": 30}
ABOUT = {
    "gmm40": "40 equal modes in the plane, prior uniform in `[-60, 60]^2`",
    "box-and-angle": "Two parameters in a box, most of the mass of one of them at its bound, and an angle of "
    "period 2 pi with two opposite modes",
    "loggamma-10": "LogGamma (Beaujean and Caldwell 2013) in 10 dimensions: four modes, half of the coordinates skewed",
    "rosenbrock-10": "Rosenbrock's function in 10 dimensions as log-likelihood, prior uniform in `[-5, 5]^10`",
    "modes-16": "40 modes of unequal weights and shapes in 16 dimensions, prior uniform in `[-60, 60]^16`",
    "loggamma-30": "LogGamma in 30 dimensions",
}
HEAD = "| tool | seeds | calls | log Z less the truth | stated error | effective draws | \
of these per 1,000 calls | modes found | own CPU s | \
whole process, CPU s | total at 1 ms | total at 1 s |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
SETTINGS = [
    "Ours: `IWSM()`, nothing changed. Gaussian mixtures as densities on R^d, log Z less the log of the "
    "box's volume; all else by `am.interop.nested.target`. Its density is compiled into the sampler: "
    "seconds in the likelihood are the number of calls times what one takes in a batch of a thousand.",
    "nautilus: 2,000 live points, four networks, 10,000 effective draws, points of the exploration kept: all "
    "default (`discard_exploration=True`, which it wants where estimates are to be free of bias, takes more). "
    "It states no error of log Z; here it is one over the root of the effective draws. "
    "`periodic` for the angle.",
    "pocoMC: 512 effective and 256 active particles, 4,096 effective draws, 4,096 importance samples for the "
    "evidence: all default. `periodic` for the angle.",
    "dynesty: the dynamic sampler, 500 live points, several ellipsoids, steps chosen by dimension, 10,000 "
    "effective draws: all default. `periodic` for the angle.",
    "UltraNest: the reactive sampler, 400 live points, 400 effective draws: default. From ten dimensions on a "
    "slice sampler with twice as many steps as dimensions. `wrapped_params` for the angle.",
]
FAR = 4  # stated errors: with .02 on top, as tools differ in what they state, more than that is named as wrong
SLACK = 0.02


def read(path):
    return json.loads(path.read_text())["rows"]


def summary(rows, tool, problem):
    """Medians over the seeds that ended; None without any. `wrong` says what is, in words."""
    mine = [row for row in rows if (row["tool"], row["problem"]) == (tool, problem) and row["ended"]]
    if not mine:
        return None
    keys = ("calls", "own", "process", "std_error", "ess", "found")
    middle = {key: median(row[key] for row in mine) for key in keys if all(key in row for row in mine)}
    middle["ms"] = median(row["own"] + 1e-3 * row["calls"] for row in mine)
    middle["s"] = median(row["own"] + row["calls"] for row in mine)
    off = [row for row in mine if abs(row["error"]) > FAR * row["std_error"] + SLACK]
    lost = [row for row in mine if row.get("found", 1.0) < 1.0]
    wrong = [
        f"log Z off by {row['error']:+.2f} (stated error {row['std_error']:.3f}"
        f"{'; verdict: ' + row['verdict'] if 'verdict' in row else ''})"
        for row in off
    ]
    wrong += [f"{1 - row['found']:.0%} of the modes missed" for row in lost]
    return middle | {"rows": mine, "wrong": ", ".join(dict.fromkeys(wrong))}


def thousands(calls):
    return f"{calls:,.0f}"


def clock(seconds):
    """Seconds as a person would say them."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def line(rows, tool, problem):
    here = [row for row in rows if (row["tool"], row["problem"]) == (tool, problem)]
    late = [row for row in here if not row["ended"]]
    middle = summary(rows, tool, problem)
    if middle is None:
        calls = ", ".join(thousands(row["calls"]) for row in late if "calls" in row)
        limit = round(min(late[0]["limit"], late[0].get("process", math.inf))) if late else 0
        word = f"did not end in {limit} CPU s{f' ({calls} calls by then)' if calls else ''}" if late else "not run"
        return f"| {TOOLS[tool]} | {', '.join(str(row['seed']) for row in late)} | {word} |" + " |" * 9
    done = middle["rows"]
    seeds = ", ".join(str(row["seed"]) for row in done) + (f"; {len(late)} did not end" if late else "")
    errors = ", ".join(f"{row['error']:+.3f}" for row in done)
    found = f"{middle['found']:.0%}" if "found" in middle else ""
    cells = [
        TOOLS[tool], seeds, thousands(middle["calls"]), errors, f"{middle['std_error']:.3f}",
        thousands(middle["ess"]), thousands(1e3 * middle["ess"] / middle["calls"]), found,
        f"{middle['own']:.0f}", f"{middle['process']:.0f}",
        clock(middle["ms"]), clock(middle["s"]),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def standing(rows, problem, key, say):
    """Whether ours is the least of a figure among what ended and is right, and why; None for
    whether where there is nothing to compare. What is wrong leads nothing, and neither does ours.
    """
    ours = summary(rows, "ours", problem)
    others = {TOOLS[tool]: summary(rows, tool, problem) for tool in TOOLS if tool != "ours"}
    if ours is None:
        return None, "no run of ours has ended"
    theirs = [row for row in rows if row["problem"] == problem and row["tool"] != "ours"]
    tried = any(row["ended"] or row.get("process", 0.0) >= row["limit"] for row in theirs)
    right = {tool: middle for tool, middle in others.items() if middle and not middle["wrong"]}
    if ours["wrong"]:
        return False, f"ours is wrong there: {ours['wrong']}"
    less = sorted((middle[key], tool) for tool, middle in right.items() if middle[key] < ours[key])
    if less:
        return False, f"ours {say(ours[key])}; " + ", ".join(f"{tool} {say(value)}" for value, tool in less)
    if not tried:
        return None, f"ours {say(ours[key])}, and no other tool was run to its end there"
    if not right:
        return True, f"ours {say(ours[key])}; no other ended and was right"
    value, tool = min((middle[key], tool) for tool, middle in right.items())
    return True, f"ours {say(ours[key])}; next {tool} {say(value)}"


def goals(rows):
    """Where we do not lead, where it is not known, and where we do: the page's beginning."""
    lists = {False: [], None: [], True: []}
    for problem, dim in DIMS.items():
        for key, say, what in (("calls", thousands, "calls"), ("ms", clock, "total time at 1 ms a call")):
            leads, why = standing(rows, problem, key, say)
            goal = key == "ms" or dim >= 10
            lists[leads].append(f"{problem}, {what}{'' if goal else ' (no goal there)'}: {why}.")
    return lists[False], lists[None], lists[True]


def wrapped(text, hang=""):
    return textwrap.fill(text, 100, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False)


def bullets(items):
    return "\n".join(wrapped(f"- {item}", "  ") for item in items) or "- Nothing."


def missing(rows):
    """What was not run, what did not end and what is wrong, in words."""
    there = {(row["tool"], row["problem"]) for row in rows}
    said = []
    for problem in DIMS:
        absent = [name for tool, name in TOOLS.items() if (tool, problem) not in there]
        if absent:
            said.append(f"{problem}: not run: {', '.join(absent)}.")
        for tool, name in TOOLS.items():
            middle = summary(rows, tool, problem)
            if middle and middle["wrong"]:
                said.append(f"{problem}: {name}: {middle['wrong']}.")
    return said


def page(rows):
    behind, unknown, ahead = goals(rows)
    seeds = sorted({row["seed"] for row in rows})
    several = sorted({(r["problem"], r["tool"]) for r in rows if sum(
        (q["problem"], q["tool"]) == (r["problem"], r["tool"]) for q in rows) > 1})  # fmt: skip
    about = "One seed of everything (0)"
    if several:
        names = "; ".join(
            f"{problem} of {', '.join(TOOLS[t] for t in TOOLS if (problem, t) in several)}"
            for problem in DIMS if any(p == problem for p, _ in several)
        )  # fmt: skip
        about = f"One seed of most (0), medians over those of the column `seeds` of {names}"
    parts = [
        "# Beside tools for few calls",
        wrapped(
            "`IWSM()` beside four tools that are chosen where each call of the likelihood is dear: nautilus "
            "1.0.6, pocoMC 1.2.6, dynesty 3.1.0 and UltraNest 4.6.3, each with the settings that its own pages "
            "recommend, on posteriors whose evidence is known. **A call of ours is a value and its gradient, a call "
            "of theirs a value alone**; ours include 10,000 draws."
        ),
        "## Where we do not lead",
        wrapped(
            "The goal: the fewest calls from ten dimensions on, and the least total time at 1 ms a call everywhere. "
            f"A result that is wrong (log Z further than {FAR} stated errors and {SLACK} from the truth, or a mode "
            "with less than a tenth of its share) leads nothing. Behind:"
        ),
        bullets(behind),
        *(["Not known:", bullets(unknown)] if unknown else []),
        "What is wrong or was not run:",
        bullets(missing(rows)),
        "## Where we lead",
        bullets(ahead),
        "## The figures",
        wrapped(
            f"{about}: a single seed says little of what another one gives. Own: CPU seconds from the problem to the "
            "draws less those in the likelihood, compilation included. Whole process: with imports and likelihood. "
            "Totals: own seconds and so many calls of 1 ms or 1 s, one at a time. Errors of log Z are those of each "
            "seed. **Calls buy different things**: each tool ends where its own settings say, UltraNest at 400 "
            "effective draws and an error of log Z up to .5, pocoMC at 4,096, nautilus and dynesty at 10,000, ours "
            "with 10,000 draws. Stated errors and effective draws say what was bought; runs of equal precision were "
            "not made. A run that did not end in less than 900 CPU seconds was stopped by hand. Ours precede "
            "exchanges of coordinates, which take 3,072 calls more now in the search, and up to some hundreds after "
            "it; in the plane 16 at least, and none where it finds a product (LogGamma)."
        ),
    ]
    for problem in DIMS:
        table = "\n".join([HEAD, *(line(rows, tool, problem) for tool in TOOLS)])
        parts += [f"### {problem}", wrapped(ABOUT[problem] + "."), table]
    parts += [
        "## How",
        wrapped(
            "Machine: a two-core x86-64 sandbox, each run on one core and in one thread. Both cores were shared with "
            "other work, so CPU seconds are given and no others, and they are rather too many than too few. Seeds: "
            f"{', '.join(map(str, seeds))}. Each run is a fresh process, with nothing compiled "
            "before, that ends after 900 CPU seconds. The tools live in an environment of their own, ours in the "
            "project's:"
        ),
        "```sh\npython -m venv TOOLS && TOOLS/bin/pip install -r benchmarks/tools/requirements.txt\n"
        "python benchmarks/tools/run.py --all --tools-python TOOLS/bin/python --out rows.jsonl\n"
        "python benchmarks/tools/table.py rows.jsonl\n```",
        bullets(SETTINGS),
        wrapped(
            "The evidence is exact: closed forms for all but Rosenbrock's function, whose neighbours alone are "
            "coupled, so that it is a product of matrices on 2,000 nodes of quadrature along the chain "
            "(`tests/test_tool_problems.py` holds each against other quadrature or exact draws)."
        ),
    ]
    return "\n\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", type=Path)
    given, rows = parser.parse_args(), []
    for path in given.rows:
        rows += [json.loads(text) for text in path.read_text().splitlines()]
    if rows:
        order = {name: i for i, name in enumerate([*DIMS, *TOOLS])}
        rows.sort(key=lambda row: (order[row["problem"]], order[row["tool"]], row["seed"]))
        text = ",\n  ".join(json.dumps(row) for row in rows)
        (RESULTS / "tools.json").write_text(f'{{"rows": [\n  {text}\n]}}\n')
    (RESULTS / "tools.md").write_text(page(read(RESULTS / "tools.json")))


if __name__ == "__main__":
    main()
