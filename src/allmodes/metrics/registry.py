"""The metrics that judge draws, in the order of results and reports. A new one is one file and one
line here; `tests/test_metric_family.py` tests it from then on.
"""

from allmodes.metrics import _mmd, distances, energies, geometric, mode_weights, quantities, sliced, transport
from allmodes.metrics.metric import Metric

METRICS: tuple[Metric, ...] = (
    transport.W2,
    sliced.SLICED_W2,
    _mmd.MMD,
    geometric.W2_GEOMETRIC,
    energies.ENERGY_W2,
    distances.DISTANCE_TV,
    energies.BROKEN_DRAWS,
    energies.MEAN_ENERGY,
    quantities.QUANTITIES,
    mode_weights.MODE_TV,
    mode_weights.MODE_WORST,
    mode_weights.MODE_OFF,
    mode_weights.MODES_FOUND,
    mode_weights.EMC,
)
