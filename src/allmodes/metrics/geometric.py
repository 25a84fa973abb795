"""Optimal transport between particle configurations, which forgets what a symmetry leaves free."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.metrics.metric import SampleMetric, is_of_particles
from allmodes.metrics.transport import coupling_cost
from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Target

SIZES = {4: 2000, 13: 250}  # particles -> configurations in a set, whose cost is a matching
LEAST_SIZE = 64  # beyond
_ALL_ORDERS = 4  # particles up to which every permutation is tried
_ROUNDS = 10
_BLOCK = 20_000  # pairs of configurations at a time


def geometric_w2(
    x: Float[Array | np.ndarray, "n dim"],
    y: Float[Array | np.ndarray, "m dim"],
    symmetry: ParticleSymmetry,
    *,
    rounds: int = _ROUNDS,
) -> float:
    """2-Wasserstein distance between configurations that may be moved, turned, mirrored and
    reordered to meet.

    The cost of a pair is `min |a - P b R|^2` over orders P and orthogonal R. Up to four particles
    every order is tried, so it is exact. Above, orders (Hungarian) and turns (Kabsch) are found in
    turn from the order that the particles' sorted distances to the others suggest, until nothing
    changes or for so many rounds: an upper bound of the minimum.
    """
    a, b = (np.asarray(v, np.float64).reshape(len(v), symmetry.particles, symmetry.dim) for v in (x, y))
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return float("inf")
    a, b = (v - v.mean(axis=1, keepdims=True) for v in (a, b))
    if symmetry.particles <= _ALL_ORDERS:
        cost = _every_order(a, b)
    else:
        pairs = np.stack(np.meshgrid(np.arange(len(a)), np.arange(len(b)), indexing="ij"), -1).reshape(-1, 2)
        blocks = [pairs[k : k + _BLOCK] for k in range(0, len(pairs), _BLOCK)]
        cost = np.concatenate([_matched(a[p[:, 0]], b[p[:, 1]], rounds) for p in blocks]).reshape(len(a), len(b))
    return coupling_cost(cost)


def _every_order(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`min |a - P b R|^2` of all pairs over all orders: the best R leaves twice the nuclear norm of
    a^T P b.
    """
    orders = np.asarray(list(itertools.permutations(range(a.shape[1]))))

    ordered = jnp.asarray(b[:, orders], jnp.float32)

    def row(one):
        moments = jnp.einsum("pd,jope->ojde", one, ordered)
        if moments.shape[-1] == 2:  # in closed form: |M|_* ^2 = |M|_F^2 + 2 |det M|
            det = moments[..., 0, 0] * moments[..., 1, 1] - moments[..., 0, 1] * moments[..., 1, 0]
            nuclear = jnp.sqrt(jnp.sum(moments**2, axis=(-2, -1)) + 2.0 * jnp.abs(det))
        else:
            nuclear = jnp.sum(jnp.linalg.svd(moments, compute_uv=False), axis=-1)
        return jnp.max(nuclear, axis=0)

    overlap = np.asarray(jax.jit(lambda a: jax.lax.map(row, a, batch_size=8))(jnp.asarray(a, jnp.float32)), float)
    squares = np.sum(a**2, axis=(1, 2))[:, None] + np.sum(b**2, axis=(1, 2))
    return np.maximum(squares - 2.0 * overlap, 0.0)


def _matched(a: np.ndarray, b: np.ndarray, rounds: int) -> np.ndarray:
    """Squared distance of each pair after matching and turning."""
    from scipy.optimize import linear_sum_assignment

    def profile(v):
        return np.sort(np.linalg.norm(v[:, :, None] - v[:, None], axis=-1), axis=-1)

    def orders(cost):
        return np.stack([linear_sum_assignment(c)[1] for c in cost])

    def squares(u, v):
        return np.sum(u**2, -1)[:, :, None] + np.sum(v**2, -1)[:, None] - 2.0 * u @ np.swapaxes(v, 1, 2)

    rows = np.arange(len(a))[:, None]
    order = orders(squares(profile(a), profile(b)))
    best = np.full(len(a), np.inf)
    for _ in range(rounds):
        matched = b[rows, order]
        u, s, vt = np.linalg.svd(np.swapaxes(matched, 1, 2) @ a)
        now = np.maximum(np.sum(a**2, (1, 2)) + np.sum(b**2, (1, 2)) - 2.0 * s.sum(-1), 0.0)
        better = now < best - 1e-9
        best = np.minimum(best, now)
        if not better.any():
            break
        live = np.flatnonzero(better)
        order[live] = orders(squares(a[live], b[live] @ (u @ vt)[live]))
    return best


def _size(target: Target) -> int:
    return next((SIZES[n] for n in sorted(SIZES) if target.symmetry.particles <= n), LEAST_SIZE)


W2_GEOMETRIC = SampleMetric(
    name="w2_geometric",
    label="2\u2011Wasserstein distance, geometric",
    meaning="The same after moving, turning, mirroring and reordering the particles of each pair to meet.",
    function=lambda a, b, target: geometric_w2(a, b, target.symmetry),
    sees_target=True,
    applies=is_of_particles,
    size=_size,
    slow=True,
)
