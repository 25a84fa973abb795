"""Local moves, and climbs from far away, in coordinates in which known modes are round."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from allmodes.devices.blocks import batched_map
from allmodes.mcmc.mala import mala
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.frame import Frame
from allmodes.points.mixture import AT_A_TIME, GaussianMixture
from allmodes.search.ascent import ascend
from allmodes.search.slopes import by_differences, price
from allmodes.target import Evaluation, Target

FIRST = 1.5  # step of a move, in units in which a mode is round: over the cube root of the dimension
NEAREST, FARTHEST = 2.0, 64.0  # spreads of a component, at which climbs from beyond it begin
CLIMB, SETTLE = 60, 6  # most steps of such a climb; moves after it, of which half are remembered


class _Round(NamedTuple):
    """The coordinates of a component of a mixture for each point: there it is a standard normal."""

    target: Target
    frame: Frame
    mixture: GaussianMixture
    which: Int[Array, " n"]

    @property
    def _root(self) -> Float[Array, "n dim"]:
        return jnp.sqrt(self.mixture.variance[self.which])

    def to_z(self, y: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return self.mixture.mean[self.which] + self._along(self._root * y)

    def evaluate(self, y: Float[Array, "n dim"], distance: Float[Array, " n"]) -> Evaluation:
        if self.target.differentiable:
            e = self.frame.evaluate(self.target, self.to_z(y))
            return e._replace(grad=self._root * self._back(e.grad))

        def values(y, of):
            return self.frame.evaluate(self.target, self._replace(which=self.which[of]).to_z(y))

        return by_differences(values, y, distance)

    def of(self, points: Buffer) -> Buffer:
        """Points of the frame."""
        y = self._back(points.z - self.mixture.mean[self.which]) / self._root
        return Buffer(y, points.log_prob, self._root * self._back(points.grad))

    def to_frame(self, points: Buffer) -> Buffer:
        """Points of these coordinates."""
        return Buffer(self.to_z(points.z), points.log_prob, self._along(points.grad / self._root))

    def repeated(self, times: int) -> "_Round":
        return self._replace(which=jnp.tile(self.which, times))

    def _along(self, y: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return batched_map(lambda one: self.mixture.axes[one[0]] @ one[1], (self.which, y), AT_A_TIME)

    def _back(self, z: Float[Array, "n dim"]) -> Float[Array, "n dim"]:
        return batched_map(lambda one: one[1] @ self.mixture.axes[one[0]], (self.which, z), AT_A_TIME)


def move_in_shapes(
    target: Target, frame: Frame, mixture: GaussianMixture, points: Buffer, key: Array, steps: int, keep: int
) -> tuple[Buffer, Evaluations]:
    """Where the points are after each of the last `keep` of `steps` Langevin moves, and what these
    have cost.

    Each point moves in the coordinates in which the component that it began with is a standard
    normal: modes of any condition number are left behind in a few moves.
    """
    there = _Round(target, frame, mixture, mixture.component_of(points.z))
    return _moved(there, there.of(points), key, steps, keep, Evaluations.none(target.differentiable))


def climb_from_beyond(
    target: Target, frame: Frame, mixture: GaussianMixture, key: Array, size: int
) -> tuple[Buffer, Evaluations]:
    """Where climbs end that begin beyond the components, up to `FARTHEST` of their spreads away,
    and what they have cost.

    Modes that are narrow and lie along each other are a maze for gradients, but not in the
    coordinates in which one of them is round.
    """
    k_which, k_far, k_normal, k_climb, k_move = jax.random.split(key, 5)
    is_there = jnp.where(jnp.isfinite(mixture.log_share), 0.0, -jnp.inf)
    there = _Round(target, frame, mixture, jax.random.categorical(k_which, is_there, shape=(size,)))
    far = NEAREST * (FARTHEST / NEAREST) ** jax.random.uniform(k_far, (size, 1))
    y = far * jax.random.normal(k_normal, (size, mixture.mean.shape[1]))
    none = Evaluations.none(target.differentiable)
    c = ascend(there.evaluate, y, 0.25 * far[:, 0], CLIMB, none, k_climb, price(target))
    return _moved(there, c.points, k_move, SETTLE, SETTLE // 2, c.evaluations)


def _moved(
    there: _Round, points: Buffer, key: Array, steps: int, keep: int, spent: Evaluations
) -> tuple[Buffer, Evaluations]:
    first = jnp.full((points.size,), FIRST * points.z.shape[1] ** (-1.0 / 3.0))
    moved = mala(there.evaluate, points, first, key, steps, keep)
    spent = spent.add_points(price(there.target) * points.size * steps, moved.nan, moved.zero)
    return there.repeated(keep).to_frame(moved.passed), spent
