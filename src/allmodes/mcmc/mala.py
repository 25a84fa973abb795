"""Metropolis-adjusted Langevin moves of a whole population (Roberts and Tweedie 1996).

Our own forty lines, because training must run where only the core dependencies are, and because the
moves keep the gradients in the buffer's own layout. Chains that stand alone go through BlackJAX.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Scalar

from allmodes.points.buffer import Buffer, choose
from allmodes.target import Evaluation

TARGET_ACCEPTANCE = 0.57  # optimal for MALA in high dimension (Roberts and Rosenthal 1998)


class Moved(NamedTuple):
    """The population after the moves, the step size adapted to it, and what the moves met."""

    points: Buffer
    step_size: Float[Array, "*n"]
    acceptance: Scalar
    nan: Int[Array, ""]
    zero: Int[Array, ""]  # proposals at -inf: a hard edge of the support is near
    mean_log_prob: Float[Array, " n"]  # over the moves
    mean_square_grad: Float[Array, "n dim"]
    passed: Buffer | None = None  # where all of them were after each of the last moves, if asked for

    def put(self, which: Int[Array, " m"], new: "Moved") -> "Moved":
        """The population in which others stand at `which`; of both as many moves have been kept."""
        n = self.points.size
        rows = jnp.arange(0, self.passed.size, n)[:, None] + which
        return self._replace(
            points=self.points.put(which, new.points),
            step_size=self.step_size.at[which].set(new.step_size),
            mean_log_prob=self.mean_log_prob.at[which].set(new.mean_log_prob),
            mean_square_grad=self.mean_square_grad.at[which].set(new.mean_square_grad),
            passed=self.passed.put(rows.ravel(), new.passed),
        )


def first_steps(points: Buffer) -> Float[Array, " size"]:
    """Steps to begin with: the squared width of each point's surroundings, shrunk with
    dimension.
    """
    dim = points.z.shape[1]
    tau2 = dim / jnp.maximum(jnp.sum(points.grad**2, axis=-1), 1e-30)
    return step_for(jnp.minimum(tau2, 10.0 * jnp.median(tau2)), dim)


def step_for(tau2: Float[Array, "*n"], dim: int) -> Float[Array, "*n"]:
    """The step to begin with for surroundings of this squared width."""
    return 0.5 * tau2 * dim ** (-1.0 / 3.0)


def width_of(step_size: Float[Array, "*n"], dim: int) -> Float[Array, "*n"]:
    """The width of the surroundings of a point that moves without a gradient, by the step that it
    came to.

    For a normal in many dimensions: with steps drawn below `h` as `mala` does, `TARGET_ACCEPTANCE`
    needs `2 h dim = 4 tau^2`. In one dimension it is a third too large.
    """
    return jnp.sqrt(0.5 * dim * step_size)


def mala(
    evaluate: Callable[[Float[Array, "n dim"], Float[Array, " n"]], Evaluation],
    points: Buffer,
    step_size: Float[Array, "*n"],
    key: Array,
    steps: int,
    keep: int = 0,
) -> Moved:
    """`steps` moves of every point: `n * steps` evaluations, of points and of the distances that
    they move. `keep`: after how many of the last moves it is remembered where the points are.

    Each proposal is `z + h grad + sqrt(2 h) xi`; where the density has no gradient, a random walk.
    Step sizes are drawn log-uniformly from [step_size / 10, step_size] for each point and move,
    independently of its state (so that the target stays invariant): narrow and wide modes each get
    steps that fit. A single `step_size` follows the acceptance rate of the whole population; with
    one for each point, each follows its own, which explores widths of many orders but is exactly
    invariant only without adaptation: for searches.
    """
    n, dim = points.z.shape

    def step(carry, key):
        points, step_size, nan, zero, accepted, height, slope = carry
        proposed = langevin(points, step_size, key)
        e = evaluate(proposed.z, jnp.sqrt(2.0 * proposed.h))
        proposal = Buffer.of(proposed.z, e)
        accept = proposed.accepts(proposal)
        rate = jnp.mean(accept)
        followed = accept if step_size.ndim else rate
        step_size = step_size * jnp.exp(0.2 * (followed - TARGET_ACCEPTANCE))
        points = choose(accept, proposal, points)
        height, slope = height + points.log_prob / steps, slope + points.grad**2 / steps
        carry = points, step_size, nan + e.nan, zero + e.zero, accepted + rate / steps, height, slope
        return carry, points if keep else None

    none = jnp.zeros((), jnp.int32)
    start = (points, step_size, none, none, jnp.zeros(()), jnp.zeros(n), jnp.zeros((n, dim)))
    carry, passed = jax.lax.scan(step, start, jax.random.split(key, steps))
    points, step_size, nan, zero, rate, height, slope = carry
    if keep:
        passed = jax.tree.map(lambda a: a[-keep:].reshape(-1, *a.shape[2:]), passed)
    return Moved(points, step_size, rate, nan, zero, height, slope, passed)


class Proposed(NamedTuple):
    """Where Langevin moves would go, from where, by which steps."""

    z: Float[Array, "n dim"]
    start: Buffer
    h: Float[Array, " n"]
    key: Array  # of the decision

    def accepts(self, proposal: Buffer) -> Bool[Array, " n"]:
        """Decide, by the density there, which points move."""

        def log_q(to, start):
            return -jnp.sum((to.z - start.z - self.h[:, None] * start.grad) ** 2, axis=-1) / (4.0 * self.h)

        start = self.start
        log_ratio = proposal.log_prob - start.log_prob + log_q(start, proposal) - log_q(proposal, start)
        return jnp.log(jax.random.uniform(self.key, self.h.shape)) < log_ratio  # False where the ratio is NaN


def langevin(points: Buffer, step_size: Float[Array, "*n"], key: Array) -> Proposed:
    """Propose one move of every point, of a step drawn below `step_size` as `mala` says."""
    n, dim = points.z.shape
    k_size, k_noise, k_accept = jax.random.split(key, 3)
    h = step_size * 10.0 ** -jax.random.uniform(k_size, (n,))
    noise = jax.random.normal(k_noise, (n, dim))
    return Proposed(points.z + h[:, None] * points.grad + jnp.sqrt(2.0 * h)[:, None] * noise, points, h, k_accept)


class Averaged(NamedTuple):
    """What a short chain on each posterior says of it, and where the chains ended."""

    mean: Float[Array, "n dim"]  # of z_0 over the chain's states, the first one included
    mean_grad: Float[Array, "n dim"]  # of grad log pi(z_0)
    points: Buffer  # the last states, with the target's own values
    acceptance: Float[Array, " n"]
    nan: Int[Array, ""]
    zero: Int[Array, ""]


def posterior_chain(
    evaluate: Callable[[Float[Array, "n dim"]], Evaluation],
    origin: Buffer,
    z_t: Float[Array, "n dim"],
    sigma: Float[Array, " n"],
    step_size: Float[Array, " n"],
    key: Array,
    steps: int,
) -> Averaged:
    """MALA moves on `p(z_0 | z_t) ~ pi(z_0) N(z_0; z_t, sigma^2)` from the z_0 that z_t was made
    of.

    If that is at equilibrium, so is every state of the chain, without burn-in: averages over it are
    unbiased and vary less, and the last state is again a draw of pi. `steps * n` evaluations. Step
    sizes are not adapted here.
    """
    n = z_t.shape[0]
    h, s2 = step_size[:, None], sigma[:, None] ** 2

    def drift(p: Buffer) -> Float[Array, "n dim"]:
        return p.z + h * (p.grad - (p.z - z_t) / s2)

    def log_density(p: Buffer) -> Float[Array, " n"]:
        return p.log_prob - 0.5 * jnp.sum((p.z - z_t) ** 2, axis=-1) / sigma**2

    def step(carry, key):
        points, total, total_grad, accepted, nan, zero = carry
        k_noise, k_accept = jax.random.split(key)
        z = drift(points) + jnp.sqrt(2.0 * h) * jax.random.normal(k_noise, z_t.shape)
        e = evaluate(z)
        proposal = Buffer.of(z, e)

        def log_q(to, start):
            return -jnp.sum((to.z - drift(start)) ** 2, axis=-1) / (4.0 * step_size)

        log_ratio = log_density(proposal) - log_density(points) + log_q(points, proposal) - log_q(proposal, points)
        accept = jnp.log(jax.random.uniform(k_accept, (n,))) < log_ratio  # False where the ratio is NaN
        points = choose(accept, proposal, points)
        carry = (
            points, total + points.z, total_grad + points.grad, accepted + accept / steps, nan + e.nan, zero + e.zero,
        )  # fmt: skip
        return carry, None

    none = jnp.zeros((), jnp.int32)
    start = (origin, origin.z, origin.grad, jnp.zeros(n), none, none)
    (points, total, total_grad, rate, nan, zero), _ = jax.lax.scan(step, start, jax.random.split(key, steps))
    return Averaged(total / (steps + 1), total_grad / (steps + 1), points, rate, nan, zero)
