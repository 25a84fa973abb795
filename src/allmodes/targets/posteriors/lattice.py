"""A scalar field on a lattice that has broken its symmetry: two signs, a half of the mass each."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from allmodes.errors import TargetError
from allmodes.target import Modes, Target


def phi4(side: int = 8, kappa: float = 0.3, coupling: float = 0.022) -> Target:
    """Build phi^4 theory on a periodic square lattice, `side^2` dimensions (64), in its broken
    phase.

    `log_prob = -S`, `S = sum_x -2 kappa phi(x) (phi(x + 1st) + phi(x + 2nd))
    + (1 - 2 coupling) phi(x)^2 + coupling phi(x)^4`
    in lattice units, as in Nicoli et al. 2020 (Asymptotically unbiased estimation of physical
    observables with neural samplers) and 2021 (Estimation of thermodynamic observables in lattice
    field theories with deep generative models), where kappa = 0.3 and coupling = 0.022 too.
    `draws.unravel()` has `field`, `(side, side)`.

    What is hard: the action does not see the field's sign, so that the magnetisation (the mean of
    the field) has two values, plus and minus, of exactly equal mass, with hardly anything between
    them; a local chain keeps its sign.

    **Arguments**

    - `side`: sites along each direction, at least 2.
    - `kappa`, `coupling`: hopping parameter and quartic coupling; two modes are declared whatever
      they are, which has a sense in the broken phase only, `4 kappa > 1 - 2 coupling` at least.

    **Raises** `TargetError` outside of it.
    """
    if side < 2 or not coupling > 0 or not 4 * kappa > 1 - 2 * coupling:
        raise TargetError(
            "phi4 is for the broken phase: side at least 2, coupling positive and 4 kappa > 1 - 2 coupling, got "
            f"side {side}, kappa {kappa}, coupling {coupling}"
        )
    vacuum = math.sqrt((4 * kappa - 1 + 2 * coupling) / (2 * coupling))  # constant field of least action

    def log_prob(parameters: dict[str, Float[Array, "side side"]]) -> Float[Array, ""]:
        field = parameters["field"]
        neighbours = jnp.roll(field, -1, axis=0) + jnp.roll(field, -1, axis=1)
        squared = field**2
        return jnp.sum(2 * kappa * field * neighbours - (1 - 2 * coupling + coupling * squared) * squared)

    def assign(x: Float[Array | np.ndarray, "n dim"]) -> Int[np.ndarray, " n"]:
        x = np.asarray(x, float)
        magnetisation = x.mean(axis=1)
        # No draw has a site at five times the vacuum, where its own terms of the action are in the
        # thousands.
        on = np.all(np.abs(x) < 5 * vacuum, axis=1)
        return np.where(on, magnetisation > 0, -1).astype(int)

    means = vacuum * np.array([[-1.0], [1.0]]) * np.ones(side**2)
    modes = Modes(np.full(2, 0.5), assign, means)
    return Target.of_tree(log_prob, {"field": jnp.zeros((side, side))}, name="phi4", modes=modes)
