"""A user's file as a module, under a name by which its functions are found again."""

import importlib.util
import sys
import types
from pathlib import Path

PREFIX = "_file_"


def import_file(path: Path, name: str | None = None) -> types.ModuleType:
    """Run a Python file as a module; what lies beside it can be imported by it.

    **Raises** `ImportError` where it is not a Python file; whatever the file raises.
    """
    spec = importlib.util.spec_from_file_location(name or f"{PREFIX}{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    sys.modules[module.__name__] = module  # where dataclasses, pickles, and what asks for their source, look
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def files_named_in(text: bytes) -> dict[str, str]:
    """Names and paths of the modules of files that a pickle asks for."""
    loaded = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {name: path for name, path in loaded.items() if name.startswith(PREFIX) and path and name.encode() in text}
