"""What hosts such as bilby and cobaya ask of a sampler: the posterior over the unit cube of their
prior, fitted and drawn from in a folder, from which a killed call goes on.
"""

import contextlib
import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.callbacks import watched
from allmodes.doors import nearest
from allmodes.draws import kept
from allmodes.draws.draws import Draws
from allmodes.draws.verdict import DO_NOT_USE
from allmodes.errors import ConfigError, RunError
from allmodes.files.fingerprint import differing, fingerprint
from allmodes.files.run_folder import Run, digest_of
from allmodes.files.saved import describe
from allmodes.interop import numpy as on_host
from allmodes.method import Method
from allmodes.methods import METHODS
from allmodes.points.weighted import normalised
from allmodes.sampler import Sampler
from allmodes.settings import with_settings
from allmodes.target import Target
from allmodes.training.fit import fit


def over_cube(
    log_likelihood: Callable[[Float[np.ndarray, " k"]], float],
    prior_transform: Callable[[Float[np.ndarray, " dim"]], Any],
    names: Sequence[str],
    periodic: Sequence[int],
    method: Method,
    name: str,
    workers: int | None = None,
) -> Target:
    """The posterior over the unit cube that the prior is made from: its volume is the prior's mass,
    so that log Z is the evidence.

    Points stay in the cube until they are draws: what float32 does not resolve, such as a time in
    seconds since 1980 that is known to a millisecond, is resolved in units of its prior. They are
    float64 where the method trains. Plain methods take float32 (of a density on the host they
    cannot take float64): a normal prior then ends 5 deviations above its mean. `draws.log_prob` is
    the log-likelihood. With `workers` both functions go to so many processes, pickled.
    """
    cube = [(0.0, 1.0)] * len(names)
    more = {"names": names, "bounds": cube, "periodic": list(periodic), "location": 0.5}
    more |= {"double": method.steps > 0, "name": name, "source": "a likelihood and a prior"}
    return on_host.target(_AtCube(log_likelihood, prior_transform), len(names), workers=workers, **more)


@dataclasses.dataclass(frozen=True)
class _AtCube:
    """The log-likelihood at a point of the cube; a class, for worker processes to have."""

    log_likelihood: Callable[[Float[np.ndarray, " k"]], float]
    prior_transform: Callable[[Float[np.ndarray, " dim"]], Any]

    def __call__(self, u: Float[np.ndarray, " dim"]) -> float:
        return float(self.log_likelihood(np.asarray(self.prior_transform(u), np.float64)))


def method_of(name: str | None, settings: Mapping[str, Any] | None) -> Method:
    """A registered method with some of its settings changed, as an input file can name them; the
    default one where none is named.

    **Raises** `ConfigError` for an unknown name or setting.
    """
    name = "iwsm" if name is None else name
    if name not in METHODS:
        raise ConfigError(f"unknown method {name!r}: there are {', '.join(METHODS)}.{nearest(str(name), METHODS)}")
    return with_settings(METHODS[name], settings or {})


class Sampled(NamedTuple):
    """A fitted sampler, its weighted draws, and as many of equal weight as are effective."""

    sampler: Sampler
    draws: Draws
    equal: Draws

    @property
    def evaluations(self) -> int:
        """Evaluations of the density, for fitting and for the draws."""
        return self.sampler.evaluations["log_prob"] + self.draws.evaluations

    @property
    def weights(self) -> Float[np.ndarray, " n"]:
        """Of the draws; they sum to one."""
        return normalised(self.draws.log_weight)

    @property
    def about(self) -> dict[str, Any]:
        """How far to trust the draws, as JSON can hold it."""
        verdict = self.draws.verdict()
        return {
            "method": self.sampler.method.name, "verdict": verdict.word, "reasons": list(verdict.reasons),
            "effective_draws": self.draws.ess, "evaluations": self.evaluations,
        }  # fmt: skip


@watched
def sampled(
    target: Target,
    method: Method,
    n: int,
    seed: int,
    *,
    seconds: float | None = None,
    evaluations: int | None = None,
    out: str | os.PathLike | None = None,
    resume: bool = True,
) -> Sampled:
    """Fit a sampler and draw n times from it.

    With a folder `out` all of it is kept there, the state of training every 15 seconds and at its
    end: where the call was killed, the same call goes on, to the same draws. Without `resume` what
    is there is replaced.

    **Raises** `RunError` where the folder holds a run of another density, method or seed; those of
    `am.fit`; `KeyboardInterrupt` and `SystemExit` as a signal's handler raises them.
    """
    k_fit, k_draw, k_equal = jax.random.split(jax.random.key(seed), 3)
    run = None if out is None else Run(out)
    with contextlib.nullcontext() if run is None else run.locked():
        if run is not None:
            _begin(run, target, method, seed, resume)
        sampler = fit(target, method, key=k_fit, seconds=seconds, evaluations=evaluations, run=run, resume=resume)
        state = digest_of(sampler.state)
        draws = None if run is None else kept.read(run, "draws.npz", target, state, n)
        if draws is None:
            draws = sampler.sample(n, key=k_draw)
            if run is not None:
                kept.write(run, "draws.npz", draws, state)
                draws = kept.read(run, "draws.npz", target, state, n) or draws  # as a resumed call has them
        return Sampled(sampler, draws, _equal(draws, k_equal))


def equally_weighted(target: Target, n: int, key: Array, method: Method | None, seconds: float | None) -> Draws:
    """N draws of equal weight: corrected where the method has a correction, else resampled.

    Warns where they are not to be used. **Raises** those of `am.fit`.
    """
    k_fit, k_draw, k_equal = jax.random.split(key, 3)
    sampler = fit(target, method, key=k_fit, seconds=seconds)
    draws = sampler.corrected(n, key=k_draw)
    if draws is None:
        draws = sampler.sample(n, key=k_draw)
        draws = draws if draws.equally_weighted else draws.resample(k_equal)
    if is_refused(draws):
        reasons = "; ".join(draws.verdict().reasons)
        warnings.warn(f"these draws of {target.name} are not to be used: {reasons}", stacklevel=3)
    return draws


def is_refused(draws: Draws) -> bool:
    """Whether draws are not to be used, of which a host warns."""
    return draws.verdict().word == DO_NOT_USE


def _equal(draws: Draws, key: Array) -> Draws:
    """Draws of equal weight: no more than are effective, so that few occur twice."""
    return draws if draws.equally_weighted else draws.resample(key, max(1, int(draws.ess)))


def _begin(run: Run, target: Target, method: Method, seed: int, resume: bool) -> None:
    """Write what the run is of, or check that the run which is there is of the same."""
    about = describe(target, method, seed)
    about["target"]["fingerprint"] = fingerprint(target)
    if not resume or not (run / "config.json").exists():
        run.forget_states()
        run.write_json("config.json", about)
        return
    was, now = run.read_json("config.json"), json.loads(json.dumps(about))
    wrong = [what for what in ("method", "seed") if was.get(what) != now[what]]
    before = was.get("target", {})
    if before.get("names") != now["target"]["names"]:
        wrong.append("parameters")
    elif differing(before.get("fingerprint", []), now["target"]["fingerprint"]) is not None:
        wrong.append("likelihood or prior")
    if wrong:
        raise RunError(
            f"{run.path} holds a run of another {', '.join(wrong)}: bring back what it was, start anew with "
            "resume=False, or write elsewhere"
        )
