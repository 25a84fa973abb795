"""How far the draws can be trusted, in one of three words with the reasons."""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

TRUSTED, CORRECT, DO_NOT_USE = ORDER = "trusted", "use with correction", "do not use"
TRAINED = "the points that training ended with"

MIN_SHARE = 0.8  # of effective draws, for the raw ones to be used as they are
MIN_EFFECTIVE = 100  # effective draws, for weighted averages to mean anything
MAX_KHAT = 0.7  # Vehtari et al. 2024
NO_MEAN = 1.0  # k^ from which on the weights have no mean
MAX_RHAT = 1.01  # Vehtari et al. 2021
MIN_FORWARD = 0.05  # forward ESS: below it some region is badly underrated
MAX_ERROR = 0.1  # standard error of log Z
MAX_OFF = 5.0  # standard errors by which an identity may fail: the tails of gradients are heavy


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`trusted`, `use with correction` (take the weights) or `do not use`, and why."""

    word: str
    reasons: list[str]


class Finding(NamedTuple):
    """One thing that was seen, and the best word that it allows."""

    word: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Pool:
    """What weighted draws show of the sampler that made them; draws that were made of them keep it.

    **Attributes**: `n` weighted draws, how many of them are effective (`ess`), Pareto `khat` of
    their weights, the standard error of log Z from them; `forward_ess`, in [0, 1], as the points
    that training ended with see the sampler.
    """

    n: int
    ess: float
    khat: float
    log_z_error: float
    forward_ess: float | None = None


class _Reason(NamedTuple):
    """A finding, with advice that is given only where the final word is `use with correction`."""

    word: str
    text: str
    advice: str = ""


def judge(
    *,
    n: int,
    ess: float,
    khat: float | None,
    log_z_error: float | None,
    forward_ess: float | None,
    exact: bool,
    known: str = "exact draws",
    modes: tuple[int, int] | None = None,
    broken: int = 0,
    rhat: float | None = None,
    equal: bool = False,
    pool: Pool | None = None,
    findings: Sequence[Finding] = (),
    identities: Sequence[Any] = (),
) -> Verdict:
    """Weigh the figures of a run.

    **Arguments**

    - `n`, `ess`, `khat`, `log_z_error`: of the weights of n draws; of chains, `rhat` is given and
      `khat` is None, as it is where `pool` has it; `log_z_error` is None where log Z is not known.
    - `forward_ess`: in [0, 1], seen from exact draws (`exact`) or else from the points that
      training ended with.
    - `known`: what reasons call the exact draws, where others stand in for them.
    - `modes`: found and known, where the truth is known.
    - `equal`: whether the draws have equal weights, so that there are none to use.
    - `pool`: what the weighted draws showed that these were made of. They are never better than
      that allows; only that weights were uneven is mended by then.
    - `findings`: what the sampler itself found out about its draws.
    - `broken`: draws with no mass under the target.
    - `identities`: `Check`s of `metrics.identities`, of the weighted draws.
    """
    reasons = _number(n, ess, rhat, equal)
    if pool is not None:
        # What these draws are told of themselves is not said twice.
        reasons += _pool(pool if forward_ess is None else dataclasses.replace(pool, forward_ess=None))
    if rhat is not None:
        reasons.append(_Reason(*of_chains(rhat)))
    if khat is not None:
        reasons.append(_tail(khat, ess / n))
    if log_z_error is not None and not log_z_error <= MAX_ERROR:
        reasons.append(_Reason(CORRECT, f"log Z has a standard error of {log_z_error:.2g}"))
    if forward_ess is not None:
        reasons.append(_forward(forward_ess, known if exact else TRAINED))
    if modes is not None and modes[0] < modes[1]:
        text = f"{modes[1] - modes[0]} of {modes[1]} known modes have less than half of their share"
        reasons.append(_Reason(DO_NOT_USE, text))
    reasons += [_Reason(*finding) for finding in findings]
    if broken:
        text = f"{broken:,} of {n:,} draws have no mass under the target; their weight is zero"
        reasons.append(_Reason(CORRECT, text))
    for check in identities:
        if not check.off <= MAX_OFF:
            off = f"{check.off:.1f} standard errors from the {check.expected:g} of exact draws"
            reasons.append(_Reason(CORRECT, f"{check.name} is {check.value:.3g}, {off}"))
    word = max((reason.word for reason in reasons), key=ORDER.index)
    said = [text + (f": {advice}" if advice and word == CORRECT else "") for _, text, advice in reasons]
    if not exact:
        said.append("without exact draws, no figure here can see a region that neither the search nor a draw has met")
    return Verdict(word, said)


def of_chains(rhat: float) -> Finding:
    """What R^ says of chains or populations."""
    agree = rhat <= MAX_RHAT
    said = "agree" if agree else "disagree: each has seen a part of the mass only"
    return Finding(TRUSTED if agree else DO_NOT_USE, f"the chains {said} (R^ {rhat:.3g}, at most {MAX_RHAT})")


def _number(n: int, ess: float, rhat: float | None, equal: bool) -> list[_Reason]:
    """How many of n draws count; `equal` where they have equal weights, so that there are none to
    use.
    """
    share = ess / n
    if n < MIN_EFFECTIVE:
        text = f"{n} draws are too few to tell how many are effective"
        return [_Reason(CORRECT, text, f"make at least {MIN_EFFECTIVE}")]
    if not ess >= MIN_EFFECTIVE:
        far = "the sampler is far from the target" if rhat is None else "the chains hardly mix"
        return [_Reason(DO_NOT_USE, f"only {ess:.3g} of {n:,} draws are effective: {far}")]
    if rhat is not None or equal:
        return [_Reason(TRUSTED, f"{ess:,.0f} of {n:,} draws are effective: take them as so many")]
    if share < MIN_SHARE:
        return [_Reason(CORRECT, f"{share:.0%} of the draws are effective", "use their weights")]
    return [_Reason(TRUSTED, f"{share:.0%} of the draws are effective")]


def _pool(pool: Pool) -> list[_Reason]:
    """What is wrong with the draws that others were made of, as far as making these of them has not
    mended it.
    """
    if pool.n < MIN_EFFECTIVE:
        return [_Reason(CORRECT, f"they were made of {pool.n} weighted draws, too few to tell how many are effective")]
    share = pool.ess / pool.n
    of = f"{pool.n:,} weighted draws that they were made of"
    if not pool.ess >= MIN_EFFECTIVE:
        reasons = [
            _Reason(DO_NOT_USE, f"only {pool.ess:.3g} of the {of} are effective: the sampler is far from the target")
        ]
    else:
        reasons = [_Reason(TRUSTED, f"{share:.0%} of the {of} are effective")]
    reasons.append(_tail(pool.khat, share))
    if pool.forward_ess is not None:
        seen = _forward(pool.forward_ess, TRAINED)
        reasons.append(seen if seen.word == DO_NOT_USE else seen._replace(word=TRUSTED))
    return reasons


def _tail(khat: float, share: float) -> _Reason:
    """Of the weights, `share` of which are effective."""
    if khat <= MAX_KHAT:
        return _Reason(TRUSTED, f"the weights' tail is light (Pareto k^ {khat:.2f})")
    text = f"the weights have a heavy tail (Pareto k^ {khat:.2f} > {MAX_KHAT})"
    if khat < NO_MEAN and share >= MIN_SHARE:
        return _Reason(CORRECT, f"{text}, but next to nothing of their sum is in it")
    return _Reason(DO_NOT_USE, f"{text}: their averages are unreliable")


def _forward(forward_ess: float, seen: str) -> _Reason:
    """Of the sampler, as the points `seen` show it."""
    if not forward_ess >= MIN_FORWARD:
        return _Reason(
            DO_NOT_USE, f"{seen} show regions that the sampler hardly reaches (forward ESS {forward_ess:.2g})"
        )
    if forward_ess < MIN_SHARE:
        return _Reason(CORRECT, f"{seen} give a forward ESS of {forward_ess:.2f}: some regions are underrated")
    return _Reason(TRUSTED, f"{seen} give a forward ESS of {forward_ess:.2f}")


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """For `result.json`."""
    return dataclasses.asdict(verdict)
