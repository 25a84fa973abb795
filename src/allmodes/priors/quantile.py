"""Uniform sites of a NumPyro model as functions of standard normals.

NumPyro's own bijection of an interval is the logistic one, in whose coordinates a density that goes
on at an end falls off exponentially: a long tail, that a mixture of Gaussians lacks. By the normal
quantile, which bounds and priors have elsewhere, the prior is a standard normal.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jax.scipy.special import ndtr

NORMAL = "normal quantile of {}"  # name of the site that stands in for one


def by_quantile(model: Callable[..., Any], names: Iterable[str]) -> Callable[..., Any]:
    """The model with those of its sites, which are uniform, made of others that are standard
    normal: the same distribution, and so the same evidence.
    """
    import numpyro
    from numpyro import distributions as dist
    from numpyro import handlers
    from numpyro.infer.reparam import Reparam

    class Quantile(Reparam):
        def __call__(self, name: str, fn: Any, obs: Any) -> tuple[None, Any]:
            uniform, shape, event_dim = self._unwrap(fn)
            normal = self._wrap(dist.Normal(jnp.zeros(()), 1.0), shape, event_dim)
            z = numpyro.sample(NORMAL.format(name), normal)
            return None, uniform.low + (uniform.high - uniform.low) * ndtr(z)

    return handlers.reparam(model, config=dict.fromkeys(names, Quantile()))
