"""Posteriors of models from the literature: densities as they are met, whose draws are judged by a reference."""

from allmodes.targets.posteriors.cox import log_gaussian_cox
from allmodes.targets.posteriors.labels import mixture_labels
from allmodes.targets.posteriors.lattice import phi4
from allmodes.targets.posteriors.logistic import breast_cancer
from allmodes.targets.posteriors.radial_velocity import radial_velocity
from allmodes.targets.posteriors.sensors import sensors

__all__ = ["breast_cancer", "log_gaussian_cox", "mixture_labels", "phi4", "radial_velocity", "sensors"]
