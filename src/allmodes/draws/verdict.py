"""How far the draws can be trusted, in one of three words with the reasons."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from allmodes.draws.doubt import Doubt
from allmodes.draws.shares import Uneven

TRUSTED, CORRECT, DO_NOT_USE = ORDER = "trusted", "use with correction", "do not use"
TRAINED = "the points that training ended with"

MIN_SHARE = 0.8  # of effective draws, for the raw ones to be used as they are
MIN_EFFECTIVE = 100  # effective draws, for weighted averages to mean anything
MAX_KHAT = 0.7  # Vehtari et al. 2024
NO_MEAN = 1.0  # k^ from which on the weights have no mean
MAX_BEYOND = 0.01  # of the weights' sum beyond the largest, for their averages to be right all the same
MOST = 0.95  # of effective draws: those of 4 times the mean weight have less than a fortieth of the sum
NEARLY_ALL = 0.98  # of effective draws: those of 4 times the mean weight have less than a hundredth of the sum
MAX_RHAT = 1.01  # Vehtari et al. 2021
MIN_FORWARD = 0.05  # forward ESS: below it some region is badly underrated
MAX_DOUBT = 0.05  # share of the mass that draws may leave out at least, where their weights are to be used
WELL_DRAWN, LITTLE = 0.9, 0.01  # effective share and mass in doubt, with which points far out are of a tail
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
    their weights, the standard error of log Z from them; `forward_ess`, in [0, 1], and the share of
    the mass in `doubt`, as the points that training ended with see the sampler; the share of the
    weights' sum `beyond` the largest of them.
    """

    n: int
    ess: float
    khat: float
    log_z_error: float
    forward_ess: float | None = None
    doubt: Doubt | None = None
    beyond: float = 1.0


class Reason(NamedTuple):
    """A finding, with advice that is given only where the final word is `use with correction`."""

    word: str
    reason: str
    advice: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
    """The figures of a run that a verdict weighs.

    **Attributes**

    - `n`, `ess`, `khat`, `log_z_error`: of the weights of n draws; of chains, `rhat` is given and
      `khat` is None, as it is where `pool` has it; `log_z_error` is None where log Z is not known.
    - `beyond`: the share of the weights' sum that their tail has beyond the largest of them
      (`estimates.beyond_largest`).
    - `forward_ess`: in [0, 1], seen from exact draws (`exact`) or else from the points that
      training ended with.
    - `doubt`: the share of the mass that the draws leave out, as the same points tell.
    - `known`: what reasons call the exact draws, where others stand in for them.
    - `modes`: found and known, where the truth is known.
    - `equal`: whether the draws have equal weights, so that there are none to use.
    - `pool`: what the weighted draws showed that these were made of. They are never better than
      that allows; only that weights were uneven is mended by then.
    - `findings`: what the sampler itself found out about its draws.
    - `broken`: draws with no mass under the target.
    - `identities`: `Check`s of `metrics.identities`, of the weighted draws.
    - `uneven`: regions in which the raw draws are too many or too few, by their weights.
    """

    n: int
    ess: float
    khat: float | None
    log_z_error: float | None
    forward_ess: float | None
    exact: bool
    known: str = "exact draws"
    modes: tuple[int, int] | None = None
    broken: int = 0
    rhat: float | None = None
    equal: bool = False
    pool: Pool | None = None
    doubt: Doubt | None = None
    findings: Sequence[Finding] = ()
    identities: Sequence[Any] = ()
    uneven: Uneven | None = None
    beyond: float = 1.0


MaybeFinding: TypeAlias = Finding | Reason | None


def judge(seen: Seen) -> Verdict:
    """Weigh the figures of a run: the worst of them decides, and each has its reason, those that
    decide before others.
    """
    reasons = [Reason(*found) for found in _found(seen) if found is not None]
    reasons.sort(key=lambda reason: -ORDER.index(reason.word))
    word = reasons[0].word
    said = [text + (f": {advice}" if advice and word == CORRECT else "") for _, text, advice in reasons]
    if not seen.exact:
        said.append("without exact draws, no figure here can see a region that neither the search nor a draw has met")
    return Verdict(word, said)


def of_chains(rhat: float) -> Finding:
    """What R^ says of chains or populations."""
    agree = rhat <= MAX_RHAT
    said = "agree" if agree else "disagree: each has seen a part of the mass only"
    return Finding(TRUSTED if agree else DO_NOT_USE, f"the chains {said} (R^ {rhat:.3g}, at most {MAX_RHAT})")


