"""Importance weights, always as logarithms: normalise within strata, temper, truncate, resample;
their ESS.
"""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Scalar


def ess_fraction(log_w: Float[Array, "*s n"]) -> Float[Array, "*s"]:
    """Kish's effective sample size over n, `(sum w)^2 / (n sum w^2)`, along the last axis; 0 where
    no weight is.
    """
    n = log_w.shape[-1]
    total = logsumexp(log_w, axis=-1)
    ess = jnp.exp(2.0 * total - logsumexp(2.0 * log_w, axis=-1)) / n
    return jnp.where(total > -jnp.inf, ess, 0.0)


def log_mean(log_w: Float[Array, "*s n"]) -> Float[Array, "*s"]:
    """The log of the mean weight along the last axis: log Z, of path weights."""
    return logsumexp(log_w, axis=-1) - jnp.log(log_w.shape[-1])


def normalise(log_w: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
    """Self-normalised weights of mean one along the last axis (SNIS); all one where no point has
    any weight.
    """
    total = logsumexp(log_w, axis=-1, keepdims=True)
    dead = total == -jnp.inf
    shifted = jnp.where(dead, 0.0, log_w - jnp.where(dead, 0.0, total) + jnp.log(log_w.shape[-1]))
    return jnp.exp(shifted)


def temper(log_w: Float[Array, " n"], min_ess: float) -> tuple[Float[Array, " n"], Scalar]:
    """`eta log_w` with the largest eta in [0, 1] at which the ESS is at least `min_ess` of n, and
    that eta.

    Flattening the weights keeps modes of large weight from crowding out all others while the
    proposal is still poor.
    """

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        enough = ess_fraction(middle * log_w) >= min_ess
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    # 0 * -inf is NaN: points of no mass stay at -inf whatever eta is.
    finite = log_w > -jnp.inf
    safe = jnp.where(finite, log_w, -1e30)
    log_w = safe - jnp.max(safe)
    low, _ = jax.lax.fori_loop(0, 30, halve, (jnp.zeros(()), jnp.ones(())))
    eta = jnp.where(ess_fraction(log_w) >= min_ess, 1.0, low)
    return jnp.where(finite, eta * log_w, -jnp.inf), eta


def truncate(log_w: Float[Array, "*s n"]) -> Float[Array, "*s n"]:
    """Cap each weight at sqrt(n) times the mean weight (Ionides 2008): bounded variance, vanishing
    bias.
    """
    n = log_w.shape[-1]
    mean = logsumexp(log_w, axis=-1, keepdims=True) - jnp.log(n)
    return jnp.minimum(log_w, mean + 0.5 * jnp.log(n))


def systematic(key: Array, weights: Float[Array, " n"], size: int) -> Int[Array, " size"]:
    """Indices of a systematic resample: each point appears floor or ceil of `size w` times,
    unbiased.
    """
    # A parallel sum rounds differently at each place: a point of no weight must end where the one
    # before it ended.
    cumulative = jax.lax.cummax(jnp.where(weights > 0.0, jnp.cumsum(weights), 0.0))
    positions = (jnp.arange(size) + jax.random.uniform(key)) / size * cumulative[-1]
    inside = jnp.minimum(positions, jnp.nextafter(cumulative[-1], 0.0))
    return jnp.searchsorted(cumulative, inside, side="right")


def log_mixture(
    x: Float[Array, "n dim"],
    own: Float[Array, "n dim"],
    centres: Float[Array, "m dim"],
    sigma: Float[Array, " n"],
    *,
    member: bool = False,
) -> Float[Array, " n"]:
    """Log-density of the noised buffer, `logsumexp_j log N(x; centre_j, sigma^2) - log(m + 1)`, at
    each x.

    The point's own origin is always among the components: without it the weight `p_t / p_B,t` is
    unbounded at small sigma. `member` says that it is one of the centres already: it is then not
    counted again, and the divisor is m. Counted twice, it biases the SNIS loss
    (`docs/results/bias-variance.md`). Memory is n x m.
    """

    def one(x, own, sigma):
        d2 = jnp.sum((centres - x) ** 2, axis=-1)
        if not member:
            d2 = jnp.append(d2, jnp.sum((own - x) ** 2))
        return logsumexp(-0.5 * d2 / sigma**2) - 0.5 * x.shape[0] * jnp.log(2.0 * jnp.pi * sigma**2)

    return jax.vmap(one)(x, own, sigma) - jnp.log(centres.shape[0] + (0.0 if member else 1.0))
