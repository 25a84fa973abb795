"""NumPyro models as targets: their density over unconstrained parameters, and draws as named,
constrained sites.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.draws.draws import Draws
from allmodes.errors import ConfigError, TargetError
from allmodes.interop.hosted import equally_weighted
from allmodes.method import Method
from allmodes.priors.numpyro import is_improper, is_uniform, warn_of_improper
from allmodes.priors.quantile import by_quantile
from allmodes.ranges import Range
from allmodes.target import Target, names_of


def target(model: Callable[..., Any], *args: Any, name: str | None = None, seed: int = 0, **kwargs: Any) -> Target:
    """The posterior of a NumPyro model, given its arguments (the data).

    Parameters with constraints are mapped to all of R^dim by NumPyro's own bijections, with their
    Jacobians in the density, uniform ones by the normal quantile: log Z is the log evidence of the
    model. `draws.unravel()` gives a dictionary of its sites in their own (constrained) values,
    deterministic ones included, each with the draws along its first axis. An improper prior is
    warned of (`PriorWarning`): log Z is then no evidence.

    - `name`: what reports call it; the model's own name when not given.
    - `seed`: of the one run of the model that finds its sites.

    **Raises** `ConfigError` when NumPyro is not installed, `TargetError` when the model has latent
    sites that are discrete (sum them out first, as `numpyro.distributions.MixtureSameFamily` does),
    none at all, or cannot be run.
    """
    try:
        from numpyro.infer.util import initialize_model
    except ImportError as error:
        raise ConfigError("NumPyro is not installed: pip install numpyro") from error
    name = name or getattr(model, "__name__", "numpyro")
    sites = _sites(model, args, kwargs, seed, name)
    uniform = [key for key, site in sites.items() if site["type"] == "sample" and is_uniform(site["fn"])]
    within = by_quantile(model, uniform) if uniform else model
    try:
        # The search copes with points of no gradient; to look for one costs seconds of compilation.
        info = initialize_model(jax.random.key(seed), within, model_args=args, model_kwargs=kwargs, validate_grad=False)
    except Exception as error:
        raise TargetError(f"NumPyro cannot start the model {name} ({_short(error)})") from error

    def log_prob(sites: dict[str, Array]) -> Float[Array, ""]:
        return -info.potential_fn(sites)

    improper = [site for site, found in sites.items() if found["type"] == "sample" and is_improper(found["fn"])]
    warn_of_improper(f"the model {name}", improper)
    again = _sites(model, args, kwargs, seed + 1, name)
    more = {"supports": _ranges(sites, again), "source": "NumPyro model"}

    def constrain(values: dict[str, Array]) -> dict[str, Array]:
        return {site: value for site, value in info.postprocess_fn(values).items() if site in sites}

    return Target.of_tree(log_prob, info.param_info.z, name=name, constrain=constrain, **more)


class Samples(dict[str, Array]):
    """Samples of each site by its name, as `MCMC.get_samples()` gives them.

    **Attributes**: `draws`, the `Draws` that they are: `samples.draws.log_z` is the log evidence,
    `samples.draws.verdict()` says how far to trust them.
    """

    draws: Draws


# A dictionary to JAX, and so to `numpyro.infer.Predictive`, which maps over the samples.
jax.tree_util.register_pytree_node(
    Samples,
    lambda samples: (tuple(samples[name] for name in sorted(samples)), tuple(sorted(samples))),
    lambda names, values: dict(zip(names, values, strict=True)),
)


def sample(
    model: Callable[..., Any],
    *args: Any,
    rng_key: Array,
    num_samples: int = 4000,
    method: Method | None = None,
    seconds: float | None = None,
    **kwargs: Any,
) -> Samples:
    """Independent samples of a NumPyro model's posterior, in place of `MCMC(NUTS(model), ..)`.

    - `args`, `kwargs`: the arguments of the model (the data).
    - `rng_key`: a JAX key; the same one gives the same samples.
    - `num_samples`: of equal weight.
    - `method`, `seconds`: as `am.fit` takes them.

    The samples are corrected by short chains where the method has such a correction, else resampled
    by their weights. A warning says so where they are not to be used.

    **Raises** what `target` and `am.fit` raise.
    """
    draws = equally_weighted(target(model, *args, **kwargs), num_samples, rng_key, method, seconds)
    found = Samples(draws.unravel())
    found.draws = draws
    return found


def _sites(
    model: Callable[..., Any], args: tuple, kwargs: dict[str, Any], seed: int, name: str
) -> dict[str, dict[str, Any]]:
    """The sites of the model that draws have, in its order, or what is wrong with them."""
    from numpyro import handlers
    from numpyro.infer import init_to_uniform

    def instead(site: dict[str, Any]) -> Any:  # of a draw, which an improper prior has none of
        is_prior = site["type"] == "sample" and not site["is_observed"]
        return init_to_uniform(site) if is_prior and is_improper(site["fn"]) else None

    try:
        seeded = handlers.substitute(handlers.seed(model, jax.random.key(seed)), substitute_fn=instead)
        trace = handlers.trace(seeded).get_trace(*args, **kwargs)
    except Exception as error:
        raise TargetError(f"the model {name} cannot be run with these arguments ({_short(error)})") from error
    latent = [site for site in trace.values() if site["type"] == "sample" and not site["is_observed"]]
    discrete = [site["name"] for site in latent if site["fn"].support is not None and site["fn"].support.is_discrete]
    if discrete:
        raise TargetError(
            f"the model {name} has discrete latent sites: {', '.join(discrete)}. A density needs continuous ones: sum "
            "them out, for instance with numpyro.distributions.MixtureSameFamily"
        )
    if not latent:
        raise TargetError(f"the model {name} has no latent site: there is nothing to draw")
    shown = {site["name"] for site in latent}
    return {key: site for key, site in trace.items() if key in shown or site["type"] == "deterministic"}


def _ranges(sites: dict[str, dict[str, Any]], again: dict[str, dict[str, Any]]) -> dict[str, Range]:
    """Where each number of the sites lies; an end that another run of the model does not share
    depends on other sites, and is none.
    """
    found: dict[str, Range] = {}
    for name, site in sites.items():
        names = names_of({name: site["value"]})
        both = [_ends(run[name]["fn"].support if "fn" in run[name] else None, names) for run in (sites, again)]
        found |= {word: one if one == other else Range() for word, one, other in zip(names, *both, strict=True)}
    return found


def _ends(support: Any, names: list[str]) -> list[Range]:
    """The ends of a support, as of each number of a site."""
    from numpyro.distributions import constraints

    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    if support is constraints.circular:
        return [Range(-math.pi, math.pi, periodic=True)] * len(names)
    ends = (0.0, 1.0) if support is constraints.simplex else ()
    ends = ends or tuple(getattr(support, side, None) for side in ("lower_bound", "upper_bound"))
    each = [_of_each(end, len(names)) for end in ends]
    return [Range(low, high) for low, high in zip(*each, strict=True)]


def _of_each(end: Any, size: int) -> list[float | None]:
    """One end of each number, where it is one number for all."""
    if end is None or np.size(end) != 1 or not np.isfinite(end).all():
        return [None] * size
    return [float(np.reshape(end, ()))] * size


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
