"""Flow annealed importance sampling bootstrap."""

from allmodes.methods.fab.method import FAB

__all__ = ["FAB"]
