"""Chunks of training steps, compiled once for any number of steps, and what they tell."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from allmodes.method import Figure, Figures, Method
from allmodes.progress.numbers import number
from allmodes.target import Target
from allmodes.training.placement import Placement


def compiled(method: Method, target: Target, placement: Placement, state: Any, key: Array) -> Callable:
    """Compile `(state, key, steps) -> state, mean figures, last figures`: one program for chunks of
    any length.

    The old state is not given up to the new one: an interruption in the midst of a chunk saves it.
    """
    return placement.compile(_advance, (method, target), state, key, 1)


def _advance(method: Method, target: Target, state: Any, key: Array, steps: Any) -> tuple[Any, Figures, Figures]:
    def step(state, key):
        return method.step(target, state, jax.random.fold_in(key, state.step))

    def one(_, carry):
        state, total, _ = carry
        state, figures = step(state, key)
        return state, jax.tree.map(jnp.add, total, figures), figures

    nothing = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, state, key)[1])
    state, total, last = jax.lax.fori_loop(0, steps, one, (state, nothing, nothing))
    return state, jax.tree.map(lambda a: a / steps, total), last


def line_of(method: Method, state: Any, mean: Figures, last: Figures, clock: dict[str, float]) -> dict[str, Any]:
    """Write a chunk as a line of `metrics.jsonl`: the method's own figures, and counters at the end
    of the chunk.
    """
    e = method.evaluations(state)
    counters = {
        "step": int(state.step), "log_prob_evaluations": int(e.log_prob), "gradient_evaluations": int(e.gradient),
        "seconds": round(clock["train"], 3),
    }  # fmt: skip
    told = {name: (mean if figure.over == "mean" else last)[name] for name, figure in method.figures.items()}
    return counters | {name: _number(value) for name, value in told.items()}


def shown(method: Method, line: Mapping[str, Any]) -> dict[str, str]:
    """The figures of a line that the line of progress has, as they are to be read."""
    named = {figure.in_progress: (figure, line[name]) for name, figure in method.figures.items() if figure.in_progress}
    words = {name: _word(figure, value) for name, (figure, value) in named.items()}
    return {name: word for name, word in words.items() if word}


def _word(figure: Figure, value: float) -> str:
    if not figure.is_share:
        return number(value) or "undefined"
    if value != value:
        return ""
    return f"{value:.0%}" if value >= 0.01 else f"{value:.1%}"


def _number(value: Any) -> float | list[float]:
    value = np.asarray(value)
    return float(value) if value.ndim == 0 else [float(f"{v:.4g}") for v in value]
