"""What each figure is called, what it says in one sentence, and how numbers are written."""

from typing import NamedTuple


class Word(NamedTuple):
    """The name of a figure and what it tells a scientist who is not a machine-learning person."""

    label: str
    meaning: str


METRICS = {
    "w2": Word("2\u2011Wasserstein distance", "How far the draws must be moved, in units of x, to become exact ones."),
    "w2_geometric": Word(
        "2\u2011Wasserstein distance, geometric",
        "The same after moving, turning, mirroring and reordering the particles of each pair to meet.",
    ),
    "energy_w2": Word("Energies, 2\u2011Wasserstein", "How far the draws' energies must be moved to be exact ones."),
    "distance_tv": Word("Interatomic distances, total variation", "The share of all distances that is out of place."),
    "broken": Word("Broken draws", "The share of draws more than 20 in energy above every reference draw."),
    "mean_energy": Word("Mean energy", "Of the draws; the reference's own is in result.json."),
    "log_z_difference": Word("log Z less the reference's", "Two independent estimates, which should agree."),
    "mmd": Word("Maximum mean discrepancy", "How well a smooth test function could tell the draws from exact ones."),
    "quantities": Word(
        "Means and deviations, worst, in standard errors",
        "Of every coordinate, against the reference's; up to 3, or a little more among many, can be chance.",
    ),
    "mode_tv": Word("Mode weights, total variation", "The share of the draws that lie in the wrong mode."),
    "mode_worst": Word("Worst mode, relative error", "The relative error of the weight that is most wrong."),
    "mode_off": Word("Mass off every mode", "The share of draws where an exact one would practically never lie."),
    "modes_found": Word("Modes found", "How many of the known modes have at least half of their share."),
    "emc": Word("Entropic mode coverage", "How evenly the draws spread over the modes: 1 is even, 0 is all in one."),
    "log_z_error": Word("Error of log Z", "The estimated log Z less the known one."),
    "virial": Word("Virial, E[x . grad log p]", "Minus the dimension for exact draws: wrong widths show."),
    "score": Word("Score, E[grad log p], worst", "Zero for exact draws; of the coordinate furthest off."),
    "elbo": Word("ELBO", "A lower bound on log Z from the sampler's own draws; it cannot see a missing mode."),
    "eubo": Word("EUBO", "An upper bound on log Z from exact draws; far above the ELBO, it tells of missing mass."),
    "reverse_ess": Word("ESS of the draws", "How many equal draws the weighted ones are worth, as a share of them."),
    "forward_ess": Word(
        "ESS from exact draws", "The same share as exact draws see it; it falls when a mode is missing."
    ),
    "rhat": Word("R\u0302", "How far the independent chains or populations disagree: above 1.01 they do."),
    "khat": Word("Pareto k\u0302", "The heaviness of the weights' tail: below 0.7 corrected figures are reliable."),
}

GENERAL = (
    Word("log Z", "The log of the integral of the density: the evidence, where the density is likelihood times prior."),
    Word("Effective sample size", "How many equal, independent draws the weighted ones are worth."),
    Word("Density evaluations", "The points at which the density, its gradient, or both were computed: the cost."),
    Word("Raw draws", "What the sampler gives, each counted once."),
    Word("Corrected draws", "The draws put right by their weights or by short chains, wherever the sampler has any."),
    Word("Floor", "The value between two independent sets of exact draws of the same size: no sampler can do better."),
    Word("Ratio", "The value over its floor: 1 means that the draws cannot be told from exact ones."),
    Word("Mode weights", "Each mode's share of the draws, beside its true share of the mass."),
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
