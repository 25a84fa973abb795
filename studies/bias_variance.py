"""Bias and variance of IWSM's estimators, measured where the truth is known: `python -m studies
bias-variance`.

Wang et al. (2025, arXiv 2505.19431) bound the score and the noised density from K draws (bias and
variance O(1/K)) and the self-normalised loss (bias O(1/N)). This study measures the constants, how
they grow with the dimension and the noise, and where the rates stop holding. Units: one component
of each target has standard deviation tau = 1 (the geometric mean of the axes), and errors of scores
are relative to that component's own score, `1 / sqrt(tau^2 + sigma^2)` a coordinate.
"""

import json
import pathlib
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np

from studies import bias_variance_measure as measure
from studies import bias_variance_rows as rows
from studies import bias_variance_theory as exact
from studies import bias_variance_weights as weighting
from studies.bias_variance_measure import Stat
from studies.bias_variance_plots import plot

FULL: dict[str, Any] = {
    "sigmas": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0],
    "dims": [2, 4, 8, 16, 32],
    "two_modes": [2, 4, 8, 16, 32],
    "anisotropic": [8],
    "points": 32,
    "blocks": 16,
    "draws": [1, 4096],
    "buffer": {"sigmas": [0.03, 0.1, 0.3, 1.0, 3.0, 10.0], "dims": [2, 4, 8, 16, 32], "two_modes": [2, 8, 32],
               "sizes": [32, 128, 512, 2048, 8192], "batch": 512, "blocks": 32},
    "loss": {"dims": [2, 8, 32], "broad": [0.5, 1.25, 1.5, 2.0], "batch": 4096, "blocks": 256},
    "inherited": {"dims": [2, 8], "broad": 1.5, "batch": 512, "draws": 1024, "blocks": 12, "sigmas": [0.3, 1.0],
                  "buffer_batch": 2048},
}  # fmt: skip
QUICK: dict[str, Any] = {
    "sigmas": [0.1, 1.0, 10.0],
    "dims": [2],
    "two_modes": [4],
    "anisotropic": [],
    "points": 16,
    "blocks": 16,
    "draws": [4, 256],
    "buffer": {"sigmas": [0.1, 1.0], "dims": [2], "two_modes": [], "sizes": [32, 128, 512], "batch": 256, "blocks": 32},
    "loss": {"dims": [2], "broad": [1.5], "batch": 1024, "blocks": 64},
    "inherited": {
        "dims": [2],
        "broad": 1.5,
        "batch": 256,
        "draws": 4,
        "blocks": 32,
        "sigmas": [0.3],
        "buffer_batch": 256,
    },
}  # mostly the time of compilation


