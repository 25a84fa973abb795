"""How complete a search is, by starts that have ended where no other has.

Two ends are of one basin if nothing lies between them: each is compared with its nearest neighbours
by the density half way. Of a basin without a second mode that is nowhere below both, however far
apart they are in many dimensions.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.devices.compiled import program
from allmodes.draws.verdict import CORRECT, TRUSTED, Finding
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.search.moves import has_arrived
from allmodes.target import Target

NEIGHBOURS = 3  # of an end that are tried, the nearest first
VALLEY = 1.0  # nats that half way may be below both ends
PEAK = 3.0  # nats that it may be below their mean: the flank of a wide mode is no way to a high and narrow one
INCOMPLETE = 0.1  # chance of a new basin, above which modes are likely to be missing
BLOCK = 32  # half ways that are evaluated together: the last block is filled up, in vain


class Basins:
    """The ends of independent starts so far, and which of them have another in their basin."""

    def __init__(self, target: Target, box: Frame):
        self.target, self.box = target, box
        self.starts, self.evaluations = 0, Evaluations.none(target.differentiable)
        self._z = np.zeros((0, target.free_dim), np.float32)
        self._log_prob = np.zeros(0, np.float32)
        self._linked = np.zeros(0, bool)

    @property
    def alone(self) -> int:
        """How many starts have ended in basins of their own, among those that have arrived beside
        the best of all.
        """
        return int(np.sum(self._candidates))

    @property
    def _candidates(self) -> Bool[np.ndarray, " n"]:
        best = float(np.max(self._log_prob, initial=-np.inf))
        return ~self._linked & has_arrived(self._log_prob, self._z.shape[1], best)

    @property
    def chance_of_new(self) -> float:
        """Upper bound of the chance that the next start ends in a basin that none has ended in."""
        return chance_of_new(self.alone, self.starts)

    def add(self, ends: Buffer, arrived: Bool[Array, " n"]) -> None:
        """Take note of more starts, of which some have arrived where mass may be, and look half way
        to the neighbours of those that are alone.
        """
        arrived = np.asarray(arrived)
        self.starts += len(arrived)
        self._z = np.concatenate([self._z, np.asarray(ends.z)[arrived]])
        self._log_prob = np.concatenate([self._log_prob, np.asarray(ends.log_prob)[arrived]])
        self._linked = np.concatenate([self._linked, np.zeros(arrived.sum(), bool)])
        candidates = np.flatnonzero(self._candidates)
        if len(self._z) < 2 or not len(candidates):
            return
        near = _nearest(self._z, candidates, min(NEIGHBOURS, len(self._z) - 1))
        for rank in range(near.shape[1]):
            left = ~self._linked[candidates]
            a, b = candidates[left], near[left, rank]
            if not len(a):
                return
            half_way = self._values(0.5 * (self._z[a] + self._z[b]))
            of_a, of_b = self._log_prob[a], self._log_prob[b]
            same = (half_way >= np.minimum(of_a, of_b) - VALLEY) & (half_way >= 0.5 * (of_a + of_b) - PEAK)
            self._linked[a[same]] = self._linked[b[same]] = True

    def _values(self, z: Float[np.ndarray, "n dim"]) -> Float[np.ndarray, " n"]:
        """The log-density, in whole blocks, so that one program serves any number of points."""
        padded = z[np.arange(-(-len(z) // BLOCK) * BLOCK) % len(z)]
        self.evaluations = self.evaluations.add_points(len(padded), 0, 0, gradient=False)
        values = program(_values, self.target)
        blocks = [np.asarray(values(self.box, jnp.asarray(one))) for one in padded.reshape(-1, BLOCK, z.shape[1])]
        return np.concatenate(blocks)[: len(z)]


def _values(target: Target, box: Frame, z: Float[Array, "n dim"]) -> Float[Array, " n"]:
    return box.values(target, z)


def _nearest(z: Float[np.ndarray, "n dim"], which: Int[np.ndarray, " m"], count: int) -> Int[np.ndarray, "m count"]:
    """The nearest neighbours of some of the points, nearest first."""
    from scipy.spatial import KDTree  # takes its time to import

    return KDTree(z).query(z[which], count + 1)[1][:, 1:].reshape(len(which), count)


def chance_of_new(once: int, starts: int) -> float:
    """Upper bound of the chance that the next start ends in a basin that none has ended in, by the
    number of basins that one start has: above the estimate of Good (1953) by twice the root of that
    number. Of unequal basins it holds nine times in ten. It speaks of starts, not of mass.
    """
    return (once + 2.0 * (once + 1.0) ** 0.5) / starts


def of_product() -> tuple[Finding, ...]:
    """What is said of a search's completeness where the base is a product of coordinates."""
    text = "no coordinate minds the others: the modes are all that those of single coordinates make together"
    return (Finding(TRUSTED, text),)


def of_starts(starts: int, alone: int) -> tuple[Finding, ...]:
    """What a search says of its completeness, by so many starts, of which some ended in basins of
    their own; nothing where none was counted.
    """
    if not starts:
        return ()
    chance = min(1.0, chance_of_new(alone, starts))
    said = f"{alone:,} of {starts:,} starts of the search ended where no other did"
    if chance > INCOMPLETE:
        text = f"up to {chance:.0%} of further starts would end in basins not seen: search more (search.starts)"
        return (Finding(CORRECT, f"{said}: {text}"),)
    return (Finding(TRUSTED, f"{said}: a mode that fewer than 1 in {1.0 / chance:,.0f} starts end in may be missing"),)
