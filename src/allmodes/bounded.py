"""A sampler of free coordinates whose draws come back between the user's bounds."""

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Float

from allmodes.chart import Support
from allmodes.devices.keys import Key
from allmodes.devices.precision import double
from allmodes.draws.draws import Draws, LogDensity
from allmodes.errors import ConfigError
from allmodes.method import Method
from allmodes.sampler import Sampler
from allmodes.target import Target


def sampler_of(method: Method, target: Target, state: Any, seconds: dict[str, float]) -> Sampler:
    """The sampler of a target, whatever its support, from the state of its free coordinates."""
    free = method.sampler(target.free, state, seconds)
    return free if target.chart is None else Bounded(target, method, state, seconds, free)


@dataclasses.dataclass(frozen=True, eq=False)
class Bounded(Sampler):
    """What `free` draws, in the user's coordinates; weights are those of the free draws, to the
    bit.
    """

    inner: Sampler = None  # type: ignore[assignment]  # always given; a default, as `seconds` has one

    @property
    def free(self) -> Sampler:
        """The sampler over coordinates without bounds."""
        return self.inner

    @property
    def options(self) -> frozenset[str]:
        """What the sampler of free coordinates takes."""
        return self.free.options

    def sample(self, n: int, *, key: Key, **options: Any) -> Draws:
        """As the sampler of free coordinates draws, with the same options."""
        return self._back(self.free.sample(n, key=key, **options))

    def sample_within(self, n: int, evaluations: int, *, key: Key) -> Draws:
        """As the sampler of free coordinates."""
        return self._back(self.free.sample_within(n, evaluations, key=key))

    def corrected(self, n: int, *, key: Key, pool: int | None = None) -> Draws | None:
        """As the sampler of free coordinates."""
        made = self.free.corrected(n, key=key, pool=pool)
        return None if made is None else self._back(made)

    @property
    def steps(self) -> int | None:
        """As the sampler of free coordinates."""
        return self.free.steps

    def log_weights(self, x: Float[Array, "n dim"], *, key: Key) -> Float[Array, " n"] | None:
        """Weights of free points of the given ones: of a circle, one of many that are as good."""
        k_free, k_weights = jax.random.split(key)
        z = self._free_points(x, k_free)
        return None if z is None else self.free.log_weights(z, key=k_weights)

    def log_density(self, x: Float[Array, "n dim"], **options: Any) -> LogDensity:
        """The sampler's log-density with respect to the user's volume.

        **Raises** `ConfigError` where free points are more than the user's, as on a circle, or the
        sampler has no density.
        """
        chart = self.target.chart
        ask = getattr(self.free, "log_density", None)
        z = None if ask is None or self.target.periodic else self._free_points(x, jax.random.key(0))
        if z is None:
            what = "has none" if ask is None else "is that of coordinates of which several points are one of yours"
            raise ConfigError(f"the density of a sampler of {self.target.name} {what}: ask sampler.free")
        found = ask(z, **options)
        return found._replace(log_density=found.log_density - jax.vmap(chart.log_volume)(z))

    def _back(self, draws: Draws) -> Draws:
        with double(self.target.double):
            x, log_volume = _in_x(self.target.chart, draws.x)
        known = {"parameters": self.target.parameters, "flats": self.target.flats}
        return dataclasses.replace(draws, x=x, log_prob=draws.log_prob - log_volume, free=draws.x, **known)

    def _free_points(self, x: Float[Array, "n dim"], key: Array) -> Float[Array, "n free"] | None:
        return jax.vmap(self.target.chart.to_free)(jax.random.split(key, len(x)), x)


def _in_x(chart: Support, z: Float[Array, "n free"]) -> tuple[Float[Array, "n dim"], Float[Array, " n"]]:
    return jax.jit(jax.vmap(lambda point: (chart.to_x(point), chart.log_volume(point))))(z)
