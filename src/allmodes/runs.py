"""The run folder: what was asked for, what happened, and a state from which to go on.

`config.json` (enough to repeat the run), `metrics.jsonl` (a line a chunk of steps), `checkpoint/` (Orbax), `draws.npz`,
`result.json`, `report.html`. Every file but the growing `metrics.jsonl` is written whole or not at all.
"""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from allmodes.errors import RunError

KEEP = 2  # checkpoints, so that a damaged newest one leaves another


def write_atomically(path: Path, write: Callable[[Any], None], mode: str = "w") -> None:
    """Write a file beside `path` and move it into place: a reader, or a crash, sees the old file or the new one.

    **Raises** `RunError` when the folder cannot be written or the disk is full; the old file is then still there.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(mode, dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = file.name
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if not isinstance(error, OSError):
            raise
        raise RunError(
            f"cannot write {path}: {error.strerror or error}. What was there before is unchanged."
        ) from error


def _jsonable(value: Any) -> Any:
    """NaN and infinities are not JSON: they become null."""
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_jsonable(v) for v in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value


class Run:
    """A run folder. Reading and writing it raise `RunError`, with the path and what to do."""

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)

    def create(self) -> "Run":
        """Make the folder if it is not there, and check that it can be written."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"cannot write the run folder {self.path}: {reason}. Choose another with --out.") from error
        return self

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    # Files.

    def write_json(self, name: str, value: dict) -> None:
        """Write a JSON file whole."""
        text = json.dumps(_jsonable(value), indent=1, allow_nan=False)
        write_atomically(self / name, lambda file: file.write(text + "\n"))

    def read_json(self, name: str) -> dict:
        """Read a JSON object."""
        path = self / name
        try:
            value = json.loads(path.read_text())
        except FileNotFoundError:
            raise RunError(
                f"{path} is missing: {self.path} is not a run folder, or the run stopped before it"
            ) from None
        except (OSError, ValueError) as error:
            raise RunError(
                f"{path} is damaged ({error}): restore it, or start the run again in a new folder"
            ) from error
        if not isinstance(value, dict):
            raise RunError(f"{path} is damaged (not a JSON object): restore it, or start again in a new folder")
        return value

    def write_draws(self, name: str = "draws.npz", **arrays: np.ndarray) -> None:
        """Write `draws.npz`, or another such file, whole."""
        write_atomically(self / name, lambda file: np.savez(file, **arrays), mode="wb")

    def read_draws(self) -> dict[str, np.ndarray]:
        """The arrays of `draws.npz`."""
        try:
            with np.load(self / "draws.npz", allow_pickle=False) as file:
                return dict(file)
        except (OSError, ValueError) as error:
            raise RunError(
                f"{self / 'draws.npz'} cannot be read ({error}): draw again with `allmodes sample`"
            ) from error

    # The live record of training.

    def append_metrics(self, line: dict) -> None:
        """Add a line to `metrics.jsonl`."""
        try:
            with open(self / "metrics.jsonl", "a") as file:
                file.write(json.dumps(_jsonable(line), allow_nan=False) + "\n")
        except OSError as error:
            raise RunError(f"cannot write {self / 'metrics.jsonl'}: {error.strerror or error}") from error

    def read_metrics(self, up_to: int | None = None) -> list[dict]:
        """The lines of `metrics.jsonl` up to a step; a torn last line is left out."""
        lines = []
        with contextlib.suppress(FileNotFoundError):
            for text in (self / "metrics.jsonl").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    line = json.loads(text)
                    if up_to is None or line["step"] <= up_to:
                        lines.append(line)
        return lines

    def cut_metrics(self, step: int) -> None:
        """Drop the lines after `step`: a run resumed from there writes them again."""
        lines = self.read_metrics(up_to=step)
        text = "".join(json.dumps(line) + "\n" for line in lines)
        write_atomically(self / "metrics.jsonl", lambda file: file.write(text))

    # Checkpoints.

    @contextlib.contextmanager
    def _manager(self) -> Iterator[Any]:
        import orbax.checkpoint as ocp

        # Of several processes the one that calls this does it alone: Orbax must not wait for the others.
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}, barrier_sync_key_prefix="alone"
        )
        together = {"multiprocessing_options": alone} if jax.process_count() > 1 else {}
        handlers = {"state": ocp.StandardCheckpointHandler(**together), "about": ocp.JsonCheckpointHandler(**together)}
        folder = (self / "checkpoint").absolute()
        folder.mkdir(exist_ok=True)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, create=False, enable_async_checkpointing=False, **together
        )
        with _quiet_orbax():
            manager = ocp.CheckpointManager(folder, item_handlers=handlers, options=options)
            try:
                yield manager
            finally:
                manager.close()

    def save_state(self, step: int, state: Any, extra: dict) -> None:
        """Write a checkpoint: every array of the state by the name of its place, and a small JSON object."""
        import orbax.checkpoint as ocp

        try:
            with self._manager() as manager:
                if step in manager.all_steps():
                    return
                named = _on_host(_named(state))
                about = {"extra": extra, "arrays": _kinds(named), "sha256": _digest(named)}
                parts = ocp.args.Composite(state=ocp.args.StandardSave(named), about=ocp.args.JsonSave(about))
                manager.save(step, args=parts, force=True)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(
                f"cannot write a checkpoint in {self.path}: {reason}. Earlier ones are unchanged."
            ) from error

    def forget_states(self) -> None:
        """Remove the checkpoints of an earlier training."""
        shutil.rmtree(self / "checkpoint", ignore_errors=True)

    def load_state(self, template: Any) -> tuple[Any, dict] | None:
        """The newest readable checkpoint, as a state like `template`, with its JSON object; None where there is none.

        **Raises** `RunError` when there are checkpoints and none can be read, or they are of another configuration.
        """
        import orbax.checkpoint as ocp

        if not (self / "checkpoint").is_dir():
            return None
        wanted = _on_host(_named(template))
        problem, unreadable = None, []
        with self._manager() as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                try:
                    about = dict(manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about)
                    # First, since Orbax casts what it reads to the type asked for, and is loud where shapes differ.
                    if about["arrays"] != _kinds(wanted):
                        raise ValueError("its arrays have other shapes or types")
                    stored = manager.restore(
                        step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
                    ).state
                    if about["sha256"] != _digest(stored):  # Orbax keeps no checksum
                        raise ValueError("its arrays are not those that were written")
                    leaves = [jax.numpy.asarray(stored[name]) for name in wanted]
                except Exception as error:  # Orbax raises many kinds for a damaged folder
                    problem = problem or error
                    unreadable.append(step)
                    continue
                for newer in unreadable:  # training from here will write them again
                    manager.delete(newer)
                return jax.tree.unflatten(jax.tree.structure(template), leaves), about["extra"]
        if problem is None:
            return None
        reason = str(problem).strip().split("\n")[0][:200]
        raise RunError(
            f"no checkpoint in {self / 'checkpoint'} can be read ({type(problem).__name__}: {reason}): damaged, or "
            "config.json was changed. Delete the folder `checkpoint` to train again from the start."
        ) from problem


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by the name of their place, which is what a checkpoint holds: no class of ours is in the file."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _on_host(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same as NumPy's where there are several processes: Orbax takes JAX's to be spread over all of them."""
    if jax.process_count() == 1:
        return arrays
    return {
        name: np.zeros(a.shape, a.dtype) if isinstance(a, jax.ShapeDtypeStruct) else np.asarray(a)
        for name, a in arrays.items()
    }


def _kinds(arrays: dict[str, Any]) -> dict[str, str]:
    """Type and shape of each array."""
    return {name: f"{array.dtype} {list(array.shape)}" for name, array in arrays.items()}


def _digest(arrays: dict[str, Any]) -> str:
    """SHA-256 over names and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} ".encode() + np.asarray(arrays[name]).tobytes())
    return digest.hexdigest()


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Orbax logs each step, and each fault that it also raises, to absl; a run has its own words for both."""
    import logging

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
