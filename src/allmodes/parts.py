"""The parts that methods are made of: `am.IWSM(network=am.parts.Perceptron(width=256))`."""

from allmodes.diffusion.networks import AnchoredPerceptron, Equivariant, MixturePerceptron, Perceptron
from allmodes.diffusion.noise import NoiseRange
from allmodes.methods.fab.flow import CouplingFlow
from allmodes.methods.iwsm.estimators import Chain, FreshDraws, MixtureRatio, Neighbours
from allmodes.methods.iwsm.reweighting import OwnDraws, PathMoves, PathResampling
from allmodes.methods.optimiser import Adam
from allmodes.methods.paths import LogVariance, PinnedBrownian, ReverseKL, TrajectoryBalance
from allmodes.search.effort import Search

__all__ = [
    "Adam",
    "AnchoredPerceptron",
    "Chain",
    "CouplingFlow",
    "Equivariant",
    "FreshDraws",
    "LogVariance",
    "MixturePerceptron",
    "MixtureRatio",
    "Neighbours",
    "NoiseRange",
    "OwnDraws",
    "PathMoves",
    "PathResampling",
    "Perceptron",
    "PinnedBrownian",
    "ReverseKL",
    "Search",
    "TrajectoryBalance",
]
