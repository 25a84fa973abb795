"""The sampler of controlled annealing: independent paths, whose weights are exact."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.devices.keys import Key
from allmodes.devices.precision import single
from allmodes.diffusion import blocks
from allmodes.draws.doubt import Forward
from allmodes.draws.estimates import forward_ess
from allmodes.errors import ConfigError
from allmodes.methods.cmcd.annealing import Annealing, Learned
from allmodes.methods.cmcd.path import walk, walk_back
from allmodes.methods.independent import IndependentSampler
from allmodes.points.frame import Frame
from allmodes.target import Target

FORWARD = 256  # points of the search that see the sampler


@dataclasses.dataclass(frozen=True, eq=False)
class AnnealedSampler(IndependentSampler):
    """Draws cost a value and a gradient of the density for each step of their paths."""

    @property
    def steps(self) -> int:
        """Steps of the path of a draw."""
        return self.method.path_steps

    @property
    def price(self) -> int:
        """Evaluations of a draw: one for each step."""
        return self.steps

    def look_forward(self) -> tuple[Forward, int]:
        """Give `forward`, and the evaluations that it took now: none where it was known."""
        spent = 0 if "forward" in vars(self) else FORWARD * (self.steps - 1)
        return self.forward, spent

    def _draw(self, key: Array, n: int) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
        return program(_draw, self.target, static=(4,))(*self._learned, key, n)

    @property
    def _learned(self) -> tuple[Frame, Learned, Float[Array, " dim"]]:
        return self.frame, self.state.average, self.state.narrowest

    @functools.cached_property
    @single
    def forward(self) -> Forward:
        """What points of the search see of the sampler, by paths that lead back from them;
        `path_steps - 1` evaluations each, as their gradients are known.
        """
        buffer = self.state.buffer
        some = np.random.default_rng(0).permutation(buffer.size)[:FORWARD]  # copies stand at regular distances
        points = buffer.take(jnp.asarray(np.resize(some, FORWARD)))
        log_ratio = program(_back, self.target)(*self._learned, jax.random.key(0), points.z, points.grad)
        log_weight = np.asarray(log_ratio + points.log_prob, np.float64)
        return Forward(log_weight, forward_ess(log_weight), len(np.unique(np.asarray(points.z), axis=0)))

    def log_weights(self, x: Float[Array, "n dim"], *, key: Key) -> Float[Array, " n"]:
        """Path weights of given points, by paths that lead back from them; `n path_steps`
        evaluations.

        **Raises** `ConfigError` when there is no point.
        """
        if not len(x):
            raise ConfigError("log_weights needs at least 1 point, got 0")
        weigh = program(_weigh, self.target)
        parts = [weigh(*self._learned, jax.random.fold_in(key, i), b) for i, b in enumerate(blocks.points_of(x))]
        return jnp.concatenate(parts)[: len(x)]


def _draw(
    target: Target, frame: Frame, learned: Learned, narrowest: Array, key: Array, n: int
) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
    """Draws in the user's coordinates, their log-densities and their log-weights."""
    path = walk(Annealing.of(learned, narrowest), functools.partial(frame.evaluate, target), key, n)
    log_weight = path.log_ratio + path.log_prob
    return frame.to_x(path.z), frame.log_prob(path.log_prob), frame.total(log_weight)


def _back(
    target: Target, frame: Frame, learned: Learned, narrowest: Array, key: Array, z: Array, grad: Array
) -> Float[Array, " n"]:
    evaluate = functools.partial(frame.evaluate, target)
    return walk_back(Annealing.of(learned, narrowest), evaluate, key, z, grad)


def _weigh(
    target: Target, frame: Frame, learned: Learned, narrowest: Array, key: Array, x: Float[Array, "n dim"]
) -> Float[Array, " n"]:
    z = frame.to_z(x)
    e = frame.evaluate(target, z)
    return frame.total(_back(target, frame, learned, narrowest, key, z, e.grad) + e.log_prob)
