"""What an audit found."""

import dataclasses
from typing import Any

import numpy as np

from allmodes.draws.estimates import Estimate
from allmodes.draws.verdict import Verdict

ELSEWHERE = "elsewhere"


@dataclasses.dataclass(frozen=True)
class Basin:
    """One basin; the one named "elsewhere" is what belongs to none of those listed, or lies far
    below their mass.

    **Attributes**

    - `peak`, in the user's coordinates, and its `log_prob`; None elsewhere.
    - `mass` by the audit and `sampler_mass` by the sampler, with standard errors.
    - `log_ratio`: the mean over the basin's points of log sampler density over target density. 0 is
      right, very negative hardly reached; None where it cannot be told.
    - `off`: the difference of the masses in standard errors; `again`: in the second set of draws,
      None if untested.
    - `differs`: off by more than three standard errors in both, on the same side.
    - `found_by`: the explorers that had a point there.
    """

    name: str
    peak: list[float] | None
    log_prob: float | None
    mass: float
    std_error: float
    sampler_mass: float
    sampler_error: float
    log_ratio: float | None
    off: float
    again: float | None
    differs: bool
    found_by: list[str]


@dataclasses.dataclass(frozen=True)
class Audit:
    """Basins, those that differ first, then by mass; and the verdict.

    **Attributes**

    - `target`: what the sampler was judged by. `masses`: how the audit's were measured. `log_z`: by
      the audit.
    - `draws` of each side; `effective` ones of the audit and of the sampler.
    - `small`: basins counted with "elsewhere", as neither side gives them a thousandth of the mass.
    - `left_out`: basins beyond the 200 heaviest, counted there too.
    - `evaluations` of the density by purpose; `seconds`.
    - `shown`: some of the sampler's draws `(k, dim)`, for the picture; not in `as_dict`.
    """

    target: str
    basins: list[Basin]
    verdict: Verdict
    masses: str
    log_z: Estimate
    draws: int
    effective: dict[str, float]
    small: int
    left_out: int
    evaluations: dict[str, int]
    seconds: float
    shown: np.ndarray | None = dataclasses.field(default=None, repr=False, compare=False)

    @property
    def failed(self) -> bool:
        """Whether a basin differs: exit status 1 of the command."""
        return any(basin.differs for basin in self.basins)

    def as_dict(self) -> dict[str, Any]:
        """For `audit.json`."""
        whole = dataclasses.asdict(self) | {"log_z": self.log_z._asdict()}
        del whole["shown"]
        return whole

    def rows(self, most: int) -> list[list[str]]:
        """Cells of the first basins for a table, under `COLUMNS`."""
        return [_row(basin) for basin in self.basins[:most]]


COLUMNS = ("basin", "peak", "mass by the audit", "by the sampler", "off by", "again", "log q/p", "found by", "")


def _row(basin: Basin) -> list[str]:
    peak = "" if basin.peak is None else " ".join(f"{v:.6g}" for v in basin.peak[:3])
    peak += " .." if basin.peak is not None and len(basin.peak) > 3 else ""
    word = "" if not basin.differs else "too light" if basin.off < 0 else "too heavy"
    return [
        basin.name, peak, f"{basin.mass:.4f} \u00b1 {basin.std_error:.4f}",
        f"{basin.sampler_mass:.4f} \u00b1 {basin.sampler_error:.4f}", f"{basin.off:+.1f}",
        "" if basin.again is None else f"{basin.again:+.1f}",
        "" if basin.log_ratio is None else f"{basin.log_ratio:+.2f}", ", ".join(basin.found_by), word,
    ]  # fmt: skip
