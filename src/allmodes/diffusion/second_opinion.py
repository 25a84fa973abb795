"""A second opinion on a trained sampler: climbs from starts that its search did not have, whose
ends it must explain.

All figures of a sampler's own draws are blind where it has no draw, and the points that it was
trained on know what its search knew. So once training is over some climbs begin anew, from a
low-discrepancy sequence over the region of the points, far beyond it, close to points of it, and
where the target says that its mass is. An end at which the density is far above what the sampler
has there (by a path that noises it, which takes no evaluation) may be a mode that was never met, or
was lost on the way. Most such ends are worth nothing: moves tell whether the density is high there
too, and a mixture fitted to these, by importance sampling, how much mass there is.

It cannot see what as many more starts of a search would not: a mode whose pull reaches one start in
a thousand, say.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.devices.compiled import program
from allmodes.diffusion.paths import Process
from allmodes.diffusion.programs import Programs
from allmodes.diffusion.sampler import FORWARD
from allmodes.draws.verdict import CORRECT, DO_NOT_USE, TRUSTED, Finding
from allmodes.mcmc.mala import first_steps, mala
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.points.mixture import GaussianMixture
from allmodes.search.ascent import Ascent
from allmodes.search.fitting import BADLY, UNEXPLAINED, fit_mixture
from allmodes.search.mass import REACH
from allmodes.search.moves import ascend_from, lowest_that_counts
from allmodes.search.slopes import evaluator, price
from allmodes.search.told import Told, where_told
from allmodes.target import Target

EACH, DEAR, FEW = 13, 20, 256  # evaluations of a climb, about; where there are more than so many
FEWEST, MOST = 32, 1024  # climbs: with fewer there is no second opinion
CLIMB = 40  # most steps of one
BEYOND, NEAR = 16.0, 1e-2  # extents of the points: as far out, and as close to a point, as climbs begin
WALKERS, WITHOUT = 32, 8  # that leave the highest ends that are not explained; where there is no gradient
MOVES, KEPT = 48, 24  # of each; points of the last ones are kept
HIGH = 0.25  # quantile of the points' log-density, above which a walker is where mass is
COMPONENTS, DRAWS = 16, 512  # of the mixture that is fitted to these, at most; of it
MISSING, MAYBE = 0.005, 0.0005  # shares of the mass: not to be used without; next to nothing below


class Opinion(eqx.Module):
    """What climbs from fresh starts have met; arrays only, as a part of a state."""

    step: Int[Array, ""]  # of training, after which it was formed; -1 where none was
    climbs: Int[Array, ""]  # that have ended where mass may be
    lost: Int[Array, ""]  # of them, where the sampler has next to nothing
    stay: Int[Array, ""]  # of those that were followed: how many stay there, as high as most points are
    share: Scalar  # of the mass, that is where those are
    std_error: Scalar  # of that, if the sampler's own log Z is right

    @staticmethod
    def none() -> "Opinion":
        """Not formed."""
        zero = jnp.zeros((), jnp.int32)
        return Opinion(zero - 1, zero, zero, zero, jnp.zeros(()), jnp.zeros(()))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What it says of all draws; nothing where it was not formed."""
        climbs, lost, share = int(self.climbs), int(self.lost), float(self.share)
        if not climbs:
            return ()
        if not lost:
            return (Finding(TRUSTED, f"none of {climbs:,} climbs from fresh starts ended in a region that it lacks"),)
        said = f"{lost:,} of {climbs:,} climbs from fresh starts ended where the sampler has next to nothing"
        if share < MISSING and int(self.stay):
            there = f"and {int(self.stay):,} stay where the density is as high as elsewhere"
            return (Finding(DO_NOT_USE, f"{said}, {there}"),)
        if not share >= MAYBE:
            return (Finding(TRUSTED, f"{said}, and so has the density, as far as a mixture fitted there tells"),)
        word = DO_NOT_USE if share >= MISSING else CORRECT
        return (Finding(word, f"{said}: a region with about {share:.1%} of the mass is missing"),)


