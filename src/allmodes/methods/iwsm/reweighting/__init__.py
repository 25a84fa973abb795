"""What brings the buffer to the target. A new re-weighting is one file, and one line here."""

from allmodes.methods.iwsm.reweighting.own_draws import OwnDraws
from allmodes.methods.iwsm.reweighting.path_moves import PathMoves
from allmodes.methods.iwsm.reweighting.path_resampling import PathResampling
from allmodes.settings import parts_of

AnyReweighting = PathMoves | PathResampling | OwnDraws
REWEIGHTINGS = parts_of(AnyReweighting)

__all__ = ["REWEIGHTINGS", "AnyReweighting", "OwnDraws", "PathMoves", "PathResampling"]
