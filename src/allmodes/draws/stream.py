"""More draws than memory holds: written in parts of one size to one file, and gone on with after an
interruption.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array

from allmodes.errors import ConfigError, RunError
from allmodes.files.atomic import write_atomically

PART = 65_536  # draws that are in memory at a time


def stream(
    draw: Callable[[int, Array], Any],
    n: int,
    dim: int,
    double: bool,
    key: Array,
    out: Path,
    part: int,
    progress: Callable[[int, int], None] | None,
    about: dict[str, Any],
) -> Path:
    """Write n draws of `draw(n, key)` to `out`, as `Sampler.stream` says.

    `about` says what the draws are, as JSON: only a call of which the same is said goes on with
    them.
    """
    if n < 1 or part < 1:
        raise ConfigError(f"stream needs n and part of at least 1, got {n} and {part}")
    if out.suffix != ".npy":
        raise ConfigError(f"stream writes one .npy file, got {out}")
    real = "<f8" if double else "<f4"
    record = np.dtype([("x", real, (dim,)), ("log_prob", real), ("log_weight", real)])
    unfinished, note = out.with_name(out.name + ".part"), out.with_name(out.name + ".part.json")
    done = _done(unfinished, note, about)
    try:
        with open(unfinished, "r+b" if done else "wb") as file:
            np.lib.format.write_array_header_2_0(file, {"descr": record.descr, "fortran_order": False, "shape": (n,)})
            start = file.tell()
            while done < n:
                draws = draw(min(part, n), jax.random.fold_in(key, done // part))
                count = min(part, n - done)
                block = np.empty(count, record)
                for name in record.names:
                    block[name] = np.asarray(getattr(draws, name))[:count]
                file.seek(start + done * record.itemsize)
                file.write(block.tobytes())
                file.flush()
                os.fsync(file.fileno())
                done += count
                # Only now: what the note counts is on the disk. A part that it does not count is
                # written again, alike.
                text = json.dumps({**about, "done": done})
                write_atomically(note, lambda file, text=text: file.write(text))
                if progress is not None:
                    progress(done, n)
        os.replace(unfinished, out)
    except OSError as error:
        kept = f"{done:,} of {n:,} draws are kept in {unfinished}: the same call goes on from there"
        raise RunError(f"cannot write {out}: {error.strerror or error}. {kept}") from error
    with contextlib.suppress(OSError):
        note.unlink()
    return out


def _done(unfinished: Path, note: Path, about: dict[str, Any]) -> int:
    """How many draws an interrupted call of the same kind has left."""
    try:
        left = json.loads(note.read_text())
        size = unfinished.stat().st_size
    except (OSError, ValueError):
        return 0
    done = left.pop("done", 0) if isinstance(left, dict) else 0
    if left != about:
        differs = ", ".join(sorted(name for name in about if left.get(name) != about[name]))
        raise ConfigError(
            f"{unfinished} holds draws of another call (other {differs}): delete it, or choose another file"
        )
    return done if size else 0


def digest(method: Any, state: Any) -> str:
    """Names a sampler by what it has learned, so that parts of two are never mixed."""
    digest = hashlib.sha256(repr(method).encode())
    for leaf in jax.tree.leaves(state):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()
