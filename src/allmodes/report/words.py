"""What each figure is called, what it says in one sentence, and how numbers are written."""

from typing import NamedTuple

from allmodes.metrics import registry


class Word(NamedTuple):
    """The name of a figure and what it tells a scientist who is not a machine-learning person."""

    label: str
    meaning: str


# Of weights, bounds and identities; a metric brings its own words (`metrics.registry`).
EVIDENCE = {
    "log_z_difference": Word("log Z less the reference's", "Two independent estimates, which should agree."),
    "log_z_error": Word("Error of log Z", "The estimated log Z less the known one."),
    "virial": Word("Virial, E[x . grad log p]", "Minus the dimension for exact draws: wrong widths show."),
    "score": Word("Score, E[grad log p], worst", "Zero for exact draws; of the coordinate furthest off."),
    "elbo": Word("ELBO", "A lower bound on log Z from the sampler's own draws; it cannot see a missing mode."),
    "eubo": Word("EUBO", "An upper bound on log Z from exact draws; far above the ELBO, it tells of missing mass."),
    "gap": Word("EUBO less ELBO", "How far the two bounds on log Z are apart: zero for exact draws alone."),
    "reverse_ess": Word("ESS of the draws", "How many equal draws the weighted ones are worth, as a share of them."),
    "forward_ess": Word(
        "ESS from exact draws", "The same share as exact draws see it; it falls when a mode is missing."
    ),
    "rhat": Word("R\u0302", "How far the independent chains or populations disagree: above 1.01 they do."),
    "khat": Word("Pareto k\u0302", "The heaviness of the weights' tail: below 0.7 corrected figures are reliable."),
}

METRICS = {metric.name: Word(metric.label, metric.meaning) for metric in registry.METRICS} | EVIDENCE

GENERAL = (
    Word("log Z", "The log of the integral of the density: the evidence, where the density is likelihood times prior."),
    Word("Effective sample size", "How many equal, independent draws the weighted ones are worth."),
    Word("Density evaluations", "The points at which the density, its gradient, or both were computed: the cost."),
    Word("Raw draws", "What the sampler gives, each counted once."),
    Word("Corrected draws", "The draws put right by their weights or by short chains, wherever the sampler has any."),
    Word("Floor", "The value between two independent sets of exact draws of the same size: no sampler can do better."),
    Word("Ratio", "The value over its floor: 1 means that the draws cannot be told from exact ones."),
    Word("Mode weights", "Each mode's share of the draws, beside its true share of the mass."),
    Word(
        "Modes of the draws",
        "Draws between which no fall of the density lies are of one mode; its log Z is the evidence of it alone.",
    ),
    Word("Interatomic distances", "How often two particles are so far apart: the structure of the system."),
    Word("Configurations", "Single draws, to see that they look like matter."),
    Word("Energies", "Minus the log-density at the draws: low is probable, high is improbable."),
    Word("Log weights", "The log of the factor by which each draw must be counted to be right on average."),
    Word(
        "By step", "The loss falls as the sampler learns; effective shares near 1 mean that it needs little correction."
    ),
    Word(
        "By noise level",
        "The sampler learns to undo blurs of every width \u03c3; the gate says how: 1 by gradients, 0 by draws.",
    ),
)

VERDICTS = {
    "trusted": ("good", "Every check that could be made was passed."),
    "use with correction": ("warn", "Use the weighted or resampled draws, not the raw ones."),
    "do not use": ("bad", "Not even the corrected draws can be relied on."),
}
