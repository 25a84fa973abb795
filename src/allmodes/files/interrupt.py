"""Ctrl-C, SIGTERM and SIGHUP on the command line: status 130 at any moment, and a line that says
how to go on.

A handler in Python runs between two steps of the interpreter in the main thread, which may be
minutes away in compiled code, and an exception that it raises may come out of a callback of such
code, which ends the process. So handlers here do nothing; what the interpreter writes to a pipe at
the moment of the signal wakes a thread, and that acts. As all files are written whole or not at
all, it may end the process at once. Only training, which holds what no file has yet, is asked to
stop by itself, between two chunks of steps.

Imports nothing that takes time: it is there before all else.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

STATUS = 130
GRACE = 10.0  # seconds in which training may come to the end of a chunk, and again to write its checkpoint
CHILD_GRACE = 2 * GRACE + 5.0  # the same for another command that this one waits for
SAME = 0.5  # seconds in which a signal counts as the one before: a terminal and a job manager may both send it
NOTHING = "interrupted: nothing was written"
WRITTEN = "interrupted at the end: everything was written"
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class _State:
    """What the threads tell each other; `lock` guards it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.line: Callable[[], str] = lambda: NOTHING
        self.waits = False  # whether the main thread looks at `asked` soon
        self.asked = False
        self.stopping = False  # whether it has seen it
        self.spoken = False
        self.child: subprocess.Popen | None = None
        self.temporaries: set[str] = set()


_state = _State()


def install() -> Callable[[], None]:
    """Guard this process from now on; returns what undoes it. Does nothing outside of the main
    thread.

    A signal that is ignored already (`nohup`, a job in the background of a script) stays so.
    """
    global _state
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    _state = _State()
    read, write = os.pipe()
    os.set_blocking(write, False)
    thread = threading.Thread(target=_watch, args=(read,), name="signals", daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    handlers = {number: signal.signal(number, lambda *_: None) for number in heard}

    def undo() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(before)
        os.close(write)
        thread.join()
        os.close(read)

    return undo


def over() -> None:
    """Ignore signals from now on: all is written, and the process only has to end.

    While Python ends it takes its handlers away, and a signal would kill a process that has done
    its work.
    """
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def say(line: str | Callable[[], str]) -> None:
    """From now on an interruption says this, or what the function returns then; an empty line for
    silence.
    """
    _state.line = line if callable(line) else lambda: line


def wait() -> None:
    """From now on an interruption waits, for a while, for the next call of this or of `at_once`.

    **Raises** `KeyboardInterrupt` when there has been one.
    """
    _look(waits=True)


def at_once() -> None:
    """From now on an interruption ends the process at once.

    **Raises** `KeyboardInterrupt` when there has been one.
    """
    _look(waits=False)


def _look(waits: bool) -> None:
    with _state.lock:
        _state.stopping = _state.asked
        _state.waits = waits or _state.stopping
        if _state.stopping:
            raise KeyboardInterrupt


def speak() -> None:
    """Print the line of an interruption on stderr, once."""
    with _state.lock:
        if _state.spoken:
            return
        _state.spoken = True
        line = _state.line()
        if line:
            print(line, file=sys.stderr, flush=True)


def temporary(path: str) -> None:
    """Have a file removed if the process is ended by a signal."""
    _state.temporaries.add(path)


def forget(path: str) -> None:
    """Undo `temporary`."""
    _state.temporaries.discard(path)


def call(command: list[str], *, timeout: float | None = None, **options: Any) -> subprocess.CompletedProcess:
    """`subprocess.run` of a command of ours, to which an interruption is passed on; it then ends
    first.

    It has a process group of its own, so that it does not hear a terminal's Ctrl-C besides. After
    `timeout` seconds it is ended as by an interruption of its own.

    **Raises** `KeyboardInterrupt` when there has been an interruption, `subprocess.TimeoutExpired`
    after a command that took too long has ended.
    """
    with subprocess.Popen(command, process_group=0, **options) as child:
        try:
            with _state.lock:
                _state.child, asked = child, _state.asked
            if asked:
                child.terminate()
            try:
                out, err = child.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                child.terminate()
                child.communicate()  # it writes what it has
                raise
        except BaseException:  # Ctrl-C in Python itself
            child.terminate()
            raise
        finally:
            with _state.lock:
                _state.child = None
    if _state.asked:
        _state.stopping = True
        raise KeyboardInterrupt
    return subprocess.CompletedProcess(command, child.returncode, out, err)


def _watch(read: int) -> None:
    """The thread: waits for a signal, and then sees to it that the process ends."""
    while True:
        told = os.read(read, 64)
        if not told:  # the guard is undone
            return
        if any(number in SIGNALS for number in told):
            break
    with _state.lock:
        _state.asked = True
        child = _state.child
        limit = CHILD_GRACE if child else GRACE if _state.waits else 0.0
    if child:
        child.terminate()
    if limit and not _ended(read, limit):
        return
    _leave(cut=bool(limit))


def _ended(read: int, limit: float) -> bool:
    """Wait for the main thread to end the process by itself; whether it has to be ended now, by a
    second signal.
    """
    time.sleep(SAME)
    deadline, extended = time.monotonic() + limit, False
    heard = select.select([read], [], [], 0.0)[0] and os.read(read, 64)  # the same signal
    if heard == b"":
        return False
    while True:
        if select.select([read], [], [], max(0.0, deadline - time.monotonic()))[0]:
            return os.read(read, 64) != b""
        if extended or not _state.stopping:
            return True
        deadline, extended = deadline + limit, True


def _leave(cut: bool) -> None:
    """End the process from this thread. Nothing that the main thread may hold is waited for: not
    even `sys.stderr`.
    """
    with _state.lock:
        spoken, _state.spoken = _state.spoken, True
    for path in list(_state.temporaries):
        with contextlib.suppress(OSError):
            os.unlink(path)
    lines = [] if spoken else [line for line in [_state.line()] if line]
    if cut and lines:
        lines.insert(0, "what came after the last checkpoint is lost, and is computed again")
    with contextlib.suppress(OSError):
        if os.isatty(2):  # a live line of progress may stand there, without a cursor
            os.write(2, b"\x1b[?25h\n")
        os.write(2, "".join(line + "\n" for line in lines).encode())
    os._exit(STATUS)
