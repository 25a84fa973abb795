"""Denoisers: networks behind one preconditioning."""

from allmodes.networks.denoiser import Denoiser
from allmodes.networks.mlp import MLP

__all__ = ["MLP", "Denoiser"]
