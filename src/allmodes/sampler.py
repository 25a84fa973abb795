"""What `fit` returns: something that draws, whatever method trained it."""

import abc
import dataclasses
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.callbacks import watched
from allmodes.devices.keys import Key, key_of, keyed
from allmodes.devices.precision import single
from allmodes.draws.draws import Draws
from allmodes.draws.stream import PART, digest, stream
from allmodes.errors import ConfigError
from allmodes.files.saved import save
from allmodes.modes.table import ModeTable, table_of
from allmodes.points.frame import Frame
from allmodes.symmetry import ParticleSymmetry
from allmodes.target import Target


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler(abc.ABC):
    """A method that has been fitted to a target.

    **Attributes**: `target`, `method` (a `Method`, its configuration), `state` (all that fitting
    knows), the `seconds` that the warm start, compilation, training and the second opinion took,
    and the `history` of training, as `metrics.jsonl` has it: empty where nothing was trained, or
    the sampler was saved.
    """

    options: ClassVar[frozenset[str]] = frozenset()
    """What `sample` takes beside n and key: a sampler says so itself, and `allmodes sample` offers
    no more. Signatures are not looked at, so that `sample` may take `**options`."""

    target: Target
    method: Any
    state: Any
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    history: Sequence[dict[str, Any]] = dataclasses.field(default=(), repr=False, kw_only=True)

    @property
    def free(self) -> "Sampler":
        """The same sampler over coordinates without bounds: itself where the target has none."""
        return self

    def __init_subclass__(cls, **more: Any):
        """Let what draws and weighs run in float32 where the user has switched to float64
        (`precision`), take seeds for keys, and tell what functions on the host did (`callbacks`);
        and draws know where their parameters lie.
        """
        super().__init_subclass__(**more)
        for name in ("sample", "sample_within", "corrected"):
            if name in vars(cls):
                setattr(cls, name, _with_ranges(vars(cls)[name]))
        for name in ("sample", "corrected", "log_weights", "log_density"):
            if name in vars(cls):
                setattr(cls, name, watched(keyed(single(vars(cls)[name]))))

    @property
    def evaluations(self) -> dict[str, int]:
        """What fitting cost: points at which the density, and its gradient, was computed, and the
        massless ones.
        """
        e = self.method.evaluations(self.state)
        return {
            "log_prob": int(e.log_prob),
            "gradient": int(e.gradient),
            "nan": int(e.nan),
            "zero": int(e.zero),
        }

    @property
    def spent(self) -> dict[str, int]:
        """What the evaluations of fitting were for: `scouts` that found the box, `climbs` from
        starts all over it and `moves` of where they ended, the `completeness` of the search (half
        ways between ends), the `mixture` that was fitted to these, `populations` that were
        tempered, `training`, the draws that were its `renewals`, and the second `opinion`, of
        climbs from fresh starts when training was over.
        """
        return self.method.evaluations(self.state).spent(self.method.work)

    @abc.abstractmethod
    def sample(self, n: int, *, key: Key) -> Draws:
        """N draws, of a JAX key or a seed; their own `evaluations` say what they cost."""

    def sample_within(self, n: int, evaluations: int, *, key: Key) -> Draws:
        """N draws on which about so many evaluations are spent, where more of them make better
        draws.
        """
        return self.sample(n, key=key)

    def stream(
        self,
        n: int,
        *,
        key: Key,
        out: str | os.PathLike,
        part: int = PART,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> Path:
        """N draws to the file `out` (.npy), `part` of them in memory at a time; `options` are those
        of `sample`.

        The file holds n records: `np.load(out, mmap_mode="r")["x"]` is `(n, dim)`, `["log_prob"]`
        and `["log_weight"]` are `(n,)`, of float32, or float64 where the density is. An interrupted
        call leaves `out.part`, from which the same call goes on, and ends with the same bytes as
        one that was not interrupted. Parts are drawn independently of each other: populations and
        chains of the plain methods are those of a part. `progress(done, n)` is called after each.

        **Raises** `ConfigError` when n or part is below 1, `out` is not a .npy file, or the draws
        there are of another call; `RunError` when the file cannot be written; those of `sample`.
        """
        key = key_of(key)

        def draw(n: int, key: Array) -> Draws:
            return self.sample(n, key=key, **options)

        about = {
            "n": n, "part": part, "options": {name: repr(value) for name, value in sorted(options.items())},
            "key": np.asarray(jax.random.key_data(key)).tolist(), "sampler": digest(self.method, self.state),
        }  # fmt: skip
        return stream(draw, n, self.target.dim, self.target.double, key, Path(out), part, progress, about)

    def corrected(self, n: int, *, key: Key, pool: int | None = None) -> Draws | None:
        """N draws made right by more work than their weights, where the method has such a
        correction; else None.

        `pool`: most raw draws for each of them, where it starts from raw draws; the method's own
        number when not given.
        """
        return None

    def modes(self, draws: Draws | None = None, *, key: Key, n: int = 10_000) -> ModeTable:
        """The modes of this sampler's draws: the share of each with its error, its own log Z, its
        place and its width.

        `draws`: of this sampler, raw or corrected; n new ones when not given. Some hundreds of them
        are climbed from along the density's gradient, and the others are told by what they lie next
        to. That takes some thousands of evaluations, counted in the result, about 25 for each
        climb and 26 for each pair of neighbouring peaks; those of new draws are not among them. A
        mode that no draw has met is not there: `allmodes audit` looks for such.

        **Raises** `ConfigError` for particles, draws of another target or none with any mass.
        """
        k_draw, k_modes = jax.random.split(key_of(key))
        draws = self.sample(n, key=k_draw) if draws is None else draws
        points = None if self.target.symmetry is not None else self.method.points(self.state)
        return table_of(self.target, draws, key=k_modes, points=points)

    # What a sampler can do beside drawing, as corrections and jobs ask for it.

    def proposal(self) -> Any:
        """Offer paths to corrections (`PathProposal`), where draws come by paths; None where they
        do not.
        """
        return None

    @property
    def steps(self) -> int | None:
        """Steps of the path of a draw when not said otherwise; None where draws do not come by
        paths.
        """
        return None

    @property
    def frame(self) -> Frame | None:
        """The unit-scale coordinates that the sampler works in, where it has such."""
        return None

    def check(self, n: int) -> None:
        """**Raises** `ConfigError` when n is below 1."""
        if n < 1:
            raise ConfigError(f"sample needs n of at least 1, got n={n}")

    def log_weights(self, x: Float[Array, "n dim"], *, key: Key) -> Float[Array, " n"] | None:
        """Weights of given points as the target sees them, where the method can tell; else None."""
        return None

    def save(self, path: str | os.PathLike) -> None:
        """Write the sampler to a run folder, from which `allmodes.load` makes it again, in any
        process.

        **Raises** `RunError` when the folder cannot be written.
        """
        save(self.target, self.method, self.state, self.seconds, path)


def _with_ranges(draw: Callable[..., Draws | None]) -> Callable[..., Draws | None]:
    """Draw, and say where the parameters lie."""

    @functools.wraps(draw)
    def told(self: Sampler, *args: Any, **options: Any) -> Draws | None:
        draws = draw(self, *args, **options)
        return dataclasses.replace(draws, ranges=self.target.ranges) if isinstance(draws, Draws) else draws

    return told


class PlainSampler(Sampler):
    """One whose draws can take more evaluations, and are better for it: `sample` of the plain
    methods.
    """

    options = frozenset({"evaluations"})

    @abc.abstractmethod
    def sample(self, n: int, *, key: Key, evaluations: int | None = None) -> Draws:
        """N draws, on which about so many evaluations are spent where a number is given."""

    def sample_within(self, n: int, evaluations: int, *, key: Key) -> Draws:
        """As `sample`."""
        return self.sample(n, key=key, evaluations=evaluations)


def alike(target: Target, key: Array, x: Float[Array, "chains each dim"]) -> Float[Array, "chains each dim"]:
    """Draws with their particles exchanged, turned and mirrored at random, where the target has
    that symmetry.

    Exact, and it spares chains that never exchange particles from seeming to disagree.
    """
    if target.symmetry is None:
        return x
    return _scrambled(target.symmetry, jax.random.split(key, x.shape[:2]), x)


@functools.partial(jax.jit, static_argnums=0)
def _scrambled(symmetry: ParticleSymmetry, keys: Array, x: Array) -> Array:
    return jax.vmap(jax.vmap(symmetry.scramble))(keys, x)
