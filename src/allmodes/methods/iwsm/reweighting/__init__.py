"""What brings the buffer to the target. A new re-weighting is one file, and one line here."""

from allmodes.methods.iwsm.reweighting.own_draws import OwnDraws
from allmodes.methods.iwsm.reweighting.path_moves import PathMoves
from allmodes.methods.iwsm.reweighting.path_resampling import PathResampling

REWEIGHTINGS = {kind.__name__: kind for kind in (PathMoves, PathResampling, OwnDraws)}
AnyReweighting = PathMoves | PathResampling | OwnDraws

__all__ = ["REWEIGHTINGS", "AnyReweighting", "OwnDraws", "PathMoves", "PathResampling"]
