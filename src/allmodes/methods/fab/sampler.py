"""The sampler of a trained flow: independent draws, whose density is known."""

import dataclasses
import functools
from typing import Any

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
from allmodes.draws.draws import Draws, LogDensity
from allmodes.draws.estimates import forward_ess
from allmodes.errors import ConfigError
from allmodes.methods.fab.flow import CouplingFlow
from allmodes.points.frame import Frame
from allmodes.sampler import Sampler
from allmodes.target import Target

FORWARD = 2048  # draws of the buffer that see the sampler


@dataclasses.dataclass(frozen=True, eq=False)
class FlowSampler(Sampler):
    """Draws cost one pass through the flow, and one value of the density each for their weights."""

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
        """N independent draws of the flow, with exact weights: the density over that of the flow;
        n evaluations.

        `correct`: `"snis"` smooths the weights, `"mcmc"` makes chains of Hamiltonian `moves` of
        draws that are resampled by their weights out of at most `pool` for each (`Chains`).

        **Raises** `ConfigError` when n is below 1, or the correction is unknown or needs paths.
        """
        self.check(n)
        if correct is not None:
            return correction_of(correct, moves=moves, pool=pool)(self, n, key=key)
        keys, size = blocks.blocks_of(key, n)
        parts = [program(_draw, self._flow, self.target, static=(3,))(*self._learned, k, size) for k in keys]
        x, log_prob, log_weight = (jnp.concatenate(part)[:n] for part in zip(*parts, strict=True))
        doubt = self.forward.doubt(np.asarray(log_weight, np.float64) - self.frame.constant)
        return Draws(
            x, log_prob, log_weight, n, parameters=self.target.parameters, forward_ess=self.forward.ess, doubt=doubt
        )

    def corrected(self, n: int, *, key: Key, pool: int | None = None) -> Draws:
        """`sample` with `correct="mcmc"`."""
        return Chains(pool=pool)(self, n, key=key)

    @property
    def frame(self) -> Frame:
        """The unit-scale coordinates that the flow is in."""
        return self.state.frame

    @property
    def _flow(self) -> CouplingFlow:
        return self.method.flow

    @property
    def _learned(self) -> tuple[Frame, Float[Array, " parameters"]]:
        return self.frame, self.state.average

    @functools.cached_property
    @single
    def forward(self) -> Forward:
        """What draws of the buffer, by their weight towards the target, see of the flow; no
        evaluations.
        """
        replay = self.state.replay
        index = replay.of_target(jax.random.key(0), FORWARD)
        log_q = program(_log_q, self._flow)(self.state.average, replay.z[index])
        log_weight = np.asarray(replay.log_prob[index] - log_q, np.float64)
        return Forward(log_weight, forward_ess(log_weight), len(np.unique(np.asarray(index))))

    def log_weights(self, x: Float[Array, "n dim"], *, key: Key | None = None) -> Float[Array, " n"]:
        """Weights of given points: the density over that of the flow; n evaluations.

        **Raises** `ConfigError` when there is no point.
        """
        weigh = program(_weigh, self._flow, self.target)
        return self._at(x, lambda block: weigh(*self._learned, block))

    def log_density(self, x: Float[Array, "n dim"], *, key: Key | None = None) -> LogDensity:
        """Log-density of the flow at given points, exact: that which its draws have. For particles
        it is with respect to the volume of the mean-free subspace. No evaluation of the density.

        **Raises** `ConfigError` when there is no point.
        """
        density = program(_log_density, self._flow)
        log_density = self._at(x, lambda block: density(*self._learned, block))
        return LogDensity(log_density, jnp.zeros(len(x)))

    def _at(self, x: Float[Array, "n dim"], function: Any) -> Float[Array, " n"]:
        if not len(x):
            raise ConfigError("there must be at least 1 point, got 0")
        return jnp.concatenate([function(block) for block in blocks.points_of(x)])[: len(x)]


def _draw(
    settings: CouplingFlow, target: Target, frame: Frame, parameters: Array, key: Array, n: int
) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
    """Draws in the user's coordinates, their log-densities and their log-weights."""
    z, log_q = settings.at(target.free_dim, parameters).sample(key, n)
    log_prob = frame.values(target, z)
    return frame.to_x(z), frame.log_prob(log_prob), frame.total(log_prob - log_q)


def _log_q(settings: CouplingFlow, parameters: Array, z: Float[Array, "n free"]) -> Float[Array, " n"]:
    return settings.at(z.shape[1], parameters).log_prob(z)


def _log_density(
    settings: CouplingFlow, frame: Frame, parameters: Array, x: Float[Array, "n dim"]
) -> Float[Array, " n"]:
    return _log_q(settings, parameters, frame.to_z(x)) - frame.log_det


def _weigh(
    settings: CouplingFlow, target: Target, frame: Frame, parameters: Array, x: Float[Array, "n dim"]
) -> Float[Array, " n"]:
    z = frame.to_z(x)
    return frame.total(frame.values(target, z) - _log_q(settings, parameters, z))
