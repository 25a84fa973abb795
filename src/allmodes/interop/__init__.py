"""Models as they are: targets made from what other libraries describe. A new one is one file and one name here."""

from allmodes.interop import numpyro

__all__ = ["numpyro"]
