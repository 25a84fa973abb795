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
from allmodes.draws.doubt import Forward
from allmodes.draws.draws import LogDensity
from allmodes.draws.estimates import forward_ess
from allmodes.errors import ConfigError
from allmodes.methods.fab.flow import CouplingFlow
from allmodes.methods.independent import IndependentSampler
from allmodes.points.frame import Frame
from allmodes.target import Target

FORWARD = 2048  # draws of the buffer that see the sampler


@dataclasses.dataclass(frozen=True, eq=False)
class FlowSampler(IndependentSampler):
    """Draws cost one pass through the flow, and one value of the density each for their weights."""

    def look_forward(self) -> tuple[Forward, int]:
        """Give `forward`; no evaluations."""
        return self.forward, 0

    def _draw(self, key: Array, n: int) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
        return program(_draw, self._flow, self.target, static=(3,))(*self._learned, key, n)

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
