"""Identities that exact draws satisfy, whatever the normalising constant: wrong local structure
breaks them.

By integration by parts, for a density that vanishes at infinity and has no hard edge:
`E[grad log p] = 0` along every coordinate (Stein), and `E[x . grad log p] = -d` (the virial
theorem). Shares of separated modes do not enter: a missing mode breaks neither.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.points.weighted import normalised
from allmodes.target import Target

MOST = 4000  # draws that are looked at, an evaluation each


@dataclasses.dataclass(frozen=True)
class Check:
    """A figure that must be `expected`, within its standard error."""

    name: str
    value: float
    expected: float
    std_error: float

    @property
    def off(self) -> float:
        """Standard errors between the two."""
        return abs(self.value - self.expected) / self.std_error


def virial(x: Float[np.ndarray, "n dim"], grad: Float[np.ndarray, "n dim"], dim: int, **weighted) -> Check:
    """`E[x . grad log p] = -dim`; x may be counted from any fixed point."""
    return Check("virial, E[x . grad log p]", *_mean(np.sum(x * grad, axis=1), -float(dim), **weighted))


def score(grad: Float[np.ndarray, "n dim"], **weighted) -> Check:
    """`E[grad log p] = 0` along the coordinate that is furthest from it, in standard errors."""
    checks = [Check(f"score, E[d log p / d x[{i}]]", *_mean(grad[:, i], 0.0, **weighted)) for i in range(grad.shape[1])]
    return max(checks, key=lambda check: check.off)


def identities(
    target: Target,
    x: Float[Array, "n dim"],
    log_weight: Float[Array, " n"] | None = None,
    independent: float = 1.0,
    most: int = MOST,
) -> list[Check] | None:
    """Both identities on (weighted) draws; None where they are void: without a gradient, or with
    edges or holes.

    `independent` is the share of draws that count as independent. An evaluation for each of the
    first `most` draws.
    """
    if not target.differentiable:
        return None
    x = x[:most]
    e = jax.jit(target.evaluate)(x)
    if int(e.nan) + int(e.zero):
        return None
    grad = np.asarray(e.grad, np.float64)
    w = normalised(np.zeros(len(x)) if log_weight is None else log_weight[: len(x)])
    where = np.asarray(x, np.float64)
    centre = np.average(where, axis=0, weights=w) if target.symmetry is None else 0.0
    weighted = {"w": w, "independent": independent}
    return [virial(where - centre, grad, target.free_dim, **weighted), score(grad, **weighted)]


def _mean(values: np.ndarray, expected: float, w: np.ndarray | None = None, independent: float = 1.0) -> tuple:
    """Weighted mean, what it should be, and the delta method's standard error."""
    w = np.full(len(values), 1.0 / len(values)) if w is None else w
    mean = float(np.sum(w * values))
    error = float(np.sqrt(np.sum((w * (values - mean)) ** 2) / independent))
    return mean, expected, max(error, 1e-30)
