"""The sampler of a trained diffusion: reverse paths, their exact weights, and corrections."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Scalar

from allmodes.devices.compiled import program
from allmodes.devices.keys import Key
from allmodes.devices.mesh import everywhere
from allmodes.devices.precision import single
from allmodes.diffusion import blocks
from allmodes.diffusion.corrections import Chains, Correction, PathSMC, correction_of
from allmodes.diffusion.corrections.chain_moves import Plan, chain_evaluations, steps_of_rounds
from allmodes.diffusion.corrections.path_smc import smc_evaluations
from allmodes.diffusion.corrections.proposal import Raw
from allmodes.diffusion.paths import Process
from allmodes.diffusion.programs import Programs
from allmodes.draws.doubt import Forward
from allmodes.draws.draws import Draws, LogDensity
from allmodes.draws.estimates import forward_ess
from allmodes.draws.verdict import Finding
from allmodes.errors import ConfigError, SolverError
from allmodes.points.frame import Frame
from allmodes.progress.stages import parts_of
from allmodes.sampler import Sampler

FORWARD, FORWARD_FEW = 2048, 256  # points of the buffer that see the sampler; fewer where paths are dear


@dataclasses.dataclass(frozen=True, eq=False)
class DiffusionSampler(Sampler):
    """Draws cost calls of the network, and one value of the density each for their weights."""

    options = frozenset({"steps", "correct", "rounds", "moves", "pool"})

    def sample(
        self,
        n: int,
        *,
        key: Key,
        steps: int | None = None,
        correct: str | Correction | None = None,
        rounds: int | None = None,
        moves: int | None = None,
        pool: int | None = None,
    ) -> Draws:
        """N draws with exact weights, by `steps` steps of the reverse SDE.

        When not given, `steps` are the method's own `sample_steps`; none where nothing was trained
        on top of a base: draws are the base's own then. More of them raise the ESS of the weights
        towards the limit that the network sets.

        - With no correction: independent draws with exact path weights; n evaluations.
        - `"snis"`: the same, their weights Pareto-smoothed; n evaluations. Never better than the
          raw weights allow.
        - `"smc"`: 10 populations (fewer where n is below 500) along the reverse path, resampled
          where their weights have become uneven; log Z from the populations. Weighted draws, some
          with a common origin; 97 n evaluations.
        - `"mcmc"`: each draw is the end of a chain of its own that leaves the target invariant. Raw
          draws, until 4 for each chain are effective but at most `pool` (16; for particles 2), are
          resampled by their path weights. Where so many would not give each chain one that is
          effective, it chooses between two of its own. Then come `rounds` of noising and denoising
          (2; for particles none), and Hamiltonian `moves` (5; for particles one for each free
          dimension, at least 30). Draws of equal weight; log Z is that of all the raw ones;
          `n (raw + 1 + rounds + 10 moves)` evaluations.
        - A `Correction` with settings of its own: `Chains(moves=8)`.

        Where a path costs evaluations itself, as of a network that is shown the density's gradient,
        all of these are more by those. What no correction can mend is a region that the sampler
        does not meet.

        **Raises** `ConfigError` when n is below 1, steps below 2 (but for 0 where there is a base),
        the correction unknown, rounds below 0, or moves or pool below 1.
        """
        steps = self._checked("sample", n, steps)
        Chains(rounds, moves, pool)  # for its checks
        if correct is not None:
            correction = correction_of(correct, rounds=rounds, moves=moves, pool=pool)
            return correction(self, n, key=key, steps=steps)
        keys, size = blocks.blocks_of(key, n)
        each = parts_of(keys, f"drawing {n:,}")
        parts = [jax.block_until_ready(self._on_all("draw", k, size, steps)) for k in each]
        x, log_prob, log_weight = (jnp.concatenate(part)[:n] for part in zip(*parts, strict=True))
        seen, spent = self.look_forward()
        doubt = seen.doubt(np.asarray(log_weight, np.float64) - self.frame.constant)
        cost, named = spent + n * (1 + self.process.path_evaluations(steps)), self.target.parameters
        return Draws(
            x,
            log_prob,
            log_weight,
            cost,
            parameters=named,
            forward_ess=seen.ess,
            doubt=doubt,
            findings=self.findings,
        )

    def corrected(self, n: int, *, key: Key, pool: int | None = None) -> Draws:
        """`sample` with `correct="mcmc"`."""
        return self.sample(n, key=key, correct="mcmc", pool=pool)

    # What corrections ask for.

    def proposal(self) -> "DiffusionSampler":
        """Offer its own paths to a correction."""
        return self

    @property
    def steps(self) -> int:
        """Steps of a draw's reverse path when not said otherwise: the method's own number, or none
        where draws are those of a base on top of which nothing was trained.
        """
        is_base_alone = self.process.denoiser.base is not None and not int(self.state.step)
        return 0 if is_base_alone else self.method.sample_steps

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is known of all draws: how complete the search was."""
        return self.method.findings(self.state)

    @property
    def frame(self) -> Frame:
        """The unit-scale coordinates that paths are in."""
        return self._process[0]

    def look_forward(self) -> tuple[Forward, int]:
        """Give `forward`, and the evaluations that it took now: none where it was known, or a path
        costs none.
        """
        is_known = "forward" in vars(self)
        spent = 0 if is_known else self._few * self.process.path_evaluations(self.steps)
        return self.forward, spent

    @property
    def _few(self) -> int:
        is_free = self.target.symmetry is None and not self.process.path_evaluations(1)
        return FORWARD if is_free else FORWARD_FEW

    def paths(self, key: Array, n: int, steps: int | None) -> Raw:
        """Draw n clean ends of paths, weighted by their paths."""
        steps = self.steps if steps is None else steps
        z, log_weight = self._on_all("path", key, n, steps)
        return Raw(z, log_weight, n * (1 + self.process.path_evaluations(steps)))

    def chains(self, key: Array, z: Array, steps: int | None, plan: Plan) -> tuple[Array, Array, int]:
        """Give the ends of chains from z, in the user's coordinates, their log-densities, and what
        they cost.
        """
        steps = steps or self.method.sample_steps
        x, log_prob = self._on_all("chains", key, z, steps, plan)
        each = chain_evaluations(plan.rounds, plan.moves)
        if self.process.path_evaluations(1):
            each += self.process.path_evaluations(steps_of_rounds(key, plan.rounds, steps))
        return x, log_prob, len(z) * each

    def smc(self, key: Array, n: int, steps: int | None, settings: PathSMC) -> tuple[Array, Array, Array, int]:
        """Draw one population of n along the path: x, log_prob, log_weight, and what it cost."""
        steps = steps or self.method.sample_steps
        return *self._on_all("smc", key, n, steps, settings), n * smc_evaluations(self.process, steps, settings)

    @functools.cached_property
    @single
    def forward(self) -> Forward:
        """What the points that training ended with see of the sampler; no evaluations, unless a
        path costs some.

        Path weights of those points, by noising them; they need their log-densities, which the
        buffer holds. Their effective share falls when the sampler misses a region that the points
        know.
        """
        buffer = self.state.buffer
        some = np.random.default_rng(0).permutation(buffer.size)[: self._few]  # copies stand at regular distances
        points = buffer.take(jnp.asarray(np.resize(some, self._few)))
        log_ratio = self._on_all("noise", jax.random.key(0), points.z, self.steps)
        log_weight = np.asarray(log_ratio + points.log_prob, np.float64)
        return Forward(log_weight, forward_ess(log_weight), len(np.unique(np.asarray(points.z), axis=0)))

    def log_weights(self, x: Float[Array, "n dim"], *, key: Key, steps: int | None = None) -> Float[Array, " n"]:
        """Path weights of given points, by noising them: for exact draws, the target's own view of
        the sampler.

        Their mean is the EUBO; `forward_ess` of them falls when the sampler misses a mode. n
        evaluations, and those of the paths where these cost any.

        **Raises** `ConfigError` when there is no point, or steps are below 2 (but for 0 where there
        is a base).
        """
        steps = self._checked("log_weights", len(x), steps)
        parts = [
            self._on_all("weigh", jax.random.fold_in(key, i), block, steps)
            for i, block in enumerate(blocks.points_of(x))
        ]
        return jnp.concatenate(parts)[: len(x)]

    def log_density(
        self,
        x: Float[Array, "n dim"],
        *,
        key: Key | None = None,
        probes: int | None = None,
        rtol: float = 1e-5,
        atol: float = 1e-5,
    ) -> LogDensity:
        """Log-density of the sampler itself at given points, normalised: `log_density (n,)` and
        `std_error (n,)`.

        It is the density of draws of the sampler's prior that its probability-flow ODE brings down
        to sigma = 0, in the coordinates of x (Song et al. 2021, section 4.3;
        `diffusion/probability_flow.py`, which says what is done below sigma_min). A perfect network
        makes it the target's. It is not the density of the draws of `sample`, which come from the
        reverse SDE: the two differ as far as the network is wrong. For particles it is with respect
        to the volume of the mean-free subspace, as log Z is, and what all particles share is taken
        off first.

        The divergence of the flow is exact up to 16 dimensions. Above it is estimated with 16
        random `probes`, which need a `key`, and `std_error` says how well (FFJORD, Grathwohl et al.
        2019); 0 probes make it exact in any dimension. `rtol` and `atol` bound the error of each
        step of the solver; that of log_density is tens of times as large (thousands where the
        network bends sharply), and not part of `std_error`: below .001 at most points.

        Costs no evaluation of the density. The solver takes tens of steps, each with 6 calls of the
        network and of its derivative in every direction: as many directions as probes, or as
        dimensions where it is exact.

        **Raises** `ConfigError` when the network is shown the density's gradient (its divergence
        would need second derivatives), when there is no point, a tolerance is not positive and
        finite, `probes` is 1 or negative, or probes are to be drawn without a key; `SolverError`
        when points were not solved, with their number.
        """
        # Diffrax takes a second to import, and must not be imported while JAX traces.
        from allmodes.diffusion import probability_flow as flow

        if self.process.path_evaluations(1):
            raise ConfigError(f"method {self.method.name} has no log_density: its network sees the density's gradient")
        dim = self.target.free_dim
        if probes is None:
            probes = 0 if dim <= flow.EXACT else flow.PROBES
        _check_density(len(x), dim, key, probes, rtol, atol)
        key = jax.random.key(0) if key is None else key
        density = program(_log_density, static=(4,))
        parts = [
            density(*self._process, block, jax.random.fold_in(key, i), probes, rtol, atol)
            for i, block in enumerate(blocks.points_of(x, max(1, blocks.BLOCK // (1 + flow.directions(probes, dim)))))
        ]
        result = LogDensity(*(jnp.concatenate(part)[: len(x)] for part in zip(*parts, strict=True)))
        unsolved = int(jnp.sum(~jnp.isfinite(result.log_density)))
        if unsolved:
            raise SolverError(
                f"the flow of {unsolved} of {len(x)} points was not solved with rtol={rtol:g}, atol={atol:g} in "
                f"{flow.MAX_STEPS} steps: they are too far out, or the tolerances too tight for {x.dtype}"
            )
        return result

    def _checked(self, name: str, n: int, steps: int | None) -> int:
        """Give the steps; raise `ConfigError` where they cannot be."""
        steps, has_base = self.steps if steps is None else steps, self.process.denoiser.base is not None
        if n < 1 or (steps < 2 and not (steps == 0 and has_base)):
            raise ConfigError(f"{name} needs n of at least 1 and steps of at least 2, got n={n}, steps={steps}")
        return steps

    def _on_all(self, name: str, *args: Any) -> Any:
        """Run one of the compiled programs on all devices that points are spread over."""
        return everywhere(getattr(Programs(self.target), name), *self._process, *args)

    @property
    def process(self) -> Process:
        """The denoiser, noise levels and prior that the draws are made with, in normalised
        coordinates.
        """
        return self._process[1]

    @functools.cached_property
    def _process(self) -> tuple[Any, Process]:
        return self.method.process(self.target, self.state)


def _log_density(
    frame: Frame,
    process: Process,
    x: Float[Array, "n dim"],
    key: Array,
    probes: int,
    rtol: Scalar | float,
    atol: Scalar | float,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    from allmodes.diffusion import probability_flow as flow

    log_density, std_error = flow.log_density(process, frame.to_z(x), key, probes, rtol, atol)
    return log_density - frame.log_det, std_error


def _check_density(n: int, dim: int, key: Array | None, probes: int, rtol: float, atol: float) -> None:
    """**Raises** `ConfigError` where `log_density` cannot be had so."""
    if n < 1:
        raise ConfigError("log_density needs at least 1 point, got 0")
    if not (0.0 < rtol < jnp.inf and 0.0 < atol < jnp.inf):
        raise ConfigError(f"tolerances must be positive and finite, got rtol={rtol}, atol={atol}")
    if probes < 0 or probes == 1:
        raise ConfigError(f"probes must be at least 2, or 0 for an exact divergence, got {probes}")
    if probes and key is None:
        raise ConfigError(f"log_density of {dim} dimensions draws {probes} probes: give it a key, or probes=0")
