"""Do two sets of shares differ, and what is to be said of it."""

import numpy as np
from jaxtyping import Bool, Float

from allmodes.draws.verdict import CORRECT, DO_NOT_USE, Verdict
from allmodes.modes.masses import Shares

SIGMAS = 3.0
LEAST = 1e-3  # smaller basins are judged together
NO_DIFFERENCE = "no difference found"
MOST_LACKING = 0.1  # of the mass, before a sampler is not to be used
LARGE, HARDLY = 0.01, 0.1  # a basin of this mass with less than this part of it


def z_scores(audit: Shares, sampler: Shares) -> Float[np.ndarray, " basins"]:
    """Differences over their standard errors; 0 where nothing can be told or neither side has a
    mass of `LEAST`.

    The sampler's error is its own or, where that is larger, the one that as many effective draws
    would have if the audit were right: a basin that it has not met has no spread to tell its error
    from.
    """
    expected = np.clip(audit.mass, 0.0, 1.0)
    null = np.sqrt(expected * (1.0 - expected) / sampler.effective)
    error = np.hypot(audit.std_error, np.maximum(sampler.std_error, null))
    judged = np.isfinite(error) & (np.maximum(audit.mass, sampler.mass) >= LEAST)
    return np.where(judged, (sampler.mass - audit.mass) / error, 0.0)


def small(audit: Shares, sampler: Shares) -> Bool[np.ndarray, " basins"]:
    """Basins whose mass is below `LEAST` in the eyes of both; never the last."""
    least = np.maximum(audit.mass, sampler.mass) < LEAST
    least[-1] = False
    return least


def flags(z: Float[np.ndarray, " basins"]) -> Bool[np.ndarray, " basins"]:
    """Those off by more than three standard errors."""
    return np.abs(z) > SIGMAS


def confirmed(first: Float[np.ndarray, " basins"], again: Float[np.ndarray, " basins"]) -> Bool[np.ndarray, " basins"]:
    """Flagged twice, in independent draws, on the same side: among many basins chance alone flags
    some once.
    """
    return flags(first) & flags(again) & (np.sign(first) == np.sign(again))


def verdict(audit: Shares, sampler: Shares, differs: Bool[np.ndarray, " basins"], notes: list[str]) -> Verdict:
    """`no difference found`, `use with correction` or `do not use`, and why.

    That nothing was found does not make a sampler trusted: that word is for `Draws.verdict`.
    """
    if not differs.any():
        return Verdict(NO_DIFFERENCE, [f"no basin differs by more than {SIGMAS:g} standard errors", *notes])
    short = np.where(differs, np.maximum(audit.mass - sampler.mass, 0.0), 0.0)
    over = np.where(differs, np.maximum(sampler.mass - audit.mass, 0.0), 0.0)
    missed = differs & (audit.mass > LARGE) & (sampler.mass < HARDLY * audit.mass)
    wrong = max(short.sum(), over.sum())
    reasons = [
        f"{differs.sum()} of {len(differs)} basins differ by more than {SIGMAS:g} standard errors, in two sets of draws"
    ]
    if missed.any():
        lost = audit.mass[missed].sum()
        reasons.append(f"the sampler hardly reaches {missed.sum()} of them, which hold {lost:.1%} of the mass")
    reasons.append(f"{wrong:.1%} of the mass is in the wrong basins")
    word = DO_NOT_USE if missed.any() or wrong > MOST_LACKING else CORRECT
    return Verdict(word, [*reasons, *notes])
