"""The sampler of a generator: independent draws, of which no density is known."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.devices.keys import Key
from allmodes.diffusion import blocks
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate
from allmodes.points.frame import Frame
from allmodes.sampler import Sampler
from allmodes.target import Target

UNKNOWN = Estimate(float("nan"), float("inf"))


@dataclasses.dataclass(frozen=True, eq=False)
class GeneratorSampler(Sampler):
    """Draws cost one call of the generator. They have no weights: the generator is no bijection,
    and its density is not known.
    """

    def sample(self, n: int, *, key: Key) -> Draws:
        """N independent draws of equal weight; log Z is not known. n evaluations, for their
        log-densities.

        **Raises** `ConfigError` when n is below 1.
        """
        self.check(n)
        keys, size = blocks.blocks_of(key, n)
        draw = program(_draw, self.target, static=(3,))
        parts = [draw(self.frame, self.state.average, k, size) for k in keys]
        x, log_prob = (jnp.concatenate(part)[:n] for part in zip(*parts, strict=True))
        return Draws(
            x, log_prob, jnp.zeros(n), n, UNKNOWN, parameters=self.target.parameters,
            findings=self.method.findings(self.state),
        )  # fmt: skip

    @property
    def frame(self) -> Frame:
        """The unit-scale coordinates that the generator draws in."""
        return self.state.frame


def _draw(
    target: Target, frame: Frame, generator: Any, key: Array, n: int
) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
    z = generator.sample(key, n)
    return frame.to_x(z), frame.log_prob(frame.values(target, z))
