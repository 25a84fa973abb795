"""The first examples of nested samplers' own pages, by each of them and by `am.interop.nested`: one
likelihood and one prior transform for both, and evidences that are known.

    python -m benchmarks.first_examples dynesty --ours --out rows.jsonl
    TOOLS/bin/python -m benchmarks.first_examples dynesty --out rows.jsonl  # as tools/run.py says
    python -m benchmarks.first_examples page rows.jsonl  # to docs/results/first-examples.*
"""

import argparse
import math
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy import stats
from scipy.special import logsumexp

from benchmarks.rows import gathered, keep, tell
from benchmarks.slow import wrapped

RESULTS = Path(__file__).parents[1] / "docs" / "results"
DRAWS = 4000
NORMAL = 0.05 * np.eye(3) + 0.95  # dynesty's covariance
NORMAL_INVERSE = np.linalg.inv(NORMAL)
NORMAL_LOG = -0.5 * (3 * math.log(2 * math.pi) + math.log(np.linalg.det(NORMAL)))


class Found(NamedTuple):
    """Of a run: log Z, its stated error, calls of the likelihood, and how far to trust it."""

    log_z: float
    std_error: float
    calls: int
    verdict: str = ""


class Example(NamedTuple):
    """A likelihood of parameters, a prior as a transform of the unit cube, and the log of their
    evidence.
    """

    what: str
    log_likelihood: Callable[[np.ndarray], float]
    prior_transform: Callable[[np.ndarray], np.ndarray]
    dim: int
    log_z: float
    theirs: Callable[["Example", int], Found]


def normal(x: np.ndarray) -> float:
    """dynesty's page: a normal in three dimensions, correlations of .95."""
    return -0.5 * np.dot(x, np.dot(NORMAL_INVERSE, x)) + NORMAL_LOG


def box(u: np.ndarray) -> np.ndarray:
    return 10.0 * (2.0 * u - 1.0)


def egg_box(z: np.ndarray) -> Any:
    """UltraNest's: 18 modes in the plane, 7 of which the prior's edge cuts on one side or two."""
    chi = np.cos(z[..., 0] / 2.0) * np.cos(z[..., 1] / 2.0)
    return (2.0 + chi) ** 5


def egg_prior(u: np.ndarray) -> np.ndarray:
    return u * 10 * np.pi


def by_name(param: dict[str, float]) -> float:
    """nautilus': three parameters by name, a normal likelihood."""
    x = [param["a"], param["b"], param["c"]]
    return stats.multivariate_normal.logpdf(x, mean=np.zeros(3), cov=[[1, 0, 0.90], [0, 1, 0], [0.90, 0, 1]])


def named(theta: np.ndarray) -> float:
    return by_name(dict(zip("abc", theta, strict=True)))


def named_prior(u: np.ndarray) -> np.ndarray:
    """What its `Prior` makes of (-5, 5), (-5, 5) and norm(loc=0, scale=2)."""
    return np.array([10.0 * u[0] - 5.0, 10.0 * u[1] - 5.0, stats.norm(loc=0, scale=2.0).ppf(u[2])])


def egg_log_z(n: int = 4000) -> float:
    """On a grid of n^2 points of the cube."""
    u = (np.arange(n) + 0.5) / n
    return float(logsumexp(egg_box(egg_prior(np.stack(np.meshgrid(u, u), -1)))) - 2 * math.log(n))


def named_log_z() -> float:
    """The likelihood's a and c are correlated and its b is not; a and b are cut at five deviations,
    which takes away 2e-6 of the mass.
    """
    return -math.log(100.0) + float(stats.norm(0.0, math.sqrt(5.0)).logpdf(0.0))


def dynesty(of: Example, seed: int) -> Found:
    from dynesty import NestedSampler

    sampler = NestedSampler(of.log_likelihood, of.prior_transform, of.dim, rstate=np.random.default_rng(seed))
    sampler.run_nested(print_progress=False)
    given = sampler.results
    return Found(float(given.logz[-1]), float(given.logzerr[-1]), int(np.sum(given.ncall)))


def ultranest(of: Example, seed: int) -> Found:
    import logging

    from ultranest import ReactiveNestedSampler

    logging.getLogger("ultranest").setLevel(logging.WARNING)
    np.random.seed(seed)  # noqa: NPY002, its only source of numbers
    sampler = ReactiveNestedSampler(["x", "y"], of.log_likelihood, of.prior_transform)
    given = sampler.run(show_status=False, viz_callback=False)
    return Found(float(given["logz"]), float(given["logzerr"]), int(given["ncall"]))


def nautilus(of: Example, seed: int) -> Found:
    """It states no error of log Z; its paper gives `1 / sqrt(effective draws)` as an estimate."""
    from nautilus import Prior, Sampler

    prior = Prior()
    prior.add_parameter("a", dist=(-5, +5))
    prior.add_parameter("b", dist=(-5, +5))
    prior.add_parameter("c", dist=stats.norm(loc=0, scale=2.0))
    sampler = Sampler(prior, by_name, seed=seed)
    sampler.run()
    return Found(float(sampler.log_z), float(sampler.n_eff) ** -0.5, int(sampler.n_like))


