"""The first examples of nested samplers' own pages, written anew: their functions, as they are, by
`am.interop.nested.target`."""

import numpy as np
import pytest
from scipy import stats

import allmodes as am

pytestmark = pytest.mark.slow


def evidence(log_likelihood, prior_transform, dim):
    target = am.interop.nested.target(log_likelihood, prior_transform, dim)
    return am.fit(target, key=0).sample(4000, key=1).log_z


def test_dynesty():
    """Its page's 3-D normal, correlations of .95, in a box of 20: all mass is inside."""
    dim = 3
    cov = np.identity(dim)
    cov[cov == 0] = 0.95
    inverse, log_norm = np.linalg.inv(cov), -0.5 * (np.log(2 * np.pi) * dim + np.log(np.linalg.det(cov)))

    def loglike(x):
        return -0.5 * np.dot(x, np.dot(inverse, x)) + log_norm

    def ptform(u):
        return 10.0 * (2.0 * u - 1.0)

    log_z = evidence(loglike, ptform, dim)
    assert log_z.value == pytest.approx(-dim * np.log(20.0), abs=4 * log_z.std_error)
    assert log_z.std_error < 0.1


def test_ultranest():
    """The egg box: 18 modes in the plane, 7 of them cut by the prior's edge on one side or two."""

    def loglike(z):
        chi = np.cos(z[..., 0] / 2.0) * np.cos(z[..., 1] / 2.0)
        return (2.0 + chi) ** 5

    def transform(x):
        return x * 10 * np.pi

    u = (np.arange(4000) + 0.5) / 4000
    exact = loglike(transform(np.stack(np.meshgrid(u, u), -1)))
    truth = float(exact.max() + np.log(np.mean(np.exp(exact - exact.max()))))
    assert truth == pytest.approx(235.88, abs=0.03)  # as published
    log_z = evidence(loglike, transform, 2)
    assert log_z.value == pytest.approx(truth, abs=4 * log_z.std_error)
    assert log_z.std_error < 0.1


def test_nautilus():
    """Three parameters by name, two of them uniform, one with a normal prior that the likelihood
    is narrower than."""

    def likelihood(param):
        x = [param["a"], param["b"], param["c"]]
        return stats.multivariate_normal.logpdf(x, mean=np.zeros(3), cov=[[1, 0, 0.90], [0, 1, 0], [0.90, 0, 1]])

    def prior(u):  # what its `Prior` makes of (-5, 5), (-5, 5) and norm(loc=0, scale=2)
        return np.array([10.0 * u[0] - 5.0, 10.0 * u[1] - 5.0, stats.norm(loc=0, scale=2.0).ppf(u[2])])

    log_z = evidence(lambda theta: likelihood(dict(zip("abc", theta, strict=True))), prior, 3)
    truth = -np.log(100.0) + stats.norm(0.0, np.sqrt(5.0)).logpdf(0.0)
    assert log_z.value == pytest.approx(truth, abs=4 * log_z.std_error + 1e-5)
    assert log_z.std_error < 0.1
