"""Adam with a clipped gradient, a warm-up and a cooldown, and the running average of what it
learns.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int, Scalar

from allmodes.settings import check

WARM_UP = 100  # steps


@dataclasses.dataclass(frozen=True)
class Adam:
    """How the parameters of a network follow their gradient."""

    learning_rate: float = 2e-3
    """Rate between a warm-up of 100 steps and the cooldown."""
    clip: float = 1.0
    """Largest norm of the parameters' gradient."""
    ema: float = 0.998
    """Decay of the running average of the parameters."""

    def __post_init__(self):
        check(self, zero=("ema",))

    def start(self, model: Any) -> optax.OptState:
        """Make the optimiser's state."""
        return self._transform().init(model)

    def update(self, gradient: Any, state: optax.OptState, model: Any, rate: Scalar) -> tuple[Any, optax.OptState]:
        """Take one step; the model and the optimiser's state after it."""
        updates, state = self._transform().update(gradient, state, model)
        return jax.tree.map(lambda p, u: p - rate * u, model, updates), state

    def average(self, average: Any, model: Any, step: Int[Array, ""]) -> Any:
        """Mix the model into its running average, which forgets its first steps sooner."""
        decay = jnp.minimum(self.ema, (1.0 + step) / (10.0 + step))
        return jax.tree.map(lambda old, new: decay * old + (1.0 - decay) * new, average, model)

    def rate(self, step: Int[Array, ""], end: Int[Array, ""], cooldown: Int[Array, ""]) -> Scalar:
        """Give the learning rate: warm-up, plateau, cosine cooldown to one hundredth before
        `end`.
        """
        warm_up = jnp.minimum(1.0, (step + 1.0) / WARM_UP)
        done = jnp.clip((step - (end - cooldown)) / jnp.maximum(cooldown, 1), 0.0, 1.0)
        return self.learning_rate * warm_up * (0.01 + 0.99 * 0.5 * (1.0 + jnp.cos(jnp.pi * done)))

    def _transform(self) -> optax.GradientTransformation:
        return optax.chain(optax.clip_by_global_norm(self.clip), optax.scale_by_adam())
