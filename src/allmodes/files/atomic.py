"""Files that are written whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from allmodes.errors import RunError
from allmodes.files import interrupt


def write_atomically(path: Path, write: Callable[[Any], None], mode: str = "w") -> None:
    """Write a file beside `path` and move it into place: a reader, or a crash, sees the old file or
    the new one.

    **Raises** `RunError` when the folder cannot be written or the disk is full; the old file is
    then still there.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(mode, dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            interrupt.temporary(temporary)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        interrupt.forget(temporary)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            interrupt.forget(temporary)
        if not isinstance(error, OSError):
            raise
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error


def check_writable(path: Path) -> None:
    """Say before the work, not after it, that its result could not be written to `path`.

    **Raises** `RunError` when the folder is not there, or cannot be written, or `path` is a folder.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
            pass
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. Make the folder {path.parent} first, or choose another "
            "file with --out"
        ) from error
