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
from allmodes.diffusion.corrections import Chains, Correction, correction_of
from allmodes.draws.doubt import Forward
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import forward_ess
from allmodes.errors import ConfigError
from allmodes.methods.cmcd.annealing import Annealing, Learned
from allmodes.methods.cmcd.path import walk, walk_back
from allmodes.points.frame import Frame
from allmodes.sampler import Sampler
from allmodes.target import Target

FORWARD = 256  # points of the search that see the sampler


@dataclasses.dataclass(frozen=True, eq=False)
class AnnealedSampler(Sampler):
    """Draws cost a value and a gradient of the density for each step of their paths."""

    options = frozenset({"correct", "moves", "pool"})

    def sample(
        self,
        n: int,
        *,
        key: Key,
        correct: str | Correction | None = None,
        moves: int | None = None,
        pool: int | None = None,
    ) -> Draws:
        """N independent draws with exact path weights; `n path_steps` evaluations, and with the
        first draws those of the paths by which points of the search see the sampler.

        `correct`: `"snis"` smooths the weights, `"mcmc"` makes chains of Hamiltonian `moves` of
        draws that are resampled by their weights out of at most `pool` for each (`Chains`).

        **Raises** `ConfigError` when n is below 1, or the correction is unknown or needs the paths
        of a diffusion.
        """
        self.check(n)
        if correct is not None:
            return correction_of(correct, moves=moves, pool=pool)(self, n, key=key)
        keys, size = blocks.blocks_of(key, n)
        parts = [program(_draw, self.target, static=(4,))(*self._learned, k, size) for k in keys]
        x, log_prob, log_weight = (jnp.concatenate(part)[:n] for part in zip(*parts, strict=True))
        spent = 0 if "forward" in vars(self) else FORWARD * (self.steps - 1)
        doubt = self.forward.doubt(np.asarray(log_weight, np.float64) - self.frame.constant)
        return Draws(
            x, log_prob, log_weight, spent + n * self.steps, parameters=self.target.parameters,
            forward_ess=self.forward.ess, doubt=doubt,
        )  # fmt: skip

    def corrected(self, n: int, *, key: Key, pool: int | None = None) -> Draws:
        """`sample` with `correct="mcmc"`."""
        return Chains(pool=pool)(self, n, key=key)

    @property
    def steps(self) -> int:
        """Steps of the path of a draw."""
        return self.method.path_steps

    @property
    def frame(self) -> Frame:
        """The unit-scale coordinates that paths are in."""
        return self.state.frame

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
