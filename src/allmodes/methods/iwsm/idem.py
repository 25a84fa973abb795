"""iDEM: Iterated Denoising Energy Matching (Akhound-Sadegh et al. 2024, arXiv 2402.06121)."""

import dataclasses
from typing import Literal

from allmodes.diffusion.networks import Network, Perceptron
from allmodes.diffusion.noise import NoiseRange
from allmodes.methods.iwsm.estimators import AnyEstimator, FreshDraws
from allmodes.methods.iwsm.method import IWSM
from allmodes.methods.iwsm.reweighting import AnyReweighting, OwnDraws
from allmodes.methods.optimiser import Adam
from allmodes.search.effort import THOROUGH, Search


@dataclasses.dataclass(frozen=True)
class IDEM(IWSM):
    """IWSM with w = 1: the buffer holds the sampler's own draws, and the target-score estimator
    stands alone.

    Published settings of the 2-D mixtures (batch 512, K = 500, buffer 10,000, MLP 3 x 128, clip
    70); every field of `IWSM` can still be set.
    """

    name: str = "idem"
    steps: int = 12_000
    cooldown: int = 2000
    enough: float | None = 0.5
    sample_steps: int = 200
    search: Search = THOROUGH
    batch: int = 512
    buffer: int = 10_000
    start: Literal["search", "smc", "broad"] = "broad"
    local_every: int = 0
    estimator: AnyEstimator = FreshDraws(500, score="tsi", clip=70.0)
    reweighting: AnyReweighting = OwnDraws(1000, every=100, path_steps=1000)
    network: Network = Perceptron(predicts="score")
    noise: NoiseRange = NoiseRange(sigma_max=1.0)
    optimiser: Adam = Adam(learning_rate=5e-4, clip=0.5, ema=0.0)
