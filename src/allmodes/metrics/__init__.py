"""Metrics: pure functions on arrays, one file a family. Each sample metric goes with its floor."""

from allmodes.draws.estimates import Estimate, elbo, ess, eubo, forward_ess, khat, log_z
from allmodes.metrics._evaluate import evaluate
from allmodes.metrics._mmd import mmd, mmd_mixture
from allmodes.metrics.floor import Ratio, ratio
from allmodes.metrics.modes import ModeReport, mode_report
from allmodes.metrics.transport import w2

__all__ = [
    "Estimate",
    "ModeReport",
    "Ratio",
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
    "ratio",
    "w2",
]
