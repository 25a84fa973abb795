"""Models as they are: targets made from what other libraries describe. A new one is one file and
one name here.
"""

from allmodes.interop import nested, numpy, numpyro, openmm, pymc, stan, torch

__all__ = ["nested", "numpy", "numpyro", "openmm", "pymc", "stan", "torch"]
