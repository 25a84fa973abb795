"""Adjoint Sampling (Havens et al. 2025, arXiv 2504.11713): the control is regressed on gradients of
the density at the ends of its own paths, which are replayed.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Scalar

from allmodes.devices.blocks import value_and_grad
from allmodes.devices.mesh import spread
from allmodes.diffusion.networks import Network, Perceptron
from allmodes.diffusion.noise import NoiseRange, stratified_times
from allmodes.diffusion.paths import Process, reverse
from allmodes.errors import ConfigError
from allmodes.method import Figure, Figures
from allmodes.methods.paths.losses import with_mass
from allmodes.methods.paths.method import PathMethod
from allmodes.methods.paths.reference import PinnedBrownian
from allmodes.methods.paths.state import State
from allmodes.points.buffer import Buffer
from allmodes.points.found import SearchResult
from allmodes.target import Target


class Replay(eqx.Module):
    """Ends of the sampler's own paths, the oldest of which the next take the place of."""

    ends: Buffer  # with gradients that are clipped
    elbo: Scalar  # of the paths that came last
    clipped: Scalar  # share of them


@dataclasses.dataclass(frozen=True)
class AdjointSampling(PathMethod):
    """Regress the control on what the density's gradient at the end of a path says of it.

    Of the Brownian motion of `PinnedBrownian` the optimal control is
    `u(x_t, t) = E[x_1 + grad log p(x_1) | x_t]`, over ends x_1 of the target and the bridge to them
    (Reciprocal Adjoint Matching, section 3). The regression has ends of the sampler's own paths in
    their place, and noises each anew at every step it is drawn for, so that many updates share an
    evaluation; where it is at rest, the ends are the target's. No derivative is taken through a
    path. In `z = x_t / t` the denoiser is `t z + (1 - t) u`: what it is regressed on is the blend
    of the identities of `diffusion/posterior.py` by the gate of a unit normal. Steps and levels of
    training are even in log sigma, as on the paper's geometric schedule, or in time
    (`PinnedBrownian`, with kernels of fixed variance). Of the search it takes the frame alone; the
    points of the buffer only say, at the end, what the sampler has left out.

    Its generalisation to any source, ASBS (Liu et al. 2025, arXiv 2506.22565), is not here: its
    process is not memoryless, and what its paths are backwards is known by a learned corrector, at
    their ends alone. Weights by any other kernel backwards have the right mean, but differ from
    path to path even where the ends are the target's.
    """

    figures: ClassVar[Mapping[str, Figure]] = {
        "loss": Figure("loss", in_progress="loss", caption="the squared error of the control"),
        "elbo": Figure("ELBO", over="last", in_progress="ELBO", caption="the ELBO of own paths, in the frame"),
        "clipped": Figure("gradients clipped", over="last", is_share=True),
    }
    needs_gradient: ClassVar[bool] = True

    name: str = "adjoint"
    network: Network = Perceptron(frequencies=2)
    noise: NoiseRange | PinnedBrownian = NoiseRange()
    paths: int = 512
    """Paths that are drawn at a time: as many evaluations."""
    every: int = 20
    """Steps from one time to the next, each on a batch of the ends that are kept."""
    kept: int = 8192
    """Ends that are kept, first in, first out."""
    clip: float | None = 100.0
    """Largest norm of the density's gradient at an end, in units of the frame (published settings
    have 100 to 150, of the energy as it is); None for any. Where modes are narrower than about a
    hundredth of the frame gradients are longer in the target itself, and the control is biased, not
    the weights: `clipped` tells."""

    def __post_init__(self):
        super().__post_init__()
        if self.guided:
            raise ConfigError("adjoint trains without evaluations between its paths: guided must be left out")
        if self.paths > self.kept:
            raise ConfigError(f"paths must not exceed the {self.kept} ends that are kept, got {self.paths}")

    @property
    def period(self) -> int:
        """Steps from one time that paths are drawn to the next."""
        return self.every

    @property
    def period_evaluations(self) -> int:
        """What the ends of these paths take."""
        return self.paths

    def more(self, found: SearchResult) -> Replay:
        """Give room for the ends of paths."""
        z, nothing = jnp.zeros((self.kept, found.points.z.shape[1])), jnp.zeros(())
        return Replay(Buffer(z, jnp.zeros(self.kept), z), nothing, nothing)

    def step(self, target: Target, state: State, key: Array) -> tuple[State, Figures]:
        """Draw paths where they are due, and regress on noised ends."""
        k_paths, k_index, k_time, k_noise = jax.random.split(key, 4)
        is_due = state.step % self.every == 0
        state = jax.lax.cond(is_due, lambda s: self._refilled(target, s, k_paths), lambda s: s, state)
        filled = jnp.minimum((1 + jnp.minimum(state.step // self.every, self.kept)) * self.paths, self.kept)
        ends = spread(state.more.ends.take(jax.random.randint(k_index, (self.batch,), 0, filled)))
        sigma = state.noise.along(stratified_times(k_time, self.batch))
        z = ends.z + sigma[:, None] * jax.random.normal(k_noise, ends.z.shape)
        weight = (ends.log_prob > -jnp.inf) / self.batch  # an end without mass has no gradient, and no say

        def objective(model, *points):
            return regression(self.process_of(target, state, model), *points)

        block = state.model[0].block(self.batch)
        (_, squared), gradient = value_and_grad(objective, state.model, (ends.z, ends.grad, z, sigma, weight), block)
        figures = {"loss": weight @ squared, "elbo": state.more.elbo, "clipped": state.more.clipped}
        return self.follow(state, gradient), figures

    def _refilled(self, target: Target, state: State, key: Array) -> State:
        """The state with the ends of paths of the sampler as it is now."""
        path = reverse(self.process_of(target, state, state.model), key, self.paths, self.path_steps)
        e = state.frame.evaluate(target, path.z)
        size = jnp.linalg.norm(e.grad, axis=1)
        most = jnp.inf if self.clip is None else self.clip
        grad = jnp.minimum(1.0, most / jnp.maximum(size, 1e-30))[:, None] * e.grad
        first = (state.step // self.every) % self.kept * self.paths
        ends = Buffer(path.z, e.log_prob, grad)
        replay = Replay(
            state.more.ends.put((first + jnp.arange(self.paths)) % self.kept, ends),
            jnp.mean(path.log_ratio + with_mass(e.log_prob)),
            jnp.mean(size > most),
        )
        return dataclasses.replace(state, more=replay, evaluations=state.evaluations.add(e))


def goal_of(
    z_0: Float[Array, "n dim"], grad: Float[Array, "n dim"], z: Float[Array, "n dim"], sigma: Float[Array, " n"]
) -> Float[Array, "n dim"]:
    """What an end z_0 with the density's gradient there says of the denoised point at z, its noised
    one: `t z + (1 - t) (z_0 + grad)` at time `t = 1 / (1 + sigma^2)` of the Brownian motion.
    """
    t = (1.0 / (1.0 + sigma**2))[:, None]
    return t * z + (1.0 - t) * (z_0 + grad)


def regression(
    process: Process,
    z_0: Float[Array, "n dim"],
    grad: Float[Array, "n dim"],
    z: Float[Array, "n dim"],
    sigma: Float[Array, " n"],
    weight: Float[Array, " n"],
) -> tuple[Scalar, Float[Array, " n"]]:
    """Weighted squared errors of the control, each beside the sum: those of the denoiser over
    `(1 - t)^2`.

    The variance of kernels, where it is learned, is led to what the denoiser is off by from ends:
    by their log-density given the noised points.
    """
    denoised = jax.vmap(process.denoiser)(z, sigma)
    rest = sigma**2 / (1.0 + sigma**2)  # 1 - t
    squared = jnp.sum((denoised - goal_of(z_0, grad, z, sigma)) ** 2, axis=1) / rest**2
    variance = jax.vmap(process.error_at)(sigma)
    off = jax.lax.stop_gradient(denoised) - z_0
    surprise = 0.5 * jnp.sum(jnp.log(variance) + off**2 / variance, axis=1)
    return weight @ (squared + surprise), squared
