"""Denoisers: networks behind one preconditioning. A new one is one file with the network and its
settings, and one line here.
"""

from allmodes.diffusion.networks.anchored import Anchored, AnchoredPerceptron, anchors_of
from allmodes.diffusion.networks.corrected import Corrected, MixturePerceptron
from allmodes.diffusion.networks.denoiser import Denoiser
from allmodes.diffusion.networks.egnn import EGNN, Equivariant
from allmodes.diffusion.networks.mlp import MLP, Perceptron
from allmodes.settings import parts_of
from allmodes.symmetry import ParticleSymmetry

Network = Perceptron | AnchoredPerceptron | MixturePerceptron | Equivariant
NETWORKS = parts_of(Network)


def network_for(wanted: Network, symmetry: ParticleSymmetry | None) -> Network:
    """Choose the network that a density gets: of particles an equivariant one, of others none such,
    as wide and as deep as is wanted.
    """
    if symmetry is not None and not isinstance(wanted, Equivariant):
        return Equivariant(wanted.width, wanted.depth, wanted.predicts)
    if symmetry is None and isinstance(wanted, Equivariant):
        return Perceptron(wanted.width, wanted.depth, predicts=wanted.predicts)
    return wanted


__all__ = [
    "EGNN",
    "MLP",
    "NETWORKS",
    "Anchored",
    "AnchoredPerceptron",
    "Corrected",
    "Denoiser",
    "Equivariant",
    "MixturePerceptron",
    "Network",
    "Perceptron",
    "anchors_of",
    "network_for",
]
