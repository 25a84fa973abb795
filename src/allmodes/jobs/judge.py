"""Draws of any library by what is known of a target: the line of metrics that a run gets."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from allmodes.draws.estimates import Estimate, elbo, ess, khat
from allmodes.draws.estimates import log_z as estimated
from allmodes.errors import ConfigError
from allmodes.jobs.evaluation import evidence_metrics, stand_in_of
from allmodes.jobs.machine import versions
from allmodes.metrics import evaluate
from allmodes.metrics.floor import REPEATS
from allmodes.target import Target

COSTS = ("evaluations", "seconds")
SCALARS = ("normalised", "log_z", "log_z_error", *COSTS)


class Foreign(NamedTuple):
    """Draws of another library.

    **Attributes**

    - `x`: (n, dim), in the target's coordinates.
    - `log_weight`: (n,), to any common constant; None where all draws weigh the same.
    - `normalised`: whether they are the log of target over proposal of independent draws, so that
      `mean(exp(log_weight))` is an estimate of Z.
    - `log_z`, `log_z_error`: as the library states them, which is then how they are told.
    - `evaluations`, `seconds`: what the draws have cost, where that is known.
    """

    x: Float[np.ndarray, "n dim"]
    log_weight: Float[np.ndarray, " n"] | None = None
    normalised: bool = False
    log_z: float | None = None
    log_z_error: float | None = None
    evaluations: float | None = None
    seconds: float | None = None


def read(path: Path) -> Foreign:
    """The draws of an `.npz` file: an array `x`, and what else of `Foreign` is there by its name.

    **Raises** `ConfigError` where it cannot be read, has no `x`, or a scalar in it is none.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
        names = list(getattr(loaded, "files", ()))  # of one array alone there are none
        arrays = {name: loaded[name] for name in names if name in Foreign._fields}
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"{path} cannot be read as an .npz file of numbers ({error})") from error
    if "x" not in arrays:
        has = f"it has {', '.join(names)}" if names else "it has no named arrays"
        raise ConfigError(f"{path} has no array x (n, dim) of draws: {has}")
    given = {name: value if name in ("x", "log_weight") else _scalar(name, value) for name, value in arrays.items()}
    return Foreign(**given | ({"normalised": bool(given["normalised"])} if "normalised" in given else {}))


def _scalar(name: str, value: np.ndarray) -> float:
    if value.size != 1 or value.dtype.kind not in "biuf" or not np.isfinite(value).all():
        raise ConfigError(f"{name} must be one finite number, got {value.dtype} of shape {value.shape}")
    return float(value.reshape(()))


def check(target: Target, draws: Foreign) -> Foreign:
    """The same in the types of the metrics.

    **Raises** `ConfigError` where nothing is known of the target that draws could be judged by,
    shapes are wrong, or numbers are not finite (a log-weight may be -inf: of no weight).
    """
    if target.sample is None and target.modes is None:
        raise ConfigError(f"{target.name} has neither exact draws nor known modes: there is nothing to judge draws by")
    x = np.asarray(draws.x)
    if x.dtype.kind not in "iuf" or x.ndim != 2 or len(x) < 2 or x.shape[1] != target.dim:
        wanted = f"numbers of shape (n, {target.dim}), n at least 2"
        raise ConfigError(f"x must be {wanted}, as {target.name} has it, got {x.dtype} of shape {x.shape}")
    bad = int(np.sum(~np.isfinite(x).all(axis=1)))
    if bad:
        raise ConfigError(f"x must be finite: {bad:,} of {len(x):,} draws have a coordinate that is NaN or infinite")
    return draws._replace(x=x.astype(np.float64 if target.double else np.float32), log_weight=_weights(draws, len(x)))


def _weights(draws: Foreign, n: int) -> Float[np.ndarray, " n"] | None:
    if draws.log_weight is None:
        if draws.normalised:
            raise ConfigError("normalised is said of log_weight, which is missing")
        return None
    log_weight = np.asarray(draws.log_weight)
    if log_weight.dtype.kind not in "iuf" or log_weight.shape != (n,):
        raise ConfigError(f"log_weight must be {n:,} numbers, one a draw, got {log_weight.dtype} of {log_weight.shape}")
    if np.any(np.isnan(log_weight) | (log_weight == np.inf)):
        raise ConfigError("log_weight must be finite, or -inf for no weight: it has NaN or +inf in it")
    if np.all(log_weight == -np.inf):
        raise ConfigError("log_weight is -inf throughout: no draw has any weight")
    return log_weight.astype(np.float64)


def judge(
    target: Target, draws: Foreign, *, seed: int = 0, repeats: int = REPEATS, name: str = "draws"
) -> dict[str, Any]:
    """The line of draws, laid out as a `result.json`, so that tables have it beside runs.

    `metrics`: what `metrics.evaluate` says of the weighted draws; with weights, `reverse_ess`
    (Kish's share) and `khat`; where they are normalised, `elbo`. `log_z` with its error, where the
    library states it or the weights are normalised; else left out. `name` is what the line is
    called.

    **Raises** `ConfigError` as `check` does.
    """
    draws = check(target, draws)
    n, log_weight = len(draws.x), draws.log_weight
    found = evaluate(target, draws.x, jax.random.key(seed), repeats=repeats, log_weight=log_weight)
    metrics, told = found["metrics"], _evidence(draws)
    if log_weight is not None:
        metrics |= {"reverse_ess": {"value": ess(log_weight) / n}, "khat": {"value": khat(log_weight)}}
        metrics |= {"elbo": elbo(log_weight)._asdict()} if draws.normalised else {}
    if told:
        metrics |= evidence_metrics(Estimate(told["value"], told["std_error"]), target, stand_in_of(target))
        truth = target.log_z
        told |= {} if truth is None else {"truth": truth, "error": told["value"] - truth}
    modes = found.get("mode_weights")
    shares = {} if modes is None else {"mode_weights": {"true": modes["true"], "raw": modes["estimated"]}}
    return {
        "target": target.name, "dim": int(target.dim), "method": name, "draws": n, "seed": seed, **versions(),
        **({"ess": ess(log_weight)} if log_weight is not None else {}),
        **({"log_z": told} if told else {}),
        **({} if draws.evaluations is None else {"evaluations": {"train": int(draws.evaluations)}}),
        **({} if draws.seconds is None else {"seconds": {"train": draws.seconds}}),
        "metrics": metrics, **shares,
    }  # fmt: skip


def _evidence(draws: Foreign) -> dict[str, Any]:
    """Log Z and its error, and whether they were stated or estimated here; empty where neither."""
    if draws.log_z is not None:
        error = float("inf") if draws.log_z_error is None else draws.log_z_error
        return {"value": draws.log_z, "std_error": error, "by": "the file"}
    if draws.normalised:
        return {**estimated(draws.log_weight)._asdict(), "by": "the weights"}
    return {}
