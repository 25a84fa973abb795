"""What is told of each mode: its share, its own evidence, where it is and how wide."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from allmodes.devices.precision import double
from allmodes.draws import export
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate, ess, log_z
from allmodes.modes.find import find
from allmodes.modes.masses import of_draws
from allmodes.points.weighted import normalised
from allmodes.ranges import Range
from allmodes.target import Target

SHOWN, PARAMETERS = 20, 4  # modes in the text, and parameters of each
STORED = 200  # modes in `result.json`


@dataclasses.dataclass(frozen=True, eq=False)
class ModeTable:
    """The modes of a sampler's draws, by falling share. `print` it for a table.

    **Attributes**, an entry or a row for each mode:

    - `share` of the mass, and `share_error`, its standard error.
    - `log_z` and `log_z_error`: of the mode alone; `logsumexp(log_z)` is that of the draws. NaN
      where the draws do not know it.
    - `draws`: how many lie in it; `ess`: how many of these are effective.
    - `mean`, `sd`: `(modes, parameters)`, of the parameters that are called `names`, weighted;
      around the circle of what is periodic. `peak`: where the density over free coordinates
      (`draws.free`) is highest, and `log_prob` there.
    - `points`: how many of the points that training ended with lie in it: 0 where only draws have
      met it. None where the draws are not of a sampler. `elsewhere`: how many lie near no draw: in
      a mode that the draws miss, perhaps.

    And of all: `label`, `(n,)`: the mode of each draw, -1 without mass; `evaluations` of the
    density; of `checked` draws, taken at random, so many as `misplaced` climb to another mode than
    the one that they were counted in before.
    """

    names: tuple[str, ...]
    share: Float[np.ndarray, " modes"]
    share_error: Float[np.ndarray, " modes"]
    log_z: Float[np.ndarray, " modes"]
    log_z_error: Float[np.ndarray, " modes"]
    draws: Int[np.ndarray, " modes"]
    ess: Float[np.ndarray, " modes"]
    mean: Float[np.ndarray, "modes parameters"]
    sd: Float[np.ndarray, "modes parameters"]
    peak: Float[np.ndarray, "modes parameters"]
    log_prob: Float[np.ndarray, " modes"]
    points: Int[np.ndarray, " modes"] | None
    elsewhere: int
    label: Int[np.ndarray, " n"] = dataclasses.field(repr=False)
    evaluations: int
    checked: int
    misplaced: int

    def __len__(self) -> int:
        return len(self.share)

    def __str__(self) -> str:
        columns, rows = self.columns(), self.rows(SHOWN)
        wide = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:>{w}}" for cell, w in zip(row, wide, strict=True)).rstrip() for row in (columns, *rows)
        ]
        lines += [f"and {len(self) - SHOWN} more"] * (len(self) > SHOWN)
        return "\n".join([*lines, self.note()])

    def columns(self) -> list[str]:
        """The heads of `rows`."""
        more = [f"and {len(self.names) - PARAMETERS} more"] * (len(self.names) > PARAMETERS)
        met = [] if self.points is None else ["of training"]
        return ["mode", "share", "log Z", "draws", *met, *(self.names[i] for i in self._telling()), *more]

    def rows(self, most: int) -> list[list[str]]:
        """Cells of the first modes, as text."""
        return [self._row(i) for i in range(min(most, len(self)))]

    def _row(self, i: int) -> list[str]:
        met = [] if self.points is None else [f"{self.points[i]:,}"]
        places = [f"{self.mean[i, p]:.4g} \u00b1 {self.sd[i, p]:.2g}" for p in self._telling()]
        evidence = "" if np.isnan(self.log_z[i]) else f"{self.log_z[i]:.3f} \u00b1 {self.log_z_error[i]:.3f}"
        more = [".."] * (len(self.names) > PARAMETERS)
        share = f"{self.share[i]:.4f} \u00b1 {self.share_error[i]:.4f}"
        return [str(i + 1), share, evidence, f"{self.draws[i]:,}", *met, *places, *more]

    def _telling(self) -> list[int]:
        """Which parameters rows show: those that tell the modes apart best, by how far their means
        are from each other in standard deviations.
        """
        if len(self.names) <= PARAMETERS:
            return list(range(len(self.names)))
        share, sd = self.share[:, None], self.sd
        mean = np.sum(share * self.mean, 0) / np.sum(share)
        between, within = (np.sum(share * square, 0) for square in ((self.mean - mean) ** 2, sd**2))
        apart = np.where(sd.max(0) > 0.0, between / np.maximum(within, 1e-300), -1.0)  # what is fixed tells nothing
        return sorted(np.argsort(-apart, kind="stable")[:PARAMETERS].tolist())

    def note(self) -> str:
        """What was done, in a sentence."""
        wrong = f", {self.misplaced} of {self.checked} draws at random were misplaced" if self.misplaced else ""
        lost = f", {self.elsewhere:,} points of training lie near no draw" if self.elsewhere else ""
        return f"{len(self)} mode{'s' * (len(self) > 1)} by {self.evaluations:,} evaluations{wrong}{lost}"

    def as_dict(self, most: int = STORED) -> dict[str, Any]:
        """For `result.json`: the first modes, without the mode of each draw; and the first rows as
        text.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "label"}
        plain = {name: v[:most].tolist() if isinstance(v, np.ndarray) else v for name, v in fields.items()}
        shown = {"columns": self.columns(), "rows": self.rows(SHOWN), "note": self.note()}
        return {"count": len(self), **plain, "names": list(self.names), "shown": shown}


