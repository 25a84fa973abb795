"""The Path Integral Sampler (Zhang and Chen 2022, arXiv 2111.15141)."""

import dataclasses

from allmodes.diffusion.networks import Network, Perceptron
from allmodes.diffusion.noise import NoiseRange
from allmodes.methods.paths.dds import DDS
from allmodes.methods.paths.reference import PinnedBrownian


@dataclasses.dataclass(frozen=True)
class PIS(DDS):
    """DDS whose reference is Brownian motion from a point, in steps of equal time and variance.

    The last step is as long as all others and its variance is not learned: modes that are narrow
    beside `1 / sqrt(path_steps)` of the frame's unit come out blurred, and only the weights say so.
    Of the paper's two networks, `guided` is PIS-Grad, and the default PIS-NN.
    """

    name: str = "pis"
    path_steps: int = 100
    guided: bool = False
    network: Network = Perceptron()
    noise: NoiseRange | PinnedBrownian = PinnedBrownian()
