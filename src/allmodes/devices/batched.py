"""A `log_prob` of one point from functions of many, which JAX cannot look into: stored
computations, callbacks.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

Values = Callable[[Float[Array, "n dim"]], Float[Array, " n"]]
Both = Callable[[Float[Array, "n dim"]], tuple[Float[Array, " n"], Float[Array, "n dim"]]]


def log_prob_of(values: Values, both: Both | None) -> Callable[[Float[Array, " dim"]], Float[Array, ""]]:
    """One that takes whole batches in one call of `values`, or of `both` (values and gradients)
    when differentiated.

    It can be differentiated once; not at all where `both` is None.
    """

    @jax.custom_batching.custom_vmap
    def value(x):
        return values(x[None])[0]

    @value.def_vmap
    def _(size, batched, x):
        return values(x), True

    if both is None:
        return value

    @jax.custom_batching.custom_vmap
    def value_and_grad(x):
        value, grad = both(x[None])
        return value[0], grad[0]

    @value_and_grad.def_vmap
    def _(size, batched, x):
        return both(x), (True, True)

    @jax.custom_vjp
    def log_prob(x):
        return value(x)

    log_prob.defvjp(value_and_grad, lambda grad, g: (g * grad,))
    return log_prob
