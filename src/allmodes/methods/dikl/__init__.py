"""The reverse KL along diffusion, of a generator in one step."""

from allmodes.methods.dikl.method import DiKL

__all__ = ["DiKL"]
