"""The options of each command, as tyro reads them: a field an option, its text below it."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from allmodes.metrics.floor import REPEATS


@dataclasses.dataclass(frozen=True)
class Run:
    """Train, draw, correct, evaluate and report, into one run folder."""

    target: Positional[str | None] = None
    """A registered name, or FILE.py:FUNCTION."""
    dim: int | None = None
    """Dimension of a function of your own."""
    method: str | None = None
    """One of those that `allmodes methods` lists; its settings become options here. iwsm when not
    given, one of the iwsm-particles for particles."""
    seed: int = 0
    """Fixes everything random."""
    n: Annotated[int, arg(aliases=["-n"])] = 10_000
    """Draws to make."""
    seconds: float | None = None
    """Spend about this many seconds at most on all of it, from the search to the report: training
    gets what the rest leaves, and winds down over the last third of that. For methods that
    train."""
    evaluations: float | None = None
    """Spend about this many evaluations of the density on training and raw draws; corrections are
    counted apart."""
    out: Path | None = None
    """The run folder; runs/TARGET-METHOD-SEED when not given, with a number if that holds a run
    already."""
    resume: Path | None = None
    """Go on with this run folder. Of a finished run whose last checkpoint is damaged, training goes
    on from the one before."""
    judge_repeats: int = REPEATS
    """Repeats of each metric between sets of draws, at least 2: four times as many halve its
    standard error."""
    devices: str | None = None
    """Devices over which batch, buffer and draws are spread: a number, or all; one when not
    given."""
    distributed: bool = False
    """Join other processes that run the same command, and use all of their devices; SLURM and MPI
    are recognised."""
    coordinator: str | None = None
    """With --distributed elsewhere: HOST:PORT at which the first process listens."""
    processes: int | None = None
    """With --coordinator: how many processes there are."""
    process_id: int | None = None
    """With --coordinator: which of them this is, from 0."""
    strict: bool = False
    """Exit with status 1 when the verdict is below `trusted`."""
    quiet: bool = False
    """Show no progress."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """Draw from a finished run, with importance weights."""

    run: Positional[Path]
    """The run folder."""
    n: Annotated[int, arg(aliases=["-n"])] = 10_000
    """Number of draws."""
    seed: int = 1
    """Fixes the draws."""
    steps: int | None = None
    """Steps of the reverse path: more of them raise the effective share. The method's own number
    when not given."""
    fair: bool = False
    """Write equally weighted draws, resampled by their weights."""
    correct: Literal["snis", "smc", "mcmc"] | None = None
    """Smoothed weights, SMC along the reverse path, or a chain for each draw with equal weights."""
    rounds: int | None = None
    """Proposals of each chain by noising and denoising; 2, for particles none."""
    moves: int | None = None
    """Hamiltonian moves of each chain, 10 evaluations each; 5, for particles one a free dimension
    and 30 at least."""
    out: Path = Path("draws.npz")
    """.npz: arrays x (n, dim), log_prob (n,), log_weight (n,), and the parameters that have names.
    .nc: NetCDF for ArviZ. .npy: written in parts, as records of the three, in constant memory; the
    same command goes on with one that was interrupted."""


@dataclasses.dataclass(frozen=True)
class Audit:
    """Search independently for what the sampler of a run misses; exit with status 1 where basins
    differ.
    """

    run: Positional[Path]
    """The run folder."""
    against: str | None = None
    """Judge by this density, a registered name or FILE.py:FUNCTION; the run's own when not
    given."""
    dim: int | None = None
    """Dimension of such a function."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Draws of each side; 20,000, for particles 2,000."""
    seed: int = 0
    """Fixes everything random."""
    out: Path | None = None
    """Folder of audit.json and audit.png; the run folder when not given."""
    quiet: bool = False
    """Show no progress."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write report.html of a run folder again, and print its result."""

    run: Positional[Path]
    """The run folder."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """The main job over the targets of a suite and several seeds, and a table of medians."""

    suite: Positional[str]
    """mixtures, shapes, curved, or one registered target."""
    method: str | None = None
    """One of those that `allmodes methods` lists; each target's default when not given."""
    n: Annotated[int, arg(aliases=["-n"])] = 10_000
    """Draws of each run."""
    seeds: int = 3
    """Seeds 0, 1, .."""
    out: Path = Path("runs/benchmark")
    """Run folders and the table go here; runs that are there already are kept."""
    judge_repeats: int = REPEATS
    """As of `allmodes run`."""
    quiet: bool = False
    """Show no progress."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Methods side by side on one target: quality against evaluations and seconds, and what the
    next draws cost.
    """

    target: Positional[str]
    """A registered name."""
    methods: str = "iwsm,idem,smc,tempering,nuts"
    """Names that `allmodes methods` lists, with commas; iwsm is the target's own default of it."""
    evaluations: float = 1e7
    """The largest budget, for training and raw draws together."""
    budgets: int = 3
    """Budgets, each a quarter of the next."""
    seeds: int = 3
    """Seeds 0, 1, .."""
    n: Annotated[int, arg(aliases=["-n"])] = 10_000
    """Draws of each run."""
    out: Path = Path("runs/compare")
    """Run folders, table and plot go here; runs that are there already are kept."""
    judge_repeats: int = REPEATS
    """As of `allmodes run`."""
    quiet: bool = False
    """Show no progress."""


@dataclasses.dataclass(frozen=True)
class Agree:
    """Whether two independently seeded runs of one density agree. Exit status 1 if they do not."""

    first: Positional[Path]
    """A run folder."""
    second: Positional[Path]
    """Another one, of the same density and another seed."""
    n: Annotated[int, arg(aliases=["-n"])] = 4000
    """Draws of each."""
    seed: int = 1
    """Fixes the draws."""


@dataclasses.dataclass(frozen=True)
class Study:
    """An analysis that anyone can run again."""

    name: Positional[str]
    """bias-variance, ablation, dimension or free-energy."""
    out: Path | None = None
    """Folder of its JSON and plots; runs/study-NAME when not given."""
    quick: bool = False
    """A small version, to see that it works."""
    seeds: int | None = None
    """Seeds 0, 1, .. of each case, where the study is of trained samplers; its own number when not
    given."""
    cases: str | None = None
    """Some of the cases of dimension or free-energy, with semicolons between them; all when not
    given."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """Draws that stand in for exact ones: independent tempered runs that must agree, made once and
    kept.
    """

    target: Positional[str]
    """A registered name, or FILE.py:FUNCTION."""
    n: Annotated[int | None, arg(aliases=["-n"])] = None
    """Number of draws; the registered number when not given."""
    dim: int | None = None
    """Dimension of a function of your own."""
    out: Path | None = None
    """Also write the draws here, as the array x (n, dim) of an .npz file."""


@dataclasses.dataclass(frozen=True)
class Targets:
    """List the registered densities: dimension, what is known of each, where it comes from."""


@dataclasses.dataclass(frozen=True)
class Methods:
    """List the methods with their settings, which are options of `allmodes run --method NAME`, and
    their defaults.
    """
