"""Metrics: pure functions on arrays, one file a family. Each sample metric goes with its floor."""

from allmodes.metrics.evaluate import evaluate
from allmodes.metrics.floor import Ratio, ratio
from allmodes.metrics.mmd import mmd, mmd_mixture
from allmodes.metrics.modes import ModeReport, mode_report
from allmodes.metrics.transport import w2
from allmodes.metrics.weights import Estimate, elbo, ess, eubo, forward_ess, khat, log_z

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
