"""Samplers that are trained on whole paths: what they share is written once, each is one file."""

from allmodes.methods.paths.adjoint import AdjointSampling
from allmodes.methods.paths.dds import DDS
from allmodes.methods.paths.losses import LogVariance, ReverseKL, TrajectoryBalance
from allmodes.methods.paths.lrds import LRDS
from allmodes.methods.paths.method import PathMethod
from allmodes.methods.paths.pis import PIS
from allmodes.methods.paths.reference import PinnedBrownian
from allmodes.methods.paths.tb import TB
from allmodes.methods.paths.trlv import TRLV

__all__ = [
    "DDS",
    "LRDS",
    "PIS",
    "TB",
    "TRLV",
    "AdjointSampling",
    "LogVariance",
    "PathMethod",
    "PinnedBrownian",
    "ReverseKL",
    "TrajectoryBalance",
]
