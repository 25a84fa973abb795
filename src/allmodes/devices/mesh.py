"""More than one device, and more than one process: points spread over a mesh, everything else on
each device.

One program, written as if for one device, is partitioned by JAX: what it needs for that are
`spread`, which marks arrays of points, and `Placement` (`training/placement.py`), which says where
the state of training lies. With one device both do nothing.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from allmodes.errors import ConfigError

AXIS = "points"

_MESH: contextvars.ContextVar[Mesh | None] = contextvars.ContextVar("mesh", default=None)


@contextlib.contextmanager
def on_devices(devices: str | int | Sequence[jax.Device] | None = "all") -> Iterator[None]:
    """Within it, training and draws are spread over several devices: `with am.on_devices("all"):
    am.fit(..)`.

    `devices` are all that JAX sees (of all processes), the first so many of them, or a list; None
    is one device, as without. Batch and buffer are spread over them, the network is on each. The
    same key gives the same sampler on any number of devices up to the order of sums in float32,
    until the first acceptance that this tips. Searches and tempering, which come before training,
    run on one device, as the plain methods do.

    **Raises** `ConfigError` for a number that there is not.
    """
    mesh = _mesh(devices)
    token = _MESH.set(mesh)
    try:
        yield
    finally:
        _MESH.reset(token)


def _mesh(devices: str | int | Sequence[jax.Device] | None) -> Mesh | None:
    if devices is None:
        return None
    there = jax.devices()
    if isinstance(devices, str) and devices != "all":
        if not devices.isdigit():
            raise ConfigError(f"devices must be 'all' or a number of them, got {devices!r}")
        devices = int(devices)
    if isinstance(devices, int):
        if not 1 <= devices <= len(there):
            raise ConfigError(f"devices must lie between 1 and the {len(there)} that JAX sees here, got {devices}")
        if jax.process_count() > 1 and devices < len(there):
            raise ConfigError(f"processes that work together use all of their {len(there)} devices, got {devices}")
        there = there[:devices]
    elif devices != "all":
        there = list(devices)
    if len(there) == 1:
        return None
    return jax.make_mesh((len(there),), (AXIS,), axis_types=(AxisType.Auto,), devices=there)


def mesh() -> Mesh | None:
    """The devices over which points are spread here; None for one."""
    return _MESH.get()


def count() -> int:
    """Over how many devices points are spread here."""
    mesh = _MESH.get()
    return 1 if mesh is None else mesh.size


def share_evenly(n: int) -> int:
    """The first number from n on that the devices can share."""
    return -(-n // count()) * count()


def traced_count() -> int:
    """The same inside of a program that is being traced for `everywhere`, or for a `Placement`."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else mesh.size


def spread(points: Any, axis: int = 0) -> Any:
    """Arrays of points, spread over the devices along `axis` where their number allows; for use in
    traced programs.
    """
    devices = traced_count()

    def one(a):
        if devices == 1 or a.shape[axis] % devices:
            return a
        return jax.lax.with_sharding_constraint(a, PartitionSpec(*[None] * axis, AXIS))

    return jax.tree.map(one, points)


def everywhere(program: Callable[..., Any], *args: Any) -> Any:
    """Call a compiled program on all devices; its outputs are ordinary arrays, whole, on each
    process.
    """
    mesh = _MESH.get()
    if mesh is None:
        return program(*args)
    with jax.set_mesh(mesh):
        out = program(*args)
    return gather(out)


def gather(tree: Any) -> Any:
    """Spread arrays as ordinary ones of the first device: whole, on each process."""
    arrays, rest = _split(tree)
    if not arrays:
        return tree
    mesh = arrays[0].sharding.mesh
    whole = jax.jit(lambda a: a, out_shardings=NamedSharding(mesh, PartitionSpec()))(arrays)
    return rest([jnp.asarray(np.asarray(a)) for a in whole])


def _split(tree: Any) -> tuple[list, Callable[[list], Any]]:
    """The arrays of a tree that lie on a mesh, and how to put others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    where = [i for i, a in enumerate(leaves) if isinstance(getattr(a, "sharding", None), NamedSharding)]

    def rest(arrays: list) -> Any:
        new = list(leaves)
        for i, a in zip(where, arrays, strict=True):
            new[i] = a
        return jax.tree.unflatten(structure, new)

    return [leaves[i] for i in where], rest


# Processes.