class _Seen(NamedTuple):
    """A sampler as it is seen from points."""

    target: Target
    frame: Frame
    process: Process
    buffer: Buffer
    steps: int

    def is_lost(self, points: Buffer, key: Array) -> tuple[Bool[np.ndarray, " n"], float]:
        """At which points the sampler has next to nothing, beside the median of its weights at
        those that it was trained on; log Z as these tell it (`E[1 / w] = 1 / Z` over the target).

        Together with points of the buffer they fill the program that weighs points for every
        verdict, so that none is compiled for this.
        """
        n, more = points.size, FORWARD - points.size
        of_buffer = self.buffer.take(jnp.asarray(np.arange(more) * self.buffer.size // more))
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), points, of_buffer)
        ratio = Programs(self.target).noise(self.frame, self.process, key, both.z, self.steps)
        log_weight = np.asarray(ratio, np.float64) + np.asarray(both.log_prob, np.float64)
        known = log_weight[n:][np.isfinite(log_weight[n:])]
        far_above = np.median(known) + UNEXPLAINED + BADLY[1] * points.z.shape[1]
        log_z = np.log(len(known)) - float(np.logaddexp.reduce(-known))
        return ~(log_weight[:n] <= far_above) & np.isfinite(np.asarray(points.log_prob)), log_z


