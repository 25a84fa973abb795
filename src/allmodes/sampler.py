"""A trained sampler and its draws."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from allmodes import weights
from allmodes.buffer import Buffer
from allmodes.errors import ConfigError, TargetError
from allmodes.mcmc.independence import choose_by_weight
from allmodes.mcmc.local import MOVES_PER_DIM, first_steps, mala
from allmodes.methods.base import Method
from allmodes.paths import Process, noising, reverse
from allmodes.target import Target

BLOCK = 4096  # most draws in one compiled call
MOVES = 1000  # local moves of a correction, at least


@dataclasses.dataclass(frozen=True)
class Draws:
    """Draws of a sampler, each with an exact importance weight.

    **Attributes**

    - `x`: `(n, dim)`, in the user's coordinates.
    - `log_prob`: `(n,)`, the target's unnormalised log-density; -inf where it has no mass.
    - `log_weight`: `(n,)`, log of target over sampler along the whole path: `mean(exp(log_weight))` is unbiased for Z
      whatever the network has learned. All equal after `resample` or a correction.
    - `evaluations`: points at which the density was computed for these draws.
    """

    x: Float[Array, "n dim"]
    log_prob: Float[Array, " n"]
    log_weight: Float[Array, " n"]
    evaluations: int = 0
    evidence: Any = None  # the log Z of the draws that these were made from

    def __len__(self) -> int:
        return self.x.shape[0]

    @property
    def log_z(self) -> "Estimate":
        """`Estimate(value, std_error)` of the log evidence."""
        from allmodes.metrics.weights import log_z

        return self.evidence or log_z(self.log_weight)

    @property
    def ess(self) -> float:
        """Effective sample size of the weights, in (0, n]: blind to a mode that no draw has met."""
        from allmodes.metrics.weights import ess

        return ess(self.log_weight)

    @property
    def khat(self) -> float:
        """Pareto k^ of the weights (Vehtari et al. 2024): below 0.7 weighted averages can be relied on."""
        from allmodes.metrics.weights import khat

        return khat(self.log_weight)

    def resample(self, key: Array, n: int | None = None) -> "Draws":
        """N equally weighted draws (as many as there are when not given), by systematic resampling.

        Ask for fewer than there are to have few copies: with an ESS of half of them, half as many.

        **Raises** `TargetError` when no draw has any mass, `ConfigError` when n is below 1.
        """
        n = len(self) if n is None else n
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if self.ess == 0.0:
            raise TargetError("no draw has any mass under the target: there is nothing to resample")
        k_index, k_order = jax.random.split(key)
        index = weights.systematic(k_index, weights.normalise(self.log_weight), n)
        index = jax.random.permutation(k_order, index)
        return Draws(self.x[index], self.log_prob[index], jnp.zeros(n), self.evaluations, self.log_z)


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
    """What `fit` returns: draws cost calls of the network, and one value of the density each for their weights.

    **Attributes**: `target`, `method` (its configuration), `state` (all that training knows), and the `seconds` that
    the warm start, compilation and training took.
    """

    target: Target
    method: Method
    state: Any
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)

    @property
    def evaluations(self) -> dict[str, int]:
        """What training cost: points at which the density, and its gradient, was computed, and the massless ones."""
        e = self.method.evaluations(self.state)
        return {
            "log_prob": int(e.log_prob),
            "gradient": int(e.gradient),
            "nan": int(e.nan),
            "zero": int(e.zero),
        }

    def sample(
        self,
        n: int,
        *,
        key: Array,
        steps: int | None = None,
        correct: Literal["mcmc"] | None = None,
        moves: int | None = None,
    ) -> Draws:
        """N independent draws with exact path weights, by `steps` steps of the reverse SDE: n evaluations.

        When not given, `steps` are the method's own `sample_steps`. More of them raise the ESS of the weights towards
        the limit that the network sets.

        With `correct="mcmc"` each draw is then the start of a short chain of its own that leaves the target invariant:
        an exchange with a fresh draw (independence Metropolis on whole paths) and `moves` of MALA (when not given, 80
        for each free dimension and at least 1,000), 2 + moves evaluations a draw in all. The draws come equally
        weighted; log Z is that of all the raw ones. What such a chain cannot mend is a region that the sampler has not
        met.

        **Raises** `ConfigError` when n is below 1, steps below 2, the correction unknown, or moves below 1.
        """
        steps = self.method.sample_steps if steps is None else steps
        if n < 1 or steps < 2:
            raise ConfigError(f"sample needs n of at least 1 and steps of at least 2, got n={n}, steps={steps}")
        if correct not in (None, "mcmc"):
            raise ConfigError(f"correct must be 'mcmc' or None, got {correct!r}")
        moves = max(MOVES, MOVES_PER_DIM * self.target.free_dim) if moves is None else moves
        if moves < 1:
            raise ConfigError(f"moves must be at least 1, got {moves}")
        if correct is None:
            draw, cost = self._compiled.draw, 1
        else:
            draw, cost = functools.partial(self._compiled.corrected, moves=moves), 2 + moves
        blocks = -(-n // BLOCK)
        size = -(-n // blocks)
        parts = [draw(self._process[1], jax.random.fold_in(key, i), size, steps) for i in range(blocks)]
        x, log_prob, log_weight = (jnp.concatenate(part) for part in zip(*parts, strict=True))
        if correct is None:
            return Draws(x[:n], log_prob[:n], log_weight[:n], cost * n)
        from allmodes.metrics.weights import log_z

        return Draws(x[:n], log_prob[:n], jnp.zeros(n), cost * n, log_z(log_weight))

    def log_weights(self, x: Float[Array, "n dim"], *, key: Array, steps: int | None = None) -> Float[Array, " n"]:
        """Path weights of given points, by noising them: for exact draws, the target's own view of the sampler.

        Their mean is the EUBO; `forward_ess` of them falls when the sampler misses a mode. n evaluations.

        **Raises** `ConfigError` when there is no point or steps is below 2.
        """
        steps = self.method.sample_steps if steps is None else steps
        if len(x) < 1 or steps < 2:
            raise ConfigError(f"log_weights needs at least 1 point and at least 2 steps, got {len(x)} and {steps}")
        blocks = -(-len(x) // BLOCK)
        size = -(-len(x) // blocks)
        padded = jnp.concatenate([x, jnp.broadcast_to(x[-1], (blocks * size - len(x), x.shape[1]))])
        parts = [
            self._compiled.weigh(self._process[1], jax.random.fold_in(key, i), padded[i * size : (i + 1) * size], steps)
            for i in range(blocks)
        ]
        return jnp.concatenate(parts)[: len(x)]

    def save(self, path: str | os.PathLike) -> None:
        """Write the sampler to a run folder, from which `allmodes.load` makes it again, in any process.

        **Raises** `RunError` when the folder cannot be written.
        """
        from allmodes.store import save

        save(self, path)

    @property
    def process(self) -> Process:
        """The denoiser, noise levels and prior that the draws are made with, in normalised coordinates."""
        return self._process[1]

    @functools.cached_property
    def _process(self) -> tuple[Any, Process]:
        return self.method.process(self.state)

    @functools.cached_property
    def _compiled(self) -> "_Programs":
        frame, _ = self._process

        @functools.partial(jax.jit, static_argnums=(2, 3))
        def draw(process: Process, key, n, steps):
            path = reverse(process, key, n, steps)
            x = frame.to_x(path.z)
            log_prob = self.target.values(x)
            return x, log_prob, path.log_ratio + log_prob + frame.log_det

        @functools.partial(jax.jit, static_argnums=(2, 3), static_argnames="moves")
        def corrected(process: Process, key, n, steps, *, moves):
            def evaluate(z):
                return frame.evaluate(self.target, z)

            def fresh(key):
                path = reverse(process, key, n, steps)
                points = Buffer.of(path.z, evaluate(path.z))
                return points, path.log_ratio + points.log_prob

            k_first, k_second, k_accept, k_local = jax.random.split(key, 4)
            (first, log_w), (second, log_w_second) = fresh(k_first), fresh(k_second)
            # A draw of the sampler comes with its path: independence Metropolis needs no other for it.
            points, _ = choose_by_weight(k_accept, first, log_w, second, log_w_second)
            moved = mala(evaluate, points, jnp.median(first_steps(points)), k_local, moves)
            x = frame.to_x(moved.points.z)
            return x, moved.points.log_prob - frame.log_det, jnp.concatenate([log_w, log_w_second])

        @functools.partial(jax.jit, static_argnums=3)
        def weigh(process: Process, key, x, steps):
            path = noising(process, key, frame.to_z(x), steps)
            return path.log_ratio + self.target.values(x) + frame.log_det

        return _Programs(draw, corrected, weigh)


class _Programs(NamedTuple):
    """Compiled on their first use: `(process, key, n, steps)`, for `weigh` `(process, key, x, steps)`."""

    draw: Callable[..., tuple]
    corrected: Callable[..., tuple]
    weigh: Callable[..., Array]
