"""An independent search for what a sampler misses: pool, basins, masses of both sides,
comparison.
"""

from allmodes.audit.conduct import audit
from allmodes.audit.pool import EXPLORERS, Explored
from allmodes.audit.result import Audit, Basin

__all__ = ["EXPLORERS", "Audit", "Basin", "Explored", "audit"]