def table_of(target: Target, draws: Draws, *, key: Array, points: Float[Array, "m free"] | None = None) -> ModeTable:
    """The modes of draws of a target; `points`, in free coordinates, are counted in them.

    Errors are those of the delta method for weighted draws; where log Z comes from elsewhere, its
    error and that of the share are added as independent ones.

    **Raises** `ConfigError` as `find`.
    """
    found = find(target, draws, key, points)
    weight = np.asarray(draws.log_weight, float)
    count, kish = len(found.peak), ess(weight)
    effective = max(float(draws.ess), 1.0)
    shares = of_draws(weight, np.where(found.label < 0, count, found.label), count + 1, effective)
    wider = 1.0 if draws.equally_weighted else (kish / effective) ** 0.5  # as some draws are related
    order = np.argsort(-shares.mass[:count], kind="stable")
    share, error = shares.mass[order], wider * shares.std_error[order]
    evidence = [
        _evidence(draws, weight, found.label == mode, Estimate(float(p), float(e)), wider)
        for mode, p, e in zip(order, share, error, strict=True)
    ]
    rank = np.empty(count + 1, int)
    rank[order], rank[count] = np.arange(count), -1
    label = rank[found.label]
    near = None if found.points is None else rank[found.points]
    columns = draws.columns()
    mean, sd = _moments(columns, target.ranges, normalised(weight), label, count)
    return ModeTable(
        names=tuple(columns),
        share=share,
        share_error=error,
        log_z=np.array([one.value for one in evidence]),
        log_z_error=np.array([one.std_error for one in evidence]),
        draws=np.bincount(label[label >= 0], minlength=count),
        ess=np.array([ess(weight[label == mode]) for mode in range(count)]) * effective / kish,
        mean=mean,
        sd=sd,
        peak=_peaks(target, draws, found.peak[order]),
        log_prob=found.log_prob[order],
        points=None if near is None else np.bincount(near[near >= 0], minlength=count),
        elsewhere=0 if near is None else int(np.sum(near < 0)),
        label=label,
        evaluations=found.evaluations,
        checked=found.checked,
        misplaced=found.misplaced,
    )


def _evidence(
    draws: Draws, weight: Float[np.ndarray, " n"], there: np.ndarray, share: Estimate, wider: float
) -> Estimate:
    """Log Z of one mode: by the weights of its draws, all others counting zero, where log Z comes
    from weights.
    """
    if draws.evidence is None and not draws.chains:
        own = log_z(np.where(there, weight, -np.inf))
        return Estimate(own.value, wider * own.std_error)
    whole = draws.log_z
    if np.isnan(whole.value) or share.value == 0.0:
        return Estimate(float("nan"), float("inf"))
    return Estimate(
        whole.value + float(np.log(share.value)), float(np.hypot(whole.std_error, share.std_error / share.value))
    )


def _moments(
    columns: dict[str, np.ndarray], ranges: Mapping[str, Range], w: np.ndarray, label: np.ndarray, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and deviation of each parameter in each mode."""
    mean, sd = np.zeros((count, len(columns))), np.zeros((count, len(columns)))
    for mode in range(count):
        there = label == mode
        own = w[there] / w[there].sum()
        for i, (name, values) in enumerate(columns.items()):
            circle = ranges[name] if name in ranges and ranges[name].periodic else None
            v = values[there] if circle is None else circle.unwound(values[there], own)
            mean[mode, i] = np.sum(own * v)
            sd[mode, i] = np.sqrt(np.sum(own * (v - mean[mode, i]) ** 2))
            if circle is not None:
                mean[mode, i] = circle.wound(mean[mode, i])
    return mean, sd


def _peaks(target: Target, draws: Draws, z: Float[np.ndarray, "modes free"]) -> Float[np.ndarray, "modes parameters"]:
    """The peaks as the user's parameters."""
    with double(target.double):
        x = jax.numpy.asarray(z, target.dtype)
        x = x if target.chart is None else jax.jit(jax.vmap(target.chart.to_x))(x)
        named = None if draws.parameters is None else jax.jit(draws.parameters)(x)
    variables = export.ordered(export.variables(x, named), draws.ranges)
    return np.stack(list(export.columns(variables).values()), axis=1)
