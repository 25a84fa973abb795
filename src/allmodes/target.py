"""The density to draw from, and whatever else is known of it."""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from allmodes.bounds import chart_of, indices_of, pairs_of
from allmodes.chart import Flat, Support
from allmodes.devices.blocks import batched_map, block_size
from allmodes.devices.compiled import forget
from allmodes.devices.precision import double, enabled
from allmodes.doors import door_of
from allmodes.errors import TargetError
from allmodes.ranges import Range, ranges_of
from allmodes.symmetry import ParticleSymmetry

_PAIR_BYTES = 24  # half a dozen intermediate values of a pair energy and its gradient


@dataclasses.dataclass(frozen=True)
class Modes:
    """What is known of a target's modes, for metrics and reports only: no method sees it.

    **Attributes**

    - `weights`: `(modes,)`, each mode's share of the mass; sums to one.
    - `assign`: maps points `(n, dim)` to the index of the mode that each belongs to, `(n,)`, or -1
      for a point so far from every mode that an exact draw would practically never lie there.
    - `means`: `(modes, dim)`, a representative point of each, for pictures; optional.
    """

    weights: np.ndarray
    assign: Callable[[np.ndarray], np.ndarray]
    means: np.ndarray | None = None


class Evaluation(NamedTuple):
    """The density at n points. Where it is NaN or +inf it carries no mass: value -inf, gradient
    zero.
    """

    log_prob: Float[Array, " n"]
    grad: Float[Array, "n dim"]
    nan: Int[Array, ""]  # points at which the value was NaN or +inf, or the gradient of a finite value was not finite
    zero: Int[Array, ""]  # points at which the value was -inf


