"""Whether two independently seeded samplers of one density agree: a second opinion that needs no
exact draws.
"""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array

from allmodes.devices.callbacks import watched
from allmodes.devices.keys import Key, keyed
from allmodes.devices.precision import single
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import forward_ess
from allmodes.errors import ConfigError
from allmodes.files.fingerprint import differing
from allmodes.points.weighted import normalised
from allmodes.sampler import Sampler

MIN_CROSS = 0.05  # effective share of one sampler's draws as the other sees them
MAX_OFF = 3.0  # standard errors between two estimates


@dataclasses.dataclass(frozen=True)
class Agreement:
    """What two samplers say of each other.

    **Attributes**

    - `log_z_off`, `energy_off`: standard errors between their estimates of log Z (None where one
      has none) and of the mean log-density.
    - `cross_ess`: effective share, in [0, 1], of the first one's draws seen by the second and of
      the second's seen by the first (`forward_ess`); it falls when the seer misses a region. None
      where the seer cannot tell.
    """

    log_z_off: float | None
    energy_off: float
    cross_ess: tuple[float | None, float | None]

    @property
    def reasons(self) -> list[str]:
        """What they disagree on, in words; none where they agree."""
        said = []
        if self.log_z_off is not None and not self.log_z_off <= MAX_OFF:
            said.append(f"their estimates of log Z differ by {self.log_z_off:.1f} standard errors")
        if not self.energy_off <= MAX_OFF:
            said.append(f"their mean log-densities differ by {self.energy_off:.1f} standard errors")
        for ess, (one, other) in zip(self.cross_ess, (("first", "second"), ("second", "first")), strict=True):
            if ess is not None and not ess >= MIN_CROSS:
                said.append(f"the {other} hardly reaches where draws of the {one} lie (cross ESS {ess:.2g})")
        return said

    @property
    def agree(self) -> bool:
        """Whether no reason was found that they do not. What both miss stays unseen."""
        return not self.reasons


@watched
@keyed
@single
def agreement(first: Sampler, second: Sampler, *, key: Key, n: int = 4000) -> Agreement:
    """Compare two samplers of one density by n draws of each, resampled by their weights.

    What both miss stays unseen: samplers of one kind tend to miss the same (`allmodes audit` looks
    elsewhere).

    Two samplers trained from other seeds that found other modes give each other's draws weights of
    enormous spread: `E[w] E[1/w]` over the draws of one, by the other's path weights. About 4 n
    evaluations, and what draws cost.

    **Raises** `ConfigError` when the targets' dimensions or densities differ, or n is below 100.
    """
    if first.target.dim != second.target.dim:
        raise ConfigError(f"the samplers are of densities in {first.target.dim} and {second.target.dim} dimensions")
    if n < 100:
        raise ConfigError(f"agreement needs n of at least 100, got {n}")
    if first.target.chart == second.target.chart:  # without bounds no point is lost on the way back
        first, second = first.free, second.free
    keys = jax.random.split(key, 6)
    draws = first.sample(n, key=keys[0]), second.sample(n, key=keys[1])
    _check_densities(first, second, draws)
    fair = [_fair(d, k) for d, k in zip(draws, keys[2:4], strict=True)]
    seen = second.log_weights(fair[0].x, key=keys[4]), first.log_weights(fair[1].x, key=keys[5])
    cross = tuple(None if log_w is None else forward_ess(log_w) for log_w in seen)
    z = [d.log_z for d in draws]
    known = not any(np.isnan(estimate.value) for estimate in z)
    log_z_off = abs(z[0].value - z[1].value) / float(np.hypot(z[0].std_error, z[1].std_error)) if known else None
    means, errors = zip(*(_mean_log_prob(d) for d in draws), strict=True)
    energy_off = abs(means[0] - means[1]) / float(max(np.hypot(*errors), 1e-30))
    return Agreement(log_z_off, energy_off, cross)


def _check_densities(first: Sampler, second: Sampler, draws: tuple[Draws, Draws]) -> None:
    for of, other, name in ((draws[0], second, "first"), (draws[1], first, "second")):
        values = other.target.values(of.x[:100])
        apart = differing(of.log_prob[:100].tolist(), values.tolist())
        if apart is not None:
            raise ConfigError(
                f"the samplers are of different densities: at a draw of the {name} its log_prob is {apart[0]:.6g}, and "
                f"that of the other {apart[1]:.6g}"
            )


def _fair(draws: Draws, key: Array) -> Draws:
    return draws if draws.equally_weighted else draws.resample(key=key)


def _mean_log_prob(draws: Draws) -> tuple[float, float]:
    w = normalised(draws.log_weight)
    value = np.where(w > 0, np.asarray(draws.log_prob, np.float64), 0.0)
    mean = float(np.sum(w * value))
    share = draws.ess * float(np.sum(w**2))  # below 1 for chains, whose draws are related
    return mean, float(np.sqrt(np.sum((w * (value - mean)) ** 2) / max(share, 1e-12)))
