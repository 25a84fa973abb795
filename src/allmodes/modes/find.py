"""The modes of weighted draws: which draws are of one, found by climbs from few of them.

Most of the work costs no evaluation: each draw hangs on the nearest one that is higher (`links`).
From the draws that are the highest around them, from those that lie alone and from some at random
gradients are climbed; ends that are one peak, or that no barrier parts, are one mode, and all other
draws are of the mode of what they hang on. Then the same again, in units of the spread within
modes, in which they are further apart. All this is in free coordinates, on a circle modulo its
period.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from allmodes.devices.precision import double, single
from allmodes.draws.draws import Draws
from allmodes.errors import ConfigError
from allmodes.modes.ascent import Ends, ascent
from allmodes.modes.links import Links, followed, links, nearest_of, roots
from allmodes.modes.peaks import MOST_PEAKS, SAME, Barrier, barrier, distinct, merged
from allmodes.points.frame import Frame
from allmodes.points.weighted import normalised
from allmodes.target import Target

LINKED = 5000  # draws that are linked; others are of the mode of the nearest of them
SURE, MORE, ALONE, CHECKED = 16, 16, 16, 32  # draws that are climbed from: see `roots`; and at random
LATER, AT_A_TIME = 32, 16  # steps of climbs that are not there after the first 24; how many go on together
NEIGHBOURS = 3  # peaks between which barriers are looked for, of each
STRAY = 4.0  # times the surroundings of the nearest draw, beyond which a point is of no mode


class Found(NamedTuple):
    """The mode of each draw, -1 of those without mass; modes in no order.

    **Attributes**: `label` `(n,)`; of each mode its `peak`, in free coordinates, and the user's
    `log_prob` there; `points` `(m,)`: the mode of each of the other points, -1 of what lies near no
    draw; `evaluations`; `checked` draws taken at random, of which `misplaced` climbed to another
    mode than the links had said.
    """

    label: Int[np.ndarray, " n"]
    peak: Float[np.ndarray, "modes free"]
    log_prob: Float[np.ndarray, " modes"]
    points: Int[np.ndarray, " m"] | None
    evaluations: int
    checked: int
    misplaced: int


class _Space(NamedTuple):
    """Free coordinates of unit spread in which the draws are, with the density over them, on a
    circle the same in all turns.
    """

    target: Target
    frame: Frame
    periods: Float[np.ndarray, " free"]  # in the frame; 0 of what is no circle

    def features(self, z: Float[np.ndarray, "n free"]) -> Float[np.ndarray, "n features"]:
        """What is near is near by these: a circle is one, of the same length in the plane."""
        z, wound = np.asarray(z, np.float64), self.periods > 0.0
        radius = self.periods[wound] / (2.0 * np.pi)
        angle = z[:, wound] / radius
        return np.concatenate([z[:, ~wound], radius * np.cos(angle), radius * np.sin(angle)], axis=1)

    def fall(self) -> Barrier:
        """How far the density falls between points, by the shorter way around a circle."""
        straight, safe = barrier(self.target, self.frame), np.where(self.periods > 0.0, self.periods, np.inf)

        def run(a: Float[np.ndarray, "n free"], b: Float[np.ndarray, "n free"]) -> Float[np.ndarray, " n"]:
            turns = np.where(self.periods > 0.0, self.periods * np.round((b - a) / safe), 0.0)
            return straight(a, np.asarray(b - turns, np.float32))

        return run


@single
def find(target: Target, draws: Draws, key: Array, points: Float[Array, "m free"] | None = None) -> Found:
    """The modes of draws of a target, and those of other points in free coordinates.

    **Raises** `ConfigError` for particles, for draws of another dimension or without their free
    coordinates, and where no draw has any mass.
    """
    z, log_prob = _free(target, draws)
    w = normalised(np.asarray(draws.log_weight))
    counts = np.flatnonzero((w > 0.0) & np.isfinite(log_prob) & np.isfinite(z).all(axis=1))
    if not len(counts):
        raise ConfigError("no draw has any mass under the target: there is no mode")
    space = _space(target, z[counts], log_prob[counts], w[counts])
    unit = np.asarray(space.frame.to_z(jnp.asarray(z[counts])))
    keys = jax.random.split(key)
    kept = _kept(unit, log_prob[counts], keys[0])
    chosen, height, share = unit[kept], log_prob[counts][kept], w[counts][kept]
    places, checked = space.features(unit[kept]), _checked(share, keys[1])
    link = links(places)
    root = roots(link, SURE, MORE, ALONE)
    start = np.union1d(root, checked)
    ends, spent = _climbed(space, link, chosen, height, start)
    mode, tops, more = _modes(space, ends)
    label, spent, unit_of = _told(link, start, mode), spent + more, np.ones(places.shape[1])
    if mode.max() > 0:  # modes are further apart where each is of unit spread, not all of them together
        unit_of = _within(places, share, label)
        places = places / unit_of
        link = links(places)
        new = np.setdiff1d(np.flatnonzero(link.lower >= SURE), start)
        if len(new):
            others, more = _climbed(space, link, chosen, height, new)
            ends = Ends(*(np.concatenate(both) for both in zip(ends, others, strict=True)))
            start, root, spent = np.concatenate([start, new]), np.union1d(root, new), spent + more
            mode, tops, more = _modes(space, ends)
            spent += more
        label = _told(link, start, mode)
    without = np.isin(start, root)
    misplaced = int(np.sum(_told(link, start[without], mode[without])[checked] != label[checked]))
    of_all = np.full(len(counts), -1)
    of_all[kept] = label
    others = np.flatnonzero(of_all < 0)
    of_all[others] = label[nearest_of(space.features(unit[others]) / unit_of, places)[0]]
    whole = np.full(len(z), -1)
    whole[counts] = of_all
    return Found(
        whole,
        np.asarray(space.frame.to_x(jnp.asarray(ends.z[tops])), float),
        _users(target, space, ends, tops),
        None if points is None else _of_points(space, points, places, unit_of, link, label),
        spent,
        len(checked),
        misplaced,
    )


def _free(target: Target, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Free coordinates of the draws, on a circle in the first turn, and the log-density over these
    with all turns alike.
    """
    if target.symmetry is not None:
        raise ConfigError(
            f"modes of particles are not told apart ({target.name}): copies by symmetry are one, and a liquid has more "
            "minima than draws. `allmodes audit` compares basins modulo symmetry"
        )
    if draws.x.shape[1] != target.dim:
        raise ConfigError(f"draws have {draws.x.shape[1]} coordinates, the target {target.dim}")
    if target.chart is None:
        return np.asarray(draws.x), np.asarray(draws.log_prob, float)
    if draws.free is None:
        raise ConfigError("draws of a target with bounds need their free coordinates: give those of sampler.sample")
    chart = target.chart
    with double(target.double):
        z, volume = jax.jit(jax.vmap(lambda z: _in_first_turn(chart, z)))(draws.free)
    return np.asarray(z), np.asarray(draws.log_prob, float) + np.asarray(volume, float)


