"""Draws by the names of their parameters, as other libraries want them: columns, a table, ArviZ,
pandas, files.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes import weights
from allmodes.errors import ConfigError
from allmodes.runs import write_atomically

if TYPE_CHECKING:
    from allmodes.draws import Draws

QUANTILES = (0.05, 0.5, 0.95)


def variables(draws: "Draws") -> dict[str, np.ndarray]:
    """The parameters `(n, ..)` by their names; one called `x` where the target has no names.

    What is nested is joined with dots.
    """
    if draws.parameters is None:
        return {"x": np.asarray(draws.x)}
    leaves = jax.tree_util.tree_leaves_with_path(draws.unravel())
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "x": np.asarray(leaf) for path, leaf in leaves}


def columns(draws: "Draws") -> dict[str, Float[np.ndarray, " n"]]:
    """Every number of the parameters by its name: `mu[0]`, `w[1,2]`, `scale`."""
    named = {}
    for name, values in variables(draws).items():
        for index in np.ndindex(values.shape[1:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            named[label] = np.asarray(values[(slice(None), *index)], np.float64)
    return named


def table(draws: "Draws") -> dict[str, dict[str, float]]:
    """For each of `columns`: weighted mean, standard deviation, quantiles, effective draws, error
    of the mean.
    """
    w = np.asarray(weights.normalise(draws.log_weight), np.float64) / len(draws)
    rows = {}
    with np.errstate(invalid="ignore"):
        for name, values in columns(draws).items():
            mean = float(np.sum(w * values))
            deviation = float(np.sqrt(np.sum(w * (values - mean) ** 2)))
            effective = draws.ess_of(values)
            rows[name] = {
                "mean": mean, "sd": deviation,
                **{f"{100 * q:.0f}%": v for q, v in zip(QUANTILES, quantiles(values, w), strict=True)},
                "mcse": deviation / np.sqrt(effective) if effective > 0 else float("inf"), "ess": effective,
            }  # fmt: skip
    return rows


def quantiles(values: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"]) -> list[float]:
    """`QUANTILES` of weighted values."""
    order = np.argsort(values)
    share = np.cumsum(w[order])
    return [float(values[order[min(np.searchsorted(share, q * share[-1]), len(values) - 1)]]) for q in QUANTILES]


def to_arviz(draws: "Draws", key: Array | None) -> Any:
    """See `Draws.to_arviz`."""
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise ConfigError("ArviZ is not installed: pip install arviz-base") from error
    value, std_error = draws.log_z
    effective, word = draws.ess, draws.verdict().word
    kept = key is None
    if not kept:
        draws = draws.resample(key) if not draws.even else draws
    groups = max(1, draws.chains)
    each = len(draws) // groups

    def by_chain(values):  # draw i is of chain i mod chains
        return np.moveaxis(values[: each * groups].reshape(each, groups, *values.shape[1:]), 1, 0)

    beside = {"lp": np.asarray(draws.log_prob)} | ({"log_weight": np.asarray(draws.log_weight)} if kept else {})
    tree = from_dict({
        "posterior": {name: by_chain(values) for name, values in variables(draws).items()},
        "sample_stats": {name: by_chain(values) for name, values in beside.items()},
    })  # fmt: skip
    tree["posterior"].attrs.update(
        inference_library="allmodes", log_z=value, log_z_std_error=std_error, verdict=word, ess=effective,
        weights="in sample_stats, as log_weight" if kept else "none: resampled",
    )  # fmt: skip
    return tree


def to_pandas(draws: "Draws") -> Any:
    """See `Draws.to_pandas`."""
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError("pandas is not installed: pip install pandas") from error
    beside = {"log_prob": np.asarray(draws.log_prob), "log_weight": np.asarray(draws.log_weight)}
    return pd.DataFrame({**columns(draws), **beside})


SUFFIXES = (".npz", ".nc")


def save(draws: "Draws", path: Path, key: Array | None) -> None:
    """See `Draws.save`."""
    check_file(path)
    if path.suffix == ".nc":
        tree = to_arviz(draws, key)
        write_atomically(path, lambda file: tree.to_netcdf(file.name, engine="h5netcdf"), mode="wb")
        return
    draws = draws if key is None or draws.even else draws.resample(key)
    arrays = {name: np.asarray(getattr(draws, name)) for name in ("x", "log_prob", "log_weight")}
    if draws.parameters is not None:
        arrays |= {f"parameters.{name}": values for name, values in variables(draws).items()}
    write_atomically(path, lambda file: np.savez(file, **arrays), mode="wb")


def check_file(path: Path) -> None:
    """**Raises** `ConfigError` when draws cannot be saved in a file of this name."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"draws are saved as {' or '.join(SUFFIXES)}, got {path}")
    if path.suffix == ".nc":
        try:
            import arviz_base  # noqa: F401
            import h5netcdf  # noqa: F401
        except ImportError as error:
            raise ConfigError(f"{path} needs ArviZ and h5netcdf: pip install arviz-base h5netcdf") from error
