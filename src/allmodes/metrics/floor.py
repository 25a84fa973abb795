"""A metric between samples, its floor, and their ratio."""

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.progress.stages import stage

REPEATS = 10  # when not said otherwise: on gmm40 all of them take 3 s on two cores
ROUND = 5  # repeats whose exact sets are drawn in one call, and held at a time
_WORKERS = 8  # W2 between 2,000 points holds about 200 MB


@dataclasses.dataclass(frozen=True)
class Ratio:
    """A metric's value, its floor (its value between two exact sets of the same size), and their
    ratio.

    Standard errors are over repeats; inf where they cannot be told. `size` is the number of draws
    in each set.
    """

    value: float
    value_se: float
    floor: float
    floor_se: float
    ratio: float
    ratio_se: float
    repeats: int
    size: int

    def to_dict(self) -> dict[str, float | int | None]:
        """Write the entry of `result.json`; None for what is not finite."""
        entry = {"value": self.value, "floor": self.floor, "ratio": self.ratio, "ratio_std_error": self.ratio_se}
        entry = {key: value if np.isfinite(value) else None for key, value in entry.items()}
        return entry | {"repeats": self.repeats, "size": self.size}


def summary(values: Float[np.ndarray, " repeats"], floors: Float[np.ndarray, " repeats"], size: int) -> Ratio:
    """`mean(values) / mean(floors)` of pairs that share an exact set, with the delta method's
    standard error.

    `se(V/F)^2 = var(v_i - (V/F) f_i) / (repeats F^2)`: the covariance within the pairs is in it,
    and lowers it.
    """
    repeats = len(values)
    value, floor = float(np.mean(values)), float(np.mean(floors))
    if not (np.isfinite(value) and np.isfinite(floor) and floor > 0):
        return Ratio(value, float("inf"), floor, float("inf"), float("nan"), float("inf"), repeats, size)
    ratio = value / floor

    def error(terms):
        return float(np.std(terms, ddof=1) / np.sqrt(repeats)) if repeats > 1 else float("inf")

    ratio_se = error(values - ratio * floors) / floor
    return Ratio(value, error(values), floor, error(floors), ratio, ratio_se, repeats, size)


def _subsets(n: int, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield indices of subsets without replacement: the disjoint blocks of one permutation, then
    those of the next.
    """
    while True:
        order = rng.permutation(n)
        for start in range(0, n - size + 1, size):
            yield order[start : start + size]


def ratio(
    metric: Callable[[np.ndarray, np.ndarray], float],
    draws: Float[Array | np.ndarray, "n dim"],
    exact: Callable[[Array, int], Float[Array | np.ndarray, "m dim"]],
    key: Array,
    *,
    size: int,
    repeats: int = REPEATS,
    name: str = "a metric",
    shared: dict | None = None,
) -> Ratio:
    """Estimate the ratio of a metric to its floor, over so many repeats.

    Repeat i draws fresh exact sets A_i and B_i and takes `metric(subset_i of draws, A_i)` and
    `metric(B_i, A_i)`: the common A_i lowers the variance of the ratio. Nothing looks at a clock,
    so that the outcome depends on the key alone and not on the speed of the machine. A figure that
    is not finite after the first round stays so, and ends it there.

    **Arguments**

    - `metric`: of two sets `(size, dim)`; called from threads, in parallel where it releases the
      GIL.
    - `draws`: the draws under judgement, equally weighted.
    - `exact`: exact draws, `(key, n) -> (n, dim)`, independent; called once a round of 5 repeats,
      for all of its sets.
    - `size`: of every set; at most n is used, and what was used is in the answer.
    - `repeats`: at least 2. Four times as many halve the standard error, and take four times as
      long.
    - `name`: what progress calls it.
    - `shared`: keeps the floors, and gives them to the next call of the same name, key and sizes:
      they are of exact sets alone.

    **What the standard error leaves out.** It is over repeats with these draws. The draws are one
    finite set: once their n / size disjoint blocks are used, subsets overlap, and further repeats
    average over exact sets only. Where n = size the set is the same each time, and how far another
    set of n draws would give another value is not in it. To make the error cover that too, draw at
    least `repeats * size` draws. With few repeats it is itself uncertain, by about
    `1 / sqrt(2 (repeats - 1))` of it.
    """
    draws, shared = np.asarray(draws), {} if shared is None else shared
    size = _checked(len(draws), size, repeats)
    key, key_subsets = jax.random.split(key)
    rng = np.random.default_rng(np.asarray(jax.random.bits(key_subsets, (4,))))
    subsets = (draws[index] for index in _subsets(len(draws), size, rng))
    about = (name, np.asarray(jax.random.key_data(key)).tobytes(), size, repeats)
    known = shared.get(about, [])
    values, floors = [], []
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _WORKERS, 2 * ROUND)) as pool:
        for first, second in _rounds(exact, key, size, repeats, name):
            of_draws = [pool.submit(metric, next(subsets), a) for a in first]
            of_exact = [] if known else [pool.submit(metric, b, a) for a, b in zip(first, second, strict=True)]
            values += [float(value.result()) for value in of_draws]
            floors = known[: len(values)] if known else floors + [float(floor.result()) for floor in of_exact]
            so_far = summary(np.asarray(values), np.asarray(floors), size)
            if not np.isfinite(so_far.ratio):
                break
    if len(floors) == repeats:
        shared[about] = floors
    return so_far


def _checked(n: int, size: int, repeats: int) -> int:
    """The size of the sets of n draws. **Raises** `ValueError` where there are none."""
    if size < 1 or repeats < 2:
        raise ValueError(f"size must be at least 1 and repeats at least 2, got {size} and {repeats}")
    if n == 0:
        raise ValueError("there are no draws to judge")
    return min(size, n)


def _rounds(
    exact: Callable[[Array, int], Float[Array | np.ndarray, "m dim"]], key: Array, size: int, repeats: int, name: str
) -> Iterator[tuple[Float[np.ndarray, "pairs size dim"], Float[np.ndarray, "pairs size dim"]]]:
    """Yield the exact sets of each round, A_i and B_i, drawn in one call and told as a stage."""
    for done in range(0, repeats, ROUND):
        stage(f"evaluating: {name}", done, repeats)
        pairs = min(ROUND, repeats - done)
        key, key_exact = jax.random.split(key)
        fresh = np.asarray(exact(key_exact, 2 * pairs * size)).reshape(pairs, 2, size, -1)
        yield fresh[:, 0], fresh[:, 1]