@dataclasses.dataclass(frozen=True, eq=False)
class Target:
    """An unnormalised log-density on R^dim, or where `bounds` and `periodic` say.

    `am.Target(log_prob, dim=2)` is enough; everything else is optional.

    **Arguments**

    - `log_prob`: one point `(dim,)` to a scalar `()`, traceable and, if not said otherwise,
      differentiable by JAX. Values of -inf, NaN or +inf are allowed in places: such points carry no
      mass, and they are counted.
    - `dim`: the dimension, at least 1.
    - `name`: what reports call it.
    - `names`: of the coordinates, for summaries, plots and files; `x[0]`, .. when not given.
    - `bounds`: a pair `(low, high)` for each coordinate, None where there is no bound; or a
      dictionary of pairs by name or number. `log_prob` is only asked between the bounds, and never
      at one. Draws lie between them, and log Z is with respect to the same volume.
    - `periodic`: numbers or names of coordinates that are angles or phases. Their period is that of
      their bounds, -pi to pi where they have none.
    - `differentiable`: False for a `log_prob` that JAX cannot differentiate. It is then taken as
      flat: moves become random walks, and methods that need a gradient refuse it. The search of
      `IWSM` takes slopes by differences.
    - `symmetry`: `ParticleSymmetry` of particles that may be moved together, turned, mirrored and
      exchanged.
    - `location`, `scale`: rough hints, `()` or `(dim,)`, of where the mass lies and how far it
      extends. Found from the density when not given.
    - `sample`: exact draws, `(key, n) -> (n, dim)`; evaluation only.
    - `reference`: how many draws `sample` chooses from where a reference stands in for exact draws;
      set by the library.
    - `log_z`: the log of the integral of `exp(log_prob)`; evaluation only.
    - `modes`: `Modes`; evaluation only.
    - `source`: where the density and its constants come from.
    - `parameters`: maps points `(n, dim)` to the parameters that the user knows them by, a pytree
      of arrays `(n, ..)`, for `Draws.unravel`; set by `of_tree` and by `names`.
    - `chart`: how the coordinates are made of free ones, where they have bounds; set by the
      library.
    - `supports`: where the parameters of a model lie, by name, where no chart tells; set by the
      library.
    - `periods`: of coordinates that are circles wound around a line, 0 of the others; set by the
      library, of `free` coordinates.
    - `double`: whether `log_prob` is evaluated in float64, at points in float64; as
      `jax_enable_x64` is set where the target is made, when not said. The network and points in
      unit scale are float32 all the same.
    - `origin`: how a run folder finds the target again; set by the library.

    **Raises** `TargetError` when `dim` is not a positive integer, a hint has the wrong shape or
    value, or names or bounds are not one for each coordinate; `check` (which `am.fit` calls) raises
    it when `log_prob` cannot be traced or has the wrong output.
    """

    log_prob: Callable[[Float[Array, " dim"]], Float[Array, ""]]
    dim: int
    name: str = "unnamed"
    symmetry: ParticleSymmetry | None = None
    location: ArrayLike | Sequence[float] | None = None
    scale: ArrayLike | Sequence[float] | None = None
    sample: Callable[[Array, int], Float[Array, "n dim"]] | None = None
    log_z: float | None = None
    modes: Modes | None = None
    source: str = ""
    origin: str = ""
    parameters: Callable[[Float[Array, "n dim"]], Any] | None = None
    differentiable: bool = True
    reference: int | None = None
    double: bool | None = None
    names: Sequence[str] | None = None
    bounds: Any = None
    periodic: Sequence[int | str] = ()
    chart: Support | None = None
    supports: Mapping[str, Range] | None = None
    periods: tuple[float, ...] = ()

    def __post_init__(self):
        if isinstance(self.dim, bool) or not isinstance(self.dim, int | np.integer) or self.dim < 1:
            raise TargetError(f"dim must be a whole number of at least 1, got {self.dim!r}")
        if not callable(self.log_prob):
            kind = type(self.log_prob).__name__
            door = door_of(self.log_prob)
            raise TargetError(f"log_prob must be a function of one point, got {kind}{'.' if door else ''}{door}")
        if self.double is None:
            object.__setattr__(self, "double", enabled())
        if not self.differentiable:
            if self.symmetry is not None:
                raise TargetError("particles need a differentiable log_prob: their energies are too stiff without")
            object.__setattr__(self, "log_prob", _flat(self.log_prob))
        if self.symmetry is not None:
            n, d = self.symmetry.particles, self.symmetry.dim
            if n * d != self.dim:
                raise TargetError(f"{n} particles in {d} dimensions have {n * d} coordinates, but dim is {self.dim}")
            if self.location is not None or np.ndim(self.scale) > 0:
                raise TargetError("with a ParticleSymmetry, location must be left out and scale be one number")
        self._name()
        self._bound()
        if self.chart is not None and self.symmetry is not None:
            raise TargetError("particles have no bounds: leave out the symmetry, or bounds and periodic")
        for name in ("location", "scale"):
            hint = getattr(self, name)
            if hint is None:
                continue
            try:
                hint = np.asarray(hint, float)
            except ValueError:
                raise TargetError(f"{name} must be a number or {self.dim} numbers, got {hint!r}") from None
            if hint.shape not in ((), (self.dim,)):
                raise TargetError(f"{name} must have shape () or ({self.dim},), got {hint.shape}")
            if not np.all(np.isfinite(hint)) or (name == "scale" and np.any(hint <= 0)):
                raise TargetError(f"{name} must be finite{' and positive' if name == 'scale' else ''}, got {hint}")

    def _name(self) -> None:
        if self.names is None:
            return
        names = [self.names] if isinstance(self.names, str) else list(self.names)
        if len(names) != self.dim or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
            raise TargetError(f"names must be {self.dim} different words, one for each coordinate, got {self.names!r}")
        object.__setattr__(self, "names", tuple(names))
        if self.parameters is None:
            by_name = lambda x: {name: x[:, i] for i, name in enumerate(names)}  # noqa: E731
            object.__setattr__(self, "parameters", by_name)

    def _bound(self) -> None:
        if self.bounds is None and not np.size(self.periodic):
            return
        names = self.names or [f"x[{i}]" for i in range(self.dim)]
        pairs = pairs_of(self.dim, self.bounds, names)
        listed = [self.periodic] if isinstance(self.periodic, str | int) else self.periodic
        circles = tuple(sorted({i for which in listed for i in indices_of(which, self.dim, names)}))
        for name, value in (("bounds", pairs), ("periodic", circles), ("chart", chart_of(pairs, circles, names))):
            object.__setattr__(self, name, value)

    @functools.cached_property
    def ranges(self) -> Mapping[str, Range]:
        """Where each parameter lies, by the name that summaries give it and in the order of the
        user's; empty where there is neither a name nor a bound.
        """
        if self.supports is not None:
            return self.supports
        if self.names is None and (self.chart is None or self.parameters is not None):
            return {}
        return ranges_of(self.chart, self.names or [f"x[{i}]" for i in range(self.dim)])

    @functools.cached_property
    def free(self) -> "Target":
        """The same density over coordinates without bounds, in which methods work: the target
        itself where it has none.
        """
        chart = self.chart
        if chart is None:
            return self
        hints: dict[str, Any] = {} if chart.spread is None else {"location": 0.0, "scale": chart.spread}
        if not hints and self.location is not None:
            place = jnp.broadcast_to(jnp.asarray(self.location, jnp.float32), (self.dim,))
            found = chart.to_free(jax.random.key(0), place)
            hints = {} if found is None else {"location": np.asarray(found)}
        more = {"differentiable": self.differentiable, "double": self.double, "source": self.source}
        if np.any(chart.periods):
            more["periods"] = tuple(map(float, chart.periods))
        over = chart.over(self.log_prob)
        if hasattr(self.log_prob, "host"):
            over.host = self.log_prob.host  # type: ignore[attr-defined]  # a function on the host is one still
        return Target(over, chart.free_dim, name=self.name, **more, **hints)

    @functools.cached_property
    def unwound(self) -> "Target":
        """The density over free coordinates with all turns of a circle alike, so that a mode at a
        seam is one: `free` where there is no circle. It has no integral, and is for modes alone.
        """
        chart, free = self.chart, self.free
        if chart is None or not np.any(chart.periods):
            return free
        more = {"differentiable": self.differentiable, "double": self.double}
        return Target(chart.in_any_turn(self.log_prob), chart.free_dim, name=self.name, **more)

    def flats(self, x: Float[np.ndarray, "n dim"], z: Float[np.ndarray, "n free"]) -> dict[str, Flat]:
        """Of draws and their free coordinates, count each coordinate, by its name, so that what is
        known before the density is flat: the prior, or what lies between bounds. Without those of
        which nothing is known.
        """
        if self.chart is None:
            return {}
        flats = self.chart.flats(np.asarray(x), np.asarray(z))
        names = self.names or [f"x[{i}]" for i in range(self.dim)]
        return {name: flat for name, flat in zip(names, flats, strict=True) if flat is not None}

    @classmethod
    def of_tree(
        cls,
        log_prob: Callable[[Any], Float[Array, ""]],
        example: Any,
        *,
        constrain: Callable[[Any], Any] | None = None,
        **more: Any,
    ) -> "Target":
        """The target of a `log_prob` over nested parameters: dictionaries, tuples, dataclasses,
        arrays of any shape.

        - `example`: parameters of the right structure and shapes; their values do not matter.
        - `constrain`: what `draws.unravel()` applies to each draw's parameters besides; nothing
          when not given.
        - `more`: the other arguments of `Target`, but for `dim`; bounds by the names of parameters,
          `{"scale": (0, None)}`, which hold for all numbers of an array.

        **Raises** `TargetError` when the example has no number in it, or numbers that are not real.
        """
        leaves = jax.tree.leaves(example)
        if not sum(np.size(leaf) for leaf in leaves):
            raise TargetError(f"the example parameters have no number in them: {example!r}")
        for leaf in leaves:
            if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
                raise TargetError(f"parameters must be real floating-point numbers, got {jnp.result_type(leaf)}")
        flat, to_tree = ravel_pytree(example)
        one = to_tree if constrain is None else lambda x: constrain(to_tree(x))
        if constrain is None:
            more = {"names": names_of(example)} | more
        return cls(lambda x: log_prob(to_tree(x)), flat.size, parameters=jax.vmap(one), **more)

    @property
    def free_dim(self) -> int:
        """Dimension of the space that the mass lives in: `dim`, or that of the mean-free subspace
        of particles.
        """
        return self.dim if self.symmetry is None else self.symmetry.free_dim

    @property
    def dtype(self) -> Any:
        """The type of points and values."""
        return jnp.float64 if self.double else jnp.float32

    def block(self, n: int) -> int:
        """How many of n points to take at a time: of particles, as many as have room in the cache
        for their pairs.
        """
        return block_size(n, None if self.symmetry is None else _PAIR_BYTES * self.symmetry.pairs)

    def check(self) -> None:
        """Trace `log_prob` and its gradient once, abstractly, so that misuse is met before any work
        is done.

        A declared symmetry is checked on random points.

        **Raises** `TargetError`, naming what `log_prob` did.
        """
        with double(self.double):
            self._check()
            self._forget_what_it_was()

    def _check(self) -> None:
        point = jax.ShapeDtypeStruct((self.dim,), self.dtype)
        try:
            out = jax.eval_shape(self.log_prob, point)
        except Exception as error:
            kind = type(error).__name__
            reason = str(error).strip().split("\n")[0]
            raise TargetError(
                f"log_prob cannot be traced by JAX at a point of shape ({self.dim},): {kind}: {reason} "
                "Write it with jax.numpy, for one point, without converting values to Python numbers or NumPy arrays, "
                f"and check that dim is right.{door_of(self.log_prob, error)}"
            ) from error
        shape = getattr(out, "shape", None)
        if shape != ():
            got = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
            raise TargetError(
                f"log_prob must map one point of shape ({self.dim},) to a scalar (), but returned {got}."
                f"{door_of(self.log_prob)}"
            )
        if not jnp.issubdtype(out.dtype, jnp.floating):
            raise TargetError(f"log_prob must return a real floating-point number, but returned {out.dtype}")
        try:
            jax.eval_shape(jax.grad(self.log_prob), point)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise TargetError(f"log_prob cannot be differentiated by JAX: {type(error).__name__}: {reason}") from error
        if self.symmetry is not None:
            self.symmetry.check(self.log_prob)

    def _forget_what_it_was(self) -> None:
        """Have programs compiled anew where `log_prob` computes something else than at the last
        check: data in a notebook's global variable were exchanged, say.
        """
        function = lambda x: self.log_prob(x)  # noqa: E731, a function of its own, so that JAX traces it again
        text = jax.jit(function).lower(jax.ShapeDtypeStruct((self.dim,), self.dtype)).as_text()
        digest = hashlib.sha256(text.encode()).hexdigest()
        if vars(self).setdefault("_digest", digest) != digest:
            forget()
            vars(self)["_digest"] = digest

    def value(self, x: Float[Array, " dim"]) -> Float[Array, ""]:
        """Log-density at one point, -inf where it is NaN or +inf; to be differentiated and
        batched.
        """
        with double(self.double):
            x = self._points(x)
            value = self.log_prob(x).astype(x.dtype)
            return jnp.where(value < jnp.inf, value, -jnp.inf)

    def values(self, x: Float[Array, "n dim"]) -> Float[Array, " n"]:
        """The same at each point."""
        with double(self.double):
            x = self._points(x)
            value = batched_map(self.log_prob, x, self.block(len(x))).astype(x.dtype)
            return jnp.where(value < jnp.inf, value, -jnp.inf)

    def evaluate(self, x: Float[Array, "n dim"]) -> Evaluation:
        """Log-density and gradient at each point, made safe, with a count of the points that had to
        be.
        """
        with double(self.double):
            return self._evaluate(self._points(x))

    def _points(self, x: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
        return jnp.asarray(x, jnp.float64) if self.double else x

    def _evaluate(self, x: Float[Array, "n dim"]) -> Evaluation:
        value, grad = batched_map(jax.value_and_grad(self.log_prob), x, self.block(len(x)))
        value, grad = value.astype(x.dtype), grad.astype(x.dtype)
        bad_value = ~(value < jnp.inf)  # NaN or +inf
        zero = value == -jnp.inf
        bad_grad = ~jnp.all(jnp.isfinite(grad), axis=-1)
        nan = bad_value | (bad_grad & ~zero)
        massless = nan | zero
        return Evaluation(
            jnp.where(massless, -jnp.inf, value),
            jnp.where(massless[:, None], 0.0, grad),
            jnp.sum(nan, dtype=jnp.int32),
            jnp.sum(zero, dtype=jnp.int32),
        )


def names_of(example: Any) -> list[str]:
    """A name for each number of a tree: `mu[0]`, `w[1,2]`, `scale`."""
    names = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(example):
        name = jax.tree_util.keystr(path, simple=True, separator=".") or "x"
        names += [f"{name}[{','.join(map(str, i))}]" if i else name for i in np.ndindex(np.shape(leaf))]
    return names


def _flat(log_prob: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """The same values with a derivative of zero."""

    @functools.wraps(log_prob)
    def flat(x):
        return jax.lax.stop_gradient(log_prob(jax.lax.stop_gradient(x)))

    return flat
