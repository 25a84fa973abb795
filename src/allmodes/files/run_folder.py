"""The run folder: what was asked for, what happened, and a state from which to go on.

`config.json` (enough to repeat the run), `metrics.jsonl` (a line a chunk of steps), `checkpoint/`
(Orbax), `draws.npz`, `corrected.npz`, `result.json`, `report.html`, `evaluations.rows` of a density
that is called on the host, and `lock` while a process works in it. Every file but the growing
`metrics.jsonl` and `evaluations.rows` is written whole or not at all. Reading changes nothing.
"""

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from allmodes.errors import RunError, RunWarning
from allmodes.files.atomic import write_atomically
from allmodes.files.lock import locked

KEEP = 2  # checkpoints, so that a damaged newest one leaves another
# What is written to before it is whole, or to see whether one can write.
_TEMPORARY = re.compile(r"\.([\w-]+\.(jsonl?|npz|html|png|stablehlo)|writable)\.[a-z0-9_]{8}")


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
            with tempfile.NamedTemporaryFile(dir=self.path, prefix=".writable."):
                pass
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"cannot write the run folder {self.path}: {reason}. Choose another with --out.") from error
        return self

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Within it no other process works in this folder; one process may enter it more than once.

        What processes that were killed have left half-written is removed.

        **Raises** `RunError`, which names the process, when one does; or when the folder cannot be
        written.
        """
        self.create()
        with locked(self.path):
            self._tidy()
            yield

    def _tidy(self) -> None:
        for path in self.path.iterdir():
            if path.is_file() and _TEMPORARY.fullmatch(path.name):
                path.unlink(missing_ok=True)
        for path in (self / "checkpoint").glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(path, ignore_errors=True)

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

        # Of several processes the one that calls this does it alone: Orbax must not wait for the
        # others.
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

    def steps(self) -> list[int]:
        """The steps of which there are checkpoints, readable or not, in order."""
        if not (self / "checkpoint").is_dir():
            return []
        return sorted(int(path.name) for path in (self / "checkpoint").iterdir() if path.name.isdigit())

    def save_state(self, step: int, state: Any, extra: dict) -> None:
        """Write a checkpoint: every array of the state by the name of its place, and a small JSON
        object.

        One that is there already, whole and with the same arrays, is left alone. Checkpoints of
        later steps are those that training could not read, since it came from an earlier one: with
        a new one written, they go.
        """
        import orbax.checkpoint as ocp

        try:
            with self._manager() as manager:
                named = _on_host(_named(state))
                digest = _digest(named)
                if step in manager.all_steps():
                    if _holds(manager, step, named, digest):
                        return
                    manager.delete(step)
                about = {"extra": extra, "arrays": _kinds(named), "sha256": digest}
                parts = ocp.args.Composite(state=ocp.args.StandardSave(named), about=ocp.args.JsonSave(about))
                for newer in [other for other in manager.all_steps() if other > step]:
                    manager.delete(newer)
                manager.save(step, args=parts, force=True)
        except OSError as error:
            reason = error.strerror or error
            raise RunError(
                f"cannot write a checkpoint in {self.path}: {reason}. Earlier ones are unchanged."
            ) from error

    def forget_states(self) -> None:
        """Remove the checkpoints of an earlier training."""
        shutil.rmtree(self / "checkpoint", ignore_errors=True)

    def load_state(self, template: Any, *, insist: bool = False) -> tuple[Any, dict] | None:
        """The newest readable checkpoint, as a state like `template`, with its JSON object; None
        where there is none.

        Where that is not the newest one, a `RunWarning` says which it is and why. A finished run,
        with `insist`, has no other state than the one that its result tells of. Nothing is changed.

        **Raises** `RunError` when there are checkpoints and none can be read, or they are of
        another configuration; with `insist`, when the run is finished and its last state cannot be
        read.
        """
        if not (self / "checkpoint").is_dir():
            return None
        found, wrong = self._newest(_on_host(_named(template)))
        steps = ", ".join(str(step) for step in wrong)
        reason = next(iter(wrong.values()), "")
        if found is None and not wrong:
            return None
        if found is None:
            raise RunError(
                f"no checkpoint in {self / 'checkpoint'} can be read ({reason}): damaged, or config.json was changed. "
                "Delete the folder `checkpoint` to train again from the start."
            )
        result = self._result() if insist else {}
        self._same(result, found, f"checkpoint {steps} cannot be read ({reason})" if wrong else "a later one is gone")
        if wrong:
            warnings.warn(
                f"{self.path}: checkpoint {steps} cannot be read ({reason}); taken instead: step {found.step}",
                RunWarning,
                stacklevel=2,
            )
        leaves = [jax.numpy.asarray(found.arrays[name]) for name in _named(template)]
        return jax.tree.unflatten(jax.tree.structure(template), leaves), found.extra

    def _newest(self, wanted: dict[str, Any]) -> tuple["_Stored | None", dict[int, str]]:
        """The newest checkpoint that can be read, and what is wrong with each newer one."""
        wrong: dict[int, str] = {}
        with self._manager() as manager:
            for step in sorted(manager.all_steps(), reverse=True):
                try:
                    return _read(manager, step, wanted), wrong
                except Exception as error:  # Orbax raises many kinds for a damaged folder
                    text = str(error).strip().split("\n")[0][:200]
                    wrong[step] = f"{type(error).__name__}: {text}"
        return None, wrong

    def _result(self) -> dict:
        """`result.json` of a finished run; empty where it is not there or says nothing."""
        try:
            return self.read_json("result.json")
        except RunError:
            return {}

    def _same(self, result: dict, found: "_Stored", why: str) -> None:
        """**Raises** `RunError` where a result tells of another state than the one found."""
        again = f"Train again from there, to the same end, by: allmodes run --resume {shlex.quote(str(self.path))}"
        step = result.get("steps")
        if step is not None and step != found.step:
            raise RunError(
                f"{self.path} is a finished run of {step} steps, and the newest readable checkpoint is of step "
                f"{found.step}: {why}. {again}"
            )
        if result.get("state") not in (None, found.digest):
            raise RunError(
                f"{self.path} is a finished run, and its checkpoint {step} is not the state that result.json and its "
                "verdict tell of. Bring back the one that was there, or make the result again: delete result.json and "
                f"report.html, and then: allmodes run --resume {shlex.quote(str(self.path))}"
            )


class _Stored(NamedTuple):
    """A checkpoint as it was read."""

    step: int
    arrays: dict[str, Any]
    extra: dict
    digest: str


def _read(manager: Any, step: int, wanted: dict[str, Any]) -> _Stored:
    """A checkpoint, checked against its digest; raises whatever is wrong with it."""
    import orbax.checkpoint as ocp

    about = dict(manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore())).about)
    # First, since Orbax casts what it reads to the type asked for, and is loud where shapes differ.
    if about["arrays"] != _kinds(wanted):
        raise ValueError("its arrays have other shapes or types")
    stored = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(wanted))).state
    digest = _digest(stored)
    if about["sha256"] != digest:  # Orbax keeps no checksum
        raise ValueError("its arrays are not those that were written")
    return _Stored(step, stored, about["extra"], digest)


def _holds(manager: Any, step: int, named: dict[str, Any], digest: str) -> bool:
    """Whether a checkpoint can be read and holds these arrays."""
    try:
        return _read(manager, step, named).digest == digest
    except Exception:  # as above
        return False


def digest_of(state: Any) -> str:
    """SHA-256 of a state: names it in what was made from it."""
    return _digest(_on_host(_named(state)))


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by the name of their place, which is what a checkpoint holds: no class of ours is in
    the file.
    """
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _on_host(arrays: dict[str, Any]) -> dict[str, Any]:
    """The same as NumPy's where there are several processes: Orbax takes JAX's to be spread over
    all of them.
    """
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
    """Orbax logs each step, and each fault that it also raises, to absl; a run has its own words
    for both.
    """
    import logging

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