def _in_first_turn(chart: Any, z: Float[Array, " free"]) -> tuple[Float[Array, " free"], Array]:
    z = chart.first_turn(z)
    return z, chart.log_volume(z) - chart.log_turns(z)


def _space(target: Target, z: np.ndarray, log_prob: np.ndarray, w: np.ndarray) -> _Space:
    """The frame of the draws' own mean and spread."""
    double_z, share = np.asarray(z, np.float64), w / w.sum()
    mean = share @ double_z
    spread = np.sqrt(share @ (double_z - mean) ** 2)
    spread = np.where(spread > 0.0, spread, 1.0)
    chart, free = target.chart, target.unwound
    frame = Frame.of(free, mean, spread, float(log_prob.max()))
    periods = np.zeros(z.shape[1]) if chart is None else chart.periods / np.asarray(frame.scale, float)
    return _Space(free, frame, periods)


def _kept(z: np.ndarray, log_prob: np.ndarray, key: Array) -> Int[np.ndarray, " k"]:
    """Distinct draws, highest first, no more than are linked."""
    first = np.unique(z, axis=0, return_index=True)[1]
    if len(first) > LINKED:
        first = first[np.asarray(jax.random.permutation(key, len(first)))[:LINKED]]
    return first[np.argsort(-log_prob[first], kind="stable")]


