"""The compiled programs of a sampler: each is compiled at its first call, and once for all samplers
of a density.
"""

import functools

from jaxtyping import Array, Float

from allmodes.devices.compiled import program
from allmodes.diffusion import blocks
from allmodes.diffusion.corrections.chain_moves import Plan, chains
from allmodes.diffusion.corrections.path_smc import PathSMC, smc
from allmodes.diffusion.paths import Process, noising, reverse
from allmodes.points.frame import Frame
from allmodes.target import Target


class Programs:
    """Programs `(frame, process, key, n or points, steps, ..)` over a target.

    The target is a constant of them; frame and process, which holds the network, are arguments.
    """

    def __init__(self, target: Target):
        self.draw = program(_draw, target, static=(3, 4))
        self.path = program(_path, target, static=(3, 4))
        self.chains = program(_chains, target, static=(4, 5))
        self.smc = program(_smc, target, static=(3, 4, 5))
        self.noise = program(_noise, target, static=(4,))
        self.weigh = program(_weigh, target, static=(4,))


def _draw(target: Target, frame: Frame, process: Process, key: Array, n: int, steps: int) -> tuple[Array, Array, Array]:
    path = reverse(process, key, n, steps)
    x = frame.to_x(path.z)
    if not frame.double:
        log_prob = target.values(x)
        return x, log_prob, path.log_ratio + log_prob + frame.log_det
    value = frame.values(target, path.z)
    return x, frame.log_prob(value), frame.total(path.log_ratio + value)


def _path(target: Target, frame: Frame, process: Process, key: Array, n: int, steps: int) -> tuple[Array, Array]:
    path = reverse(process, key, n, steps)
    return path.z, path.log_ratio + frame.values(target, path.z)


def _chains(
    target: Target, frame: Frame, process: Process, key: Array, z: Array, steps: int, plan: Plan
) -> tuple[Array, Array]:
    evaluate, value = functools.partial(frame.evaluate, target), functools.partial(frame.value, target)
    block, differentiable = target.block(blocks.BLOCK), target.differentiable
    points = chains(process, evaluate, value, key, z, steps, plan, block, differentiable)
    return frame.to_x(points.z), frame.log_prob(points.log_prob)


def _smc(
    target: Target, frame: Frame, process: Process, key: Array, n: int, steps: int, settings: PathSMC
) -> tuple[Array, Array, Array]:
    z, log_prob, log_weight = smc(process, functools.partial(frame.values, target), key, n, steps, settings)
    return frame.to_x(z), frame.log_prob(log_prob), frame.total(log_weight)


def _noise(target: Target, frame: Frame, process: Process, key: Array, z: Array, steps: int) -> Array:
    return noising(process, key, z, steps).log_ratio


def _weigh(target: Target, frame: Frame, process: Process, key: Array, x: Array, steps: int) -> Float[Array, " n"]:
    z = frame.to_z(x)
    path = noising(process, key, z, steps)
    if frame.double:
        return frame.total(path.log_ratio + frame.values(target, z))
    return path.log_ratio + target.values(x) + frame.log_det
