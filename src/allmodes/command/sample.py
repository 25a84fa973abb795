"""`allmodes sample`: more draws of a finished run, to a file."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
from rich.progress import Progress
from tyro.conf import Positional, arg

from allmodes.command.kept_programs import keep_programs
from allmodes.command.parse import going_on, parse
from allmodes.diffusion.corrections import CORRECTIONS
from allmodes.draws.export import check_file
from allmodes.errors import ConfigError
from allmodes.files import interrupt
from allmodes.files.atomic import check_writable
from allmodes.store.load import load


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
    # pyrefly: ignore[invalid-literal] -- the words are known at run time alone
    correct: Literal[tuple(CORRECTIONS)] | None = None
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


def command(argv: list[str]) -> int:
    """`allmodes sample`: more draws of a finished run, to a file."""
    args = parse(Sample, argv, "sample")
    if args.out.suffix != ".npy":
        check_file(args.out)
    check_writable(args.out)
    keep_programs()
    sampler = load(args.run)
    options = {name: getattr(args, name) for name in ("steps", "correct", "rounds", "moves")}
    options = {name: value for name, value in options.items() if value is not None}
    unknown = set(options) - sampler.options
    if unknown:
        listed = ", ".join("--" + name for name in sorted(unknown))
        raise ConfigError(f"the sampler of {sampler.method.name} declares no option {listed}: leave it out")
    if args.out.suffix == ".npy":
        going_on("sample", argv)
        return _stream(args, sampler, options)
    draws = sampler.sample(args.n, key=jax.random.key(args.seed), **options)
    z = draws.log_z
    tail = f"R^ {draws.rhat:.3g}" if draws.chains else f"k^ {draws.khat:.2f}"
    told = "corrected" if args.correct else f"{draws.ess:.0f} of {len(draws)} effective, {tail}"
    print(f"log Z {z.value:.4f} +- {z.std_error:.4f}, {told}, {draws.evaluations:,} evaluations")
    draws.save(args.out, jax.random.fold_in(jax.random.key(args.seed), 1) if args.fair else None)
    interrupt.say(interrupt.WRITTEN)
    print(args.out)
    return 0


def _stream(args: Any, sampler: Any, options: dict[str, Any]) -> int:
    if args.fair:
        raise ConfigError("--fair resamples draws that are in memory: leave it out, or write .npz")
    with Progress(transient=True) as bar:
        task = bar.add_task(f"drawing {args.n:,}", total=args.n)
        progress = lambda done, n: bar.update(task, completed=done)  # noqa: E731
        sampler.stream(args.n, key=jax.random.key(args.seed), out=args.out, progress=progress, **options)
    interrupt.say(interrupt.WRITTEN)
    print(args.out)
    return 0