def _checked(w: np.ndarray, key: Array) -> Int[np.ndarray, " k"]:
    """Some draws at random, by their weights."""
    places = (np.arange(CHECKED) + float(jax.random.uniform(key))) / CHECKED
    share = np.cumsum(w)
    return np.unique(np.minimum(np.searchsorted(share / share[-1], places), len(w) - 1))


def _climbed(
    space: _Space, link: Links, z: np.ndarray, log_prob: np.ndarray, start: Int[np.ndarray, " k"]
) -> tuple[Ends, int]:
    """Where climbs from some draws end, and the evaluations; where the density has no gradient, the
    draws themselves.
    """
    if not space.target.differentiable:
        in_frame = log_prob[start] + float(space.frame.log_det) - space.frame.constant
        return Ends(z[start], in_frame, in_frame, np.zeros(len(start))), 0
    narrow = float(np.min(link.near[start]))
    climb = ascent(space.target, space.frame, max(narrow, 1e-6), LATER, AT_A_TIME)
    return climb(z[start])


def _modes(space: _Space, ends: Ends) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " modes"], int]:
    """The mode of each end, the highest end of each mode, and the evaluations."""
    order = np.argsort(-ends.log_prob, kind="stable")
    ranked = ends.take(order)
    features = space.features(ranked.z).astype(np.float32)
    radius = (SAME * ranked.width).astype(np.float32)
    alive: Bool[np.ndarray, " k"] = np.isfinite(ranked.log_prob)
    owner, index, count = distinct(features, radius, alive, min(MOST_PEAKS, len(order)))
    index = np.asarray(index)[: int(count)]
    group, spent = merged(ranked.z[index], space.fall(), features[index], NEIGHBOURS)
    mode = np.empty(len(order), int)
    mode[order] = group[np.asarray(owner)]
    tops = np.full(group.max() + 1, -1)
    for i in range(len(index) - 1, -1, -1):  # the highest is the last that is written
        tops[group[i]] = order[index[i]]
    return mode, tops, spent


def _users(target: Target, space: _Space, ends: Ends, tops: Int[np.ndarray, " modes"]) -> Float[np.ndarray, " modes"]:
    """The user's log-density at the peaks, where the density over free coordinates is highest."""
    value = ends.log_prob[tops] - float(space.frame.log_det) + space.frame.constant
    if target.chart is None:
        return value
    chart = target.chart
    with double(target.double):
        z = space.frame.to_x(jnp.asarray(ends.z[tops]))
        volume = jax.jit(jax.vmap(lambda one: _in_first_turn(chart, one)[1]))(z)
    return value - np.asarray(volume, float)


def _told(link: Links, start: Int[np.ndarray, " k"], mode: Int[np.ndarray, " k"]) -> Int[np.ndarray, " n"]:
    """The mode of each draw, where those of some are known."""
    label = np.full(len(link.parent), -1)
    label[start] = mode
    return followed(link, label)


def _within(places: np.ndarray, w: Float[np.ndarray, " n"], label: Int[np.ndarray, " n"]) -> Float[np.ndarray, " d"]:
    """The spread of each coordinate around the mean of its mode."""
    mass = np.maximum(np.bincount(label, w), 1e-300)[:, None]
    mean = np.stack([np.bincount(label, w * column) for column in places.T], axis=1) / mass
    spread = np.sqrt((w / w.sum()) @ (places - mean[label]) ** 2)
    return np.where(spread > 0.0, spread, 1.0)


def _of_points(
    space: _Space,
    points: Float[Array, "m free"],
    places: np.ndarray,
    unit_of: np.ndarray,
    link: Links,
    label: np.ndarray,
) -> Int[np.ndarray, " m"]:
    unit = np.asarray(space.frame.to_z(points))
    index, distance = nearest_of(space.features(unit) / unit_of, places)
    return np.where(distance <= STRAY * link.near[index], label[index], -1)
