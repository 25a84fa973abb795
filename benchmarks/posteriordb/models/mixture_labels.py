"""Four normal components whose labels mean nothing: 24 modes of equal mass."""

import numpy as np
import pymc as pm


def model(data):
    with pm.Model() as mixture:
        w = pm.Dirichlet("w", np.ones(data["K"]))
        mu = pm.Normal("mu", 1.5, 6.0, shape=data["K"])
        sd = pm.LogNormal("sd", np.log(0.5), 0.5, shape=data["K"])
        pm.NormalMixture("y", w, mu, sd, observed=np.array(data["y"]))
    return mixture
