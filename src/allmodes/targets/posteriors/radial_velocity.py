"""One planet from a few radial velocities of its star: the period has many aliases."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.target import Target

OBSERVATIONS, SPAN, ERROR = 12, 10.0, 7.0  # days, m/s
SHORTEST, LONGEST = 2.0, 100.0  # periods, days
SPEED = 20.0  # standard deviation of each amplitude and of the offset, m/s
FURTHEST = 0.95  # eccentricities are below
ECCENTRIC = 0.2  # standard deviation of the 2-vector that is mapped into the disc
JITTER, JITTERS = 1.0, 1.0  # median, m/s, and standard deviation of its log
TRUTH = {"period": 5.0, "amplitude": (10.0, 8.0), "eccentricity": (0.2, 0.2), "offset": 3.0, "jitter": 1.0}
SEED = 13  # see `radial_velocity`
_HALLEY = 5  # steps: from Danby's start they reach float64's precision for every eccentricity up to 0.95


@jax.custom_jvp
def eccentric_longitude(mean: Float[Array, "*n"], h: Float[Array, "*n"], k: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Solve Kepler's equation `F - h sin F + k cos F = mean` for F, with `(h, k) = (e cos w, e sin
    w)` and e < 1.

    `F = E + w` and `mean = M + w` are the eccentric and mean longitude: unlike the anomalies E and
    M they have a sense on a circle (e = 0) too. Halley's method from Danby's start,
    `M + 0.85 e sign(sin M)`; derivatives are those of the equation, not of the iterations.
    """
    e = jnp.sqrt(h**2 + k**2)
    found = mean + 0.85 * e * jnp.sign(h * jnp.sin(mean) - k * jnp.cos(mean))
    for _ in range(_HALLEY):
        sin, cos = jnp.sin(found), jnp.cos(found)
        off, slope, bend = found - h * sin + k * cos - mean, 1.0 - h * cos - k * sin, h * sin - k * cos
        found = found - off / (slope - 0.5 * off * bend / slope)
    return found


@eccentric_longitude.defjvp
def _eccentric_longitude_jvp(primals, tangents):
    found, (_, h, k), (d_mean, d_h, d_k) = eccentric_longitude(*primals), primals, tangents
    sin, cos = jnp.sin(found), jnp.cos(found)
    return found, (d_mean + sin * d_h - cos * d_k) / (1.0 - h * cos - k * sin)


def velocity(
    time: Float[Array, " n"], period: Array, amplitude: Float[Array, "2"], eccentricity: Float[Array, "2"]
) -> Float[Array, " n"]:
    """Radial velocity of the star at times from the reference epoch, less that of the system.

    `K (cos(nu + w) + e cos w)`, nu being the true anomaly. `amplitude` is `(K cos l, K sin l)`, l
    the mean longitude (mean anomaly and w) at the reference epoch, and `eccentricity` is
    `(e cos w, e sin w)`.
    """
    h, k = eccentricity
    squared = jnp.sum(amplitude**2)
    still = squared == 0.0  # there the phase has no sense, and no gradient
    a, b = jnp.where(still, jnp.asarray([1.0, 0.0], amplitude.dtype), amplitude)
    turns = time / period
    mean = 2.0 * jnp.pi * (turns - jax.lax.stop_gradient(jnp.round(turns))) + jnp.arctan2(b, a)
    f = eccentric_longitude(mean, jnp.broadcast_to(h, mean.shape), jnp.broadcast_to(k, mean.shape))
    sin, cos = jnp.sin(f), jnp.cos(f)
    # Place along the line of sight over the distance, in units of the semi-major axis (equinoctial
    # elements).
    beta = 1.0 / (1.0 + jnp.sqrt(1.0 - h**2 - k**2))
    along = (1.0 - beta * k**2) * cos + beta * h * k * sin - h
    return jnp.where(still, 0.0, jnp.sqrt(a**2 + b**2)) * (along / (1.0 - h * cos - k * sin) + h)


