"""Draws in a run folder: all fields of them, and the digest of the state that they were drawn
from.
"""

import dataclasses
import json
import zipfile
import zlib
from typing import Any

import jax.numpy as jnp
import numpy as np

from allmodes.devices.precision import double
from allmodes.draws.doubt import Doubt
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate
from allmodes.draws.verdict import Finding, Pool
from allmodes.files.run_folder import Run
from allmodes.target import Target

RECORDS: dict[str, Any] = {kind.__name__: kind for kind in (Doubt, Estimate, Finding, Pool)}
ABOUT = "about"  # the array, a JSON text, beside those of the draws
_ERRORS = (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error)


def write(run: Run, name: str, draws: Draws, state: str) -> None:
    """Write all fields of draws but the functions of their target; `state` is the digest of what
    they were drawn from.

    **Raises** `RunError` when the file cannot be written.
    """
    arrays, facts = {}, {}
    for field in dataclasses.fields(draws):
        value = getattr(draws, field.name)
        if getattr(value, "ndim", 0) > 0:
            arrays[field.name] = np.asarray(value)
        elif field.name not in ("parameters", "flats"):
            facts[field.name] = _plain(value)
    text = json.dumps({"state": state, "kinds": _kinds(arrays), "draws": facts})
    run.write_draws(name, **arrays, **{ABOUT: np.asarray(text)})


def read(run: Run, name: str, target: Target, state: str, n: int) -> Draws | None:
    """The n draws of this state that `write` has left, to the bit; None where they are not there,
    whole and of it.
    """
    try:
        with np.load(run / name, allow_pickle=False) as file:
            stored = dict(file)  # a damaged member fails its checksum here
        about = json.loads(str(stored.pop(ABOUT)))
        if about["state"] != state or about["kinds"] != _kinds(stored) or len(stored["x"]) != n:
            return None
        facts = {name: _made(value) for name, value in about["draws"].items()}
        with double(target.double):  # else float64 would be cut
            arrays = {name: jnp.asarray(array) for name, array in stored.items()}
        return Draws(**arrays, **facts, parameters=target.parameters, flats=target.flats)
    except _ERRORS:
        return None


def _kinds(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    return {name: f"{array.dtype} {list(array.shape)}" for name, array in sorted(arrays.items())}


def _plain(value: Any) -> Any:
    """A number, None, a record of such (a dataclass or a named tuple) or a tuple, as JSON can hold
    it.
    """
    fields = value._asdict() if hasattr(value, "_asdict") else None
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if fields is not None:
        return {"kind": type(value).__name__, "fields": {k: _plain(v) for k, v in fields.items()}}
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value.item() if hasattr(value, "item") else value


def _made(value: Any) -> Any:
    """What `_plain` was given, made of `RECORDS` alone."""
    if isinstance(value, list):
        return tuple(_made(part) for part in value)
    if not isinstance(value, dict):
        return value
    kind = RECORDS[value["kind"].rpartition(":")[2]]  # with its module before it, in older files
    return kind(**{k: _made(v) for k, v in value["fields"].items()})
