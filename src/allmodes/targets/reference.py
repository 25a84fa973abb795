"""Draws of a density that has no exact sampler: independent tempered runs that must agree, kept
with a checksum.
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.draws.estimates import batch_log_z
from allmodes.errors import ConfigError, RunError
from allmodes.files.fingerprint import differing, fingerprint
from allmodes.files.run_folder import Run
from allmodes.files.user_cache import user_cache
from allmodes.mcmc.hmc import LEAPS, hmc
from allmodes.mcmc.tempered_smc import tempering
from allmodes.metrics.identities import Check, virial
from allmodes.search.settle import gauging, locate
from allmodes.target import Target

RUNS = 4
OVER = 4  # particles of a run for each that is kept: shares of basins that moves do not cross are set by tempering
TEMPER_MOVES = 3  # Hamiltonian moves at each temperature at least: masses of modes are as good as tempering is
OVER_FEW, FEW_DIM = 12, 16  # the same up to so many dimensions, where it costs little and log Z is asked to .005
MOVES = 600  # Hamiltonian moves of every particle after tempering, in BATCHES compiled calls, at least
MOVES_PER_DIM = 4  # the same for each free dimension
BATCHES = 20
SIGMAS = 3.0  # checks pass within so many standard errors
LEFT = 0.05  # correlation that is let pass
APART = 0.3  # standard deviation of log Z over the runs that is let pass
SEED = 20_260_101


@dataclasses.dataclass(frozen=True)
class Reference:
    """Draws `(n, dim)`, log Z with its standard error over the runs, what was checked, and what it
    cost.
    """

    x: Float[np.ndarray, "n dim"]
    log_z: float
    log_z_error: float
    checks: list[Check]
    evaluations: int

    @property
    def passed(self) -> bool:
        """Whether every check holds."""
        return all(check.off <= SIGMAS for check in self.checks)


def make(target: Target, n: int, *, seed: int = SEED, progress: Callable[[str], None] | None = None) -> Reference:
    """Four independent runs of tempered SMC (BlackJAX); a quarter of the particles, each then moved
    on its own by HMC.

    The moves part the copies that resampling made; that they suffice is checked by how each
    particle's energy changes in the first and in the second half of them (`_memory`). Checked
    besides, from the draws alone: the runs' mean energies and their log Z agree; the virial
    identity `E[z . grad log p] = -d` and `E[|grad log p|^2] = -E[laplacian log p]`, on the
    mean-free subspace of particles.

    **Raises** `ConfigError` for fewer than 8 draws, `TargetError` where tempering fails.
    """
    if n < 2 * RUNS:
        raise ConfigError(f"a reference needs at least {2 * RUNS} draws, got {n}")
    say = progress or (lambda text: None)
    size, at_once = -(-n // RUNS), -(-_moves(target) // BATCHES)  # particles kept of a run, moves in a call
    over = OVER_FEW if target.free_dim <= FEW_DIM else OVER
    k_search, *k_runs = jax.random.split(jax.random.key(seed), RUNS + 1)
    # Of its result the coordinates alone: tempering starts anew.
    start = locate(target, over * size, k_search, jax.random.fold_in(k_search, 1))
    temper = tempering(target, start, moves=None if target.symmetry is not None else TEMPER_MOVES)
    # Each run by a frame of its own, so that what one frame leaves out shows where runs are
    # compared. That of particles is settled already.
    gauge = gauging(target, start) if target.symmetry is None else lambda key: start

    @functools.partial(jax.jit, static_argnums=(4, 5))
    def move(frame, points, step, key, moves, block):
        return hmc(lambda z: frame.value(target, z), points, step, key, moves, block)

    parts, log_zs, before, evaluations = [], [], [], 0
    for run, key in enumerate(k_runs):
        k_temper, k_move = jax.random.split(key)
        found, log_z, _ = temper(k_temper, gauge(jax.random.fold_in(k_temper, 2)))
        kept = jax.random.permutation(jax.random.fold_in(k_temper, 1), over * size)[:size]
        points, step = found.points.take(kept), jnp.sqrt(2.0 * found.step_size)
        energies = [np.asarray(found.frame.log_det - points.log_prob, float)]
        for batch in range(BATCHES):
            key_of = jax.random.fold_in(k_move, batch)
            moved = move(found.frame, points, step, key_of, at_once, target.block(size))
            points, step = moved.points, moved.step_size
            if batch == BATCHES // 2 - 1:
                energies.append(np.asarray(found.frame.log_det - points.log_prob, float))
        evaluations += int(found.evaluations.log_prob) + BATCHES * at_once * LEAPS * size
        parts.append((found.frame, points))
        before.append(energies)
        log_zs.append(log_z)
        say(f"run {run + 1} of {RUNS}: log Z {log_z:.3f}, acceptance {float(moved.acceptance):.2f}")
    evaluations -= (RUNS - 1) * int(start.evaluations.log_prob)  # counted in every run
    checks = _checks(target, parts, before, log_zs)
    x = np.concatenate([np.asarray(frame.to_x(points.z)) for frame, points in parts])
    x = x[np.random.default_rng(seed).permutation(len(x))[:n]]
    return Reference(x, *batch_log_z(np.asarray(log_zs)), checks, evaluations)


def _moves(target: Target) -> int:
    return max(MOVES, MOVES_PER_DIM * target.free_dim)


def _checks(target: Target, parts: list, before: list, log_zs: list) -> list[Check]:
    energies = [-np.asarray(points.log_prob - frame.log_det, float) for frame, points in parts]
    size, d = len(energies[0]), target.free_dim
    means = np.array([e.mean() for e in energies])
    errors = np.array([e.std(ddof=1) for e in energies]) / np.sqrt(size)
    checks = [
        Check(f"mean energy of run {i + 1} against the others", float(mean), float(np.delete(means, i).mean()),
              float(np.hypot(error, np.sqrt(np.sum(np.delete(errors, i) ** 2)) / (RUNS - 1))))
        for i, (mean, error) in enumerate(zip(means, errors, strict=True))
    ]  # fmt: skip
    checks.append(Check("spread of log Z over the runs", float(np.std(log_zs, ddof=1)), 0.0, APART / SIGMAS))
    left = np.mean([_memory(*two, e) for two, e in zip(before, energies, strict=True)])
    tolerance = float(np.hypot(LEFT / SIGMAS, 1.5 / np.sqrt(RUNS * size)))
    checks.append(Check("correlation of energies half-way and at the end, within basins", float(left), 0.0, tolerance))
    z, grad = (np.concatenate([np.asarray(getattr(p, name), float) for _, p in parts]) for name in ("z", "grad"))
    checks.append(virial(z, grad, d))
    stein = np.concatenate([_stein(target, frame, points.z[: 4000 // RUNS]) for frame, points in parts])
    checks.append(Check("Stein, E[|grad log p|^2 + laplacian log p]", float(stein.mean()), 0.0, _error(stein)))
    return checks


def _memory(first: np.ndarray, middle: np.ndarray, last: np.ndarray) -> float:
    """Correlation r of the energies of chains at times one half of their length apart, basins left
    out.

    Chains that do not cross between basins keep what energy belongs to their basin, also where
    draws are exact. Changes do not know of it: those of two successive spans have correlation
    `-(1 - r) / 2`. With n chains its standard error is about 1.5 / sqrt(n) at r = 0. NaN where
    nothing moves.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(1.0 + 2.0 * np.corrcoef(last - middle, middle - first)[0, 1])


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _stein(target: Target, frame: Any, z: Float[Array, "n free"]) -> np.ndarray:
    """`|grad log p|^2 + laplacian log p` at each point, in normalised coordinates; exact, a
    direction at a time.
    """

    def log_prob(z):
        return frame.value(target, z)

    def one(z):
        grad, push = jax.linearize(jax.grad(log_prob), z)
        trace = jax.lax.fori_loop(
            0, z.size, lambda i, total: total + push(jnp.zeros_like(z).at[i].set(1.0))[i], jnp.zeros(())
        )
        return jnp.sum(grad**2) + trace

    return np.asarray(jax.jit(lambda z: jax.lax.map(one, z, batch_size=100))(z), float)


