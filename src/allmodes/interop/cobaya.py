"""A sampler of cobaya, named in its input by `allmodes.interop.cobaya.AllModes`.

cobaya imports this where the input names it, and nothing else does.
"""

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cobaya import mpi
from cobaya.collection import SampleCollection
from cobaya.conventions import Extension
from cobaya.model import LogPosterior, Model, get_model
from cobaya.sampler import Sampler
from cobaya.yaml import yaml_dump_file
from jaxtyping import Float
from scipy.special import ndtri

from allmodes.interop.hosted import Sampled, is_refused, method_of, over_cube, sampled
from allmodes.target import Target


class AllModes(Sampler):
    """Fit a sampler to the posterior over the unit cube of the priors, and draw from it.

    Options of the input:

    - `draws`: weighted draws in the sample.
    - `method`, `settings`: a registered method by its name, and some of its settings, as
      `{steps: 1000}`.
    - `seed`: the same one gives the same draws.
    - `seconds`, `evaluations`: about so many for fitting.
    - `workers`: how many processes evaluate the model, each of which makes its own from the input.
      They are spawned: a script does its work below `if __name__ == "__main__":`.

    Parameters that are `periodic` lie on circles. `logZ` is with respect to the priors of the
    parameters, which are normalised; an external prior counts as it stands. With an output prefix
    the run is kept in `PREFIX_allmodes`, from which `resume` goes on. Of several MPI processes the
    first works alone.
    """

    draws: int = 10_000
    method: str | None = None
    settings: Mapping[str, Any] | None = None
    seed: int = 0
    seconds: float | None = None
    evaluations: int | None = None
    workers: int | None = None

    supports_periodic_params: bool = True

    def initialize(self) -> None:
        """Check the options before any work is done."""
        self.found: Sampled | None = None
        self.collection: SampleCollection | None = None
        self.logZ, self.logZstd = np.nan, np.nan
        self.posterior = _Posterior(self.model, self.packages_path)
        self.chosen = method_of(self.method, self.settings)
        self.target = self._target()

    def run(self) -> None:
        """Fit, draw, and fill the collection."""
        if not mpi.is_main_process():
            return
        limits = {"seconds": self.seconds, "evaluations": self.evaluations}
        out = self._folder(self.output) if self.output else None
        resume = bool(self.output) and bool(self.output.is_resuming())
        self.found = sampled(self.target, self.chosen, self.draws, self.seed or 0, **limits, out=out, resume=resume)
        self.logZ, self.logZstd = self.found.draws.log_z
        self.collection = self._collected(self.found)
        if self.output:
            path = os.path.join(self.output.folder, self.output.prefix + Extension.evidence)
            evidence = {"logZ": self.logZ, "logZstd": self.logZstd}
            yaml_dump_file(path, evidence, comment="log-evidence", error_if_exists=False)
        tell = self.log.warning if is_refused(self.found.draws) else self.log.info
        tell("%s", self.found.draws.summary())

    def samples(self, combined: bool = False, skip_samples: float | int = 0, to_getdist: bool = False) -> Any:
        """Give the weighted sample; of several processes to the first alone, unless `combined` or
        `to_getdist`. None of it is burn-in: `skip_samples` has no effect.
        """
        if skip_samples:
            self.mpi_warning("The draws are independent: none of them should be skipped. Ignoring 'skip_samples'.")
        made = self.collection.to_getdist() if to_getdist and self.collection is not None else self.collection
        return mpi.share_mpi(made) if combined or to_getdist else made

    def products(
        self, combined: bool = False, skip_samples: float | int = 0, to_getdist: bool = False
    ) -> dict[str, Any]:
        """Give `sample`, `logZ`, `logZstd`, and `allmodes`: how far to trust the draws."""
        sample = self.samples(combined, skip_samples, to_getdist)
        about = None if self.found is None else self.found.about
        made = {"sample": sample, "logZ": self.logZ, "logZstd": self.logZstd, "allmodes": about}
        return mpi.share_mpi(made) if combined or to_getdist else made

    @classmethod
    def output_files_regexps(cls, output: Any, info: Any = None, minimal: bool = False) -> list[tuple]:
        """Name the files of a run, for `resume` and `force`."""
        kept = (re.compile(r"config\.json$"), cls._folder(output))
        if minimal:
            return [kept]
        evidence = re.compile(re.escape(output.prefix + Extension.evidence))
        return [(None, cls._folder(output)), (output.collection_regexp(name=None), None), (evidence, None)]

    @staticmethod
    def _folder(output: Any) -> str:
        return output.add_suffix("allmodes", separator="_")

    def _target(self) -> Target:
        posterior, names = self.posterior, list(self.model.parameterization.sampled_params())
        periodic = list(self.model.prior._periodic_bounds)
        functions = posterior.log_likelihood, posterior.parameters
        return over_cube(*functions, names, periodic, self.chosen, "cobaya", self.workers)

    def _collected(self, found: Sampled) -> SampleCollection:
        """The draws that have weight, as cobaya keeps them."""
        made = SampleCollection(self.model, self.output, name="1", sample_type="nested")
        draws = zip(np.asarray(found.draws.x, np.float64), found.weights, np.asarray(found.draws.log_prob), strict=True)
        for u, weight, log_prob in draws:
            if weight > 0.0:
                x = self.posterior.parameters(u)
                made.add(x, logpost=self._log_posterior(x, float(log_prob)), weight=weight)
        made.out_update()
        return made

    def _log_posterior(self, x: Float[np.ndarray, " dim"], log_prob: float) -> LogPosterior:
        """With its parts, for which the model is evaluated again only where they are several."""
        model = self.model
        if model.parameterization.derived_params() or len(model.likelihood) > 1 or len(model.prior) > 1:
            return model.logposterior(x)
        return LogPosterior(logpriors=model.prior.logps(x), loglikes=[log_prob], derived=[])


class _Posterior:
    """The likelihood of a model, and its parameters at points of the cube; another process makes
    the model anew from its input.
    """

    def __init__(self, model: Model, packages_path: Any):
        bounds = model.prior.bounds()
        self._model, self._packages_path = model, packages_path
        self._ends = bounds[:, 0], bounds[:, 1]
        self._quantiles = [_quantile(pdf, *ends) for pdf, ends in zip(model.prior.pdf, bounds, strict=True)]

    def log_likelihood(self, x: Float[np.ndarray, " dim"]) -> float:
        """Of all likelihoods, with the external priors."""
        found = self._model.logposterior(x, return_derived=False)
        return float(np.sum(found.logpriors[1:]) + np.sum(found.loglikes)) if len(found.loglikes) else -np.inf

    def parameters(self, u: Float[np.ndarray, " dim"]) -> Float[np.ndarray, " dim"]:
        """Parameters of a point of the cube, by the quantiles of their priors."""
        x = [quantile(share) for quantile, share in zip(self._quantiles, u, strict=True)]
        return np.clip(np.array(x, float), *self._ends)

    def __reduce__(self) -> tuple:
        return _made_anew, (self._model.info(), self._packages_path)


def _made_anew(info: Mapping[str, Any], packages_path: Any) -> _Posterior:
    return _Posterior(get_model(info, packages_path=packages_path), packages_path)


def _quantile(pdf: Any, low: float, high: float) -> Callable[[float], float]:
    """The quantile function of a frozen distribution; SciPy's own takes .1 ms a call."""
    if pdf.dist.name == "uniform":
        return lambda share: low + (high - low) * share
    if pdf.dist.name == "norm":
        mean, deviation = pdf.mean(), pdf.std()
        return lambda share: mean + deviation * ndtri(share)
    return pdf.ppf
