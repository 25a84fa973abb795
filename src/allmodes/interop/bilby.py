"""A sampler of bilby: `bilby.run_sampler(likelihood, priors, sampler="allmodes")`.

bilby finds it by its entry point and is the only one to import this.
"""

import os
import sys
from typing import Any, ClassVar

import numpy as np
from bilby.core.sampler.base_sampler import NestedSampler, signal_wrapper
from bilby.core.utils import logger
from jaxtyping import Float

from allmodes.draws.draws import Draws
from allmodes.interop.hosted import Sampled, is_refused, method_of, over_cube, sampled
from allmodes.method import Method
from allmodes.target import Target

_NOTHING = float(np.nan_to_num(-np.inf))  # what stands for -inf in bilby


class AllModes(NestedSampler):
    """Fit a sampler to the posterior over the unit cube of the priors, and draw from it.

    Options of `run_sampler`:

    - `draws`: weighted draws, `result.nested_samples`; `result.samples` are as many of equal weight
      as are effective.
    - `method`, `settings`: a registered method by its name, and some of its settings, as
      `{"steps": 1000}`.
    - `seed`: the same one gives the same draws.
    - `seconds`, `evaluations`: about so many for fitting.
    - `resume`: go on with what a killed run has left in `OUTDIR/allmodes_LABEL`.
    - `npool`: how many processes evaluate the likelihood; they are spawned, so a script does its
      work below `if __name__ == "__main__":`.

    A parameter whose prior has `boundary="periodic"` lies on a circle. A `Constraint` takes mass
    away, as with bilby's other nested samplers: the evidence is with respect to the prior without
    it. How far to trust the draws is in `result.meta_data["allmodes"]`.
    """

    sampler_name = "allmodes"
    sampling_seed_key = "seed"
    default_kwargs: ClassVar = {
        "draws": 10_000, "method": None, "settings": None, "seed": 0, "seconds": None, "evaluations": None,
        "resume": True,
    }  # fmt: skip

    @property
    def method(self) -> Method:
        """The method that the options name."""
        return method_of(self.kwargs["method"], self.kwargs["settings"])

    @property
    def target(self) -> Target:
        """The posterior over the unit cube."""
        keys = self.search_parameter_keys
        periodic = [i for i, key in enumerate(keys) if self.priors[key].boundary == "periodic"]
        workers = self.npool if self.npool is not None and self.npool > 1 else None
        return over_cube(self.log_likelihood, self.prior_transform, keys, periodic, self.method, self.label, workers)

    def prior_transform(self, theta: Any) -> Float[np.ndarray, " dim"]:
        """Parameters of a point of the cube; joint priors give all of theirs at the last one."""
        return np.concatenate([np.ravel(part) for part in super().prior_transform(theta)])

    def log_likelihood(self, theta: Any) -> float:
        """Give the log-likelihood or its ratio, -inf where a constraint is not met."""
        value = float(super().log_likelihood(theta))
        return -np.inf if value <= _NOTHING else value

    @signal_wrapper
    def run_sampler(self) -> Any:
        """Fit, draw, and fill in bilby's result."""
        options, method, target = self.kwargs, self.method, self.target
        folder = self.get_expected_outputs(self.outdir, self.label)[1][0]
        limits = {name: options[name] for name in ("seconds", "evaluations")}
        os.makedirs(self.outdir, exist_ok=True)
        found = sampled(
            target, method, options["draws"], options["seed"], **limits, out=folder, resume=options["resume"]
        )
        self._fill(found)
        return self.result

    def write_current_state(self) -> None:
        """Nothing: what can be gone on with is in the run folder at any moment."""

    def write_current_state_and_exit(self, signum: Any = None, frame: Any = None) -> None:
        """Exit. bilby's own does so only in the process that has its pool; ours alone is told of
        signals, and worker processes end with it.
        """
        self._log_interruption(signum=signum)
        sys.exit(self.exit_code)

    def _fill(self, found: Sampled) -> None:
        from pandas import DataFrame

        result, draws = self.result, found.draws
        likelihoods, w = np.asarray(draws.log_prob, np.float64), found.weights
        result.sampler_output = draws
        result.samples = self._parameters(found.equal)
        result.log_likelihood_evaluations = np.asarray(found.equal.log_prob, np.float64)
        result.nested_samples = DataFrame(self._parameters(draws), columns=self.search_parameter_keys)
        result.nested_samples["weights"] = w
        result.nested_samples["log_likelihood"] = likelihoods
        result.log_evidence, result.log_evidence_err = draws.log_z
        result.information_gain = float(np.sum(w[w > 0] * likelihoods[w > 0])) - result.log_evidence
        result.num_likelihood_evaluations = found.evaluations
        result.meta_data = {**(result.meta_data or {}), "allmodes": found.about}
        tell = logger.warning if is_refused(draws) else logger.info
        tell(draws.summary())

    def _parameters(self, draws: Draws) -> Float[np.ndarray, "n dim"]:
        return np.stack([self.prior_transform(u) for u in np.asarray(draws.x, np.float64)])
