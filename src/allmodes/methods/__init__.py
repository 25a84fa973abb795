"""The methods, by the name that the command line knows them by. A new one is one file and one line here."""

from allmodes.methods.base import Info, Method
from allmodes.methods.idem import IDEM
from allmodes.methods.iwsm import IWSM

# Name -> configuration: several may be of one class.
METHODS: dict[str, Method] = {"iwsm": IWSM(), "iwsm-paper": IWSM.paper(), "idem": IDEM()}

__all__ = ["IDEM", "IWSM", "METHODS", "Info", "Method"]
