"""Stan programs as targets: their density over unconstrained parameters with its gradient, and
draws as named, constrained parameters.

Compiled by httpstan, which brings Stan's compiler and headers and needs a C++ compiler; or by
BridgeStan, whose models are taken as they are.
"""

import asyncio
import importlib.resources
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.precision import halves, traced_halves, whole
from allmodes.errors import ConfigError, TargetError
from allmodes.interop import numpy
from allmodes.target import Target

REJECTED = ValueError, RuntimeError  # what Stan's domain errors and `reject` are in Python
STARTS = 10  # points that are tried before a program is refused

# Stan keeps the stack of its automatic differentiation for each thread apart, and sets it up in the
# one that loads a model alone; JAX calls back from threads of its own. So all of it happens here.
_stan = ThreadPoolExecutor(1, thread_name_prefix="stan")

# httpstan asks for densities up to a constant, as NUTS needs them. Put before Stan's own header of
# that name, this keeps the constants of `~`, so that log Z is the evidence.
_CONSTANTS = """
#define STAN_MATH_PRIM_META_INCLUDE_SUMMAND_HPP
#include <type_traits>
namespace stan { namespace math {
template <bool propto, typename... T> struct include_summand : std::true_type {};
} }
"""
_FLAGS = ["-O3", "-std=c++14", "-Wno-sign-compare"]  # httpstan's own
_MARK = "\n// allmodes: with the constants of all densities\n"  # apart from what pystan has compiled of the program


def target(program: Any, data: Mapping[str, Any] | None = None, *, name: str = "stan", **more: Any) -> Target:
    """The posterior of a Stan program, given its data.

    Constrained parameters are mapped to all of R^dim by Stan's own transforms, with their Jacobians
    in the density. Constants are kept, those of `y ~ normal(..)` too: log Z is the log evidence
    where priors and likelihood are normalised. `draws.unravel()` gives a dictionary of parameters
    and transformed parameters in their own (constrained) values, each with the draws along its
    first axis; generated quantities are left out.

    - `program`: Stan code, or a path to a `.stan` file: httpstan compiles it, which takes a minute
      or two, once for each program. Or a `bridgestan.StanModel`, which has its data.
    - `data`: numbers and arrays by name.
    - `name`: what reports call it. `more`: the other arguments of `Target`, but for `dim`.

    Each point is a call on the host, one after the other; `am.interop.numpy.cost(target)` tells
    what they take. httpstan sets up the model with its data at every call, which BridgeStan does
    not. Points that Stan rejects carry no mass. A sampler of it cannot be saved unless the target
    comes from a file (`am.find_target`).

    **Raises** `ConfigError` when httpstan or a C++ compiler is missing, `TargetError` when the
    program does not compile, does not fit the data, has no parameters, or rejects every point that
    is tried.
    """
    model = _stan.submit(_model, program, data).result()

    def on_stan(function: Callable[[np.ndarray], Any], instead: Any) -> Callable[[np.ndarray], np.ndarray]:
        return lambda points: _stan.submit(_each, function, instead, points).result()

    def constrained(x: Float[Array, "n dim"]) -> dict[str, Array]:
        nothing = np.full(len(model.names), np.nan)
        return _named(model.names, _called(on_stan(model.constrained, nothing), x, len(model.names)))

    more = {"source": "a Stan program", "parameters": constrained} | more
    values, grad = on_stan(model.log_prob, -np.inf), on_stan(model.grad, np.zeros(model.dim))
    return numpy.target(values, model.dim, grad=grad, batched=True, name=name, **more)


class OfHttpstan:
    """A program that httpstan has compiled, with its data.

    `dim`: of the unconstrained points `u`. `names`: of the numbers that `constrained` gives, as
    Stan writes them: `mu.1`.
    """

    def __init__(self, code: str, data: Mapping[str, Any]):
        self._module, self._data = _compiled(code), {str(key): _numbers(key, value) for key, value in data.items()}
        try:
            names = self._module.constrained_param_names(self._data)
        except REJECTED as error:
            raise TargetError(f"the Stan program does not fit the data: {error}") from error
        own, made = _declared(code)
        self.dim = self._free(sum(_word(name) in own for name in names))
        self.names = [name for name in names if _word(name) in own | made]

    def log_prob(self, u: np.ndarray) -> float:
        """Give the log-density, with the Jacobian of the transforms."""
        return self._module.log_prob(self._data, u, True)

    def grad(self, u: np.ndarray) -> list[float]:
        """Give its gradient."""
        return self._module.log_prob_grad(self._data, u, True)

    def constrained(self, u: np.ndarray) -> list[float]:
        """Give parameters and transformed parameters."""
        return self._module.write_array(self._data, u, True, False)

    def _free(self, most: int) -> int:
        """How many unconstrained numbers the parameters have: as many as there are, or a few less,
        which the module only tells by what it takes.
        """
        for dim in range(most, 0, -1):
            try:
                self._module.write_array(self._data, np.zeros(dim), False, False)
            except RuntimeError as error:
                if "number of parameters does not match" in str(error):
                    continue
            except ValueError:  # rejected there, at a point of the right size
                pass
            return dim
        raise TargetError("the Stan program has no parameters: there is nothing to draw")


