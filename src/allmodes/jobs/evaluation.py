"""What `result.json` says of a run: metrics of its draws, what their weights show, log Z,
identities, the verdict, and what it has cost.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.draws import verdict as trust
from allmodes.draws.doubt import Doubt, doubt_of
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate, beyond_largest, elbo, ess, eubo
from allmodes.draws.shares import uneven
from allmodes.files.run_folder import Run
from allmodes.interop import numpy
from allmodes.jobs.mode_table import mode_table
from allmodes.metrics import evaluate, forward_ess
from allmodes.metrics.identities import Check, identities
from allmodes.metrics.modes import low_beyond_chance
from allmodes.sampler import Sampler
from allmodes.target import Target
from allmodes.targets import reference

TOLD = 200  # coordinates whose parameters are listed
EXACT = 5000  # exact draws noised for the EUBO and the forward ESS; at most half as many as draws


class Keys(NamedTuple):
    """Of exact draws, of their paths, of the paths of points of training, of the metrics, and of
    modes.
    """

    exact: Array
    forward: Array
    points: Array
    metrics: Array
    modes: Array


class Forward(NamedTuple):
    """How points that the sampler has not made see it: exact draws where there are any, else those
    that training ended with. None where it cannot tell.
    """

    log_weight: Float[Array | np.ndarray, " m"] | None
    ess: float | None  # in [0, 1]
    doubt: Doubt | None  # of draws with weights


def evaluation(
    sampler: Sampler, draws: Draws, corrected: Draws | None, run: Run, keys: Keys, config: dict, repeats: int
) -> dict[str, Any]:
    """Everything in `result.json` but the state and the seconds."""
    target = sampler.target
    related = max(draws.ess / max(ess(draws.log_weight), 1e-9), 1e-9)  # a share, beside what weights cost
    correction, first, second = evaluated(target, draws, corrected, keys.metrics, related, repeats)
    seen = forward(sampler, draws, keys)
    free = draws.x if draws.free is None else draws.free
    checks = identities(target.free, free, draws.log_weight, related) or []
    stand_in = stand_in_of(target)
    raw = first["metrics"] | diagnostics(draws, seen, target)
    raw |= evidence_metrics(draws.log_z, target, stand_in) if has_evidence(draws) else {}
    raw |= identity_metrics(checks)
    modes = mode_table(sampler, draws, keys.modes)
    return {
        **{"target": target.name, "dim": int(target.dim), "method": config["method"]["name"]},
        **{name: config[name] for name in ("seed", "command", "versions", "machine") if name in config},
        **_host(target),
        **counts(sampler, draws, corrected, modes),
        "correction": correction,
        "nonfinite": {name: sampler.evaluations[name] for name in ("nan", "zero")},
        "log_z": evidence(draws, corrected, target),
        "parameters": parameters(target, draws if corrected is None else corrected),
        "metrics": raw,
        "metrics_corrected": second["metrics"],
        **mode_weights(first, second),
        "levels": _levels(sampler, run),
        "figures": _figures(sampler),
        "modes": modes,
        "remarks": draws.remarks(),
        "verdict": trust.as_dict(
            trust.judge(seen_of(draws, seen, target, stand_in, first.get("mode_weights"), checks))
        ),
    }


def evaluated(
    target: Target, draws: Draws, corrected: Draws | None, key: Array, related: float, repeats: int
) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """How draws are corrected (`mcmc`, `weights` or `none`), and what `evaluate` says of them, raw
    and corrected.
    """
    options = {"repeats": repeats, "shared": {}}  # what is of exact draws alone, for both
    raw = evaluate(target, draws.x, key, independent=related, **options)
    if corrected is not None:
        return "mcmc", raw, evaluate(target, corrected.x, key, **options)
    if float(jnp.max(draws.log_weight)) > float(jnp.min(draws.log_weight)):
        weighted = {"log_weight": draws.log_weight, "independent": related}
        return "weights", raw, evaluate(target, draws.x, key, **options, **weighted)
    return "none", raw, {"metrics": {}}


def parameters(target: Target, draws: Draws) -> dict[str, dict[str, float]]:
    """The table of the parameters, of the best draws that there are; empty where single ones say
    nothing: of particles, and of more than `TOLD` coordinates.
    """
    return {} if target.symmetry is not None or target.dim > TOLD else draws.table()


def mode_weights(raw: dict[str, Any], corrected: dict[str, Any]) -> dict[str, Any]:
    """The weights of every mode side by side, where they are known."""
    if "mode_weights" not in raw:
        return {}
    modes = {"true": raw["mode_weights"]["true"], "raw": raw["mode_weights"]["estimated"]}
    if "mode_weights" in corrected:
        modes["corrected"] = corrected["mode_weights"]["estimated"]
    return {"mode_weights": modes}


def forward(sampler: Sampler, draws: Draws, keys: Keys) -> Forward:
    """Log-weights of points that the sampler has not made, and their effective share."""
    target, most = sampler.target, min(EXACT, max(1, len(draws) // 2))
    if target.sample is not None:
        log_weight = sampler.log_weights(target.sample(keys.exact, most), key=keys.forward)
    elif draws.forward_ess is None:  # a sampler that does not tell with its draws
        log_weight = sampler.free.log_weights(sampler.method.points(sampler.state)[:most], key=keys.points)
    else:
        log_weight = None
    if log_weight is None:
        return Forward(None, draws.forward_ess, draws.doubt)
    doubt = None if draws.chains else doubt_of(log_weight, draws.log_weight, len(log_weight))
    return Forward(log_weight, forward_ess(log_weight), doubt)


def diagnostics(draws: Draws, seen: Forward, target: Target) -> dict[str, Any]:
    """What the weights show, of the draws' own and of exact draws', or R^ of chains."""
    found: dict[str, Any] = {}
    if seen.ess is not None and draws.pool is None:
        found["elbo"] = elbo(draws.log_weight)._asdict()
    if seen.log_weight is not None and target.sample is not None:
        found |= {"eubo": eubo(seen.log_weight)._asdict(), "forward_ess": {"value": seen.ess}}
        found |= bounds_gap(found)
    found["reverse_ess"] = {"value": draws.ess / len(draws)}
    if draws.chains:
        return found | {"rhat": {"value": draws.rhat}}
    pool = draws.as_pool() if draws.pool is None else draws.pool
    return found | {"khat": {"value": pool.khat, "beyond": pool.beyond, "n": pool.n}}


def bounds_gap(found: dict[str, Any]) -> dict[str, Any]:
    """EUBO less ELBO, of independent draws, where both are there: zero for an exact sampler alone,
    and the sum of both divergences between the paths of sampler and target.
    """
    if "elbo" not in found or "eubo" not in found:
        return {}
    upper, lower = found["eubo"], found["elbo"]
    value = upper["value"] - lower["value"] if np.isfinite(lower["value"]) else float("inf")
    return {"gap": {"value": value, "std_error": float(np.hypot(upper["std_error"], lower["std_error"]))}}


def has_evidence(draws: Draws) -> bool:
    """Whether the draws tell log Z."""
    return not np.isnan(draws.log_z.value)


def evidence(draws: Draws, corrected: Draws | None, target: Target) -> dict[str, Any]:
    """Log Z with its standard error, that of the corrected draws, and the truth; empty where the
    draws do not tell it.
    """
    if not has_evidence(draws):
        return {}
    told = draws.log_z._asdict()
    if corrected is not None:
        told["corrected"] = corrected.log_z._asdict()
    if target.log_z is not None:
        told |= {"truth": target.log_z, "error": draws.log_z.value - target.log_z}
    return told


def evidence_metrics(log_z: Estimate, target: Target, stand_in: Any) -> dict[str, Any]:
    """How far log Z is from the truth and from that of the reference, where there are such."""
    (value, error), found = log_z, {}
    if target.log_z is not None:
        found["log_z_error"] = {"value": value - target.log_z, "std_error": error}
    if stand_in is not None:
        both = float(np.hypot(stand_in.log_z_error, error))
        found["log_z_difference"] = {"value": value - stand_in.log_z, "std_error": both}
    return found


def identity_metrics(checks: list[Check]) -> dict[str, Any]:
    """The virial and the score beside what they are of exact draws."""
    return {
        name: {"value": check.value, "expected": check.expected, "std_error": check.std_error}
        for name, check in zip(("virial", "score"), checks, strict=False)
    }


def seen_of(
    draws: Draws, seen: Forward, target: Target, stand_in: Any, modes: dict[str, Any] | None, checks: list[Check]
) -> trust.Seen:
    """What the verdict weighs: more than the draws alone know; `modes` are the known ones' weights,
    true and estimated.
    """
    known = "exact draws"
    if stand_in is not None:
        known = "reference draws" if stand_in.passed else "reference draws, which fail checks of their own,"
    khat = None if draws.chains or draws.pool else draws.khat
    return trust.Seen(
        n=len(draws),
        ess=draws.ess,
        equal=draws.equally_weighted,
        khat=khat,
        beyond=1.0 if khat is None else beyond_largest(draws.log_weight, khat),
        pool=draws.pool,
        log_z_error=draws.log_z.std_error if has_evidence(draws) else None,
        findings=draws.findings,
        forward_ess=seen.ess,
        doubt=seen.doubt,
        exact=target.sample is not None,
        known=known,
        rhat=draws.rhat,
        identities=checks,
        modes=None if modes is None else _met(modes, len(draws) * draws.independent),
        broken=int(np.sum(np.asarray(draws.log_prob) == -np.inf)),
        uneven=uneven(draws.x, draws.log_weight) if draws.is_raw else None,
    )


def _met(modes: dict[str, Any], n: int | float) -> tuple[int, int]:
    """How many of the known modes have half of their share, but for chance, and how many there
    are.
    """
    true = np.asarray(modes["true"], float)
    return len(true) - int(np.sum(low_beyond_chance(np.asarray(modes["estimated"], float), true, n))), len(true)


def counts(sampler: Sampler, draws: Draws, corrected: Draws | None, modes: dict[str, Any]) -> dict[str, Any]:
    """Steps, draws and evaluations."""
    spent, steps = sampler.evaluations, sampler.steps
    return {
        "steps": int(sampler.state.step),
        "draws": len(draws),
        **({} if steps is None else {"reverse_steps": steps}),
        "log_prob_evaluations": spent["log_prob"] + draws.evaluations,
        "gradient_evaluations": spent["gradient"],
        "evaluations": {
            "train": spent["log_prob"],
            "sample": draws.evaluations,
            "correct": 0 if corrected is None else corrected.evaluations,
            "modes": modes.get("evaluations", 0),
        },
        "train_evaluations_for": sampler.spent,
    }


def _host(target: Target) -> dict[str, Any]:
    """What calls of a function on the host have taken in this process, where the target is one."""
    return {"host": numpy.cost(target)._asdict()} if hasattr(target.log_prob, "host") else {}


def stand_in_of(target: Target) -> Any:
    """The reference that stands in for exact draws, where there is one."""
    return None if target.reference is None else reference.load(target, target.reference)


def _whole(line: dict, name: str) -> bool:
    """Whether a line has a number for each level: null stands for NaN."""
    return bool(line.get(name)) and None not in line[name]


def _figures(sampler: Sampler) -> dict[str, dict[str, str]]:
    """What the report calls the figures of training that it shows, and says of them."""
    shown = {name: figure for name, figure in sampler.method.figures.items() if figure.caption}
    return {name: {"label": figure.label, "caption": figure.caption} for name, figure in shown.items()}


def _levels(sampler: Sampler, run: Run) -> dict[str, Any]:
    """The method's figures by noise level over the last tenth of training; sigma over the target's
    spread.
    """
    names = [name for name, figure in sampler.method.figures.items() if figure.by_level]
    lines = run.read_metrics()
    lines = [line for line in lines[-max(1, len(lines) // 10) :] if names and all(_whole(line, name) for name in names)]
    proposal = sampler.free.proposal()
    if not lines or proposal is None:  # no paths, and so no levels that could be named
        return {}
    mean = {name: np.mean([line[name] for line in lines], axis=0).tolist() for name in names}
    count = len(mean[names[0]])
    sigma = proposal.process.noise.sigma((jnp.arange(count) + 0.5) / count)
    return {"sigma": np.asarray(sigma).tolist(), **{name.removeprefix("level_"): mean[name] for name in names}}
