"""A random stream for each metric, by its name: a new metric moves no other's."""

import dataclasses
import zlib

import jax
import numpy as np
from jaxtyping import Array

# Who took which part of the key before streams went by name; figures on record depend on it.
_PLACES = ("resample", "mmd", "w2", "modes")
_OF_PARTICLES = ("w2", "w2_geometric", "energy_w2", "distance_tv", "energies")


@dataclasses.dataclass(frozen=True)
class Streams:
    """Keys by name: from the name alone, except for those that have a place of old."""

    key: Array
    placed: dict[str, Array]

    def __call__(self, name: str) -> Array:
        """The key of this name."""
        found = self.placed.get(name)
        return jax.random.fold_in(self.key, zlib.crc32(name.encode())) if found is None else found

    def numpy(self, name: str) -> np.random.Generator:
        """A generator of NumPy seeded by the key of this name."""
        return np.random.default_rng(np.asarray(jax.random.bits(self(name), (4,))))


def named(key: Array, particles: bool = False) -> Streams:
    """The streams of one judgement; `particles` for targets that are of particles."""
    placed = _split(_PLACES, key)
    if particles:
        return Streams(key, placed | _split(_OF_PARTICLES, placed["w2"]))
    return Streams(key, placed | {"quantities": placed["w2"]})


def of_particles(key: Array) -> Streams:
    """The streams of the metrics of particles alone."""
    return Streams(key, _split(_OF_PARTICLES, key))


def _split(names: tuple[str, ...], key: Array) -> dict[str, Array]:
    return dict(zip(names, jax.random.split(key, len(names)), strict=True))