def constrain(parameters: dict[str, Array]) -> dict[str, Array]:
    """Map standardised coordinates on R^7 to physical ones: days, m/s."""
    v = ECCENTRIC * parameters["eccentricity"]
    share = jax.nn.sigmoid(parameters["period"])
    return {
        "period": jnp.exp(math.log(SHORTEST) + math.log(LONGEST / SHORTEST) * share),
        "amplitude": SPEED * parameters["amplitude"],
        "eccentricity": FURTHEST * v / jnp.sqrt(1.0 + jnp.sum(v**2)),
        "offset": SPEED * parameters["offset"],
        "jitter": JITTER * jnp.exp(JITTERS * parameters["jitter"]),
    }


def log_prior(parameters: dict[str, Array]) -> Float[Array, ""]:
    """Log-density of the standardised coordinates: that of `period` is logistic, the others are
    standard normal.

    A uniform number is the sigmoid of a logistic one, whose density is the sigmoid's slope: the
    Jacobian.
    """
    u = parameters["period"]
    normal = sum(jnp.sum(value**2 + math.log(2 * math.pi)) for name, value in parameters.items() if name != "period")
    return jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u) - 0.5 * normal


def data(seed: int = SEED) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Times from the middle of the span (days, the reference epoch) and velocities of the true
    planet, to the cm/s.
    """
    rng = np.random.default_rng(seed)
    time = np.sort(rng.uniform(-SPAN / 2, SPAN / 2, OBSERVATIONS))
    orbit = (jnp.asarray(TRUTH[name], jnp.float32) for name in ("period", "amplitude", "eccentricity"))
    exact = np.asarray(velocity(jnp.asarray(time, jnp.float32), *orbit), float) + TRUTH["offset"]
    # Rounded, so that they are the same wherever JAX computes the orbit.
    return time, np.round(exact + math.hypot(ERROR, TRUTH["jitter"]) * rng.normal(size=OBSERVATIONS), 2)


def radial_velocity(seed: int = SEED) -> Target:
    """Build the posterior of a planet's orbit from 12 radial velocities of its star, 7-D; units are
    days and m/s.

    `v_i ~ Normal(offset + K (cos(nu_i + w) + e cos w), 7^2 + jitter^2)`, nu the true anomaly of a
    Kepler orbit. Priors: log period uniform from log 2 to log 100 days;
    `amplitude = (K cos l, K sin l)`, l the mean longitude at the reference epoch, Normal(0, 20^2)
    each; `eccentricity = (e cos w, e sin w) = 0.95 v / sqrt(1 + |v|^2)` with v normal of standard
    deviation 0.2, which makes e about 0.2 and at most 0.95; offset Normal(0, 20^2); jitter
    LogNormal(0, 1). Coordinates are standardised (`constrain`), `draws.unravel()` has the physical
    ones by name, and log Z is the evidence. The model is the common one (Ford 2005, Quantifying the
    uncertainty in the orbits of extrasolar planets; 2006, Improving the efficiency of MCMC for
    extrasolar planet observations, for the coordinates; Price-Whelan et al. 2017, The Joker, for
    few observations and many aliases). Data are made up: of the seeds 0, 1, .. of times and noise,
    13 is the first for which, of a circular orbit (a linear model, in closed form), two periods
    apart from each other and from the bounds have two fifths of the mass each.

    What is hard: sparse observations leave several periods possible, far apart, each a narrow mode
    with an orbit of its own, of unlike masses and widths: their relative width grows with the
    period.
    """
    time, observed = data(seed)

    def log_prob(parameters: dict[str, Array]) -> Float[Array, ""]:
        physical: dict[str, Any] = constrain(parameters)
        dtype = physical["period"].dtype
        names = ("period", "amplitude", "eccentricity")
        model = velocity(jnp.asarray(time, dtype), *(physical[name] for name in names)) + physical["offset"]
        variance = ERROR**2 + physical["jitter"] ** 2
        squares = jnp.sum((jnp.asarray(observed, dtype) - model) ** 2)
        likelihood = -0.5 * (squares / variance + OBSERVATIONS * jnp.log(2 * jnp.pi * variance))
        return likelihood + log_prior(parameters)

    zero = jnp.zeros(())
    example = {"period": zero, "amplitude": jnp.zeros(2), "eccentricity": jnp.zeros(2), "offset": zero, "jitter": zero}
    return Target.of_tree(log_prob, example, constrain=constrain, name="radial-velocity")