def second_opinion(
    target: Target,
    frame: Frame,
    process: Process,
    buffer: Buffer,
    step: int,
    *,
    evaluations: int,
    steps: int,
    key: Array,
) -> tuple[Opinion, Evaluations]:
    """The opinion of as many climbs as about so many evaluations allow, and what it has cost: more
    only where ends of climbs have to be looked into.

    `buffer`: the points that training ended with; `steps` of the paths that weigh a point.
    """
    none, cost = Evaluations.none(target.differentiable), price(target)
    count = max(min(FEW, _power_of_two(evaluations // (EACH * cost))), _power_of_two(evaluations // (DEAR * cost)))
    if count < FEWEST:
        return Opinion.none(), none
    k_start, k_climb, k_weigh, k_region = jax.random.split(key, 4)
    z, length = fresh_starts(np.asarray(buffer.z, np.float64), count, k_start, where_told(target, frame))
    climbed = program(_climb, target)(frame, jnp.asarray(z), jnp.asarray(length), k_climb)
    ends, spent = climbed.points, climbed.evaluations
    best = max(float(jnp.max(ends.log_prob)), float(jnp.max(buffer.log_prob)))
    arrived = np.asarray(climbed.settled) & (np.asarray(ends.log_prob) >= lowest_that_counts(best, z.shape[1]))
    seen = _Seen(target, frame, process, buffer, steps)
    lost = arrived & seen.is_lost(ends, k_weigh)[0]
    share, error, stay = 0.0, 0.0, 0
    if lost.any():
        share, error, stay, more = _mass_around(seen, ends, np.flatnonzero(lost), k_region)
        spent = jax.tree.map(jnp.add, spent, more)
    counts = (jnp.asarray(n, jnp.int32) for n in (step, arrived.sum(), lost.sum(), stay))
    return Opinion(*counts, jnp.asarray(share, jnp.float32), jnp.asarray(error, jnp.float32)), spent


def fresh_starts(
    z: Float[np.ndarray, "m dim"], n: int, key: Array, told: Told | None = None
) -> tuple[Float[np.ndarray, "n dim"], Float[np.ndarray, " n"]]:
    """A power of two of starts by Sobol's sequence, and the length of their first steps: half of
    them beyond the extent of the points, at all scales, or half of these where the target has told
    of its mass, an eighth close to a point, the others all over the extent.
    """
    from scipy.stats import norm, qmc  # takes its time to import

    dim, rng = z.shape[1], np.random.default_rng(np.asarray(jax.random.key_data(key)))
    u = qmc.Sobol(dim + 1, rng=rng).random(n)
    low, high = np.quantile(z, [1e-3, 1.0 - 1e-3], axis=0)
    middle, half = 0.5 * (low + high), 0.5 * REACH * np.maximum(high - low, 1e-6)
    # Each part is a run of the sequence: every second point of it has a coordinate in one half.
    part = 8 * np.arange(n) // n
    scale = np.select([part < 4, part < 7], [BEYOND ** u[:, 0], 1.0], NEAR ** u[:, 0])[:, None]
    around = np.where((part < 7)[:, None], middle, z[rng.integers(0, len(z), n)])
    starts, length = around + scale * half * (2.0 * u[:, 1:] - 1.0), np.mean(half) * scale[:, 0]
    if told is not None:
        is_told, normal = part < 2, norm.ppf(np.clip(u[:, 1:], 1e-6, 1.0 - 1e-6))
        starts = np.where(is_told[:, None], np.asarray(told.middle) + np.asarray(told.spread) * normal, starts)
        length = np.where(is_told, np.mean(told.spread), length)
    return starts.astype(np.float32), (0.05 * dim**0.5 * length).astype(np.float32)


def _power_of_two(most: int) -> int:
    """The largest that is at most `most`, and `MOST`."""
    return min(MOST, 2 ** int(np.log2(max(1, most))))


def _mass_around(
    seen: _Seen, ends: Buffer, which: Int[np.ndarray, " lost"], key: Array
) -> tuple[float, float, int, Evaluations]:
    """The share of the mass in the region that the sampler lacks around some ends, its standard
    error, how many of the highest ends stay in it where the density is high, and what that has
    cost.

    Where modes are no Gaussians a mixture that is fitted to a few points of many dimensions hits
    nothing, and shares are far too small: so it counts as well that moves do not leave the region.
    """
    k_move, k_stay, k_fit, k_draw, k_weigh = jax.random.split(key, 5)
    highest = which[np.argsort(-np.asarray(ends.log_prob)[which])]
    walkers = WALKERS if seen.target.differentiable else WITHOUT
    starts = ends.take(jnp.asarray(np.resize(highest, walkers)))
    moved, passed, spent = program(_settle, seen.target)(seen.frame, starts, k_move)
    high = np.asarray(moved.log_prob) >= np.quantile(np.asarray(seen.buffer.log_prob), HIGH)
    stay = (high & seen.is_lost(moved, k_stay)[0])[: len(which)]
    mixture = fit_mixture(passed, min(COMPONENTS, len(which)), k_fit)
    drawn, log_q, spent = program(_draw, seen.target)(seen.frame, mixture, k_draw, spent)
    lost, log_z = seen.is_lost(drawn, k_weigh)
    ratio = np.where(lost, np.asarray(drawn.log_prob, np.float64) - np.asarray(log_q, np.float64) - log_z, -np.inf)
    mass = np.exp(np.minimum(ratio, 700.0))
    mean, error = mass.mean(), mass.std() / len(mass) ** 0.5
    return mean / (1.0 + mean), error / (1.0 + mean) ** 2, int(stay.sum()), spent


def _climb(target: Target, frame: Frame, z: Float[Array, "n dim"], length: Float[Array, " n"], key: Array) -> Ascent:
    return ascend_from(target, frame, z, length, CLIMB, key)


def _settle(target: Target, frame: Frame, starts: Buffer, key: Array) -> tuple[Buffer, Buffer, Evaluations]:
    """The points after local moves, and after each of the last ones."""
    moved = mala(evaluator(target, frame), starts, first_steps(starts), key, MOVES, KEPT)
    none = Evaluations.none(target.differentiable)
    spent = none.add_points(price(target) * starts.size * MOVES, moved.nan, moved.zero)
    return moved.points, moved.passed, spent


def _draw(
    target: Target, frame: Frame, mixture: GaussianMixture, key: Array, spent: Evaluations
) -> tuple[Buffer, Float[Array, " n"], Evaluations]:
    z = mixture.sample(key, DRAWS)
    e = frame.evaluate(target, z)
    return Buffer.of(z, e), mixture.log_density(z), spent.add(e)