# The cache.


def folder() -> Path:
    """Where references are kept."""
    return user_cache("reference")


def load(target: Target, n: int, *, progress: Callable[[str], None] | None = None) -> Reference:
    """The reference of a registered target, made on demand and kept with its checksum.

    It is made again where the density is no longer the one that the kept draws are of.

    **Raises** `RunError` when the kept draws are damaged or the folder cannot be written.
    """
    run, density = Run(folder() / f"{target.name}-{n}"), fingerprint(target)
    if not _is_of(run, density):
        begin = time.monotonic()
        made = make(target, n, progress=progress)
        run.create()
        run.write_draws(x=made.x)
        about = {
            "target": target.name, "fingerprint": density, "n": n, "seed": SEED, "moves": _moves(target), "runs": RUNS,
            "evaluations": made.evaluations, "log_z": made.log_z, "log_z_error": made.log_z_error,
            "checks": [dataclasses.asdict(check) for check in made.checks], "sha256": _sha256(run),
            "seconds": round(time.monotonic() - begin, 1),
        }  # fmt: skip
        run.write_json("reference.json", about)
    about = run.read_json("reference.json")
    if about.get("sha256") != _sha256(run):
        raise RunError(f"{run / 'draws.npz'} is not what was written there: delete {run.path} to make it again")
    checks = [Check(**check) for check in about["checks"]]
    return Reference(run.read_draws()["x"], about["log_z"], about["log_z_error"], checks, about["evaluations"])


def _is_of(run: Run, density: list[float]) -> bool:
    if not (run / "reference.json").exists():
        return False
    kept = run.read_json("reference.json").get("fingerprint")
    return kept is not None and differing(kept, density) is None


def _sha256(run: Run) -> str:
    try:
        return hashlib.sha256((run / "draws.npz").read_bytes()).hexdigest()
    except OSError as error:
        raise RunError(f"{run / 'draws.npz'} cannot be read ({error}): delete {run.path} to make it again") from error


def pool(target: Target, n: int) -> Callable[[Array, int], Float[Array, "n dim"]]:
    """A stand-in for an exact sampler: draws of the reference in random order, none twice in one
    call up to n.
    """

    @functools.cache
    def draws() -> np.ndarray:
        return load(target, n).x

    def sample(key: Array, count: int) -> Float[Array, "n dim"]:
        rng = np.random.default_rng(np.asarray(jax.random.bits(key, (4,))))
        x = draws()
        rounds = -(-count // len(x))
        index = np.concatenate([rng.permutation(len(x)) for _ in range(rounds)])[:count]
        return jnp.asarray(x[index])

    return sample
