"""What posteriordb is told of each posterior: its data, its parameters, and where it comes from."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from allmodes.targets.posteriors import labels, radial_velocity, sensors


class Entry(NamedTuple):
    """A posterior: its title, what is hard, the works it is from, its data, and a function
    `target, x (n, dim) -> {name: (n, ...)}` of the parameters of its PyMC model."""

    title: str
    about: str
    references: tuple[str, ...]
    data: Callable[[], dict]
    parameters: Callable


def data_of_labels():
    y = labels.data()
    return {"N": len(y), "K": 4, "y": y.tolist()}


def data_of_sensors():
    """Pairs by number, from one on: sensors come first, then anchors."""
    _, distance, observed = sensors.data()
    first, second = sensors._FIRST + 1, sensors._SECOND + 1
    return {
        "S": sensors.SENSORS, "A": len(sensors.ANCHORS), "anchors": sensors.ANCHORS.tolist(),
        "reach": sensors.RANGE, "noise": sensors.NOISE,
        "N": int(observed.sum()), "first": first[observed].tolist(), "second": second[observed].tolist(),
        "distance": distance[observed].tolist(),
        "M": int((~observed).sum()), "far_first": first[~observed].tolist(), "far_second": second[~observed].tolist(),
    }  # fmt: skip


def data_of_radial_velocity():
    time, velocity = radial_velocity.data()
    return {
        "N": len(time), "time": time.tolist(), "velocity": velocity.tolist(), "error": radial_velocity.ERROR,
        "shortest": radial_velocity.SHORTEST, "longest": radial_velocity.LONGEST,
    }  # fmt: skip


def unravelled(target, x):
    return {name: np.asarray(value, float) for name, value in target.parameters(np.asarray(x, np.float32)).items()}


def of_orbit(target, x):
    """The log of the period, and the 2-vector that is mapped into the disc, in their places."""
    there = unravelled(target, x)
    e = there.pop("eccentricity") / radial_velocity.FURTHEST
    there["v"] = e / np.sqrt(1.0 - np.sum(e**2, axis=-1, keepdims=True))
    there["log_period"] = np.log(there.pop("period"))
    return there


ENTRIES = {
    "mixture-labels": Entry(
        "A normal mixture of four components with exchangeable labels", "24 modes of equal mass, by label switching",
        ("jasra2005labels", "delmoral2006smc"), data_of_labels, unravelled,
    ),
    "sensors": Entry(
        "Places of eight sensors from a few noisy distances", "Places that fold over one another, along arcs",
        ("ihler2005sensors", "ahn2013darting"), data_of_sensors, unravelled,
    ),
    "radial-velocity": Entry(
        "One planet from twelve radial velocities of its star", "Aliases of the period, of unlike masses and widths",
        ("ford2005orbits", "pricewhelan2017joker"), data_of_radial_velocity, of_orbit,
    ),
}  # fmt: skip

BIBLIOGRAPHY = """
@article{jasra2005labels,
  author = {Jasra, Ajay and Holmes, Chris C. and Stephens, David A.},
  title = {Markov chain {M}onte {C}arlo methods and the label switching problem in {B}ayesian mixture modeling},
  journal = {Statistical Science}, volume = {20}, number = {1}, pages = {50--67}, year = {2005}
}
@article{delmoral2006smc,
  author = {Del Moral, Pierre and Doucet, Arnaud and Jasra, Ajay},
  title = {Sequential {M}onte {C}arlo samplers},
  journal = {Journal of the Royal Statistical Society B}, volume = {68}, number = {3}, pages = {411--436}, year = {2006}
}
@article{ihler2005sensors,
  author = {Ihler, Alexander T. and Fisher, John W. and Moses, Randolph L. and Willsky, Alan S.},
  title = {Nonparametric belief propagation for self-localization of sensor networks},
  journal = {IEEE Journal on Selected Areas in Communications}, volume = {23}, number = {4}, pages = {809--819},
  year = {2005}
}
@inproceedings{ahn2013darting,
  author = {Ahn, Sungjin and Chen, Yutian and Welling, Max},
  title = {Distributed and adaptive darting {M}onte {C}arlo through regenerations},
  booktitle = {AISTATS}, year = {2013}
}
@article{ford2005orbits,
  author = {Ford, Eric B.},
  title = {Quantifying the uncertainty in the orbits of extrasolar planets},
  journal = {The Astronomical Journal}, volume = {129}, number = {3}, pages = {1706--1717}, year = {2005}
}
@article{pricewhelan2017joker,
  author = {Price-Whelan, Adrian M. and Hogg, David W. and Foreman-Mackey, Daniel and Rix, Hans-Walter},
  title = {The {J}oker: a custom {M}onte {C}arlo sampler for binary-star and exoplanet radial velocity data},
  journal = {The Astrophysical Journal}, volume = {837}, number = {1}, pages = {20}, year = {2017}
}
"""
