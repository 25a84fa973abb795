"""Every test runs with shapes and types checked at run time."""

from jaxtyping import install_import_hook

# Before the first import of the package, so that each function of it is checked at each call.
install_import_hook("allmodes", "beartype.beartype")
