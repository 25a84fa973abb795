"""PyMC models as targets: their density over unconstrained parameters, and draws as named,
constrained variables.
"""

import contextlib
import math
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.errors import ConfigError, TargetError
from allmodes.interop.hosted import equally_weighted
from allmodes.method import Method
from allmodes.priors.numpyro import warn_of_improper
from allmodes.ranges import Range
from allmodes.target import Target, names_of


def target(model: Any, name: str | None = None) -> Target:
    """The posterior of a `pymc.Model`, data included.

    Parameters with constraints are mapped to all of R^dim by PyMC's own transforms, with their
    Jacobians in the density: log Z is the log evidence of the model, but for `pymc.Potential`
    terms, which are part of the density as they stand. `draws.unravel()` gives a dictionary of its
    variables in their own (constrained) values, deterministic ones included, each with the draws
    along its first axis. An improper prior is warned of (`PriorWarning`): log Z is then no
    evidence.

    The density is PyMC's own JAX graph, in float32. A sampler of it can be saved.

    - `name`: what reports call it; the model's own name when not given, or `pymc`.

    **Raises** `ConfigError` when PyMC is not installed, `TargetError` when the model has discrete
    free variables (sum them out first, as `pymc.Mixture` does), none at all, or a part that PyMC
    cannot turn into JAX.
    """
    try:
        import pymc
    except ImportError as error:
        raise ConfigError("PyMC is not installed: pip install pymc") from error
    if not isinstance(model, pymc.Model):
        raise TargetError(f"a pymc.Model is needed, got a {type(model).__name__}")
    name = name or model.name or "pymc"
    _check_variables(model, name)
    shown = [variable for variable in model.unobserved_value_vars if not variable.name.endswith("__")]
    try:
        start = model.initial_point()
        density, constrained = _as_jax(model.value_vars, [model.logp()]), _as_jax(model.value_vars, shown)
    except Exception as error:
        raise TargetError(f"PyMC cannot turn the model {name} into JAX ({type(error).__name__}: {error})") from error
    names = [variable.name for variable in model.value_vars]
    example = {name: np.asarray(start[name], np.float32) for name in names}

    def log_prob(values: dict[str, Array]) -> Float[Array, ""]:
        return _quietly(density, [values[name] for name in names])[0]

    def constrain(values: dict[str, Array]) -> dict[str, Array]:
        found = _quietly(constrained, [values[name] for name in names])
        return {variable.name: jnp.asarray(value) for variable, value in zip(shown, found, strict=True)}

    more = {"supports": _ranges(model, jax.eval_shape(constrain, example)), "source": "PyMC model"}
    return Target.of_tree(log_prob, example, name=name, constrain=constrain, **more)


def _ranges(model: Any, shapes: dict[str, Any]) -> dict[str, Range]:
    """Where each number of the variables lies, by the transform that PyMC gives it."""
    free = {variable.name: variable for variable in model.free_RVs}
    found: dict[str, Range] = {}
    for variable in model.unobserved_RVs:
        if variable.name in shapes:
            names = names_of({variable.name: shapes[variable.name]})
            found |= dict.fromkeys(names, _range(model, free[variable.name]) if variable.name in free else Range())
    return found


def _range(model: Any, variable: Any) -> Range:
    """Of a free variable; ends that depend on other variables are none."""
    transform = model.rvs_to_transforms[variable]
    kind = type(transform).__name__
    if kind == "CircularTransform":
        return Range(-math.pi, math.pi, periodic=True)
    if kind in ("LogOddsTransform", "SimplexTransform"):
        return Range(0.0, 1.0)
    if kind == "LogTransform":
        return Range(0.0, None)
    if not hasattr(transform, "args_fn"):
        return Range()
    ends = [getattr(end, "data", None) for end in transform.args_fn(*variable.owner.inputs)]
    known = [None if end is None or np.size(end) != 1 or not np.isfinite(end).all() else float(end) for end in ends]
    return Range(*known) if len(known) == 2 else Range()


