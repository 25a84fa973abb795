"""One process at a time in a run folder: a lock that the kernel frees when its holder dies, however
it dies.
"""

import contextlib
import datetime
import errno
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from allmodes.errors import RunError, RunWarning
from allmodes.files import interrupt

NAME = "lock"
_UNKNOWN = {errno.ENOLCK, errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}  # no `flock` on this file system

_held: dict[str, int] = {}  # folders that this process holds, and how often


class InUseError(RunError):
    """Another process is at work in a run folder."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder; the process that does may enter it again.

    The file `lock` names the holder (process, host, since when) for others to read. It is the
    kernel that holds the lock (`flock`): a file that a killed process has left binds no one. Where
    the file system has no such locks, the names decide: a process of this host that is no more is
    passed over, and any other one believed.

    **Raises** `InUseError`, a `RunError` that names the holder, when another process holds it.
    """
    place = os.path.realpath(folder)
    if place in _held:
        _held[place] += 1
        try:
            yield
        finally:
            _held[place] -= 1
        return
    path = Path(place) / NAME
    file = _acquire(path)
    interrupt.temporary(str(path))
    _held[place] = 1
    try:
        yield
    finally:
        del _held[place]
        with contextlib.suppress(OSError):
            os.unlink(path)  # while it is held: who opens the old file now will find that it is not the one in place
        interrupt.forget(str(path))
        os.close(file)


def _acquire(path: Path) -> int:
    """An open file that holds the lock, with this process named in it."""
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunError(f"cannot write {path}: {error.strerror or error}") from error
        try:
            _take(file, path)
            if not _in_place(file, path):  # its holder has just ended, and removed it
                os.close(file)
                continue
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
            os.ftruncate(file, 0)
            os.pwrite(file, (json.dumps(about) + "\n").encode(), 0)
            return file
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(file)
            raise


def _take(file: int, path: Path) -> None:
    """Lock an open file, or raise what keeps this process from it."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _in_use(path.parent, _holder(file), "") from None
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise RunError(f"cannot lock {path}: {error.strerror or error}") from error
        holder = _holder(file)
        if holder and not _gone(holder):
            raise _in_use(path.parent, holder, f", or delete {path} if that process is no more") from None
        warnings.warn(
            f"{path.parent} lies on a file system without locks: see to it yourself that no second process works there",
            RunWarning,
            stacklevel=2,
        )


def _in_use(folder: Path, holder: dict[str, Any], more: str) -> InUseError:
    who = "another process"
    if holder:
        who = f"process {holder.get('pid')} on {holder.get('host')}, since {holder.get('since')},"
    return InUseError(
        f"{who} is at work in {folder}: wait for it, or end it{more}, or choose another folder with --out"
    )


def _holder(file: int) -> dict[str, Any]:
    try:
        about = json.loads(os.pread(file, 4096, 0))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def _gone(holder: dict[str, Any]) -> bool:
    """Whether a holder is a process of this host that has ended; of another host's no one here can
    tell.
    """
    if holder.get("host") != socket.gethostname() or not isinstance(holder.get("pid"), int):
        return False
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is there, and another user's
        return False
    return holder["pid"] == os.getpid()


def _in_place(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
