"""Where to go with what was given to the wrong place: the nearest name, the right module.

Imports no library that it names, so that errors cost nothing where there are none.
"""

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# What JAX raises where a function asks for numbers that are not there while it is traced.
_ASKS_FOR_NUMBERS = {
    "ConcretizationTypeError", "NonConcreteBooleanIndexError", "TracerArrayConversionError",
    "TracerBoolConversionError", "TracerIntegerConversionError",
}  # fmt: skip


def nearest(word: str, known: Iterable[str]) -> str:
    """` Did you mean run?`, where one of the known words is near; else nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" Did you mean {close[0]}?" if close else ""


def asks_for_numbers(error: BaseException) -> bool:
    """Whether a function could not be traced because it is one of NumPy, or of Python's `math` and
    `if`.
    """
    return any(kind.__name__ in _ASKS_FOR_NUMBERS for kind in type(error).__mro__)


def door_of(given: Any, error: BaseException | None = None) -> str:
    """` For a PyMC model there is am.interop.pymc.target(model).`, where that can be told of what
    was given as a density, or of the error that it raised when traced; else nothing.
    """
    if is_pymc_model(given):
        return " This is a PyMC model: give am.interop.pymc.target(model)."
    if is_numpyro_model(given):
        return " This is a NumPyro model: give am.interop.numpyro.target(model, data)."
    if error is not None and asks_for_numbers(error):
        return (
            " A function of NumPy or SciPy can be called as it is: am.interop.numpy.target(log_prob, dim); a "
            "likelihood with its prior by am.interop.nested.target(log_likelihood, prior_transform, dim)."
        )
    return ""


def is_pymc_model(given: Any) -> bool:
    """Whether it is a `pymc.Model`."""
    return any(f"{kind.__module__}.{kind.__name__}" in ("pymc.model.core.Model", "pymc.model.Model")
               for kind in type(given).__mro__)  # fmt: skip


def is_numpyro_model(given: Any) -> bool:
    """Whether it is a function that calls `numpyro.sample`, by its own code."""
    function = given.func if isinstance(given, functools.partial) else given
    function = inspect.unwrap(function) if callable(function) else function
    function = getattr(function, "__func__", function)  # of a method
    if not isinstance(function, types.FunctionType):
        return False
    names = {name for code in _codes(function.__code__) for name in code.co_names}
    values = {name: function.__globals__.get(name) for name in names}
    of_module = "sample" in names and any(getattr(v, "__name__", "") == "numpyro" for v in values.values())
    return of_module or any(_is_numpyros_sample(v) for v in (*values.values(), *_cells(function)))


def _is_numpyros_sample(value: Any) -> bool:
    is_named = getattr(value, "__name__", "") == "sample"
    return is_named and str(getattr(value, "__module__", "")).startswith("numpyro.")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """Of a function and those within it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _cells(function: Callable[..., Any]) -> list[Any]:
    """What a function has closed over, as far as it is there."""
    return [cell.cell_contents for cell in getattr(function, "__closure__", None) or () if cell != types.CellType()]
