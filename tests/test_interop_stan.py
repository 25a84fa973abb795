"""Stan programs: their density with its constants, its gradient, and draws by name; both labellings
of a mixture. What compiles a program takes a minute or two, and is marked slow."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit, logsumexp

import allmodes as am
from allmodes import ConfigError, TargetError
from allmodes.interop.stan import _named

# httpstan's own way to find Stan's compiler.
pytestmark = pytest.mark.filterwarnings("ignore:path is deprecated:DeprecationWarning")

RATE = """
data { int<lower=1> n; vector[n] y; }
parameters { real<lower=0> rate; simplex[3] share; }
transformed parameters { matrix[2, 3] table = [[rate, 2 * rate, 3 * rate], [4 * rate, 5 * rate, 6 * rate]]; }
model {
  rate ~ gamma(2, 1);
  share ~ dirichlet([2, 3, 4]');
  y ~ exponential(rate);
}
generated quantities { real noise = normal_rng(0, 1); }
"""
DATA = np.array([1.2, 0.7, 2.1, 1.5])

MIXTURE = """
data { int<lower=1> n; vector[n] y; }
parameters { real<lower=0, upper=1> w; vector[2] mu; vector<lower=0>[2] sd; }
model {
  w ~ uniform(0, 1);
  mu ~ normal(0, 5);
  sd ~ lognormal(0, 1);
  for (i in 1 : n)
    target += log_mix(w, normal_lpdf(y[i] | mu[1], sd[1]), normal_lpdf(y[i] | mu[2], sd[2]));
}
"""
TWO = np.concatenate([np.random.default_rng(0).normal(-2, 1, 40), np.random.default_rng(1).normal(2, 1, 40)])


def log_mixture(u):
    """The same density over Stan's unconstrained parameters, by SciPy."""
    w, mu, sd = expit(u[0]), u[1:3], np.exp(u[3:])
    parts = [math.log(w) + stats.norm.logpdf(TWO, mu[0], sd[0]), math.log1p(-w) + stats.norm.logpdf(TWO, mu[1], sd[1])]
    prior = stats.norm.logpdf(mu, 0, 5).sum() + stats.lognorm.logpdf(sd, 1.0).sum()
    return logsumexp(parts, axis=0).sum() + prior + math.log(w) + math.log1p(-w) + u[3:].sum()


class LikeBridgeStan:
    """What `bridgestan.StanModel` offers of a normal and a half-normal parameter; it rejects what
    lies beyond 5."""

    def param_unc_num(self):
        return 2

    def param_names(self, *, include_tp=False):
        return ["place", "pair.1", "pair.2"] if include_tp else ["place"]

    def log_density(self, u, propto, jacobian):
        assert not propto
        assert jacobian
        if u[0] > 5.0:
            raise RuntimeError("rejected")
        return stats.norm.logpdf(u[0]) + stats.halfnorm.logpdf(np.exp(u[1])) + u[1]

    def log_density_gradient(self, u, propto, jacobian):
        return self.log_density(u, propto, jacobian), np.array([-u[0], 1.0 - np.exp(2.0 * u[1])])

    def param_constrain(self, u, *, include_tp):
        assert include_tp
        return np.array([u[0], u[0], np.exp(u[1])])


def test_numbers_find_their_arrays_by_stans_names():
    names = ["a", "m.1.1", "m.2.1", "m.1.2", "m.2.2", "m.1.3", "m.2.3", "t.1:2"]  # column by column
    values = jnp.asarray([[0.0, 11.0, 21.0, 12.0, 22.0, 13.0, 23.0, 5.0]])
    found = _named(names, values)
    assert list(found) == ["a", "m", "t.1:2"]
    np.testing.assert_array_equal(found["a"], [0.0])
    np.testing.assert_array_equal(found["m"], [[[11.0, 12.0, 13.0], [21.0, 22.0, 23.0]]])
    np.testing.assert_array_equal(found["t.1:2"], [5.0])


@pytest.mark.parametrize("double", [False, True])
def test_a_model_of_bridgestan_is_taken_as_it_is(double):
    target = am.interop.stan.target(LikeBridgeStan(), double=double, name="half")
    assert (target.dim, target.name) == (2, "half")
    with jax.enable_x64(double):
        x = jnp.asarray([[0.3, -0.2], [6.0, 0.1], [-1.0, 0.7 + 1e-9]])
        got, named = target.evaluate(x), jax.jit(target.parameters)(x)
    x = np.asarray(x)
    exact = stats.norm.logpdf(x[:, 0]) + stats.halfnorm.logpdf(np.exp(x[:, 1])) + x[:, 1]
    np.testing.assert_allclose(got.log_prob, np.where(x[:, 0] > 5.0, -np.inf, exact), rtol=1e-5)
    np.testing.assert_allclose(got.grad[0], [-0.3, 1.0 - math.exp(-0.4)], rtol=1e-5)
    assert (int(got.nan), int(got.zero)) == (0, 1)  # rejected: no mass, and no error
    assert named["pair"].dtype == x.dtype
    np.testing.assert_allclose(named["pair"][:, 1], np.exp(x[:, 1]), rtol=1e-12 if double else 1e-6)


def test_what_is_no_program_is_refused(tmp_path):
    with pytest.raises(TargetError, match="has its data already"):
        am.interop.stan.target(LikeBridgeStan(), {"n": 1})
    with pytest.raises(TargetError, match="got a int"):
        am.interop.stan.target(3)
    with pytest.raises(TargetError, match="cannot be read"):
        am.interop.stan.target(tmp_path / "none.stan")
    broken = LikeBridgeStan()
    broken.log_density_gradient = lambda *_, **__: (_ for _ in ()).throw(RuntimeError("the matrix is not definite"))
    with pytest.raises(TargetError, match="rejects each of the 11 points that were tried: the matrix is not definite"):
        am.interop.stan.target(broken)


def test_without_httpstan_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpstan", None)
    with pytest.raises(ConfigError, match="pip install httpstan"):
        am.interop.stan.target(RATE, {"n": 4, "y": DATA})


def test_an_error_in_a_program_is_told_in_stans_words():
    pytest.importorskip("httpstan", reason="httpstan is not installed: its programs are not tested")
    with pytest.raises(TargetError, match="Identifier 'y' not in scope"):
        am.interop.stan.target("model { y ~ normal(0, 1); }")
    with pytest.raises(TargetError, match="must be numbers, but y is"):
        am.interop.stan._numbers("y", ["a"])


@pytest.mark.slow
def test_a_program_has_its_jacobians_its_constants_and_its_names(tmp_path):
    pytest.importorskip("httpstan", reason="httpstan is not installed: its programs are not tested")
    (tmp_path / "rate.stan").write_text(RATE)
    target = am.interop.stan.target(tmp_path / "rate.stan", {"n": 4, "y": DATA})
    assert target.dim == 3  # the simplex has two
    u = np.stack([np.linspace(-9.0, 4.0, 2001), np.full(2001, 0.3), np.full(2001, -0.2)], axis=1)
    named = target.parameters(jnp.asarray(u, jnp.float32))
    assert {name: value.shape[1:] for name, value in named.items()} == {"rate": (), "share": (3,), "table": (2, 3)}
    rate, share = np.exp(u[:, 0]), np.asarray(named["share"][0], float)
    np.testing.assert_allclose(named["rate"], rate, rtol=1e-5)
    assert share.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(named["table"], rate[:, None, None] * np.arange(1, 7).reshape(2, 3), rtol=1e-5)
    # With the share fixed, the integral over the rate is the evidence times the share's density.
    got = np.asarray(target.values(jnp.asarray(u, jnp.float32)), float)
    jacobian = np.linalg.slogdet(jax.jacfwd(lambda v: _simplex(v)[:2])(jnp.asarray([0.3, -0.2])))[1]
    np.testing.assert_allclose(share, _simplex(jnp.asarray([0.3, -0.2])), rtol=1e-4)
    evidence = math.lgamma(6.0) - math.lgamma(2.0) - 6.0 * math.log(1.0 + DATA.sum())
    exact = evidence + stats.dirichlet.logpdf(share / share.sum(), [2, 3, 4]) + jacobian
    assert math.log(np.trapezoid(np.exp(got), u[:, 0])) == pytest.approx(exact, abs=2e-3)
    with pytest.raises(TargetError, match="does not fit the data"):
        am.interop.stan.target(RATE, {"n": 4})


def _simplex(v):
    """Stan's stick breaking (of its versions up to 2.36)."""
    first = jax.nn.sigmoid(v[0] - jnp.log(2.0))
    second = (1.0 - first) * jax.nn.sigmoid(v[1])
    return jnp.stack([first, second, 1.0 - first - second])


@pytest.fixture(scope="module")
def mixture():
    pytest.importorskip("httpstan", reason="httpstan is not installed: its programs are not tested")
    return am.interop.stan.target(MIXTURE, {"n": len(TWO), "y": TWO}, name="mixture")


@pytest.mark.slow
def test_a_mixture_has_the_values_of_scipy_and_their_slopes(mixture):
    u = np.random.default_rng(2).normal(size=(20, 5))
    got = mixture.evaluate(jnp.asarray(u, jnp.float32))
    np.testing.assert_allclose(got.log_prob, [log_mixture(point) for point in u], rtol=1e-5, atol=1e-2)
    for point, grad in zip(u[:5], got.grad[:5], strict=True):
        slopes = [(log_mixture(point + h) - log_mixture(point - h)) / 2e-5 for h in 1e-5 * np.eye(5)]
        np.testing.assert_allclose(grad, slopes, rtol=1e-3, atol=1e-2)


@pytest.mark.slow
@pytest.mark.trains
@pytest.mark.timeout(3600)
def test_both_labellings_of_a_mixture(mixture):
    """With default settings: each has half of the mass."""
    draws = am.fit(mixture, key=0, progress=False).sample(10_000, key=1)
    sites, weight = draws.unravel(), np.exp(np.asarray(draws.log_weight, float))
    right = np.asarray(sites["mu"][:, 0] > sites["mu"][:, 1])
    share = weight[right].sum() / weight.sum()
    error = np.sqrt(np.sum(weight**2 * (right - share) ** 2)) / weight.sum()
    assert abs(share - 0.5) < 4.0 * error
    assert error < 0.02
    assert draws.verdict().word in ("trusted", "use with correction")
    assert float(draws.log_z.value) == pytest.approx(_log_z(mixture), abs=4.0 * draws.log_z.std_error + 0.02)


def _log_z(target):
    """By importance sampling from a broad t distribution around one labelling, twice."""
    place = np.array([logit(0.5), -2.0, 2.0, 0.0, 0.0])
    wide = stats.multivariate_t(place, np.diag([0.5, 0.4, 0.4, 0.25, 0.25]) ** 2, df=5, seed=np.random.default_rng(3))
    u = wide.rvs(20_000)
    u = u[u[:, 1] < u[:, 2]]
    value = np.asarray(target.values(jnp.asarray(u, jnp.float32)), float)
    return math.log(2.0) + logsumexp(value - wide.logpdf(u)) - math.log(20_000)
