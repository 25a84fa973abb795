"""Where sensors stand, by distances of pairs that are near enough, and by which pairs are not."""

import numpy as np
import pymc as pm
import pytensor.tensor as pt


def model(data):
    first, second = (np.array(data[name]) - 1 for name in ("first", "second"))
    far_first, far_second = (np.array(data[name]) - 1 for name in ("far_first", "far_second"))
    noise, twice = data["noise"], 2 * data["reach"] ** 2
    with pm.Model() as sensors:
        place = pm.Normal("place", 0.5, 0.5, shape=(data["S"], 2))
        every = pt.concatenate([place, np.array(data["anchors"])])
        apart2 = ((every[first] - every[second]) ** 2).sum(axis=1)
        far2 = ((every[far_first] - every[far_second]) ** 2).sum(axis=1)
        pm.Normal("distance", pt.sqrt(apart2), noise, observed=np.array(data["distance"]))
        pm.Potential("measured", -apart2.sum() / twice)
        pm.Potential("not_measured", pt.log(-pt.expm1(-far2 / twice)).sum())
    return sensors
