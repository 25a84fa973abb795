"""What several files of tests share: small settings, the density of two modes, comparisons to the
last bit, calls of the command line.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import allmodes as am
from allmodes import targets
from allmodes.command.main import main
from allmodes.parts import Neighbours, PathMoves, Perceptron

# Of fits in tests. Compiled programs are kept by what they compute: whoever takes these settings,
# these densities and these numbers of draws takes the programs of others.
SMALL = {
    "batch": 128, "buffer": 512, "cooldown": 10, "enough": None, "opinion": 0.0,
    "network": Perceptron(width=16, depth=1), "reweighting": PathMoves(every=20, path_steps=8),
}  # fmt: skip
CHUNK = 10  # steps between two looks at a fit


@dataclasses.dataclass(frozen=True, eq=False)
class Counting(am.Target):
    """Counts, on the host, the points that are really evaluated: with a gradient, and without."""

    counts: dict = dataclasses.field(default_factory=lambda: {"gradient": 0, "value": 0}, hash=False, compare=False)

    @property
    def total(self):
        """All of them, once those that are on their way have come."""
        jax.effects_barrier()
        return sum(self.counts.values())

    def _count(self, what, n, _):  # a callback without an argument would be taken out of loops
        self.counts[what] += n

    def evaluate(self, x):
        jax.debug.callback(functools.partial(self._count, "gradient", x.shape[0]), x[0, 0])
        return super().evaluate(x)

    def values(self, x):
        jax.debug.callback(functools.partial(self._count, "value", x.shape[0]), x[0, 0])
        return super().values(x)


def pair_log_prob(x):
    """Two equal normals of standard deviation 1/2 at (-2, 0) and (2, 1), unnormalised: Z = pi."""
    means = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
    return jax.nn.logsumexp(-0.5 * jnp.sum((x - means) ** 2, -1) / 0.25)


def pair():
    return am.Target(pair_log_prob, 2, name="pair")


def small(steps, **changes):
    return am.IWSM.thorough(**{**SMALL, "steps": steps, **changes})


def little(*, every, path_steps, width=16, depth=1, frequencies=8, neighbours=16, **fields):
    """IWSM with a small network that is renewed often."""
    parts = {
        "network": Perceptron(width, depth, frequencies), "estimator": Neighbours(neighbours),
        "reweighting": PathMoves(every=every, path_steps=path_steps), "opinion": 0.0,
    }  # fmt: skip
    return am.IWSM.thorough(**{**parts, **fields})


def same_bits(a, b):
    """Whether two pytrees hold the same arrays, to the last bit."""
    a, b = jax.tree.leaves(a), jax.tree.leaves(b)
    return len(a) == len(b) and all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes() for x, y in zip(a, b, strict=True)
    )


def call(*words):
    """The exit status of a command."""
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    return stop.value.code


def listed(name, target):
    """`allmodes targets` says without building a target what building it shows."""
    entry = targets.entries()[name]
    draws = "exact draws" if entry.reference is None else "reference draws"
    known = {draws: target.sample, "log Z": target.log_z, "modes": target.modes}
    assert entry.known == ", ".join(what for what, value in known.items() if value is not None)
    assert entry.dim == target.dim
