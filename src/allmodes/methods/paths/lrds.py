"""The Learned Reference-based Diffusion Sampler (Noble et al. 2024, arXiv 2410.19449), by a mixture
("GMM-LRDS").
"""

import dataclasses

from allmodes.diffusion.networks import MixturePerceptron, Network
from allmodes.methods.paths.losses import LogVariance, TrajectoryBalance
from allmodes.methods.paths.tb import TB


@dataclasses.dataclass(frozen=True)
class LRDS(TB):
    """The log-variance over own paths, whose reference is the diffusion of a fitted mixture.

    The paper fits the mixture to chains that start in modes which must be known; here it is the
    base that `IWSM` has, fitted to the points and gradients of a search. The drift and the kernels
    are the mixture's in closed form, and the network adds a correction that starts at zero: where
    the mixture is the density, all log weights are log Z before the first step. Unlike in `IWSM`
    nothing is learned from points of a buffer: a mode that the mixture lacks is hardly ever met.
    Particles have no mixture, and are left with the log-variance.
    """

    name: str = "lrds"
    network: Network = MixturePerceptron(components=64, rank=32, width=64, depth=2)
    loss: LogVariance | TrajectoryBalance = LogVariance()
    replayed: float = 0.0
