"""The probability-flow ODE: the density that a denoiser gives to a point (Song et al. 2021, section
4.3).

Noise is variance exploding, `dz/dsigma = (z - D(z, sigma)) / sigma`. With `u = log sigma` the
velocity is `z - D`. Along its flow `d log q / du = -div(z - D)` (Chen et al. 2018), so that

`log q(z_0) = log prior(z at sigma_max) + integral of div(z - D) du`, from z_0 up to sigma_max.

A network is trained down to sigma_min, at which the target is still blurred. Below it the score is
held at its value at sigma_min, which takes the flow to sigma = 0: the velocity in
`sigma^2 / (2 sigma_min^2)` is then `z - D(z, sigma_min)` still, so that this is half a unit of u
more. For a Gaussian of standard deviation tau it leaves log q wrong by about
`dim (sigma_min / tau)^4 / 4`; without it, by `dim (sigma_min / tau)^2 / 2`.
"""

import diffrax
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray, Scalar

from allmodes.devices.blocks import block_size
from allmodes.diffusion.paths import Process
from allmodes.draws.draws import LogDensity

EXACT = 16  # dimensions up to which the divergence is exact where not said otherwise
PROBES = 16  # above, the random directions that it is estimated with
BELOW = 0.5  # of the clock's time spent below sigma_min
MAX_STEPS = 1000  # of the solver, rejected ones included; tens are usual


def velocity(process: Process, clock: Scalar, z: Float[Array, " dim"]) -> Float[Array, " dim"]:
    """Of one point: sigma is 0 at clock 0, sigma_min at `BELOW`, and e times as large for each unit
    after it.
    """
    sigma = process.noise.sigma_min * jnp.exp(jnp.maximum(clock - BELOW, 0.0))
    return z - process.denoiser(z, sigma)


def end(process: Process) -> Scalar:
    """The clock at sigma_max."""
    return BELOW + jnp.log(process.noise.sigma_max / process.noise.sigma_min)


def directions(probes: int, dim: int) -> int:
    """Derivatives of the network for one divergence: each probe, or each coordinate where `probes`
    is 0 (exact).
    """
    return probes or dim


def log_density(
    process: Process,
    z: Float[Array, "n dim"],
    key: PRNGKeyArray,
    probes: int,
    rtol: float | Scalar,
    atol: float | Scalar,
) -> LogDensity:
    """Log-densities of z at sigma = 0; NaN where the solver did not reach sigma_max in `MAX_STEPS`.

    Each point has its own steps (Tsit5), that the error of a step in z and in log q be at most
    `atol + rtol |value|`. With `probes` of 0 the divergence is exact, `dim` derivatives of the
    network a step. Otherwise it is Hutchinson's estimate with so many random signs, each point's
    own and the same all along its path (FFJORD, Grathwohl et al. 2019): unbiased. The error is that
    of the mean over the probes.
    """
    point_bytes = getattr(process.denoiser.network, "point_bytes", None)
    size = block_size(len(z), point_bytes and point_bytes * (1 + directions(probes, z.shape[1])))
    keys = jax.random.split(key, len(z))
    return LogDensity(*jax.lax.map(lambda one: _one(process, *one, probes, rtol, atol), (z, keys), batch_size=size))


def _one(process, z, key, probes, rtol, atol):
    vectors = jax.random.rademacher(key, (probes, *z.shape), z.dtype) if probes else jnp.eye(z.shape[0], dtype=z.dtype)

    def field(clock, state, _):
        rate, along = jax.linearize(lambda z: velocity(process, clock, z), state[0])
        terms = jnp.sum(vectors * jax.vmap(along)(vectors), axis=1)
        return rate, terms if probes else jnp.sum(terms, keepdims=True)

    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(field),
        diffrax.Tsit5(),
        t0=0.0,
        t1=end(process),
        dt0=None,
        y0=(z, jnp.zeros(probes or 1, z.dtype)),
        # The velocity has a kink where the score is let go.
        stepsize_controller=diffrax.ClipStepSizeController(diffrax.PIDController(rtol, atol), step_ts=[BELOW]),
        max_steps=MAX_STEPS,
        throw=False,
    )
    top, integrals = (leaf[0] for leaf in solution.ys)
    value = process.log_prior(top[None])[0] + jnp.mean(integrals)
    error = jnp.std(integrals, ddof=1) / jnp.sqrt(probes) if probes else jnp.zeros_like(value)
    return jnp.where(solution.result == diffrax.RESULTS.successful, value, jnp.nan), error
