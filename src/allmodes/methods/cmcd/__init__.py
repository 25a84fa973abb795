"""Controlled Monte Carlo Diffusions."""

from allmodes.methods.cmcd.method import CMCD

__all__ = ["CMCD"]
