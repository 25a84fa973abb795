"""The sampler of a trained diffusion: reverse paths, their exact weights, and corrections."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from allmodes import corrections
from allmodes.draws import Draws
from allmodes.errors import ConfigError
from allmodes.mcmc.hmc import LEAPS
from allmodes.paths import Process, noising, reverse
from allmodes.sampler import Sampler

BLOCK = 4096  # most draws in one compiled call
POPULATIONS = 10  # independent ones of `correct="smc"`, from which the error of log Z comes
SMALLEST = 50  # draws of a population, at least


@dataclasses.dataclass(frozen=True, eq=False)
class DiffusionSampler(Sampler):
    """Draws cost calls of the network, and one value of the density each for their weights."""

    def sample(
        self,
        n: int,
        *,
        key: Array,
        steps: int | None = None,
        correct: Literal["snis", "smc", "mcmc"] | None = None,
        rounds: int | None = None,
        moves: int | None = None,
    ) -> Draws:
        """N draws with exact weights, by `steps` steps of the reverse SDE.

        When not given, `steps` are the method's own `sample_steps`. More of them raise the ESS of the weights towards
        the limit that the network sets.

        - With no correction: independent draws with exact path weights; n evaluations.
        - `"snis"`: the same, their weights Pareto-smoothed; n evaluations.
        - `"smc"`: 10 populations (fewer where n is below 500) along the reverse path, resampled where their weights
          have become uneven; log Z from the populations. Weighted draws, some with a common origin; 97 n evaluations.
        - `"mcmc"`: each draw is the start of a chain of its own that leaves the target invariant. Two raw draws for
          each, resampled by their path weights (where less than half of them are effective, independence Metropolis on
          whole paths, one against the other); `rounds` of noising and denoising (2; for particles
          none), and Hamiltonian `moves` (5; for particles one for each free dimension, at least 30). Draws of
          equal weight; log Z is that of all the raw ones; `n (2 + rounds + 10 moves)` evaluations.

        What no correction can mend is a region that the sampler does not meet.

        **Raises** `ConfigError` when n is below 1, steps below 2, the correction unknown, rounds below 0 or moves below
        1.
        """
        steps = self.method.sample_steps if steps is None else steps
        if n < 1 or steps < 2:
            raise ConfigError(f"sample needs n of at least 1 and steps of at least 2, got n={n}, steps={steps}")
        if correct not in (None, "snis", "smc", "mcmc"):
            raise ConfigError(f"correct must be 'snis', 'smc', 'mcmc' or None, got {correct!r}")
        moves = corrections.moves_for(self.target) if moves is None else moves
        rounds = corrections.rounds_for(self.target) if rounds is None else rounds
        if moves < 1:
            raise ConfigError(f"moves must be at least 1, got {moves}")
        if rounds < 0:
            raise ConfigError(f"rounds must be at least 0, got {rounds}")
        from allmodes.metrics.weights import log_z, psis

        if correct == "smc":
            return self._populations(n, key, steps)
        if correct == "mcmc":
            draw = functools.partial(self._compiled.mcmc, rounds=rounds, moves=moves)
            cost = 2 + rounds + moves * LEAPS
        else:
            draw, cost = self._compiled.draw, 1
        blocks = -(-n // BLOCK)
        size = -(-n // blocks)
        parts = [draw(self._process[1], jax.random.fold_in(key, i), size, steps) for i in range(blocks)]
        x, log_prob, log_weight = (jnp.concatenate(part) for part in zip(*parts, strict=True))
        if correct == "mcmc":
            return Draws(x[:n], log_prob[:n], jnp.zeros(n), cost * n, log_z(log_weight))
        raw = Draws(x[:n], log_prob[:n], log_weight[:n], cost * n)
        if correct is None:
            return raw
        return dataclasses.replace(raw, log_weight=jnp.asarray(psis(raw.log_weight), x.dtype), evidence=raw.log_z)

    def corrected(self, n: int, *, key: Array) -> Draws:
        """`sample` with `correct="mcmc"`."""
        return self.sample(n, key=key, correct="mcmc")

    def _populations(self, n: int, key: Array, steps: int) -> Draws:
        from allmodes.metrics.weights import batch_log_z

        populations = max(1, min(POPULATIONS, n // SMALLEST), -(-n // BLOCK))
        size = -(-n // populations)
        keys = [jax.random.fold_in(key, i) for i in range(populations)]
        parts = [self._compiled.smc(self._process[1], k, size, steps) for k in keys]
        evidence = batch_log_z(jnp.stack([logsumexp(part[2]) - jnp.log(size) for part in parts]))
        x, log_prob, log_weight = (jnp.concatenate(part)[:n] for part in zip(*parts, strict=True))
        cost = size * populations * (1 + corrections.LEVELS * corrections.LOOKS)
        return Draws(x, log_prob, log_weight, cost, evidence)

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

        block = self.target.block(BLOCK)

        def evaluate(z):
            return frame.evaluate(self.target, z)

        def value(z):
            return frame.value(self.target, z)

        def values(z):
            return frame.values(self.target, z)

        @functools.partial(jax.jit, static_argnums=(2, 3))
        def draw(process: Process, key, n, steps):
            path = reverse(process, key, n, steps)
            x = frame.to_x(path.z)
            log_prob = self.target.values(x)
            return x, log_prob, path.log_ratio + log_prob + frame.log_det

        @functools.partial(jax.jit, static_argnums=(2, 3), static_argnames=("rounds", "moves"))
        def mcmc(process: Process, key, n, steps, *, rounds, moves):
            points, log_weight = corrections.mcmc(process, evaluate, value, key, n, steps, rounds, moves, block)
            return frame.to_x(points.z), points.log_prob - frame.log_det, log_weight

        @functools.partial(jax.jit, static_argnums=(2, 3))
        def smc(process: Process, key, n, steps):
            z, log_prob, log_weight = corrections.smc(process, values, key, n, steps)
            return frame.to_x(z), log_prob - frame.log_det, log_weight

        @functools.partial(jax.jit, static_argnums=3)
        def weigh(process: Process, key, x, steps):
            path = noising(process, key, frame.to_z(x), steps)
            return path.log_ratio + self.target.values(x) + frame.log_det

        return _Programs(draw, mcmc, smc, weigh)


class _Programs(NamedTuple):
    """Compiled on their first use: `(process, key, n, steps)`, for `weigh` `(process, key, x, steps)`."""

    draw: Callable[..., tuple]
    mcmc: Callable[..., tuple]
    smc: Callable[..., tuple]
    weigh: Callable[..., Array]
