"""What a method, a correction, a network or a metric of one's own is made of.

`docs/tutorials/extending.md` has whole examples.
"""

from allmodes.diffusion.corrections import CORRECTIONS, SNIS, Chains, Correction, PathSMC
from allmodes.diffusion.networks import Denoiser
from allmodes.diffusion.noise import Noise, NoiseRange, noise_for
from allmodes.diffusion.paths import Path, Process, noising, reverse
from allmodes.diffusion.sampler import DiffusionSampler
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import elbo, ess, eubo, forward_ess, khat, log_z
from allmodes.draws.verdict import Finding
from allmodes.method import Figure, Figures, Method, Trained, Untrained
from allmodes.metrics.floor import Ratio, ratio
from allmodes.points.buffer import Buffer
from allmodes.points.count import Evaluations
from allmodes.points.found import SearchResult, nowhere
from allmodes.points.frame import Frame
from allmodes.sampler import PlainSampler, Sampler
from allmodes.search.search import search
from allmodes.target import Evaluation, Modes, Target

__all__ = [
    "CORRECTIONS",
    "SNIS",
    "Buffer",
    "Chains",
    "Correction",
    "Denoiser",
    "DiffusionSampler",
    "Draws",
    "Evaluation",
    "Evaluations",
    "Figure",
    "Figures",
    "Finding",
    "Frame",
    "Method",
    "Modes",
    "Noise",
    "NoiseRange",
    "Path",
    "PathSMC",
    "PlainSampler",
    "Process",
    "Ratio",
    "Sampler",
    "SearchResult",
    "Target",
    "Trained",
    "Untrained",
    "elbo",
    "ess",
    "eubo",
    "forward_ess",
    "khat",
    "log_z",
    "noise_for",
    "noising",
    "nowhere",
    "ratio",
    "reverse",
    "search",
]
