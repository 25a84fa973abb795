"""How far the draws can be trusted, in one of three words with the reasons."""

import dataclasses
from collections.abc import Sequence
from typing import Any

TRUSTED, CORRECT, DO_NOT_USE = "trusted", "use with correction", "do not use"

MIN_SHARE = 0.8  # of effective draws, for the raw ones to be used as they are
MIN_EFFECTIVE = 100  # effective draws, for weighted averages to mean anything
MAX_KHAT = 0.7  # Vehtari et al. 2024
MAX_RHAT = 1.01  # Vehtari et al. 2021
MIN_FORWARD = 0.05  # forward ESS: below it some region is badly underrated
MAX_ERROR = 0.1  # standard error of log Z
MAX_OFF = 5.0  # standard errors by which an identity may fail: the tails of gradients are heavy


@dataclasses.dataclass(frozen=True)
class Verdict:
    """`trusted`, `use with correction` (take the weights) or `do not use`, and why."""

    word: str
    reasons: list[str]


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
    even: bool = False,
    identities: Sequence[Any] = (),
) -> Verdict:
    """Weigh the figures of a run.

    **Arguments**

    - `n`, `ess`, `khat`, `log_z_error`: of the weights of n draws; of chains, `rhat` is given and `khat` is None;
      `log_z_error` is None where log Z is not known.
    - `forward_ess`: in [0, 1], seen from exact draws (`exact`) or else from the points that training ended with.
    - `known`: what reasons call the exact draws, where others stand in for them.
    - `modes`: found and known, where the truth is known.
    - `even`: whether the draws have equal weights, so that there are none to use.
    - `broken`: draws with no mass under the target.
    - `identities`: `Check`s of `metrics.identities`, of the weighted draws.
    """
    worst, reasons = TRUSTED, []

    def say(word: str, reason: str) -> None:
        nonlocal worst
        order = (TRUSTED, CORRECT, DO_NOT_USE)
        worst = max(worst, word, key=order.index)
        reasons.append(reason)

    share = ess / n
    if n < MIN_EFFECTIVE:
        say(CORRECT, f"{n} draws are too few to tell how many are effective: make at least {MIN_EFFECTIVE}")
    elif not ess >= MIN_EFFECTIVE:
        far = "the sampler is far from the target" if rhat is None else "the chains hardly mix"
        say(DO_NOT_USE, f"only {ess:.3g} of {n:,} draws are effective: {far}")
    elif rhat is not None or even:
        say(TRUSTED, f"{ess:,.0f} of {n:,} draws are effective: take them as so many")
    elif share < MIN_SHARE:
        say(CORRECT, f"{share:.0%} of the draws are effective: use their weights")
    else:
        say(TRUSTED, f"{share:.0%} of the draws are effective")
    if rhat is not None:
        agree = rhat <= MAX_RHAT
        said = "agree" if agree else "disagree: each has seen a part of the mass only"
        say(TRUSTED if agree else DO_NOT_USE, f"the chains {said} (R^ {rhat:.3g}, at most {MAX_RHAT})")
    if khat is None:
        pass
    elif not khat <= MAX_KHAT:
        say(
            DO_NOT_USE,
            f"the weights have a heavy tail (Pareto k^ {khat:.2f} > {MAX_KHAT}): their averages are unreliable",
        )
    else:
        say(TRUSTED, f"the weights' tail is light (Pareto k^ {khat:.2f})")
    if log_z_error is not None and not log_z_error <= MAX_ERROR:
        say(CORRECT, f"log Z has a standard error of {log_z_error:.2g}")
    if forward_ess is not None:
        seen = known if exact else "the points that training ended with"
        if not forward_ess >= MIN_FORWARD:
            say(DO_NOT_USE, f"{seen} show regions that the sampler hardly reaches (forward ESS {forward_ess:.2g})")
        elif forward_ess < MIN_SHARE:
            say(CORRECT, f"{seen} give a forward ESS of {forward_ess:.2f}: some regions are underrated")
        else:
            say(TRUSTED, f"{seen} give a forward ESS of {forward_ess:.2f}")
    if modes is not None and modes[0] < modes[1]:
        say(DO_NOT_USE, f"{modes[1] - modes[0]} of {modes[1]} known modes have less than half of their share")
    if broken:
        say(CORRECT, f"{broken:,} of {n:,} draws have no mass under the target; their weight is zero")
    for check in identities:
        if not check.off <= MAX_OFF:
            off = f"{check.off:.1f} standard errors from the {check.expected:g} of exact draws"
            say(CORRECT, f"{check.name} is {check.value:.3g}, {off}")
    if not exact:
        reasons.append(
            "without exact draws, no figure here can see a region that neither the search nor a draw has met"
        )
    return Verdict(worst, reasons)


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """For `result.json`."""
    return dataclasses.asdict(verdict)
