"""Which figures a run's page shows, with their captions."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from allmodes.pictures.style import GROUNDS, ground_of
from allmodes.points.weighted import resample
from allmodes.progress.numbers import finite
from allmodes.report import particles, plots
from allmodes.report.corner import corner, in_parameters
from allmodes.report.folder import RunFiles, floats
from allmodes.report.picture import Picture, png64
from allmodes.report.scatter import log_density
from allmodes.target import Target

_MOST_EXACT = 10_000


def figures_of(files: RunFiles, target: Target | None) -> Iterator[Picture]:
    """Yield each picture that the run has the figures for."""
    result = files.result
    if target is not None and files.draws and files.draws["x"].shape[1] != target.dim:
        target = None  # another density than the one that was run: nothing of it belongs here
    raw = files.draws.get("x")
    corrected = exact = chosen = None
    if raw is not None:
        chosen = resample(files.draws["log_weight"])
        corrected = files.corrected.get("x") if files.corrected else None if chosen is None else raw[chosen]
        exact = _exact(target, len(raw), result.get("seed"))
        samples = _samples(raw, corrected, exact, ground(result))
        if target is not None and target.symmetry is not None:
            yield from _particles(samples, target)
        else:
            yield from _pictures(*in_parameters(samples, target))
            yield from corner(files, target)
    yield from _modes(result)
    if raw is not None:
        yield from _weights(files, chosen, exact, target)
    yield from _training(files)


def _exact(target: Target | None, n: int, seed: Any) -> np.ndarray | None:
    if target is None or target.sample is None:
        return None
    import jax

    key = jax.random.fold_in(jax.random.key(seed if isinstance(seed, int) else 0), 0x5EED)
    return np.asarray(target.sample(key, min(n, _MOST_EXACT)))


def ground(result: dict[str, Any]) -> str:
    """Say what the draws were compared with."""
    return "reference" if "log_z_difference" in (result.get("metrics") or {}) else "exact"


def _samples(raw: Any, corrected: Any, exact: Any, kind: str) -> dict[str, np.ndarray]:
    samples = {kind: exact, "raw": raw, "corrected": corrected}
    return {kind: values for kind, values in samples.items() if values is not None}


def _pictures(samples: dict[str, np.ndarray], target: Target | None, names: Sequence[str] | None) -> Iterator[Picture]:
    raw, exact = samples["raw"], ground_of(samples)
    known = next((kind for kind in samples if kind in GROUNDS), None)
    dim = raw.shape[1]
    if dim > 1:
        if dim == 2:
            over = " over contours of the density" if target is not None else ""
        else:
            over = f" over {known} draws (grey)" if known else ""
            over += ", in the two coordinates of largest spread"
        for kind in ("raw", "corrected"):
            if kind in samples:
                show = {"target": target, "exact": exact, "frame": raw, "kind": kind, "names": names}
                data = png64(plots.plot_draws(samples[kind], **show))
                yield Picture("draws", f"{kind.capitalize()} draws", f"{kind.capitalize()} draws{over}.", data)
    if dim != 2:
        show = {"target": target, "names": names}
        images = [png64(plots.plot_marginals(samples, **show, wide=wide)) for wide in (False, True)[:dim]]
        what = "The draws" if dim == 1 else "One coordinate at a time, those of largest spread"
        caption = f"{what}{f'; {known} draws in grey' if known else ''}."
        yield Picture("draws", "Marginals" if dim > 1 else "Draws", caption, *images)


def _particles(samples: dict[str, np.ndarray], target: Target) -> Iterator[Picture]:
    data = png64(particles.plot_distances(samples, target.symmetry))
    caption = "Distances between all pairs of particles; reference draws in grey."
    yield Picture("draws", "Interatomic distances", caption, data)
    images = [
        png64(particles.plot_configurations(samples["raw"], target.symmetry, wide=wide)) for wide in (False, True)
    ]
    yield Picture("draws", "Configurations", "Three raw draws, near pairs joined.", *images)


def _modes(result: dict[str, Any]) -> Iterator[Picture]:
    modes = result.get("mode_weights") or {}
    true = floats(modes.get("true"))
    weights = {kind: floats(modes.get(kind)) for kind in ("raw", "corrected")}
    weights = {kind: w for kind, w in weights.items() if w.shape == true.shape and np.isfinite(w).all()}
    if not (len(true) and np.isfinite(true).all() and weights):
        return
    entry = (result.get("metrics") or {}).get("mode_off")
    off = finite(entry.get("value")) if isinstance(entry, dict) else None
    draws = int(finite(result.get("draws")) or 1000)
    show = {"draws": draws, "off": off}
    images = [png64(plots.plot_mode_weights(true, weights, **show, wide=wide)) for wide in (False, True)]
    caption = "Each mode's share of the draws; grey is where exact draws would lie, a cross is next to none."
    yield Picture("modes", "Mode weights", caption, *images)


def _weights(files: RunFiles, chosen: Any, exact: Any, target: Target | None) -> Iterator[Picture]:
    energy, log_weight = -files.draws["log_prob"], files.draws["log_weight"]
    exact_energy = None if exact is None or target is None else -log_density(target, exact)
    corrected = -files.corrected["log_prob"] if files.corrected else None if chosen is None else energy[chosen]
    samples = _samples(energy, corrected, exact_energy, ground(files.result))
    if any(np.isfinite(values).any() for values in samples.values()):
        caption = "How improbable the draws are; the right tail is where bad draws show."
        yield Picture("weights", "Energies", caption, png64(plots.plot_energies(samples)))
    if chosen is not None:
        entry = (files.result.get("metrics") or {}).get("khat")
        khat = finite(entry.get("value")) if isinstance(entry, dict) else None
        caption = "How much each draw has to be corrected; a long right tail means that a few draws count for most."
        yield Picture("weights", "Log weights", caption, png64(plots.plot_log_weights(log_weight, khat=khat)))


def _listed(words: list[str]) -> str:
    return ", ".join(words[:-1]) + " and " + words[-1] if len(words) > 1 else words[0]


def _training(files: RunFiles) -> Iterator[Picture]:
    told = files.result.get("figures") or {}
    label = {name: str(words["label"]) for name, words in told.items()}
    caption = {str(words["label"]): str(words["caption"]) for words in told.values()}
    curves = {label[key]: files.history[key] for key in label if key in files.history}
    curves = {name: values for name, values in curves.items() if np.isfinite(values).any()}
    if len(curves) > 2:  # what is one throughout has nothing to show beside the others
        curves = {name: values for name, values in curves.items() if np.nanmin(values) < 1.0 or np.nanmax(values) > 1.0}
    if curves and len(files.history["step"]) > 1:
        text = f"As training went on: {_listed([caption[name] for name in curves])}."
        yield Picture("training", "By step", text, png64(plots.plot_training(files.history["step"], curves)))
    levels = files.result.get("levels") or {}
    sigma = floats(levels.get("sigma"))
    named = {name: key.removeprefix("level_") for key, name in label.items() if key.startswith("level_")}
    curves = {name: floats(levels.get(key)) for name, key in named.items()}
    curves = {name: v for name, v in curves.items() if v.shape == sigma.shape and np.isfinite(v).any()}
    if len(sigma) > 1 and np.all(sigma > 0) and curves:
        text = f"At each noise level: {_listed([caption[name] for name in curves])}."
        yield Picture("training", "By noise level", text, png64(plots.plot_levels(sigma, curves)))