def sample(
    model: Any = None,
    *,
    draws: int = 1000,
    chains: int = 4,
    random_seed: int = 0,
    method: Method | None = None,
    seconds: float | None = None,
) -> Any:
    """Independent draws of a PyMC model's posterior, in place of `pymc.sample`.

    - `model`: a `pymc.Model`; that of the context where none is given.
    - `draws`, `chains`: `draws x chains` draws of equal weight. They are independent, so that the
      chains are only how ArviZ wants them arranged.
    - `random_seed`: the same one gives the same draws.
    - `method`, `seconds`: as `am.fit` takes them.

    Returns what `pymc.sample` of the installed version does: ArviZ's `InferenceData`, or from PyMC
    6 on a `DataTree`, with the model's coordinates and dimensions, `observed_data` and
    `constant_data`. `posterior.attrs` has `log_z`, the log evidence, with `log_z_std_error`, the
    `verdict` and its `reasons`, and the `evaluations`; `sample_stats.lp` is the log-density over
    unconstrained parameters. The draws are corrected by short chains where the method has such a
    correction, else resampled by their weights. A warning says so where they are not to be used.

    **Raises** `ConfigError` when draws or chains is below 1; what `target` and `am.fit` raise.
    """
    try:
        import pymc
    except ImportError as error:
        raise ConfigError("PyMC is not installed: pip install pymc") from error
    if draws < 1 or chains < 1:
        raise ConfigError(f"draws and chains must be at least 1, got draws={draws}, chains={chains}")
    model = pymc.modelcontext(model)
    found = equally_weighted(target(model), draws * chains, jax.random.key(random_seed), method, seconds)
    (value, error), verdict = found.log_z, found.verdict()
    about = {
        "inference_library": "allmodes", "log_z": value, "log_z_std_error": error, "verdict": verdict.word,
        "reasons": "; ".join(verdict.reasons), "evaluations": found.evaluations,
    }  # fmt: skip
    by_chain = lambda values: np.asarray(values).reshape(chains, draws, *np.shape(values)[1:])  # noqa: E731
    posterior = {name: by_chain(values) for name, values in found.unravel().items()}
    return _inference_data(model, posterior, {"lp": by_chain(found.log_prob)}, about)


def _inference_data(model: Any, posterior: dict, stats: dict, about: dict[str, Any]) -> Any:
    """As PyMC of either version makes it."""
    import pymc
    from pymc.backends.arviz import coords_and_dims_for_inferencedata, find_constants, find_observations

    coords, dims = coords_and_dims_for_inferencedata(model)
    data = {"observed_data": find_observations(model), "constant_data": find_constants(model)}
    groups = {"posterior": posterior, "sample_stats": stats} | {name: of for name, of in data.items() if of}
    if int(pymc.__version__.partition(".")[0]) < 6:
        from arviz import from_dict

        made = from_dict(**groups, coords=coords, dims=dims)
    else:
        from arviz_base import from_dict

        made = from_dict(groups, coords=coords, dims=dims)
    made["posterior"].attrs.update(about)
    return made


def _check_variables(model: Any, name: str) -> None:
    discrete = [variable.name for variable in model.discrete_value_vars]
    if discrete:
        raise TargetError(
            f"the model {name} has discrete free variables: {', '.join(discrete)}. A density needs continuous ones: "
            "sum them out, for instance with pymc.Mixture"
        )
    if not model.free_RVs:
        raise TargetError(f"the model {name} has no free variable: there is nothing to draw")
    kinds = {variable.name: type(variable.owner.op).__name__ for variable in model.free_RVs}
    improper = [variable for variable, kind in kinds.items() if kind in ("FlatRV", "HalfFlatRV")]
    warn_of_improper(f"the model {name}", improper)


def _as_jax(inputs: list, outputs: list) -> Callable[..., Any]:
    with _settings_of_jax():
        from pymc.sampling.jax import get_jaxified_graph

        return get_jaxified_graph(inputs=inputs, outputs=outputs)


@contextlib.contextmanager
def _settings_of_jax() -> Iterator[None]:
    """Keep them: PyMC's import asks for float64 everywhere, and for a hundred host devices."""
    double, flags = jax.config.jax_enable_x64, os.environ.get("XLA_FLAGS")
    try:
        yield
    finally:
        jax.config.update("jax_enable_x64", double)
        if flags is None:
            os.environ.pop("XLA_FLAGS", None)
        else:
            os.environ["XLA_FLAGS"] = flags


def _quietly(function: Callable[..., Any], values: list[Array]) -> Any:
    """The graph asks for float64 here and there, and JAX would say each time that it gives
    float32.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Explicitly requested dtype float64")
        return function(*values)
