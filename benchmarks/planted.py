"""Does the default verdict name planted faults, and what is in truth wrong?

    python -m benchmarks.planted                   # 20 faults; goes on where it was stopped
    python -m benchmarks.planted --cases gmm40     # those of some densities
    python -m benchmarks.planted --write           # docs/results/planted.md, of the rows there are

A fault is planted into the state where the search and the mixture have ended, as a search, a fit or
a frame that fails would leave it; all that follows then runs as always: training where there is
any, the second opinion, and `sampler.sample(10_000)` with its verdict, without an audit. What is
left out of both is in neither the base mixture nor the buffer, as where a search has missed it.
"""

import argparse
import dataclasses
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import allmodes as am
from allmodes.devices.compiled import program
from allmodes.jobs.machine import machine
from allmodes.methods.iwsm.training import measure
from allmodes.search.complete import of_starts
from benchmarks.cases import CASES, Case, Weighted

DRAWS, SEED = 10_000, 0
PAGE = Path("docs/results/planted.md")
MARK = "<!-- rows -->"


@dataclasses.dataclass(frozen=True)
class Planted(am.IWSM):
    """IWSM that begins with a state in the place of a search."""

    begun: Callable[[], Any] = am.IWSM  # always given

    def __post_init__(self):
        """Nothing to check: the settings are IWSM's own."""

    def init(self, target, key):
        """Begin there."""
        return self.begun()


# What is done to a state. `which` of the modes; `where` the modes of components and of points are.


class Where(NamedTuple):
    """The mode of each component of the base, and of each point of the buffer."""

    components: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, case, state):
        assign = lambda z: np.asarray(case.regions.assign(np.asarray(state.frame.to_x(z), float)))  # noqa: E731
        return cls(assign(state.denoiser.base.mixture.mean), assign(state.buffer.z))


def with_base(state, **fields):
    """The state on another base."""
    for name in ("denoiser", "average"):
        denoiser = getattr(state, name)
        mixture = dataclasses.replace(denoiser.base.mixture, **fields)
        denoiser = eqx.tree_at(lambda d: d.network.base.mixture, denoiser, mixture)
        state = dataclasses.replace(state, **{name: denoiser})
    return state


def shares_times(state, factors):
    """The state with the shares of the base's components times these."""
    with np.errstate(divide="ignore"):
        log_share = np.asarray(state.denoiser.base.mixture.log_share, float) + np.log(np.asarray(factors, float))
    return with_base(state, log_share=jnp.asarray(log_share - np.logaddexp.reduce(log_share), jnp.float32))


def points_of(state, kept, weight=None):
    """The state whose points are copies of those that are kept, by a weight."""
    rng, p = np.random.default_rng(0), kept * (np.ones(len(kept)) if weight is None else weight)
    return dataclasses.replace(state, buffer=state.buffer.take(jnp.asarray(rng.choice(len(p), len(p), p=p / p.sum()))))


def lacking(which, *, base=True, buffer=True):
    """Modes left out of the base, or the buffer, or of both."""

    def plant(case, state):
        modes, where = np.atleast_1d(which(case)), Where.of(case, state)
        state = shares_times(state, ~np.isin(where.components, modes)) if base else state
        return points_of(state, ~np.isin(where.points, modes)) if buffer else state

    return plant


def weighing(factor_of):
    """The shares of modes off by factors, in the base and, as both come of the same draws, in the
    buffer."""

    def plant(case, state):
        factors, where = factor_of(len(case.regions.shares)), Where.of(case, state)
        state = shares_times(state, factors[where.components])
        return points_of(state, np.ones(len(where.points), bool), factors[where.points])

    return plant


def one_times(factor, which=0):
    """The share of one mode off by a factor."""
    return weighing(lambda modes: np.where(np.arange(modes) == which, factor, 1.0))


def narrow(factor):
    """The heaviest mode's components with variances that are too small."""

    def plant(case, state):
        there = Where.of(case, state).components == heaviest(case)
        variance = state.denoiser.base.mixture.variance * jnp.where(jnp.asarray(there), factor, 1.0)[:, None]
        return with_base(state, variance=variance)

    return plant


