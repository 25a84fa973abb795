"""PyTorch functions as targets: autograd, called back from compiled code, many points at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np

from allmodes.devices.precision import enabled
from allmodes.errors import ConfigError
from allmodes.interop import numpy
from allmodes.target import Target


def target(log_prob: Callable[[Any], Any], dim: int, *, device: str = "cpu", **more: Any) -> Target:
    """The density of a PyTorch function of many points, `(n, dim)` to `(n,)`, differentiable by
    autograd.

    Its points are float32, with `jax_enable_x64` float64.

    `device` is where its tensors live; `more` are the other arguments of `Target`. What is said of
    `am.interop.numpy.target` holds here: every evaluation leaves compiled code and comes back.

    `am.interop.numpy.cost(target)` tells what its calls have taken.

    **Raises** `ConfigError` when PyTorch is not installed, `TargetError` when the function fails on
    a point of zeros or returns another shape.
    """
    try:
        import torch
    except ImportError as error:
        raise ConfigError("PyTorch is not installed: pip install torch") from error

    real = torch.float64 if more.get("double", enabled()) else torch.float32

    def values(x: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return log_prob(torch.as_tensor(x, dtype=real, device=device)).cpu().numpy()

    def grad(x: np.ndarray) -> np.ndarray:
        points = torch.as_tensor(x, dtype=real, device=device).requires_grad_()
        (slope,) = torch.autograd.grad(log_prob(points).sum(), points)
        return slope.cpu().numpy()

    more = {"name": getattr(log_prob, "__name__", "torch"), "source": "a PyTorch function"} | more
    return numpy.target(values, dim, grad=grad, batched=True, **more)
