"""The modes of a run's draws, as `result.json` has them."""

from typing import Any

from jaxtyping import Array

from allmodes.draws.draws import Draws
from allmodes.errors import ConfigError
from allmodes.interop import numpy
from allmodes.progress.stages import stage
from allmodes.sampler import Sampler

EXPECTED = 5000  # evaluations that telling modes apart takes, about
MOST_SECONDS = 60.0  # of a function on the host, beyond which a run leaves it to its user


def mode_table(sampler: Sampler, draws: Draws, key: Array) -> dict[str, Any]:
    """The table of `sampler.modes`; empty of particles, of draws without mass, and where a function
    on the host would take more than a minute.
    """
    target = sampler.target
    if hasattr(target.log_prob, "host"):
        cost = numpy.cost(target)
        if EXPECTED * cost.seconds > MOST_SECONDS * max(cost.points, 1):
            return {}
    stage("telling modes apart")
    try:
        return sampler.modes(draws, key=key).as_dict()
    except ConfigError:
        return {}
