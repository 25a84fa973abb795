"""The compiled programs of a sampler: each is compiled at its first call."""

import jax
from jaxtyping import Array, Float

from allmodes.diffusion import blocks
from allmodes.diffusion.corrections.chain_moves import Plan, chains
from allmodes.diffusion.corrections.path_smc import PathSMC, smc
from allmodes.diffusion.paths import Process, noising, reverse
from allmodes.points.frame import Frame
from allmodes.target import Evaluation, Target


class Programs:
    """Programs `(process, key, n or points, steps, ..)` over a target in a frame.

    Target and frame are constants of them; the process, which holds the network, is an argument.
    """

    def __init__(self, target: Target, frame: Frame):
        self.target, self.frame = target, frame
        self.draw = jax.jit(self._draw, static_argnums=(2, 3))
        self.path = jax.jit(self._path, static_argnums=(2, 3))
        self.chains = jax.jit(self._chains, static_argnums=(3, 4))
        self.smc = jax.jit(self._smc, static_argnums=(2, 3, 4))
        self.noise = jax.jit(self._noise, static_argnums=3)
        self.weigh = jax.jit(self._weigh, static_argnums=3)

    def _draw(self, process: Process, key: Array, n: int, steps: int) -> tuple[Array, Array, Array]:
        path = reverse(process, key, n, steps)
        x = self.frame.to_x(path.z)
        if not self.frame.double:
            log_prob = self.target.values(x)
            return x, log_prob, path.log_ratio + log_prob + self.frame.log_det
        value = self._values(path.z)
        return x, self.frame.log_prob(value), self.frame.total(path.log_ratio + value)

    def _path(self, process: Process, key: Array, n: int, steps: int) -> tuple[Array, Array]:
        path = reverse(process, key, n, steps)
        return path.z, path.log_ratio + self._values(path.z)

    def _chains(self, process: Process, key: Array, z: Array, steps: int, plan: Plan) -> tuple[Array, Array]:
        block, differentiable = self.target.block(blocks.BLOCK), self.target.differentiable
        points = chains(process, self._evaluate, self._value, key, z, steps, plan, block, differentiable)
        return self.frame.to_x(points.z), self.frame.log_prob(points.log_prob)

    def _smc(self, process: Process, key: Array, n: int, steps: int, settings: PathSMC) -> tuple[Array, Array, Array]:
        z, log_prob, log_weight = smc(process, self._values, key, n, steps, settings)
        return self.frame.to_x(z), self.frame.log_prob(log_prob), self.frame.total(log_weight)

    def _noise(self, process: Process, key: Array, z: Array, steps: int) -> Array:
        return noising(process, key, z, steps).log_ratio

    def _weigh(self, process: Process, key: Array, x: Array, steps: int) -> Array:
        z = self.frame.to_z(x)
        path = noising(process, key, z, steps)
        if self.frame.double:
            return self.frame.total(path.log_ratio + self._values(z))
        return path.log_ratio + self.target.values(x) + self.frame.log_det

    def _evaluate(self, z: Float[Array, "n free"]) -> Evaluation:
        return self.frame.evaluate(self.target, z)

    def _value(self, z: Float[Array, " free"]) -> Float[Array, ""]:
        return self.frame.value(self.target, z)

    def _values(self, z: Float[Array, "n free"]) -> Float[Array, " n"]:
        return self.frame.values(self.target, z)
