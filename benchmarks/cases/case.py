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

    def faults(self, x, log_weight, independent=1.0, log_z=None) -> list[str]:
        """What is wrong with weighted points, `independent` of which count as such beyond their
        weights, and with an estimate of log Z; empty where all is right."""
        x, log_weight = np.asarray(x, float), np.asarray(log_weight, float)
        if not np.isfinite(log_weight.max()):
            return ["no mass"]
        w = np.exp(log_weight - log_weight.max())
        w /= w.sum()

        def seen(values):
            values = np.asarray(values, float)
            mean = float(w @ values)
            return mean, float(np.sqrt((w**2 * (values - mean) ** 2).sum() / independent))

        wrong = []
        if log_z is not None and self.log_z is not None and np.isfinite(log_z.value):
            off = log_z.value - self.log_z
            if abs(off) > max(OF_LOG_Z, ERRORS_OF_LOG_Z * log_z.std_error):
                wrong.append(f"log Z {off:+.2f}")
        label = None if self.regions is None else np.asarray(self.regions.assign(x))
        for i, share in enumerate(() if self.regions is None else self.regions.shares):
            mean, error = seen(label == i)
            if share >= LEAST_SHARE and abs(mean - share) > max(OF_SHARE * share, ERRORS * error):
                wrong.append(f"region {i} {mean:.3f} for {share:.3f}")
        for known in self.averages:
            mean, error = seen(known.of(x))
            off, least = abs(mean - known.mean), ERRORS * np.hypot(error, known.error)
            if off > max(OF_MEAN * known.deviation, least):
                wrong.append(f"{known.name} {(mean - known.mean) / max(known.deviation, 1e-30):+.2f} deviations")
        return wrong


def judged(case: Case, draws: am.Draws) -> dict:
    """What is wrong with draws, taken with their weights, and what their verdict claims."""
    log_weight, verdict = np.asarray(draws.log_weight, float), draws.verdict()
    w = np.exp(log_weight - log_weight.max()) if np.isfinite(log_weight.max()) else np.ones(len(log_weight))
    independent = float(np.clip(draws.ess * (w**2).sum() / w.sum() ** 2, 1e-9, 1.0))
    wrong = case.faults(draws.x, log_weight, independent, draws.log_z)
    off = None if case.log_z is None else draws.log_z.value - case.log_z
    return {
        "wrong": wrong, "word": verdict.word, "reasons": verdict.reasons, "log_z_off": off,
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
