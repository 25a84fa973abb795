"""A density whose answers are known, and what it takes for draws of it to be right."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import allmodes as am

EXACT = 200_000  # draws that averages are known from
QUANTILES = 0.05, 0.25, 0.5, 0.75, 0.95
OF_LOG_Z, OF_SHARE, OF_MEAN = 0.1, 0.2, 0.1  # off by more than nats, a part of the share, a part of the deviation
ERRORS_OF_LOG_Z, ERRORS = 4.0, 5.0  # and by more than so many standard errors
LEAST_SHARE = 0.01  # of a region that is judged
INTERVAL = 1.96  # standard errors on both sides


class Regions(NamedTuple):
    """A partition into regions of known masses: their shares `(regions,)`, and the region of each
    point, `(n, dim) -> (n,)`, -1 for none of them."""

    shares: np.ndarray
    assign: Callable[[np.ndarray], np.ndarray]


class Average(NamedTuple):
    """A figure of points, `(n, dim) -> (n,)`, its mean under the density with the error of that,
    and its deviation."""

    name: str
    of: Callable[[np.ndarray], np.ndarray]
    mean: float
    error: float
    deviation: float


class Weighted(NamedTuple):
    """Points `(n, dim)` with weights `(n,)` that sum to one, `independent` of which count as such
    beyond their weights."""

    x: np.ndarray
    w: np.ndarray
    independent: float = 1.0

    @classmethod
    def of(cls, x: np.ndarray, log_weight: np.ndarray, ess: float | None = None) -> "Weighted":
        """Points of which `ess` count, where that is less than their weights tell."""
        log_weight = np.asarray(log_weight, float)
        w = np.exp(log_weight - log_weight.max())
        w /= w.sum()
        return cls(np.asarray(x, float), w, 1.0 if ess is None else float(np.clip(ess * (w**2).sum(), 1e-9, 1.0)))

    def mean(self, values: np.ndarray) -> tuple[float, float]:
        """Of a figure of each point, and its standard error."""
        values = np.asarray(values, float)
        mean = float(self.w @ values)
        return mean, float(np.sqrt((self.w**2 * (values - mean) ** 2).sum() / self.independent))


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A density as a stranger would give it, and beside it what is known of it.

    **Attributes**: `target`, of which methods see no more than a function and a dimension; its
    `log_z`; exact draws, `(rng, n) -> (n, dim)`; `regions`; `coords`, whose averages are judged;
    whether tails are too `heavy` for means; whether the pull of a mode is a `needle`'s, which
    reaches a millionth of the volume or less."""

    target: am.Target
    log_z: float | None
    draw: Callable[[np.random.Generator, int], np.ndarray] | None
    regions: Regions | None = None
    coords: tuple[int, ...] = (0, 1)
    heavy: bool = False
    needle: bool = False

    @functools.cached_property
    def averages(self) -> list[Average]:
        """Means, squares and quantiles of some coordinates, by exact draws."""
        if self.draw is None:
            return []
        x = np.asarray(self.draw(np.random.default_rng(12345), EXACT), float)
        figures = []
        for c in self.coords:
            mean = x[:, c].mean()
            if not self.heavy:
                figures.append((f"mean of x{c}", lambda y, c=c: y[:, c]))
                figures.append((f"variance of x{c}", lambda y, c=c, mean=mean: (y[:, c] - mean) ** 2))
            for q, cut in zip(QUANTILES, np.quantile(x[:, c], QUANTILES), strict=True):
                figures.append((f"mass below the {q:.0%} quantile of x{c}", lambda y, c=c, cut=cut: y[:, c] < cut))
        known = []
        for name, of in figures:
            value = np.asarray(of(x), float)
            known.append(Average(name, of, value.mean(), value.std() / len(x) ** 0.5, value.std()))
        return known

    def shares(self, points: Weighted) -> list[tuple[int, float, float, float]]:
        """Of each region that is judged: which, the share of the points with its error, and the
        true one."""
        if self.regions is None:
            return []
        label = np.asarray(self.regions.assign(points.x))
        judged = [(i, share) for i, share in enumerate(self.regions.shares) if share >= LEAST_SHARE]
        return [(i, *points.mean(label == i), share) for i, share in judged]

    def faults(self, points: Weighted, log_z=None) -> list[str]:
        """What is wrong with points, and with an estimate of log Z; empty where all is right."""
        wrong = []
        if log_z is not None and self.log_z is not None and np.isfinite(log_z.value):
            off = log_z.value - self.log_z
            if abs(off) > max(OF_LOG_Z, ERRORS_OF_LOG_Z * log_z.std_error):
                wrong.append(f"log Z {off:+.2f}")
        for i, mean, error, share in self.shares(points):
            if abs(mean - share) > max(OF_SHARE * share, ERRORS * error):
                wrong.append(f"region {i} {mean:.3f} for {share:.3f}")
        for known in self.averages:
            mean, error = points.mean(known.of(points.x))
            off, least = abs(mean - known.mean), ERRORS * np.hypot(error, known.error)
            if off > max(OF_MEAN * known.deviation, least):
                wrong.append(f"{known.name} {(mean - known.mean) / max(known.deviation, 1e-30):+.2f} deviations")
        return wrong

    def covered(self, points: Weighted) -> dict[str, list[int]]:
        """Of how many shares of regions, and of how many averages, 95 % intervals have the truth,
        and of how many there are."""
        shares = [abs(mean - share) <= INTERVAL * error for _, mean, error, share in self.shares(points)]
        seen = [(known, *points.mean(known.of(points.x))) for known in self.averages]
        averages = [abs(m - known.mean) <= INTERVAL * np.hypot(error, known.error) for known, m, error in seen]
        return {"shares": [int(sum(shares)), len(shares)], "averages": [int(sum(averages)), len(averages)]}


def judged(case: Case, draws: am.Draws) -> dict:
    """What is wrong with draws, taken with their weights, and what their verdict claims."""
    verdict = draws.verdict()
    found = {"wrong": ["no mass"]}
    if np.isfinite(float(np.max(draws.log_weight))):
        points = Weighted.of(draws.x, draws.log_weight, draws.ess)
        found = {"wrong": case.faults(points, draws.log_z), "covered": case.covered(points)}
    off = None if case.log_z is None else draws.log_z.value - case.log_z
    return found | {
        "word": verdict.word, "reasons": verdict.reasons, "log_z_off": off,
        "log_z_std_error": draws.log_z.std_error, "ess": draws.ess,
    }  # fmt: skip


def kind_of(row: dict) -> str:
    """In which of four kinds a row is: by what is wrong, and by what is claimed."""
    flagged = row["word"] == "do not use"
    if row["wrong"]:
        return "wrong, flagged" if flagged else "silently wrong"
    if flagged:
        return "right, flagged"
    return "right, trusted" if row["word"] == "trusted" else "right, with its weights"
