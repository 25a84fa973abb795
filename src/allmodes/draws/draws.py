"""Draws with their importance weights, and what can be told from those alone."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.devices.keys import Key, key_of
from allmodes.devices.precision import double
from allmodes.draws import estimates, export, remarks
from allmodes.draws.doubt import Doubt
from allmodes.draws.estimates import Estimate
from allmodes.draws.picture import picture
from allmodes.draws.shares import uneven
from allmodes.draws.verdict import Finding, Pool, Seen, Verdict, judge, of_chains
from allmodes.errors import ConfigError, TargetError
from allmodes.points import weights
from allmodes.ranges import Range

SHOWN = 20  # parameters in a summary


def _own(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method in float64 where the draws are, whatever `jax_enable_x64` is."""

    @functools.wraps(method)
    def wrapped(draws: "Draws", *args: Any, **options: Any) -> Any:
        with double(draws.x.dtype == np.float64):
            return method(draws, *args, **options)

    return wrapped


class LogDensity(NamedTuple):
    """A sampler's own log-density at points, and the standard error of each: 0 where nothing in it
    is random.
    """

    log_density: Float[Array, " n"]
    std_error: Float[Array, " n"]


@dataclasses.dataclass(frozen=True)
class Draws:
    """Draws of a sampler, each with an importance weight.

    **Attributes**

    - `x`: `(n, dim)`, in the user's coordinates.
    - `log_prob`: `(n,)`, the target's unnormalised log-density; -inf where it has no mass.
    - `log_weight`: `(n,)`. Raw draws of a diffusion carry the log of target over sampler along the
      whole path: `mean(exp(log_weight))` is unbiased for Z whatever the network has learned. All
      equal after `resample` and after most corrections.
    - `evaluations`: points at which the density was computed for these draws.
    - `evidence`: log Z where it does not come from `log_weight`.
    - `chains`: where the draws are those of Markov chains or of populations, how many of them, draw
      i of chain i mod `chains`; else 0.
    - `independent`: share of the draws that count as such where some descend from a common one, or
      from weighted ones whose errors they keep: in a population that was resampled on its way,
      `n / (sum of squared families)`. Moves part relatives, but not from mode to mode.
    - `pool`: of draws that were made of weighted ones, by resampling or a correction, what those
      showed (`Pool`).
    - `forward_ess`, `doubt`: effective share, in [0, 1], and the share of the mass that draws leave
      out, as the points that training ended with see the sampler.
    - `findings`: what the sampler found out about these draws when it made them (`Finding`s: a word
      and a reason).
    - `free`: `(n, free_dim)`, the coordinates without bounds that `x` was made from, where the
      target has bounds.
    - `parameters`: maps draws to the parameters that the user knows them by, where the target has
      such (`unravel`).
    - `flats`: `Target.flats` of a target that has bounds or a prior, for `remarks`.
    - `ranges`: where each parameter lies (`Range`), by name and in the user's order, where the
      target tells.
    """

    x: Float[Array, "n dim"]
    log_prob: Float[Array, " n"]
    log_weight: Float[Array, " n"]
    evaluations: int = 0
    evidence: Any = None
    chains: int = 0
    independent: float = 1.0
    parameters: Callable[[Float[Array, "n dim"]], Any] | None = dataclasses.field(default=None, repr=False)
    pool: Pool | None = None
    forward_ess: float | None = None
    doubt: Doubt | None = None
    findings: tuple[Finding, ...] = ()
    free: Float[Array, "n free"] | None = dataclasses.field(default=None, repr=False)
    flats: Callable[..., Any] | None = dataclasses.field(default=None, repr=False)
    ranges: Mapping[str, Range] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return self.x.shape[0]

    @classmethod
    def of_chains(
        cls,
        n: int,
        x: Float[Array, "chains each dim"],
        log_prob: Float[Array, "chains each"],
        log_weight: Float[Array, "chains each"],
        evaluations: int,
        evidence: Any,
        independent: float = 1.0,
        parameters: Callable[[Float[Array, "n dim"]], Any] | None = None,
        findings: tuple[Finding, ...] = (),
    ) -> "Draws":
        """The first n draws of chains or populations, taken from each in turn."""

        def in_turn(a: Array) -> Array:
            return jnp.swapaxes(a, 0, 1).reshape(-1, *a.shape[2:])[:n]

        drawn = in_turn(x), in_turn(log_prob), in_turn(log_weight)
        return cls(*drawn, evaluations, evidence, x.shape[0], independent, parameters, findings=findings)

    @property
    def log_z(self) -> Estimate:
        """`Estimate(value, std_error)` of the log evidence; NaN and inf from chains, which do not
        know it.
        """
        return self.evidence or estimates.log_z(self.log_weight)

    @property
    def ess(self) -> float:
        """Effective sample size, in [0, n]: of the weights, of chains (bulk ESS, ArviZ), of what is
        independent.

        Blind to a mode that no draw has met.
        """
        return self._effective(self._figures() if self.chains else None)

    def ess_of(self, values: Float[np.ndarray, " n"]) -> float:
        """The same for the average of one figure of each draw."""
        return self._effective(values[:, None] if self.chains else None)

    @property
    def is_raw(self) -> bool:
        """Whether these are draws as a sampler makes them, with weights of their own: no chains,
        and nothing resampled.
        """
        return self.pool is None and not self.chains and not self.equally_weighted

    @property
    def equally_weighted(self) -> bool:
        """Whether all draws have equal weight."""
        return bool(jnp.all(self.log_weight == self.log_weight[0]))

    @property
    def khat(self) -> float:
        """Pareto k^ of the weights (Vehtari et al. 2024): below 0.7 weighted averages can be relied
        on.
        """
        return estimates.khat(self.log_weight)

    @property
    def rhat(self) -> float | None:
        """Largest R^ over coordinates and log-density (Vehtari et al. 2021): above 1.01 the chains
        disagree.

        None without any.
        """
        return estimates.chain_rhat(self._by_chain(self._figures())) if self.chains else None

    @_own
    def unravel(self) -> Any:
        """The draws as the user's parameters: a pytree of arrays, each with the draws along its
        first axis.

        Of a NumPyro model, a dictionary of its sites in their own (constrained) values.

        **Raises** `ConfigError` when the target was made from a function of one array: there the
        draws are `x`.
        """
        if self.parameters is None:
            raise ConfigError("the target of these draws has no named parameters: they are draws.x")
        return jax.jit(self.parameters)(self.x)

    @_own
    def resample(self, key: Key, n: int | None = None) -> "Draws":
        """N equally weighted draws (as many as there are when not given), by systematic resampling.

        Ask for fewer than there are to have few copies: with an ESS of half of them, half as many.

        **Raises** `TargetError` when no draw has any mass, `ConfigError` when n is below 1.
        """
        n = len(self) if n is None else n
        if n < 1:
            raise ConfigError(f"n must be at least 1, got {n}")
        if not bool(jnp.any(self.log_weight > -jnp.inf)):
            raise TargetError("no draw has any mass under the target: there is nothing to resample")
        k_index, k_order = jax.random.split(key_of(key))
        index = weights.systematic(k_index, weights.normalise(self.log_weight), n)
        index = jax.random.permutation(k_order, index)
        return Draws(
            self.x[index], self.log_prob[index], jnp.zeros(n), self.evaluations, self.log_z,
            independent=min(1.0, self.ess / n), parameters=self.parameters, pool=self.pool or self.as_pool(),
            free=None if self.free is None else self.free[index], flats=self.flats, ranges=self.ranges,
            findings=(*self.findings, of_chains(self.rhat)) if self.chains else self.findings,
        )  # fmt: skip

    def as_pool(self) -> Pool | None:
        """What these draws show of their sampler, for those that are made of them; None of chains,
        whose R^ does.
        """
        if self.chains:
            return None
        khat = self.khat
        return Pool(
            len(self), self.ess, khat, self.log_z.std_error, self.forward_ess, self.doubt,
            estimates.beyond_largest(self.log_weight, khat),
        )  # fmt: skip

    @_own
    def verdict(self) -> Verdict:
        """`trusted`, `use with correction` or `do not use`, with the reasons: from these draws
        alone.

        What they cannot show is a region that none of them has met: see `allmodes audit`, and
        `allmodes.agreement` of two independent samplers.
        """
        value, error = self.log_z
        khat = self.khat if self.is_raw else None
        seen = Seen(
            n=len(self), ess=self.ess, equal=self.equally_weighted, pool=self.pool,
            khat=khat, beyond=1.0 if khat is None else estimates.beyond_largest(self.log_weight, khat),
            log_z_error=None if np.isnan(value) else error, forward_ess=self.forward_ess, doubt=self.doubt, exact=False,
            broken=int(jnp.sum(self.log_prob == -jnp.inf)), rhat=self.rhat, findings=self.findings,
            uneven=uneven(self.x, self.log_weight) if self.is_raw else None,
        )  # fmt: skip
        return judge(seen)

    def remarks(self) -> list[str]:
        """Say which parameters lean on a bound or on the end of their prior, and which are not
        constrained: nothing is wrong with such draws, but with what was asked, perhaps.

        Of targets with bounds or a prior (`am.posterior`, `interop.nested`); `draws.remarks` has
        the tests.
        """
        if self.flats is None or self.free is None:
            return []
        flats = self.flats(np.asarray(self.x), np.asarray(self.free))
        return remarks.remarks(flats, np.asarray(self.log_weight), self.ess_of)

    @_own
    def summary(self) -> str:
        """Say how far to trust the draws and why, what is remarkable of parameters, then a row for
        each of these: weighted mean, deviation, quantiles.

        `mcse` is the error of the mean, from `ess` effective draws.
        """
        n, dim = self.x.shape
        verdict, z, rows = self.verdict(), self.log_z, self.table()
        lines = [
            f"{n:,} draws in {dim} dimension{'s' if dim > 1 else ''}: {verdict.word}",
            *(f"  - {reason}" for reason in verdict.reasons),
            *(f"  note: {remark}" for remark in self.remarks()),
            f"log Z {z.value:.4f} +- {z.std_error:.2g}, {self.ess:,.0f} effective draws",
        ]
        shown = dict(list(rows.items())[:SHOWN])
        wide = max(8, *map(len, shown))
        lines.append(" " * wide + "".join(f"{title:>12}" for title in next(iter(shown.values()))))
        for name, row in shown.items():
            *figures, effective = row.values()
            lines.append(f"{name:>{wide}}" + "".join(f"{figure:>12.5g}" for figure in figures) + f"{effective:>12,.0f}")
        if len(rows) > SHOWN:
            lines.append(f"{'...':>{wide}} and {len(rows) - SHOWN} more")
        return "\n".join(lines)

    @_own
    def table(self) -> dict[str, dict[str, float]]:
        """For each number of the parameters, by its name: weighted mean, standard deviation, 5 %,
        50 % and 95 % quantiles, standard error of the mean, effective draws. Of an angle, all are
        about its mean direction, so that a quantile may lie beyond the end of its period.
        """
        return export.table(self.columns(), self.log_weight, self.ess_of, self.ranges)

    def columns(self) -> dict[str, Float[np.ndarray, " n"]]:
        """Every number of the parameters by its name, in the user's order: `mu[0]`, `w[1,2]`,
        `scale`; `x[0]`, .. where there are no names.
        """
        return export.columns(self._variables())

    def plot(self, path: str | os.PathLike | None = None, parameters: Sequence[str] | None = None) -> Any:
        """Corner plot, in the user's parameters and by their names: each one's weighted marginal,
        with its median and the interval from 5 % to 95 %, and below them the regions that hold 20,
        50, 80 and 95 % of the mass of each pair.

        - `path`: of a file to write it to as well, `.png`, `.pdf` or `.svg`.
        - `parameters`: names of those to show, or of arrays of them. When not given, of more than
          eight those eight whose marginals are least like a normal's, which the picture says.

        Returns a Matplotlib figure, of which pyplot knows nothing; a notebook shows it.

        **Raises** `ConfigError` for a parameter that is not there, another kind of file, or where
        no draw has any mass; `RunError` when the file cannot be written.
        """
        return picture(self.columns(), np.asarray(self.log_weight), self.ranges, parameters, path)

    @_own
    def to_arviz(self, key: Key | None = None) -> Any:
        """An xarray `DataTree` as ArviZ wants it: groups `posterior` and `sample_stats`, chains by
        draws.

        Parameters have their names where the target has such; log Z and the verdict are attributes.
        ArviZ knows no weights: give a `key` to have uneven ones resampled away; without one they
        are `sample_stats.log_weight`, and ArviZ's own averages are then wrong.

        **Raises** `ConfigError` when arviz-base is not installed.
        """
        (value, std_error), kept = self.log_z, key is None
        draws = self if key is None or self.equally_weighted else self.resample(key)
        stats = {"lp": np.asarray(draws.log_prob)} | ({"log_weight": np.asarray(draws.log_weight)} if kept else {})
        about = {
            "log_z": value, "log_z_std_error": std_error, "verdict": self.verdict().word, "ess": self.ess,
            "weights": "in sample_stats, as log_weight" if kept else "none: resampled",
        }  # fmt: skip
        return export.to_arviz(draws._variables(), stats, max(1, draws.chains), about)

    def to_pandas(self) -> Any:
        """A data frame: a column for each number of the parameters, `log_prob` and `log_weight`.

        **Raises** `ConfigError` when pandas is not installed.
        """
        stats = {name: np.asarray(getattr(self, name)) for name in ("log_prob", "log_weight")}
        return export.to_pandas(self.columns(), stats)

    def save(self, path: str | os.PathLike, key: Key | None = None) -> None:
        """Write the draws to a file, whole or not at all.

        - `.npz`: arrays `x`, `log_prob` and `log_weight`, and `parameters.NAME` where the target
          has named parameters.
        - `.nc`: NetCDF that xarray and ArviZ read (`xarray.open_datatree`), with what `to_arviz`
          gives.
        - `key`: uneven weights are resampled away where one is given; else they are kept beside.

        **Raises** `ConfigError` for another suffix, or where what `.nc` needs is not installed
        (`pip install arviz-base h5netcdf`); `RunError` when the file cannot be written.
        """
        path = Path(path)
        export.check_file(path)
        if path.suffix == ".nc":
            export.write_tree(path, self.to_arviz(key))
            return
        draws = self if key is None or self.equally_weighted else self.resample(key)
        arrays = {name: np.asarray(getattr(draws, name)) for name in ("x", "log_prob", "log_weight")}
        if draws.parameters is not None:
            arrays |= {f"parameters.{name}": values for name, values in draws._variables().items()}
        export.write(path, arrays)

    def _variables(self) -> dict[str, np.ndarray]:
        found = export.variables(self.x, None if self.parameters is None else self.unravel())
        return export.ordered(found, self.ranges)

    def _figures(self) -> Float[np.ndarray, "n figures"]:
        return np.column_stack([np.asarray(self.x, np.float64), np.asarray(self.log_prob, np.float64)])

    def _effective(self, seen: Float[np.ndarray, "n figures"] | None) -> float:
        effective = estimates.ess(self.log_weight)
        if seen is not None:
            effective *= estimates.chain_ess(self._by_chain(seen)) / len(self)
        return effective * self.independent

    def _by_chain(self, seen: Float[np.ndarray, "n figures"]) -> Float[np.ndarray, "chains draws figures"]:
        each, seen = len(self) // self.chains, np.asarray(seen, np.float64)
        return np.moveaxis(seen[: each * self.chains].reshape(each, self.chains, -1), 1, 0)
