"""Draws by the names of their parameters, as other libraries want them: columns, a table, ArviZ,
pandas, files.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.errors import ConfigError
from allmodes.files.atomic import write_atomically
from allmodes.points.weighted import normalised, quantiles
from allmodes.ranges import Range

QUANTILES = (0.05, 0.5, 0.95)


Variables = dict[str, np.ndarray]


def variables(x: Float[Array, "n dim"], parameters: Any = None) -> Variables:
    """The parameters `(n, ..)` by their names, from the tree of them that `unravel` gives; without
    one, draws `(n, dim)` called `x`.

    What is nested is joined with dots.
    """
    if parameters is None:
        return {"x": np.asarray(x)}
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return {jax.tree_util.keystr(path, simple=True, separator=".") or "x": np.asarray(leaf) for path, leaf in leaves}


def ordered(variables: Variables, names: Iterable[str]) -> Variables:
    """The same in the order in which names of their numbers come; those without one last. JAX has
    sorted them.
    """
    place: dict[str, int] = {}
    for i, name in enumerate(names):
        place.setdefault(name, i)
        place.setdefault(name.partition("[")[0], i)
    return dict(sorted(variables.items(), key=lambda item: place.get(item[0], len(place))))


def columns(variables: Variables) -> dict[str, Float[np.ndarray, " n"]]:
    """Every number of the parameters by its name: `mu[0]`, `w[1,2]`, `scale`."""
    named = {}
    for name, values in variables.items():
        for index in np.ndindex(values.shape[1:]):
            label = f"{name}[{','.join(map(str, index))}]" if index else name
            named[label] = np.asarray(values[(slice(None), *index)], np.float64)
    return named


def table(
    columns: dict[str, Float[np.ndarray, " n"]],
    log_weight: Float[Array, " n"],
    ess_of: Callable[[Float[np.ndarray, " n"]], float],
    ranges: Mapping[str, Range],
) -> dict[str, dict[str, float]]:
    """For each of the columns: weighted mean, standard deviation, quantiles, error of the mean,
    effective draws (by `ess_of` the values of one figure). Of a circle by `ranges`, all are about
    its mean direction.
    """
    w, rows = normalised(np.asarray(log_weight)), {}
    w = w if w.any() else np.full(len(w), 1.0 / len(w))
    with np.errstate(invalid="ignore"):
        for name, values in columns.items():
            if name in ranges and ranges[name].periodic:
                values = ranges[name].unwound(values, w)
            mean = float(np.sum(w * values))
            deviation = float(np.sqrt(np.sum(w * (values - mean) ** 2)))
            effective = ess_of(values)
            rows[name] = {
                "mean": mean, "sd": deviation,
                **{f"{100 * q:.0f}%": v for q, v in zip(QUANTILES, quantiles(values, w, QUANTILES), strict=True)},
                "mcse": deviation / np.sqrt(effective) if effective > 0 else float("inf"), "ess": effective,
            }  # fmt: skip
    return rows


def to_arviz(variables: Variables, stats: Variables, chains: int, attributes: dict[str, Any]) -> Any:
    """Groups `posterior` and `sample_stats` of a `DataTree`: draw i is of chain i mod `chains`.

    **Raises** `ConfigError` when arviz-base is not installed.
    """
    try:
        from arviz_base import from_dict
    except ImportError as error:
        raise ConfigError("ArviZ is not installed: pip install arviz-base") from error

    def by_chain(values):
        each = len(values) // chains
        return np.moveaxis(values[: each * chains].reshape(each, chains, *values.shape[1:]), 1, 0)

    groups = {"posterior": variables, "sample_stats": stats}
    tree = from_dict({group: {name: by_chain(v) for name, v in of.items()} for group, of in groups.items()})
    tree["posterior"].attrs.update(inference_library="allmodes", **attributes)
    return tree


def to_pandas(columns: dict[str, Float[np.ndarray, " n"]], stats: Variables) -> Any:
    """A data frame of all columns.

    **Raises** `ConfigError` when pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ConfigError("pandas is not installed: pip install pandas") from error
    return pd.DataFrame({**columns, **stats})


def write(path: Path, arrays: Variables) -> None:
    """Write arrays as `.npz`, whole or not at all."""
    write_atomically(path, lambda file: np.savez(file, **arrays), mode="wb")


def write_tree(path: Path, tree: Any) -> None:
    """Write a `DataTree` as NetCDF, whole or not at all."""
    write_atomically(path, lambda file: tree.to_netcdf(file.name, engine="h5netcdf"), mode="wb")


SUFFIXES = (".npz", ".nc")


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
