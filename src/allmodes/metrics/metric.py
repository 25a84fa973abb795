"""What a metric is: its name and words, the targets that it is for, and its entry in `result.json`.

A new one is a file with one of these objects, and a line in `metrics/registry.py`.
"""

import abc
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from allmodes.metrics.floor import ratio
from allmodes.metrics.streams import Streams
from allmodes.points.weighted import normalised
from allmodes.target import Target

NOTHING = ("value", "floor", "ratio", "ratio_std_error")  # are None where no draw has any mass


def has_exact_draws(target: Target) -> bool:
    """Whether sets of exact draws, or of a reference in their place, can be drawn."""
    return target.sample is not None


def is_euclidean(target: Target) -> bool:
    """Whether it has exact draws whose coordinates are compared as they are."""
    return target.sample is not None and target.symmetry is None


def is_of_particles(target: Target) -> bool:
    """Whether it has exact draws, of particles that may be moved, turned and reordered."""
    return target.sample is not None and target.symmetry is not None


def has_reference(target: Target) -> bool:
    """Whether a reference stands in for exact draws whose coordinates are compared as they are."""
    return is_euclidean(target) and target.reference is not None


def has_modes(target: Target) -> bool:
    """Whether its modes and their weights are known."""
    return target.modes is not None


@dataclasses.dataclass(frozen=True)
class Judged:
    """Draws under judgement, with all that metrics may ask for.

    **Attributes**

    - `x`: (n, dim), with `log_weight` (n,) where they are weighted.
    - `independent`: the share of draws that count as independent, beside what weights cost.
    - `streams`: a key for each metric, by its name.
    - `size`, `repeats`: of the sets that are compared.
    - `shared`: what is of exact draws alone, for other draws of the same target too.
    - `own`: what several metrics of these draws need.
    """

    target: Target
    x: Float[np.ndarray, "n dim"]
    log_weight: Float[np.ndarray, " n"] | None
    independent: float
    streams: Streams
    size: int
    repeats: int
    shared: dict
    own: dict = dataclasses.field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made for the first metric that asks."""
        if name not in self.own:
            self.own[name] = make()
        return self.own[name]

    def equal(self) -> Float[np.ndarray, "m dim"]:
        """As many draws of equal weight; none where no draw has any mass."""
        return self.once("equal", lambda: resampled(self.x, self.log_weight, self.streams.numpy("resample")))


def resampled(
    x: Float[np.ndarray, "n dim"], log_weight: Float[np.ndarray, " n"] | None, rng: np.random.Generator
) -> Float[np.ndarray, "m dim"]:
    """As many draws of equal weight, by systematic resampling; none where no draw has any mass."""
    if log_weight is None:
        return x
    cumulative = np.cumsum(normalised(log_weight))
    if cumulative.size == 0 or cumulative[-1] == 0.0:
        return x[:0]
    positions = (np.arange(len(x)) + rng.uniform()) / len(x) * cumulative[-1]
    return x[np.minimum(np.searchsorted(cumulative, positions, side="right"), len(x) - 1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Metric(abc.ABC):
    """A figure of draws against what is known of their target.

    **Attributes**

    - `name`: its key in the `metrics` of `result.json`.
    - `label`, `meaning`: what the reader is told, a few words and a sentence.
    - `applies`: whether it can be taken of a target.
    - `weighs`: whether log-weights enter as they are; else draws are resampled to equal weights.
    """

    name: str
    label: str
    meaning: str
    applies: Callable[[Target], bool]
    weighs: ClassVar[bool] = False

    @abc.abstractmethod
    def entry(self, judged: Judged) -> dict[str, Any] | None:
        """Its entry in `result.json`; None where nothing can be told."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampleMetric(Metric):
    """A metric between two sets of equally weighted draws; its floor is its value between two exact
    sets, by `floor.ratio`.

    **Attributes**

    - `function`: `(a, b) -> float` of two sets (size, dim), b exact; `sees_target` adds the keyword
      `target`. Called from threads.
    - `symmetric`: whether the sets may change places.
    - `size`: the most draws in a set, told by the target; as many as are asked for when not given.
    - `slow`: a call takes seconds, so that half as many repeats are taken.
    """

    function: Callable[..., float]
    applies: Callable[[Target], bool] = is_euclidean
    symmetric: bool = True
    sees_target: bool = False
    size: Callable[[Target], int] | None = None
    slow: bool = False

    def between(self, target: Target) -> Callable[..., float]:
        """The function `(a, b) -> float` for draws of this target."""
        return functools.partial(self.function, target=target) if self.sees_target else self.function

    def entry(self, judged: Judged) -> dict[str, Any] | None:
        """`{"value", "floor", "ratio", "ratio_std_error", "repeats", "size"}`."""
        target, x = judged.target, judged.equal()
        if len(x) == 0:
            return None if target.symmetry is not None else dict.fromkeys(NOTHING)
        size = judged.size if self.size is None else min(judged.size, self.size(target))
        repeats = max(2, judged.repeats // 2) if self.slow else judged.repeats
        options = {"size": size, "repeats": repeats, "name": self.name, "shared": judged.shared}
        return ratio(self.between(target), x, target.sample, judged.streams(self.name), **options).to_dict()