# The checks: each looks at one thing, and finds nothing where that is not known. A new one is a
# function and its name in `CHECKS`.


def _effective(seen: Seen) -> MaybeFinding:
    """How many of the draws count."""
    n, ess, share = seen.n, seen.ess, seen.ess / seen.n
    if n < MIN_EFFECTIVE:
        text = f"{n} draws are too few to tell how many are effective"
        return Reason(CORRECT, text, f"make at least {MIN_EFFECTIVE}")
    if not ess >= MIN_EFFECTIVE:
        far = "the sampler is far from the target" if seen.rhat is None else "the chains hardly mix"
        return Finding(DO_NOT_USE, f"only {ess:.3g} of {n:,} draws are effective: {far}")
    if seen.rhat is not None or seen.equal:
        return Finding(TRUSTED, f"{ess:,.0f} of {n:,} draws are effective: take them as so many")
    if share < MIN_SHARE:
        return Reason(CORRECT, f"{share:.0%} of the draws are effective", "use their weights")
    return Finding(TRUSTED, f"{share:.0%} of the draws are effective")


def _proportions(seen: Seen) -> MaybeFinding:
    """Whether raw draws are in the proportions of the density."""
    if seen.uneven is None:
        return None
    mass, draws = seen.uneven
    return Reason(CORRECT, f"regions with {mass:.1%} of the mass have {draws:.1%} of the draws", "use their weights")


def _pool_effective(seen: Seen) -> MaybeFinding:
    """How many of the weighted draws counted that these were made of."""
    pool = seen.pool
    if pool is None:
        return None
    if pool.n < MIN_EFFECTIVE:
        text = f"they were made of {pool.n} weighted draws, too few to tell how many are effective"
        return Finding(CORRECT, text)
    of = f"{pool.n:,} weighted draws that they were made of"
    if not pool.ess >= MIN_EFFECTIVE:
        text = f"only {pool.ess:.3g} of the {of} are effective: the sampler is far from the target"
        return Finding(DO_NOT_USE, text)
    return Finding(TRUSTED, f"{pool.ess / pool.n:.0%} of the {of} are effective")


def _pool_tail(seen: Seen) -> MaybeFinding:
    """Of their weights, where there were enough to tell."""
    pool = seen.pool
    if pool is None or pool.n < MIN_EFFECTIVE:
        return None
    return _of_tail(pool.khat, pool.ess / pool.n, pool.beyond, pool.n)


def _pool_forward(seen: Seen) -> MaybeFinding:
    """What their sampler hardly reaches, and what weighted draws leave out: neither is mended in
    draws that were made of them, as what is underrated is. What these draws are told of themselves
    is not said twice.
    """
    pool = seen.pool
    if pool is None or pool.n < MIN_EFFECTIVE or pool.forward_ess is None or seen.forward_ess is not None:
        return None
    found = _of_forward(pool.forward_ess, pool.doubt, None, pool.ess / pool.n)
    is_left_out = pool.doubt is not None and pool.doubt.least > 0.0
    return found if is_left_out or found.word == DO_NOT_USE else found._replace(word=TRUSTED)


def _chains(seen: Seen) -> MaybeFinding:
    return None if seen.rhat is None else of_chains(seen.rhat)


def _tail(seen: Seen) -> MaybeFinding:
    return None if seen.khat is None else _of_tail(seen.khat, seen.ess / seen.n, seen.beyond, seen.n)


def _evidence(seen: Seen) -> MaybeFinding:
    error = seen.log_z_error
    if error is None or error <= MAX_ERROR:
        return None
    return Finding(CORRECT, f"log Z has a standard error of {error:.2g}")


def _forward(seen: Seen) -> MaybeFinding:
    if seen.forward_ess is None:
        return None
    return _of_forward(seen.forward_ess, seen.doubt, seen.known if seen.exact else None, seen.ess / seen.n)


def _modes(seen: Seen) -> MaybeFinding:
    found, known = seen.modes or (0, 0)
    if found >= known:
        return None
    return Finding(DO_NOT_USE, f"{known - found} of {known} known modes have less than half of their share")


def _broken(seen: Seen) -> MaybeFinding:
    if not seen.broken:
        return None
    text = f"{seen.broken:,} of {seen.n:,} draws have no mass under the target; their weight is zero"
    return Finding(CORRECT, text)


