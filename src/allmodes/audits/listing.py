"""What an audit says of each basin, and of itself."""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from allmodes.audits import compare
from allmodes.audits.basins import Basins
from allmodes.audits.explorers import Explored
from allmodes.audits.measure import Measured
from allmodes.audits.result import ELSEWHERE, Basin
from allmodes.chart import Support
from allmodes.draws.estimates import Estimate
from allmodes.draws.verdict import MIN_EFFECTIVE
from allmodes.modes.masses import Shares


@dataclasses.dataclass(frozen=True)
class Compared:
    """The shares of both sides, and how far they differ.

    **Attributes**

    - `fold`: the basin that each is counted with: `small` ones with the last.
    - `audited`, `sampled`: the shares; `log_z` by the audit.
    - `off`: differences in standard errors; `again`: in new draws, None where nothing was tested.
    """

    fold: Int[np.ndarray, " b"]
    small: Bool[np.ndarray, " b"]
    audited: Shares
    sampled: Shares
    log_z: Estimate
    off: Float[np.ndarray, " b"]
    again: Float[np.ndarray, " b"] | None = None

    @property
    def sides(self) -> dict[str, Shares]:
        """Both shares by the names of results."""
        return {"audit": self.audited, "sampler": self.sampled}

    @property
    def differs(self) -> Bool[np.ndarray, " b"]:
        """Which basins differ in both sets of draws, on the same side."""
        return np.zeros(len(self.off), bool) if self.again is None else compare.confirmed(self.off, self.again)


def finders(pool: list[Explored], label: Int[np.ndarray, " n"], fold: Int[np.ndarray, " basins"]) -> list[list[str]]:
    """For each basin, the names of the explorers that had a point in it."""
    ends = np.cumsum([len(e.z) for e in pool])[:-1]
    names: list[list[str]] = [[] for _ in fold]
    for e, part in zip(pool, np.split(fold[label], ends), strict=True):
        for basin in np.unique(part):
            if e.name not in names[basin]:
                names[basin].append(e.name)
    return names


def notes_on(basins: Basins, compared: Compared, masses: str, theirs: Measured, populations: str) -> list[str]:
    """What the reader of the verdict has to know; `populations` is the name of masses by those."""
    notes, small, effective = [f"the audit's masses: {masses}"], compared.small, compared.sampled.effective
    if masses == populations:
        notes.append("a basin that these lose on the way cannot be judged")
    if basins.left_out:
        notes.append(f"{basins.left_out} lighter basins beyond the {basins.count} heaviest are counted as {ELSEWHERE}")
    if small.any():
        least = f"{compare.LEAST:g} of the mass"
        notes.append(f"{small.sum()} basins to which neither side gives {least} are counted as {ELSEWHERE}")
    if not theirs.weighted:
        notes.append("the sampler's weights cannot be relied on: its draws are counted as they are")
    if effective < MIN_EFFECTIVE:
        notes.append(f"only {effective:.3g} of the sampler's draws are effective: little can be told from them")
    return notes


def listed(
    basins: Basins, compared: Compared, ratios: Float[np.ndarray, " b"], found_by: list[list[str]]
) -> list[Basin]:
    """The basins, those that differ first, then by mass; without small ones, and without the last
    where it has no mass.
    """
    mass, differs = compared.audited.mass, compared.differs
    order = np.lexsort((-mass, -np.abs(compared.off) * differs))
    empty = compared.small | (np.maximum(mass, compared.sampled.mass) == 0.0) & (np.arange(len(mass)) == basins.count)
    tops = _tops(basins)
    return [_basin(int(i), compared, tops, ratios, found_by[i]) for i in order if not empty[i]]


def in_bounds(basin: Basin, chart: Support) -> Basin:
    """The same basin with its peak between the user's bounds: where the density over free
    coordinates is highest.
    """
    if basin.peak is None:
        return basin
    z = jnp.asarray(basin.peak)
    peak = np.asarray(chart.to_x(z), float).tolist()
    return dataclasses.replace(basin, peak=peak, log_prob=basin.log_prob - float(chart.log_volume(z)))


def _tops(basins: Basins) -> list[tuple[list[float] | None, float | None]]:
    """The peak of each basin and its log-density; of the last, nothing."""
    top = basins.top()
    peaks = np.asarray(basins.frame.to_x(jnp.asarray(basins.peaks[top])), float)
    heights = basins.heights[top] - float(basins.frame.log_det) + basins.frame.constant
    return [*((peak.tolist(), float(height)) for peak, height in zip(peaks, heights, strict=True)), (None, None)]


def _basin(i: int, compared: Compared, tops: list, ratios: Float[np.ndarray, " b"], found_by: list[str]) -> Basin:
    (peak, log_prob), off, again = tops[i], compared.off, compared.again
    return Basin(
        name=ELSEWHERE if peak is None else str(i + 1),
        peak=peak,
        log_prob=log_prob,
        mass=float(compared.audited.mass[i]),
        std_error=float(compared.audited.std_error[i]),
        sampler_mass=float(compared.sampled.mass[i]),
        sampler_error=float(compared.sampled.std_error[i]),
        log_ratio=None if np.isnan(ratios[i]) else float(ratios[i]),
        off=float(off[i]),
        again=None if again is None or not compare.flags(off)[i] else float(again[i]),
        differs=bool(compared.differs[i]),
        found_by=found_by,
    )
