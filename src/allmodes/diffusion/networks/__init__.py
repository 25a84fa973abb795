"""Denoisers: networks behind one preconditioning."""

from allmodes.diffusion.networks.anchored import Anchored, anchors_of
from allmodes.diffusion.networks.denoiser import Denoiser
from allmodes.diffusion.networks.egnn import EGNN
from allmodes.diffusion.networks.mlp import MLP

__all__ = ["EGNN", "MLP", "Anchored", "Denoiser", "anchors_of"]