def frame_times(factor):
    """A frame whose unit is too small; base and points are where they were."""

    def plant(case, state):
        mixture, buffer, old = state.denoiser.base.mixture, state.buffer, state.frame
        frame = dataclasses.replace(old, scale=old.scale * factor)
        z = buffer.z / factor
        buffer = dataclasses.replace(
            buffer, z=z, log_prob=buffer.log_prob + frame.log_det - old.log_det, grad=buffer.grad * factor
        )
        state = with_base(state, mean=mixture.mean / factor, variance=mixture.variance / factor**2)
        return dataclasses.replace(state, frame=frame, buffer=buffer)

    return plant


def heaviest(case):
    """The mode of most mass."""
    return int(np.argmax(case.regions.shares))


def lightest(case):
    """The mode of least mass."""
    return int(np.argmin(case.regions.shares))


def middling(case):
    """The mode of median mass."""
    return int(np.argsort(case.regions.shares)[len(case.regions.shares) // 2])


def all_but_heaviest(case):
    """The modes beside the one of most mass."""
    return np.delete(np.arange(len(case.regions.shares)), heaviest(case))


def right_half(case):
    """The modes of gmm40 in the right half of its box."""
    x = case.draw(np.random.default_rng(1), 20_000)
    label = np.asarray(case.regions.assign(x))
    return np.array([k for k in range(len(case.regions.shares)) if np.median(x[label == k, 0]) > 0.0])


class Fault(NamedTuple):
    """A fault of a density, planted by a function of its case and state; training steps, where they
    are fewer than usual."""

    name: str
    case: str
    plant: Callable[[Case, Any], Any] | None
    steps: int | None = None


ALTERNATING = weighing(lambda modes: np.where(np.arange(modes) % 2 == 0, 1.3, 1 / 1.3))
FAULTS = (
    Fault("a mode (.3) left out of both", "two-5d", lacking(lambda case: 0)),
    Fault("a mode (.7) left out of both: collapse", "two-5d", lacking(lambda case: 1)),
    Fault("a mode (.3) left out of the base", "two-5d", lacking(lambda case: 0, buffer=False)),
    Fault("a mode's weight up by 30 %", "two-5d", one_times(1.3)),
    Fault("a buffer in one mode", "two-5d", lacking(lambda case: 0, base=False)),
    Fault("a mode (1 of 40) left out of both", "gmm40", lacking(lambda case: 0)),
    Fault("half of the box never searched", "gmm40", lacking(right_half)),
    Fault("a mode (1 of 40) left out of the base", "gmm40", lacking(lambda case: 0, buffer=False)),
    Fault("a mode's weight down by 30 %", "gmm40", one_times(0.7)),
    Fault("a frame a third as wide", "gmm40", frame_times(1 / 3)),
    Fault("the heaviest mode left out of both", "mixture-8d", lacking(heaviest)),
    Fault("the lightest mode left out of both", "mixture-8d", lacking(lightest)),
    Fault("all weights off by 30 %, up and down", "mixture-8d", ALTERNATING),
    Fault("the heaviest mode's component half as wide", "mixture-8d", narrow(0.25)),
    Fault("a middling mode left out of both", "mixture-10d", lacking(middling)),
    Fault("the heaviest mode left out of the base", "mixture-10d", lacking(heaviest, buffer=False)),
    Fault("a frame a third as wide", "mixture-10d", frame_times(1 / 3)),
    Fault("a middling mode left out of both, then trained", "warped-4d", lacking(middling)),
    Fault("a buffer in one mode, then trained", "warped-4d", lacking(all_but_heaviest, base=False)),
    Fault("training stopped at 200 steps", "warped-4d", None, steps=200),
)  # fmt: skip
CONTROLS = tuple(Fault("none", case, None) for case in dict.fromkeys(fault.case for fault in FAULTS))


def planted(case, fault, state):
    """The sampler with a fault, as `fit` makes it from where the search has ended."""
    if fault.plant is not None:
        state = program(measure)(fault.plant(case, state), jax.random.key(7))
    if fault.steps is not None:
        state = dataclasses.replace(state, end=jnp.minimum(state.end, fault.steps))
    method = Planted(begun=functools.partial(lambda begun: begun, state))
    return am.fit(case.target, method, key=jax.random.key(SEED), steps=fault.steps, progress=False)


def row_of(case, fault, sampler):
    """What is wrong, and what the verdict says of it, with the second opinion and without."""
    draws = sampler.sample(DRAWS, key=jax.random.key(1000))
    verdict, state = draws.verdict(), sampler.state
    without = dataclasses.replace(draws, findings=of_starts(*state.starts.tolist())).verdict()
    spent = sampler.spent
    return {
        "case": fault.case, "fault": fault.name,
        "raw_wrong": case.faults(Weighted.of(draws.x, np.zeros(DRAWS))),
        "weighted_wrong": case.faults(Weighted.of(draws.x, draws.log_weight, draws.ess), draws.log_z),
        "log_z_off": draws.log_z.value - case.log_z, "log_z_std_error": draws.log_z.std_error,
        "word": verdict.word, "without": without.word,
        "reasons": verdict.reasons, "steps": int(state.step), "opinion": spent.get("opinion", 0),
        "evaluations": sampler.evaluations["log_prob"], "opinion_seconds": round(sampler.seconds["opinion"], 1),
    }  # fmt: skip


def is_named(row, by="word"):
    """Whether the word is low enough: not trusted where raw draws are wrong as they are, and not to
    be used where weights do not mend them; None where nothing is wrong."""
    if row["weighted_wrong"]:
        return row[by] == "do not use"
    return row[by] != "trusted" if row["raw_wrong"] else None


def page(rows):
    """The table, in Markdown."""
    named = {True: "yes", False: "**no**", None: "nothing is"}
    titles = "density", "fault", "raw draws as they are", "with their weights", "the verdict", "named", "without"
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = ["; ".join(row[part][:1]) or "right" for part in ("raw_wrong", "weighted_wrong")]
        lines.append(
            f"| {row['case']} | {row['fault']} | {cells[0]} | {cells[1]} | {row['word']}: {row['reasons'][0]} "
            f"| {named[is_named(row)]} | {row['without']} |"
        )
    faults = [row for row in rows if row["fault"] != "none"]
    wrong = [row for row in faults if is_named(row) is not None]
    of_two = [sum(is_named(row, by) for row in wrong) for by in ("word", "without")]
    lines += [
        "",
        f"Of {len(faults)} faults {len(wrong)} leave an answer wrong, of which {of_two[0]} are named, and {of_two[1]} "
        "without the second opinion.",
        "",
        "| density | evaluations before | of the second opinion | share |",
        "|---|---|---|---|",
    ]
    for row in [row for row in rows if row["fault"] == "none"]:
        before = row["evaluations"] - row["opinion"]
        lines.append(f"| {row['case']} | {before:,} | {row['opinion']:,} | {row['opinion'] / before:.1%} |")
    return "\n".join(lines) + "\n"


def write(result, where):
    """The page with these rows in the place of those that it has, and the rows beside it."""
    head = where.read_text().split(MARK)[0] if where.exists() else "# Planted faults\n\n"
    where.write_text(f"{head}{MARK}\n\n{page(result['rows'])}")
    where.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", default=list(dict.fromkeys(fault.case for fault in FAULTS)))
    parser.add_argument("--rows", type=Path, default=Path("runs/planted.jsonl"))
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--write", action="store_true", help="the page, of the rows that are there; run nothing")
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.rows.read_text().splitlines()] if args.rows.exists() else []
    if args.write:
        order = [(fault.case, fault.name) for fault in (*CONTROLS, *FAULTS)]
        rows.sort(key=lambda row: order.index((row["case"], row["fault"])))
        write({"command": "python -m benchmarks.planted", "machine": machine(), "rows": rows}, args.page)
        return
    args.rows.parent.mkdir(parents=True, exist_ok=True)
    there = {(row["case"], row["fault"]) for row in rows}
    for name in args.cases:
        wanted = [f for f in (*CONTROLS, *FAULTS) if f.case == name and (name, f.name) not in there]
        if not wanted:
            continue
        case = CASES[name]()
        state = am.IWSM().init(case.target.free, jax.random.split(jax.random.key(SEED))[0])
        for fault in wanted:
            row = row_of(case, fault, planted(case, fault, state))
            with args.rows.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print({k: v for k, v in row.items() if k != "reasons"}, row["reasons"][0], is_named(row), flush=True)


if __name__ == "__main__":
    main()
