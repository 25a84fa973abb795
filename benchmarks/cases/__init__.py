"""Densities with exact answers, of the kinds that strangers bring: for `benchmarks.silent`, whether
answers are right and say so, and `benchmarks.verdicts`."""

from collections.abc import Callable

from benchmarks.cases import edges, mixtures, shapes
from benchmarks.cases.case import Case, Regions, Weighted, judged, kind_of

__all__ = ["BATTERY", "CASES", "Case", "Regions", "Weighted", "judged", "kind_of"]

CASES: dict[str, Callable[[], Case]] = {
    "gmm40": mixtures.gmm40,
    "mixture-8d": mixtures.mixture_8d,
    "mixture-10d": mixtures.mixture_10d,
    "warped-4d": mixtures.warped,
    "two-5d": mixtures.two_5d,
    "far": mixtures.far,
    "scales": mixtures.scales,
    "slivers": mixtures.slivers,
    "shifted": mixtures.shifted,
    "labels": mixtures.labels,
    "twins": mixtures.twins,
    "signs": mixtures.signs,
    "normal-20d": mixtures.normal_20d,
    "spike-and-slab": mixtures.spike_and_slab,
    "shells": shapes.shells,
    "ring-with-bump": shapes.ring_with_bump,
    "log-gamma": shapes.log_gamma,
    "students": shapes.students,
    "laplaces": shapes.laplaces,
    "plateau": shapes.plateau,
    "funnel-10": shapes.neck,
    "schools": shapes.schools,
    "manywell-8": shapes.many_well,
    "corner": edges.corner,
    "simplex": edges.simplex,
    "circles": edges.circles,
    "gammas": edges.gammas,
    "dw4": shapes.particles,
}
BATTERY = tuple(name for name in CASES if name != "dw4")  # all but that of which no exact answer is known
