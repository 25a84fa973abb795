"""Where the state of training lies on several devices."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from allmodes.devices.compiled import program
from allmodes.devices.mesh import AXIS, count, gather, mesh
from allmodes.errors import ConfigError
from allmodes.points.buffer import Buffer


class Placement:
    """Where the state of training lies: points of a `Buffer` spread over the devices, the rest on
    each of them.
    """

    def __init__(self, method: Any):
        self._mesh = mesh()
        for name in ("batch", "buffer"):
            number = getattr(method, name, 0)
            if number % count():
                raise ConfigError(f"{name} must be a multiple of the {count()} devices, got {number}")

    def shardings(self, state: Any) -> Any:
        """Of each array of the state."""
        whole, points = (NamedSharding(self._mesh, PartitionSpec(*axes)) for axes in ((), (AXIS,)))
        return jax.tree.map(
            lambda part: jax.tree.map(lambda _: points, part) if isinstance(part, Buffer) else whole,
            state, is_leaf=lambda part: isinstance(part, Buffer),
        )  # fmt: skip

    def put(self, state: Any) -> Any:
        """The state, spread. All processes must have the same one."""
        if self._mesh is None:
            return state

        def one(a, sharding):
            whole = np.asarray(a)
            return jax.make_array_from_callback(whole.shape, sharding, lambda index: whole[index])

        return jax.tree.map(one, gather(state), self.shardings(state))

    def compile(self, function: Callable, settings: tuple, state: Any, *args: Any) -> Callable:
        """A `function(*settings, state, *args)` from a state, and more, to a state and more,
        compiled for where they lie.
        """
        if self._mesh is None:
            return program(function, *settings).lower(state, *args).compile()
        function = functools.partial(function, *settings)
        with jax.set_mesh(self._mesh):
            whole = NamedSharding(self._mesh, PartitionSpec())
            _, *others = jax.eval_shape(function, state, *args)
            outputs = (self.shardings(state), *jax.tree.map(lambda _: whole, others))
            return jax.jit(function, out_shardings=outputs).lower(state, *args).compile()
