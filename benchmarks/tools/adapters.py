"""One function per tool, with the settings that its own documentation recommends.

Each imports its tool itself: ours lives in the project's environment, the others in their own
(`requirements.txt`).
"""

import dataclasses
import time
from collections.abc import Callable

import numpy as np

try:
    from problems import Problem, log_sum
except ImportError:  # as part of the repository, in tests
    from benchmarks.tools.problems import Problem, log_sum

DRAWS = 10_000


def our_method():
    """What stands for us: the one place to change."""
    import allmodes as am

    return am.IWSM()


@dataclasses.dataclass(frozen=True)
class Found:
    """What a tool gives: log Z with the error that it states, and weighted draws `(n, dim)` in the
    unit cube with their effective number; in a word how far it trusts them, where it says so.
    """

    log_z: float
    std_error: float
    u: np.ndarray
    log_weight: np.ndarray
    ess: float
    verdict: str = ""


class Counted:
    """A log-likelihood on the unit cube that counts its calls and the CPU seconds spent in it.

    `aside`: CPU seconds spent on measuring alone.
    """

    def __init__(self, problem: Problem):
        self.problem, self.calls, self.seconds, self.aside = problem, 0, 0.0, 0.0

    def __call__(self, u: np.ndarray) -> np.ndarray:
        begin = time.process_time()
        value = self.problem.log_likelihood(u)
        self.calls += value.size
        self.seconds += time.process_time() - begin
        return value


def kish(log_weight: np.ndarray) -> float:
    w = np.exp(log_weight - log_weight.max())
    return float(w.sum() ** 2 / (w**2).sum())


def ours(problem: Problem, likelihood: Counted, seed: int) -> Found:
    """`our_method()`, with 10,000 draws. A call is a value and its gradient.

    The density is compiled into the sampler, so calls are those that the sampler counts, and the
    seconds in them are their number times what one takes in a batch of a thousand.
    """
    import jax
    import jax.numpy as jnp

    import allmodes as am

    target = target_of(problem)
    sampler = am.fit(target, our_method(), key=jax.random.key(seed), progress=False)
    draws = jax.block_until_ready(sampler.sample(DRAWS, key=jax.random.key(1000 + seed)))
    log_z, std_error = draws.log_z
    u = (np.asarray(draws.x, float) - problem.low) / (problem.high - problem.low)
    found = Found(
        log_z - problem.log_volume, std_error, u,
        np.asarray(draws.log_weight, float), draws.ess, draws.verdict().word,
    )  # fmt: skip
    likelihood.calls = sampler.evaluations["log_prob"] + draws.evaluations
    start = time.process_time()
    evaluate = jax.jit(lambda x: target.free.evaluate(x)[:2])
    x = jnp.asarray((draws.x if draws.free is None else draws.free)[:1000])
    jax.block_until_ready(evaluate(x))
    begin = time.process_time()
    for _ in range(10):
        jax.block_until_ready(evaluate(x))
    likelihood.seconds = (time.process_time() - begin) / 10_000 * likelihood.calls
    likelihood.aside = time.process_time() - start
    return found


def target_of(problem: Problem):
    """The problem as our target: as the nested samplers take it, or a density on R^dim."""
    import jax.numpy as jnp

    import allmodes as am

    low, wide = (jnp.asarray(a, jnp.float32) for a in (problem.low, problem.high - problem.low))

    def log_likelihood(x):
        return log_sum(problem.log_parts(x, jnp), jnp)

    if problem.plain:
        return am.Target(log_likelihood, problem.dim, name=problem.name)
    return am.interop.nested.target(
        log_likelihood, lambda u: low + wide * u, problem.dim, periodic=problem.periodic, name=problem.name
    )


def nautilus(problem: Problem, likelihood: Counted, seed: int) -> Found:
    """Default settings: 2,000 live points, four networks, 10,000 effective draws.

    It states no error of log Z; its paper gives `1 / sqrt(effective draws)` as an estimate.
    """
    from nautilus import Sampler

    periodic = np.array(problem.periodic) if problem.periodic else None
    sampler = Sampler(
        lambda u: u, likelihood, n_dim=problem.dim, periodic=periodic, vectorized=True, pass_dict=False, seed=seed
    )
    sampler.run()
    u, log_weight, _ = sampler.posterior()
    return Found(float(sampler.log_z), float(sampler.n_eff) ** -0.5, u, log_weight, float(sampler.n_eff))


def pocomc(problem: Problem, likelihood: Counted, seed: int) -> Found:
    """Default settings: 512 effective and 256 active particles, until 4,096 effective draws and as
    many importance samples for log Z.
    """
    import pocomc as pc
    from scipy.stats import uniform

    sampler = pc.Sampler(
        prior=pc.Prior([uniform(0, 1)] * problem.dim), likelihood=likelihood, vectorize=True,
        periodic=list(problem.periodic) or None, random_state=seed,
    )  # fmt: skip
    sampler.run(progress=False)
    u, weight, _, _ = sampler.posterior()
    log_z, std_error = sampler.evidence()
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight)
    return Found(float(log_z), float(std_error), u, log_weight, kish(log_weight))


def dynesty(problem: Problem, likelihood: Counted, seed: int) -> Found:
    """Dynamic nested sampling, default settings: 500 live points, several ellipsoids, the kind of
    step chosen by the dimension, until the posterior has 10,000 effective draws.
    """
    from dynesty import DynamicNestedSampler

    sampler = DynamicNestedSampler(
        lambda u: float(likelihood(u)), lambda u: u, problem.dim, periodic=list(problem.periodic) or None,
        rstate=np.random.default_rng(seed),
    )  # fmt: skip
    sampler.run_nested(print_progress=False)
    given = sampler.results
    return Found(float(given.logz[-1]), float(given.logzerr[-1]), given.samples_u, given.logwt, kish(given.logwt))


def ultranest(problem: Problem, likelihood: Counted, seed: int) -> Found:
    """The reactive sampler, default settings: 400 live points, 400 effective draws. From ten
    dimensions on with a slice sampler of twice as many steps as dimensions, as its pages advise.
    """
    import logging

    from ultranest import ReactiveNestedSampler
    from ultranest.stepsampler import SliceSampler, generate_mixture_random_direction

    logging.getLogger("ultranest").setLevel(logging.WARNING)
    np.random.seed(seed)  # noqa: NPY002, its only source of numbers
    sampler = ReactiveNestedSampler(
        [f"u{i}" for i in range(problem.dim)], likelihood, lambda u: u, vectorized=True,
        wrapped_params=[i in problem.periodic for i in range(problem.dim)],
    )  # fmt: skip
    if problem.dim >= 10:
        direction = generate_mixture_random_direction
        sampler.stepsampler = SliceSampler(nsteps=2 * problem.dim, generate_direction=direction)
    given = sampler.run(show_status=False, viz_callback=False)
    draws = given["weighted_samples"]
    with np.errstate(divide="ignore"):
        log_weight = np.log(draws["weights"])
    return Found(given["logz"], given["logzerr"], np.asarray(draws["points"]), log_weight, float(given["ess"]))


TOOLS: dict[str, Callable[[Problem, Counted, int], Found]] = {
    "ours": ours, "nautilus": nautilus, "pocomc": pocomc, "dynesty": dynesty, "ultranest": ultranest,
}  # fmt: skip
