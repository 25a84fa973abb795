"""Two ways to sample an angle: the line wound around the circle, which `Target(periodic=)` is, and
the angle of a point in the plane.

    python -m benchmarks.circles --out docs/results/circles.json

For each density on the circle: evaluations before the draws, steps, effective share of 10,000
draws, log Z (0) with its error, and the verdict.
"""

import argparse
import dataclasses
import json
import platform
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import i0e
from jax.scipy.stats import norm

import allmodes as am
from allmodes.chart import Chart, Circle, Piece

DRAWS = 10_000


@dataclasses.dataclass(frozen=True)
class Plane(Piece):
    """`theta = low + period (1/2 + atan2(v, u) / 2 pi)`, with the density times `period N(u, v)`: a
    uniform angle is a standard normal."""

    low: float
    high: float
    free = 2
    spread = 1.0

    def to_x(self, z):
        turn = 0.5 + jnp.arctan2(z[1], z[0]) / (2.0 * jnp.pi)
        return (self.low + (self.high - self.low) * turn)[None]

    def log_volume(self, z):
        return jnp.sum(norm.logpdf(z)) + np.log(self.high - self.low)

    def to_free(self, key, x):
        angle = 2.0 * jnp.pi * ((x[0] - self.low) / (self.high - self.low) - 0.5)
        radius = jnp.sqrt(-2.0 * jnp.log(jax.random.uniform(key, (), x.dtype, jnp.finfo(x.dtype).tiny)))
        return radius * jnp.array([jnp.cos(angle), jnp.sin(angle)])


def von_mises(place, concentration, log_share=0.0):
    top = -jnp.log(2 * jnp.pi * i0e(concentration)) + log_share
    return lambda theta: concentration * (jnp.cos(theta - place) - 1.0) + top


def two(theta):
    parts = von_mises(1.0, 50.0, np.log(0.3)), von_mises(1.0 - np.pi, 50.0, np.log(0.7))
    return jnp.logaddexp(*(part(theta) for part in parts))


DENSITIES = {
    "uniform": von_mises(0.0, 0.0),
    "concentration 20, at the seam": von_mises(np.pi, 20.0),
    "two opposite, concentration 50": two,
    "concentration 10,000": von_mises(0.7, 1e4),
    "concentration 10,000, at the seam": von_mises(np.pi, 1e4),
}
WAYS = {"line": Circle(-np.pi, np.pi), "plane": Plane(-np.pi, np.pi)}


def measure(way, name, seed):
    log_prob = DENSITIES[name]
    target = am.Target(lambda x: log_prob(x[0]), 1, chart=Chart((WAYS[way],)))
    sampler = am.fit(target, key=jax.random.key(seed), progress=False)
    draws = sampler.sample(DRAWS, key=jax.random.key(1000 + seed))
    return {
        "way": way, "density": name, "seed": seed, "evaluations": sampler.evaluations["log_prob"],
        "steps": int(sampler.state.step), "share": round(draws.ess / DRAWS, 3),
        "log_z": round(float(draws.log_z.value), 4), "std_error": round(float(draws.log_z.std_error), 4),
        "verdict": draws.verdict().word,
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rows = []
    for name in DENSITIES:
        for way in WAYS:
            for seed in range(given.seeds):
                rows.append(measure(way, name, seed))
                print(json.dumps(rows[-1]), flush=True)
                if given.out:
                    about = {"machine": f"{platform.machine()}, {jax.default_backend()}", "rows": rows}
                    given.out.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