# In the order of the reasons.
CHECKS: tuple[Callable[[Seen], MaybeFinding], ...] = (
    _effective,
    _proportions,
    _pool_effective,
    _pool_tail,
    _pool_forward,
    _chains,
    _tail,
    _evidence,
    _forward,
    _modes,
)


def _found(seen: Seen) -> list[MaybeFinding]:
    """All that is found: by the sampler itself, first of all how complete its search was, by the
    checks, and by each identity.
    """
    found = [check(seen) for check in CHECKS]
    return [*seen.findings, *found, _broken(seen), *map(_of_identity, seen.identities)]


def _of_tail(khat: float, share: float, beyond: float, n: int) -> Finding:
    """Of n weights, `share` of which are effective, and which have `beyond` of their sum beyond the
    largest of them.
    """
    if khat <= MAX_KHAT:
        return Finding(TRUSTED, f"the weights' tail is light (Pareto k^ {khat:.2f})")
    text = f"the weights have a heavy tail (Pareto k^ {khat:.2f} > {MAX_KHAT})"
    if share >= NEARLY_ALL and khat > MAX_KHAT:  # not of a tail that is not known
        return Finding(TRUSTED, f"{text}, but next to nothing of their sum is in it")
    if is_bounded(khat, beyond, n):
        return Finding(CORRECT, f"{text}, but {beyond:.1%} of their sum, by the tail, lies beyond the largest")
    if (khat < NO_MEAN and share >= MIN_SHARE) or (share >= MOST and khat > MAX_KHAT):
        return Finding(CORRECT, f"{text}, but little of their sum is in it")
    return Finding(DO_NOT_USE, f"{text}: their averages are unreliable")


def is_bounded(khat: float, beyond: float, n: int) -> bool:
    """Whether averages by n weights are right though k^ is above `MAX_KHAT`: next to nothing lies
    beyond the largest, and the bias of so many is small beside their spread, up to
    `1 - 1 / log10 n` (Vehtari et al. 2024, eq. 13; above `MAX_KHAT` more of them hardly help).
    """
    return beyond <= MAX_BEYOND and khat <= 1.0 - 1.0 / math.log10(max(n, 10))


def _of_forward(forward_ess: float, doubt: Doubt | None, exact: str | None, share: float) -> Finding:
    """Of the sampler, as `exact` draws show it, or else the points that training ended with.

    A single point of thousands can rule a forward ESS. Where exact draws tell that next to no mass
    is in doubt, that is what counts. Of the points of training it is not, as they may have met just
    the brink of a region: hardly any of them lies in the neck of the centred eight schools, where
    draws lack a tenth of the mass. There, and in funnels, the effective `share` of the draws is .75
    at most; where it is above .9, as beside a bent tail, what they tell counts too.
    """
    points = exact or TRAINED
    if doubt is not None and doubt.least > 0.0:
        left = f"{doubt.share:.1%} of the mass (by {doubt.points:,} points, ± {doubt.std_error:.1%})"
        is_much = doubt.least > MAX_DOUBT or (not exact and not forward_ess >= MIN_FORWARD)
        return Finding(DO_NOT_USE if is_much else CORRECT, f"{points} show that the draws leave out {left}")
    if not forward_ess >= MIN_FORWARD:
        text = f"{points} show regions that the sampler hardly reaches (forward ESS {forward_ess:.2g})"
        they_tell = exact is not None or share >= WELL_DRAWN
        if they_tell and doubt is not None and doubt.most <= (MAX_DOUBT if exact else LITTLE):
            return Finding(CORRECT, f"{text}, with less than {max(doubt.most, 0.001):.1%} of the mass")
        return Finding(DO_NOT_USE, text)
    if forward_ess < MIN_SHARE:
        return Finding(CORRECT, f"{points} give a forward ESS of {forward_ess:.2f}: some regions are underrated")
    return Finding(TRUSTED, f"{points} give a forward ESS of {forward_ess:.2f}")


def _of_identity(check: Any) -> MaybeFinding:
    """Of an identity that exact draws satisfy."""
    if check.off <= MAX_OFF:
        return None
    off = f"{check.off:.1f} standard errors from the {check.expected:g} of exact draws"
    return Finding(CORRECT, f"{check.name} is {check.value:.3g}, {off}")


def as_dict(verdict: Verdict) -> dict[str, Any]:
    """For `result.json`."""
    return dataclasses.asdict(verdict)
