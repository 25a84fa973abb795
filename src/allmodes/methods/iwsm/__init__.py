"""Importance-weighted score matching, and iDEM as a configuration of it."""

from allmodes.methods.iwsm.idem import IDEM
from allmodes.methods.iwsm.method import IWSM

__all__ = ["IDEM", "IWSM"]
