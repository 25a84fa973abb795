"""Denoisers: networks behind one preconditioning."""

from allmodes.networks.anchored import Anchored, anchors_of
from allmodes.networks.denoiser import Denoiser
from allmodes.networks.egnn import EGNN
from allmodes.networks.mlp import MLP

__all__ = ["EGNN", "MLP", "Anchored", "Denoiser", "anchors_of"]
