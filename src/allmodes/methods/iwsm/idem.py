"""iDEM: Iterated Denoising Energy Matching (Akhound-Sadegh et al. 2024, arXiv 2402.06121)."""

import dataclasses
from typing import Literal

from allmodes.methods.iwsm.method import IWSM


@dataclasses.dataclass(frozen=True)
class IDEM(IWSM):
    """IWSM with w = 1: the buffer holds the sampler's own draws, and the target-score estimator
    stands alone.

    Published settings of the 2-D mixtures (batch 512, K = 500, buffer 10,000, MLP 3 x 128, clip
    70); every field of `IWSM` can still be set.
    """

    name: str = "idem"
    """What results call it: that of a preset, where it is one."""

    start: Literal["search", "smc", "broad"] = "broad"
    score: Literal["blend", "tsi", "dsi"] = "tsi"
    draws: int = 500
    score_clip: float | None = 70.0
    weights: Literal["moves", "path", "kde", "none"] = "none"
    predicts: Literal["denoiser", "score"] = "score"
    sigma_max: float = 1.0
    batch: int = 512
    learning_rate: float = 5e-4
    gradient_clip: float = 0.5
    ema: float = 0.0
    buffer: int = 10_000
    refresh_every: int = 100
    refresh_steps: int = 1000
    local_every: int = 0