def run(
    out: pathlib.Path, *, quick: bool = False, seed: int = 0, progress: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Measure everything, write `bias-variance.json` and the figures into `out`, and return what
    the JSON holds.

    **Arguments**

    - `out`: the folder, made when it is not there.
    - `quick`: a coarse version in seconds, for a look and for tests.
    - `seed`: of every random number.
    - `progress`: called with a line at each stage.
    """
    say = progress or (lambda line: None)
    settings, began, busy = QUICK if quick else FULL, time.perf_counter(), time.process_time()
    result: dict[str, Any] = {"study": "bias-variance", "quick": quick, "seed": seed, "settings": settings}
    result |= _score(settings, seed, say)
    result["buffer"] = _buffer(settings["buffer"], seed, say)
    say("loss: batches of growing size")
    result["loss"] = _loss(settings["loss"], seed)
    say("loss: what estimated weights leave")
    result["inherited_draws"], result["inherited_buffer"] = _inherited(
        settings["inherited"], settings["buffer"]["sizes"], seed
    )
    result["growth"] = rows.growth(result)
    result["seconds"], result["cpu_seconds"] = time.perf_counter() - began, time.process_time() - busy
    result["versions"] = {name: version(name) for name in ("jax", "numpy")} | {"python": platform.python_version()}
    result = _plain(result)
    out.mkdir(parents=True, exist_ok=True)
    (out / "bias-variance.json").write_text(_dump(result))
    plot(result, out)
    return result


def _score(settings: dict[str, Any], seed: int, say: Callable[[str], None]) -> dict[str, Any]:
    """Rows of the score and the log-density from fresh draws, of the stored draw, and the onset of
    the 1/K law.
    """
    targets = [exact.standard(d) for d in settings["dims"]] + [exact.two_modes(d) for d in settings["two_modes"]]
    targets += [exact.anisotropic(d) for d in settings["anisotropic"]]
    fresh, stored, onset = [], [], {}
    for target in targets:
        say(f"score and density: {target.name}, dimension {target.dim}")
        got = measure.score(target, settings["sigmas"], settings["points"], settings["blocks"], settings["draws"], seed)
        sizes = got["sizes"]
        for s, sigma in enumerate(settings["sigmas"]):
            theory, where = got["theory"][s], {"target": target.name, "dim": target.dim, "sigma": sigma}
            where |= {"rho_mean": theory["rho"].mean(), "rho_max": theory["rho"].max()}
            for name, stats in got["fresh"].items():
                each = [Stat(v.value[s], v.without[:, s]) for v in stats]
                fresh.append({**where, "estimator": name, **rows.fresh_row(name, sizes, each, theory)})
            single = got["single"][s]
            worth = rows.stored_row(target, sigma, single, got["fresh"], sizes, s)
            stored.append({**where, "gate": got["gate"][s].mean(), **worth})
            pairs = np.broadcast_arrays(np.log2(sizes[:, None] / theory["rho"]), got["over_theory"][s])
            onset.setdefault(target.name, []).append(np.stack([v.ravel() for v in pairs]))
    return {
        "fresh": fresh,
        "stored": stored,
        "onset": {name: rows.onset(np.concatenate(v, axis=1)) for name, v in onset.items()},
    }


def _buffer(settings: dict[str, Any], seed: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Rows of the buffer mixture's log-density against p_t, exact buffers."""
    targets = [exact.standard(d) for d in settings["dims"]] + [exact.two_modes(d) for d in settings["two_modes"]]
    sizes, out = settings["sizes"], []
    for target in targets:
        say(f"buffer density: {target.name}, dimension {target.dim}")
        got = weighting.buffer(target, settings["sigmas"], sizes, settings["batch"], settings["blocks"], seed)
        for s, sigma in enumerate(settings["sigmas"]):
            row: dict[str, Any] = {"target": target.name, "dim": target.dim, "sigma": sigma, "L": sizes}
            for name, stats in got.items():
                row |= {name: [st.value for st in stats[s]], f"{name}_se": [st.se for st in stats[s]]}
            if target.name == "gaussian":
                excess, n = np.expm1(target.dim * np.log1p(1.0 / sigma**2)), np.asarray(sizes, float)
                row |= {"excess": excess, "bias_theory": excess / 2.0 / n, "variance_theory": excess / n}
                variance, se = np.asarray(row["variance"]), np.asarray(row["variance_se"])
                row["variance_fit"] = measure.fit_independent(n, variance, se, n >= 4.0 * excess)
            out.append(row)
    return out


def _loss(settings: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """Rows of the self-normalised loss with exact weights."""
    out = []
    for dim in settings["dims"]:
        for broad in settings["broad"]:
            got = weighting.loss(dim, broad, settings["batch"], settings["blocks"], seed)
            n, bias, variance, theory = got["sizes"], got["bias"], got["variance"], got["theory"]
            holds, sign = n >= 4.0 * theory["rho"], np.sign(theory["bias"])
            clear = np.abs(bias.value) > 3.0 * bias.se
            out.append({
                "dim": dim, "broad": broad, "rho": theory["rho"], "N": n,
                "bias": bias.value, "bias_se": bias.se, "bias_theory": theory["bias"] / n, "bias_clear": clear,
                "bias_fit": measure.fit(n, bias.map(lambda v, sign=sign: sign * v), holds & clear),
                "variance": variance.value, "variance_se": variance.se, "variance_theory": theory["variance"] / n,
                "variance_fit": measure.fit(n, variance, holds),
            })  # fmt: skip
    return out


def _inherited(
    settings: dict[str, Any], sizes: list[int], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of what K draws and L buffer points leave in the loss."""
    by_draws, by_buffer, broad = [], [], settings["broad"]
    for dim in settings["dims"]:
        got = weighting.inherited_draws(dim, broad, settings["batch"], settings["draws"], settings["blocks"], seed)
        row: dict[str, Any] = {"dim": dim, "sigma": 1.0, "broad": broad, "N": settings["batch"], "K": got["sizes"]}
        for name in ("value", "noise", "factor", "ess"):
            for i, weights in enumerate(("exact", "estimated")):
                row |= {f"{name}_{weights}": got[name].value[:, i], f"{name}_{weights}_se": got[name].se[:, i]}
        by_draws.append(row)
        for sigma in settings["sigmas"]:
            got = weighting.inherited_buffer(
                dim, broad, sigma, sizes, settings["buffer_batch"], 2 * settings["blocks"], seed
            )
            row = {"dim": dim, "sigma": sigma, "broad": broad, "N": settings["buffer_batch"], "L": sizes}
            for name, part in got.items():
                for i, denominator in enumerate(("once", "twice", "true")):
                    row |= {f"{name}_{denominator}": part["value"][:, i], f"{name}_{denominator}_se": part["se"][:, i]}
            by_buffer.append(row)
    return by_draws, by_buffer


def _plain(v: Any) -> Any:
    """Plain JSON values of four significant digits; null for what is not a number."""
    if isinstance(v, dict):
        return {k: _plain(x) for k, x in v.items()}
    if isinstance(v, np.ndarray) and v.ndim == 0:
        return _plain(v.item())
    if isinstance(v, list | tuple | np.ndarray):
        return [_plain(x) for x in v]
    if isinstance(v, bool | np.bool_):
        return bool(v)
    if isinstance(v, float | np.floating):
        return float(f"{v:.4g}") if np.isfinite(v) else None
    return int(v) if isinstance(v, np.integer) else v


def _dump(result: dict[str, Any]) -> str:
    """One row a line: small, and its changes can be read."""
    parts = []
    for key, value in result.items():
        rows = value if isinstance(value, list) and value and isinstance(value[0], dict) else None
        body = "[\n" + ",\n".join(f"  {json.dumps(r)}" for r in rows) + "\n ]" if rows else json.dumps(value)
        parts.append(f" {json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(parts) + "\n}\n"
