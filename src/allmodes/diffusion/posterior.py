"""Expectations under the posterior p(x_0 | x_t) ~ pi(x_0) N(x_0; x_t, sigma^2), from which
everything follows.

Estimates are given as denoised points `E[x_0 | x_t]`; the score is `(denoised - x_t) / sigma^2`.

- denoising identity (DSI, Tweedie): average x_0;
- target-score identity (TSI, De Bortoli et al. 2024): average `x_t + sigma^2 grad log pi(x_0)`.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar


class Estimate(NamedTuple):
    """What K draws around one x_t say of its posterior."""

    log_density: Scalar  # log of Z p_t(x_t), biased by O(1/K)
    dsi: Float[Array, " dim"]
    tsi: Float[Array, " dim"]
    weights: Float[Array, " K"]  # of the draws, sum one; all zero where none has any mass


def from_draws(
    x_t: Float[Array, " dim"],
    sigma: Scalar,
    draws: Float[Array, "K dim"],
    log_prob: Float[Array, " K"],
    grad: Float[Array, "K dim"],
) -> Estimate:
    """Self-normalised estimates from draws of `N(x_t, sigma^2)`: iDEM's (Akhound-Sadegh et al.
    2024, eq. 8) and IWSM's.

    Where no draw has mass, both denoised points are x_t itself and the log-density is -inf.
    """
    total = logsumexp(log_prob)
    dead = total == -jnp.inf
    weights = jnp.where(dead, 0.0, jnp.exp(log_prob - jnp.where(dead, 0.0, total)))
    return Estimate(
        log_density=total - jnp.log(draws.shape[0]),
        dsi=x_t + weights @ (draws - x_t),
        tsi=x_t + sigma**2 * (weights @ grad),
        weights=weights,
    )


def from_origin(
    x_0: Float[Array, " dim"], grad: Float[Array, " dim"], x_t: Float[Array, " dim"], sigma: Scalar
) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
    """`(dsi, tsi)` from the one draw that x_t was made of: exact in expectation when x_0 is at
    equilibrium.

    It costs no evaluation of the density when the gradient at x_0 was stored.
    """
    return x_0, x_t + sigma**2 * grad


def from_neighbours(
    x_0: Float[Array, " dim"],
    grad: Float[Array, " dim"],
    x_t: Float[Array, " dim"],
    sigma: Scalar,
    others: Float[Array, "M dim"],
    other_grads: Float[Array, "M dim"],
) -> tuple[Float[Array, " dim"], Float[Array, " dim"]]:
    """`(dsi, tsi)` averaged over the origin of x_t and M other points, weighted by `N(x_t; x,
    sigma^2)`.

    Unbiased, as `from_origin` is, when all the points are independent draws of pi: choosing one of
    them by those weights would be a step of iterated SIR, which leaves p(x_0 | x_t) invariant, and
    this is the step's expectation (Rao-Blackwell). Where sigma spans many of the points it has a
    small fraction of the variance; where it spans none of the others it is `from_origin`. It costs
    no evaluation either. With a buffer of data in place of draws of pi, its DSI part is the stable
    target field of Xu et al. 2023.
    """
    # The origin apart from the others, which a batch shares: one array of both would be a copy of
    # them for each point.
    own, far = (-0.5 * jnp.sum((x_t - x) ** 2, axis=-1) / sigma**2 for x in (x_0, others))
    weight = jax.nn.softmax(jnp.append(far, own))
    mean = weight[-1] * x_0 + weight[:-1] @ others
    mean_grad = weight[-1] * grad + weight[:-1] @ other_grads
    return mean, x_t + sigma**2 * mean_grad


def move(key: Array, log_prob: Float[Array, " K"], own: Scalar) -> Int[Array, ""]:
    """Posterior move by iterated SIR: an index into the K draws, or K for the point's own origin.

    Choosing among {own x_0, K draws of N(x_t, sigma^2)} in proportion to pi leaves p(x_0 | x_t),
    and so pi, exactly invariant (Andrieu et al. 2018).
    """
    candidates = jnp.append(log_prob, own)
    return jnp.where(jnp.max(candidates) > -jnp.inf, jax.random.categorical(key, candidates), log_prob.shape[0])


class Gate(eqx.Module):
    """The share of TSI in the blend at each noise level, from running moments of both identities.

    The least-variance blend of two unbiased estimates is `a TSI + (1 - a) DSI` with
    `a = (V_D - C) / (V_T + V_D - 2C)`. The denominator is the mean square of `DSI - TSI`; the
    numerator the mean of `(DSI - D)(DSI - TSI)`, in which an error of the current denoiser D drops
    out on average. Kept for each noise level and coordinate; the rows are equal strata of t.
    """

    numerator: Float[Array, "levels dim"]
    denominator: Float[Array, "levels dim"]

    @staticmethod
    def start(sigmas: Float[Array, " levels"], tau: Float[Array, " dim"]) -> "Gate":
        """The exact gate of a Gaussian of standard deviation tau, `tau^2 / (tau^2 + sigma^2)`, as a
        first guess.
        """
        s2, t2 = sigmas[:, None] ** 2, tau**2
        # There V_D = s2 t2 / (s2 + t2), C = -(s2/t2) V_D and V_T = (s2/t2)^2 V_D.
        numerator = jnp.broadcast_to(s2, (sigmas.shape[0], tau.shape[0]))
        return Gate(numerator, s2 * (s2 + t2) / t2)

    def share(self) -> Float[Array, "levels dim"]:
        """A in [0, 1] for each level and coordinate."""
        return jnp.clip(self.numerator / jnp.maximum(self.denominator, 1e-20), 0.0, 1.0)

    def update(
        self, dsi: Float[Array, "n dim"], tsi: Float[Array, "n dim"], denoised: Float[Array, "n dim"], decay: float
    ) -> "Gate":
        """Running moments after a batch that is ordered by t, so that level i holds the i-th equal
        part of it.
        """
        levels = self.numerator.shape[0]

        def per_level(v):
            return jnp.mean(v.reshape(levels, -1, v.shape[-1]), axis=1)

        numerator = per_level((dsi - denoised) * (dsi - tsi))
        denominator = per_level((dsi - tsi) ** 2)
        return Gate(
            decay * self.numerator + (1.0 - decay) * numerator,
            decay * self.denominator + (1.0 - decay) * denominator,
        )
