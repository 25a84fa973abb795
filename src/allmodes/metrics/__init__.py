"""Metrics: pure functions on arrays, one file each, and the registry that judges draws by all of
them (`metrics.registry`). Each sample metric goes with its floor.
"""

from allmodes.draws.estimates import Estimate, elbo, ess, eubo, forward_ess, khat, log_z
from allmodes.metrics._evaluate import evaluate, particle_metrics
from allmodes.metrics._mmd import mmd, mmd_mixture
from allmodes.metrics.floor import Ratio, ratio
from allmodes.metrics.metric import Metric, SampleMetric
from allmodes.metrics.modes import ModeReport, mode_report
from allmodes.metrics.registry import METRICS
from allmodes.metrics.transport import w2

__all__ = [
    "METRICS",
    "Estimate",
    "Metric",
    "ModeReport",
    "Ratio",
    "SampleMetric",
    "elbo",
    "ess",
    "eubo",
    "evaluate",
    "forward_ess",
    "khat",
    "log_z",
    "mmd",
    "mmd_mixture",
    "mode_report",
    "particle_metrics",
    "ratio",
    "w2",
]
