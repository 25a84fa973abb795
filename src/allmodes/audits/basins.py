"""The basins of a density, as a pool of points shows them, and the basin of any other point."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.metrics.distances import distances
from allmodes.modes.ascent import Ends, ascent
from allmodes.modes.peaks import BARRIER, MOST_PEAKS, SAME, Barrier, barrier, cost, distinct, merged
from allmodes.points.frame import Frame
from allmodes.points.segments import nearest
from allmodes.target import Target

MOST_BASINS = 200
TRIED = 2  # nearest peaks that an end away from all of them is joined to, where there is no barrier
MARGIN = 10.0  # of log-density, and one for each dimension: how far below its known points a basin ends
ALIKE, LEVEL = 0.02, 0.5  # particles: of the mean distance, root mean square; of the log-density


@dataclasses.dataclass(frozen=True)
class Basins:
    """Peaks and the basin that each belongs to; basins by falling share of the pool, `count` of
    them.

    **Attributes**: `peaks` `(peaks, free)` in the frame, their `heights`; `places` and `radius`, in
    the coordinates in which peaks are compared; `group`, each one's basin, `count` for those beyond
    the most that are told apart; `floor` `(count + 1,)`, the log-density below which a point is so
    far from a basin's mass that it does not count as of it.
    """

    frame: Frame
    peaks: Float[np.ndarray, "peaks free"]
    heights: Float[np.ndarray, " peaks"]
    places: Float[np.ndarray, "peaks features"]
    radius: Float[np.ndarray, " peaks"]
    group: Int[np.ndarray, " peaks"]
    floor: Float[np.ndarray, " basins"]
    count: int
    left_out: int  # basins that were found and are pooled with what belongs to none
    climb: Callable[[Float[np.ndarray, "n free"]], tuple[Ends, int]]
    fall: Barrier

    def top(self) -> Int[np.ndarray, " basins"]:
        """The highest peak of each basin."""
        order = np.argsort(-self.heights, kind="stable")
        return order[np.unique(self.group[order], return_index=True)[1]][: self.count]

    def label(self, z: Float[np.ndarray, "n free"] | Array) -> tuple[Int[np.ndarray, " n"], int]:
        """The basin of each point of the frame, `count` for none of them; and the evaluations."""
        ends, spent = self.climb(np.asarray(z))
        index, more = self.match(ends)
        return index, spent + more

    def match(self, ends: Ends) -> tuple[Int[np.ndarray, " n"], int]:
        """The basin of each end of an ascent: that of the nearest peak, where it is that or nothing
        parts the two.

        Of what began below the basin's floor none: all of a density with one peak is one basin, and
        a sampler that is beside its mass must be seen to be so.
        """
        k = min(TRIED, len(self.peaks))
        features = _features(ends, self.frame, self._alike)
        distance, index = map(np.asarray, nearest(features, self.places, k))
        alive, spent = np.isfinite(ends.log_prob), 0
        there = alive & (distance[:, 0] <= 2.0 * self.radius[index[:, 0]])
        label = np.where(there, self.group[index[:, 0]], self.count)
        if self.frame.symmetry is None:
            for near in index.T:
                away = np.flatnonzero(alive & ~there)
                low = self.fall(ends.z[away], self.peaks[near[away]]) < BARRIER
                spent += cost(len(away))
                label[away[low]] = self.group[near[away[low]]]
                there[away[low]] = True
        return np.where(ends.began >= self.floor[label], label, self.count), spent

    @property
    def _alike(self) -> float:
        return float(self.radius[0])


def find_basins(
    target: Target,
    frame: Frame,
    narrow: float,
    z: Float[np.ndarray, "n free"],
    weight: Float[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
) -> tuple[Basins, Int[np.ndarray, " n"], int]:
    """The basins that the points of a pool lie in, each point's basin, and the evaluations.

    `weight` ranks basins: at most 200 are told apart, the heaviest. Peaks of particles that differ
    by a symmetry are one: they are compared by log-density and sorted interatomic distances, and
    not joined over barriers. `known` are the points that are about draws of the target: they say
    how far down a basin's mass goes.
    """
    climb, fall = ascent(target, frame, narrow), barrier(target, frame)
    ends, spent = climb(z)
    order = np.argsort(-ends.log_prob, kind="stable")
    ends, weight, known = ends.take(order), weight[order], known[order]
    if frame.symmetry is None:
        alike, radius = 0.0, SAME * ends.width
    else:
        alike = ALIKE * float(np.sqrt(np.mean(_distances(ends.z[:1], frame) ** 2)))
        radius = np.full(len(ends.z), alike)
    features, alive = _features(ends, frame, alike), np.isfinite(ends.log_prob)
    owner, index, found = distinct(features, radius.astype(np.float32), alive, min(MOST_PEAKS, len(z)))
    owner, index = np.asarray(owner), np.asarray(index)[: int(found)]
    group = np.arange(len(index))
    if frame.symmetry is None:
        group, more = merged(ends.z[index], fall)
        spent += more
    everything = int(group.max()) + 1
    whole = Basins(
        frame, ends.z[index], ends.log_prob[index], features[index], radius[index], group,
        np.full(everything + 1, -np.inf), everything, 0, climb, fall,
    )  # fmt: skip
    label = np.where(owner >= 0, group[owner], everything)
    if (late := np.flatnonzero((owner < 0) & alive)).size:
        label[late], more = whole.match(ends.take(late))
        spent += more
    share = np.bincount(label, weight, minlength=everything + 1)[:everything]
    rank = np.empty(everything, int)
    rank[np.argsort(-share, kind="stable")] = np.arange(everything)
    kept = min(everything, MOST_BASINS)
    rank = np.append(np.minimum(rank, kept), kept)
    label = rank[label]
    floor = _floors(ends, label, known, kept, z.shape[1])
    label = np.where(ends.began >= floor[label], label, kept)
    basins = dataclasses.replace(whole, group=rank[group], floor=floor, count=kept, left_out=everything - kept)
    back = np.empty_like(label)
    back[order] = label
    return basins, back, spent


def _floors(
    ends: Ends, label: Int[np.ndarray, " n"], known: Bool[np.ndarray, " n"], count: int, dim: int
) -> Float[np.ndarray, " basins"]:
    """For each basin the lowest log-density of a known point in it, or its peak's where there is
    none, less a margin.

    Hardly a draw of a Gaussian lies below: half a chi-squared below its peak, of which few known
    points show a part.
    """
    lowest, highest = np.full(count + 1, np.inf), np.full(count + 1, -np.inf)
    np.minimum.at(lowest, label[known], ends.began[known])
    np.maximum.at(highest, label, ends.log_prob)
    floor = np.minimum(lowest, highest - 0.5 * dim) - (MARGIN + dim)
    floor[-1] = -np.inf
    return floor


def _distances(z: Float[np.ndarray, "n free"], frame: Frame) -> Float[np.ndarray, "n pairs"]:
    """Sorted interatomic distances."""
    return np.sort(distances(frame.to_x(jnp.asarray(z)), frame.symmetry), axis=1)


def _features(ends: Ends, frame: Frame, alike: float) -> Float[np.ndarray, "n features"]:
    """What peaks are compared by: their place; of particles, log-density and distances, `alike`
    being one unit.
    """
    if frame.symmetry is None:
        return ends.z
    sorted_distances = _distances(ends.z, frame)
    height = np.nan_to_num(ends.log_prob, neginf=-1e30)[:, None] * (alike / LEVEL)
    scaled = sorted_distances / np.sqrt(sorted_distances.shape[1])
    return np.concatenate([scaled, height], axis=1).astype(np.float32)
