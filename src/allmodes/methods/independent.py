"""Samplers of independent draws with exact weights that are no diffusions: a flow, an annealing."""

import abc
import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.keys import Key
from allmodes.diffusion import blocks
from allmodes.diffusion.corrections import Chains, Correction, correction_of
from allmodes.draws.doubt import Forward
from allmodes.draws.draws import Draws
from allmodes.points.frame import Frame
from allmodes.sampler import Sampler


@dataclasses.dataclass(frozen=True, eq=False)
class IndependentSampler(Sampler):
    """What both share: blocks of draws, what points of the target see of them, and corrections."""

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
        """N independent draws with exact weights; `n price` evaluations, and with the first draws
        those of `look_forward`.

        `correct`: `"snis"` smooths the weights, `"mcmc"` makes chains of Hamiltonian `moves` of
        draws that are resampled by their weights out of at most `pool` for each (`Chains`).

        **Raises** `ConfigError` when n is below 1, or the correction is unknown or needs the paths
        of a diffusion.
        """
        self.check(n)
        if correct is not None:
            return correction_of(correct, moves=moves, pool=pool)(self, n, key=key)
        keys, size = blocks.blocks_of(key, n)
        parts = [self._draw(k, size) for k in keys]
        x, log_prob, log_weight = (jnp.concatenate(part)[:n] for part in zip(*parts, strict=True))
        seen, spent = self.look_forward()
        doubt = seen.doubt(np.asarray(log_weight, np.float64) - self.frame.constant)
        return Draws(
            x, log_prob, log_weight, spent + n * self.price, parameters=self.target.parameters,
            forward_ess=seen.ess, doubt=doubt,
        )  # fmt: skip

    def corrected(self, n: int, *, key: Key, pool: int | None = None) -> Draws:
        """`sample` with `correct="mcmc"`."""
        return Chains(pool=pool)(self, n, key=key)

    @property
    def frame(self) -> Frame:
        """The unit-scale coordinates that draws are made in."""
        return self.state.frame

    @property
    def price(self) -> int:
        """Evaluations of a draw."""
        return 1

    @abc.abstractmethod
    def look_forward(self) -> tuple[Forward, int]:
        """Give what points of the target see of the sampler, and the evaluations it took now."""

    @abc.abstractmethod
    def _draw(self, key: Array, n: int) -> tuple[Float[Array, "n dim"], Float[Array, " n"], Float[Array, " n"]]:
        """Draws in the user's coordinates, their log-densities and their log-weights."""
