"""The options of `allmodes run`, as tyro reads them: a field an option, its text below it."""

import dataclasses
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from allmodes.metrics.floor import REPEATS


@dataclasses.dataclass(frozen=True)
class Run:
    """Train, draw, correct, evaluate and report, into one run folder."""

    target: Positional[str | None] = None
    """A registered name, or FILE.py:NAME of a function (of JAX or NumPy), a Target, a PyMC model,
    or a NumPyro model without arguments."""
    dim: int | None = None
    """Dimension of a function of your own."""
    names: str | None = None
    """Names of its coordinates, with commas between them: f,phase,a."""
    bounds: str | None = None
    """Their bounds, LOW:HIGH with commas between them, nothing for no bound: 0:5,-3.2:3.2,: ; or
    those of some by name: f=0:5."""
    periodic: str | None = None
    """Names or numbers of those that are angles or phases, with commas between them."""
    method: str | None = None
    """One of those that `allmodes methods` lists, or one of your own as FILE.py:NAME; its settings
    become options here. iwsm when not given, one of the iwsm-particles for particles."""
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
    compile_cache: bool = True
    """Keep compiled programs in the user's cache folder, where the next run finds them."""
    quiet: bool = False
    """Show no progress."""
