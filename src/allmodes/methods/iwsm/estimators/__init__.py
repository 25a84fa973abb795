"""Estimators of the posterior mean, from which the network learns. A new one is one file, and one
line here.
"""

from allmodes.methods.iwsm.estimators.chain import Chain
from allmodes.methods.iwsm.estimators.draws import FreshDraws, MixtureRatio
from allmodes.methods.iwsm.estimators.neighbours import Neighbours
from allmodes.settings import parts_of

AnyEstimator = Neighbours | Chain | FreshDraws
ESTIMATORS = parts_of(AnyEstimator)

__all__ = ["ESTIMATORS", "AnyEstimator", "Chain", "FreshDraws", "MixtureRatio", "Neighbours"]