class OfBridgeStan:
    """A `bridgestan.StanModel`, in the same way."""

    def __init__(self, model: Any):
        self._model, self.dim = model, model.param_unc_num()
        self.names = model.param_names(include_tp=True)
        if not self.dim:
            raise TargetError("the Stan program has no parameters: there is nothing to draw")

    def log_prob(self, u: np.ndarray) -> float:
        """Give the log-density, with the Jacobian of the transforms."""
        return self._model.log_density(u, propto=False, jacobian=True)

    def grad(self, u: np.ndarray) -> np.ndarray:
        """Give its gradient."""
        return self._model.log_density_gradient(u, propto=False, jacobian=True)[1]

    def constrained(self, u: np.ndarray) -> np.ndarray:
        """Give parameters and transformed parameters."""
        return self._model.param_constrain(u, include_tp=True)


def _model(program: Any, data: Mapping[str, Any] | None) -> OfHttpstan | OfBridgeStan:
    if hasattr(program, "log_density_gradient"):
        if data is not None:
            raise TargetError("a bridgestan.StanModel has its data already: leave them out here")
        model = OfBridgeStan(program)
    else:
        if isinstance(program, os.PathLike) or (isinstance(program, str) and program.endswith(".stan")):
            try:
                program = Path(program).read_text()
            except OSError as error:
                raise TargetError(f"the Stan program cannot be read: {error}") from error
        if not isinstance(program, str):
            raise TargetError(
                "a Stan program is needed: its code, a path to a .stan file or a bridgestan.StanModel, got a "
                f"{type(program).__name__}"
            )
        model = OfHttpstan(program, data or {})
    rng = np.random.default_rng(0)
    for start in [np.zeros(model.dim), *rng.uniform(-2.0, 2.0, (STARTS, model.dim))]:  # where Stan itself starts
        try:
            model.grad(start)
            return model
        except REJECTED as error:
            words = error
    raise TargetError(f"the Stan program rejects each of the {STARTS + 1} points that were tried: {words}")


def _compiled(code: str) -> Any:
    """The module of a program, from httpstan's cache where it is there."""
    try:
        from httpstan import models
    except ImportError as error:
        raise ConfigError("httpstan is not installed: pip install httpstan (or give a bridgestan.StanModel)") from error
    name = models.calculate_model_name(code + _MARK)
    try:
        return models.import_services_extension_module(name)
    except KeyError:
        pass
    _declared(code)  # which says what is wrong with it
    with tempfile.TemporaryDirectory() as folder:
        header = Path(folder) / "constants.hpp"
        header.write_text(_CONSTANTS)
        try:
            asyncio.run(models.build_services_extension_module(code + _MARK, [*_FLAGS, "-include", str(header)]))
        except Exception as error:  # setuptools' own, of whatever went wrong
            words = f"{type(error).__name__}: {error}"
            raise ConfigError(f"the Stan program cannot be compiled: is there a C++ compiler (g++)? {words}") from error
    return models.import_services_extension_module(name)


def _declared(code: str) -> tuple[set[str], set[str]]:
    """The names of a program's parameters and transformed parameters, by Stan's own compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path, stanc = Path(folder) / "program.stan", importlib.resources.files("httpstan") / "stanc"
        path.write_text(code)
        done = subprocess.run([str(stanc), "--info", path], capture_output=True, text=True, check=False)
    if done.returncode:
        raise TargetError(f"the Stan program has an error:\n{done.stderr.strip()}")
    found = json.loads(done.stdout)
    return set(found["parameters"]), set(found["transformed parameters"])


def _word(name: str) -> str:
    """What a number belongs to: `mu` of `mu.1`, a tuple `t` of `t:1`."""
    return re.split("[.:]", name)[0]


def _numbers(name: Any, value: Any) -> np.ndarray:
    """A datum as httpstan takes it."""
    array = np.asarray(value)
    if array.dtype == bool:
        return array.astype(int)
    if not np.issubdtype(array.dtype, np.floating) and not np.issubdtype(array.dtype, np.integer):
        raise TargetError(f"data of a Stan program must be numbers, but {name} is {array.dtype}: {value!r}")
    return array


def _each(function: Callable[[np.ndarray], Any], instead: Any, points: np.ndarray) -> np.ndarray:
    """A function of one point at many, with something else where Stan rejects a point."""

    def safely(point: np.ndarray) -> Any:
        try:
            return function(point)
        except REJECTED:
            return instead

    return np.asarray([safely(point) for point in points], np.float64)


def _called(function: Callable[[np.ndarray], np.ndarray], x: Float[Array, "n dim"], size: int) -> Float[Array, "n k"]:
    """A function on the host, from traced code, in the type of its points."""
    shape = jax.ShapeDtypeStruct((len(x), size), jnp.float32)
    if x.dtype == jnp.float64:  # as two float32, since there are no others in a callback
        call = lambda high, rest: halves(function(np.asarray(high, float) + np.asarray(rest, float)))  # noqa: E731
        return whole(*jax.pure_callback(call, (shape, shape), *traced_halves(x)))
    return jax.pure_callback(lambda x: function(np.asarray(x, float)).astype(np.float32), shape, x)


def _named(names: Sequence[str], values: Float[Array, "n k"]) -> dict[str, Array]:
    """Numbers by the names that Stan gives them, each array in its shape."""
    places: dict[str, dict[tuple[int, ...], int]] = {}
    for place, name in enumerate(names):
        word, *index = name.split(".")
        if not all(i.isdigit() for i in index):  # of tuples and complex numbers: by themselves
            word, index = name, []
        places.setdefault(word, {})[tuple(int(i) - 1 for i in index)] = place
    found = {}
    for word, where in places.items():
        shape = tuple(max(i) + 1 for i in zip(*where, strict=True))
        found[word] = values[:, np.array([where[i] for i in np.ndindex(*shape)])].reshape(len(values), *shape)
    return found