EXAMPLES = {
    "dynesty": Example(
        "a normal in three dimensions with correlations of .95, prior uniform in a box of 20", normal, box, 3,
        -3 * math.log(20.0), dynesty,
    ),
    "ultranest": Example(
        "the egg box, 18 modes in the plane, some of them cut by the prior's edge", egg_box, egg_prior, 2,
        egg_log_z(), ultranest,
    ),
    "nautilus": Example(
        "a normal likelihood of three parameters by name, two with uniform priors and one with a normal one",
        named, named_prior, 3, named_log_z(), nautilus,
    ),
}  # fmt: skip
NAMES = {"dynesty": "dynesty", "ultranest": "UltraNest", "nautilus": "nautilus"}


def ours(of: Example, seed: int) -> Found:
    """Default settings."""
    import allmodes as am

    target = am.interop.nested.target(of.log_likelihood, of.prior_transform, of.dim)
    sampler = am.fit(target, key=seed, progress=False)
    draws = sampler.sample(DRAWS, key=1000 + seed)
    calls = sampler.evaluations["log_prob"] + draws.evaluations
    return Found(*map(float, draws.log_z), calls, draws.verdict().word)


def run(name: str, by_ours: bool, seed: int) -> dict:
    of, begin = EXAMPLES[name], time.process_time()
    found = ours(of, seed) if by_ours else of.theirs(of, seed)
    row = {
        "example": name, "by": "ours" if by_ours else name, "seed": seed, "log_z": round(found.log_z, 4),
        "error": round(found.log_z - of.log_z, 4), "std_error": round(found.std_error, 4), "calls": found.calls,
        "cpu": round(time.process_time() - begin, 1),
    }  # fmt: skip
    about = {"machine": platform.machine(), "cores": os.cpu_count()}
    return row | ({"verdict": found.verdict} if found.verdict else {}) | about


def apart(rows: list[dict]) -> float:
    """The largest difference of our log Z from theirs, in their stated errors, of one example."""
    mine, theirs = ([row for row in rows if (row["by"] == "ours") == is_ours] for is_ours in (True, False))
    return max(abs(a["log_z"] - b["log_z"]) / b["std_error"] for a in mine for b in theirs)


def _against(rows: list[dict]) -> str:
    """What the packages need less of, and what they state for it, by medians over seeds."""
    ratios = {"calls": [], "cpu": [], "std_error": []}
    for name in EXAMPLES:
        mine, theirs = (
            [r for r in rows if r["example"] == name and (r["by"] == "ours") == own] for own in (True, False)
        )
        if mine and theirs:
            for what, found in ratios.items():
                found.append(median(r[what] for r in mine) / median(r[what] for r in theirs))
    if not ratios["calls"]:
        return ""
    least = {what: (min(found), max(found)) for what, found in ratios.items()}
    calls, cpu = (f"{least[what][0]:.1f} to {least[what][1]:.1f}" for what in ("calls", "cpu"))
    errors = f"{1 / least['std_error'][1]:.0f} to {1 / least['std_error'][0]:.0f}"
    return (
        f"Ours took {calls} times the calls and {cpu} times the CPU time of theirs, for errors that are {errors} times "
        "smaller; runs to equal errors were not made."
    )


def page(rows: list[dict]) -> str:
    """The page, of its rows."""
    parts = [
        "# First examples of nested samplers",
        wrapped(
            "The first examples of dynesty's, UltraNest's and nautilus' own pages, written anew: the same likelihood "
            "and the same prior transform (of nautilus' `Prior`, what it makes of the cube) given to that package and "
            f"to `am.interop.nested.target`, with `am.fit` and {DRAWS:,} draws. All settings are the default ones; "
            "the functions are NumPy's and SciPy's, of one point at a time and without a gradient."
        ),
    ]
    for name, of in EXAMPLES.items():
        own = sorted((r for r in rows if r["example"] == name), key=lambda r: (r["by"] != "ours", r["seed"]))
        lines = [
            "| by | seed | log Z | less the truth | stated error | calls of the likelihood | CPU s | verdict |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for row in own:
            lines.append(
                f"| {NAMES.get(row['by'], 'ours')} | {row['seed']} | {row['log_z']:.3f} | {row['error']:+.3f} | "
                f"{row['std_error']:.3f} | {row['calls']:,} | {row['cpu']:.0f} | {row.get('verdict', '')} |"
            )
        both = {row["by"] == "ours" for row in own} == {True, False}
        words = f"{of.what[0].upper()}{of.what[1:]}: log Z is {of.log_z:.4f}."
        if both:
            words += f" Ours and theirs are at most {apart(own):.1f} of their stated errors apart."
        parts += [f"## {NAMES[name]}", wrapped(words), "\n".join(lines)]
    parts += [
        wrapped(
            "Calls are all that were made, those of our draws included; CPU seconds those of the whole run, with "
            "compilation, but without imports, on a machine that other work shared. " + _against(rows)
        ),
        "```sh\npython -m benchmarks.first_examples dynesty --ours --out rows.jsonl\n"
        "TOOLS/bin/python -m benchmarks.first_examples dynesty --out rows.jsonl  # as benchmarks/tools/run.py\n"
        "python -m benchmarks.first_examples page rows.jsonl\n```",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*EXAMPLES, "page"])
    parser.add_argument("rows", nargs="*", type=Path, help="of page; those of first-examples.json without")
    parser.add_argument("--ours", action="store_true", help="by ours, else by the package whose example it is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "page":
        rows = gathered(RESULTS / "first-examples.json", given.rows)
        keep(RESULTS / "first-examples.json", rows)
        (RESULTS / "first-examples.md").write_text(page(rows))
        return
    tell(run(given.what, given.ours, given.seed), given.out)


if __name__ == "__main__":
    main()
