"""One planet by a few radial velocities of its star: aliases of the period."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt

NEWTON = 12  # steps for Kepler's equation, from Danby's start


def eccentric_longitude(mean, h, k):
    """The solution f of f - h sin f + k cos f = mean, with (h, k) = (e cos w, e sin w)."""
    e = pt.sqrt(h**2 + k**2)
    f = mean + 0.85 * e * pt.sign(h * pt.sin(mean) - k * pt.cos(mean))
    for _ in range(NEWTON):
        f = f - (f - h * pt.sin(f) + k * pt.cos(f) - mean) / (1.0 - h * pt.cos(f) - k * pt.sin(f))
    return f


def model(data):
    time, error = np.array(data["time"]), data["error"]
    with pm.Model() as orbit:
        log_period = pm.Uniform("log_period", np.log(data["shortest"]), np.log(data["longest"]))
        amplitude = pm.Normal("amplitude", 0.0, 20.0, shape=2)
        v = pm.Normal("v", 0.0, 0.2, shape=2)
        offset = pm.Normal("offset", 0.0, 20.0)
        jitter = pm.LogNormal("jitter", 0.0, 1.0)
        h, k = eccentricity = pm.Deterministic("eccentricity", 0.95 * v / pt.sqrt(1.0 + (v**2).sum()))
        mean = 2 * np.pi * time / pt.exp(log_period) + pt.arctan2(amplitude[1], amplitude[0])
        mean = mean - 2 * np.pi * pt.round(mean / (2 * np.pi))
        f = eccentric_longitude(mean, h, k)
        beta = 1.0 / (1.0 + pt.sqrt(1.0 - (eccentricity**2).sum()))
        along = (1.0 - beta * k**2) * pt.cos(f) + beta * h * k * pt.sin(f) - h
        speed = pt.sqrt((amplitude**2).sum()) * (along / (1.0 - h * pt.cos(f) - k * pt.sin(f)) + h)
        pm.Normal("velocity", offset + speed, pt.sqrt(error**2 + jitter**2), observed=np.array(data["velocity"]))
    return orbit
