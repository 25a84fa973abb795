"""Parameters at an end of their range, and those that the data do not constrain: exact draws of
closed forms, by bounds, priors and the unit cube."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import SMALL

import allmodes as am
from allmodes.draws import remarks
from allmodes.draws.estimates import ess

numpyro = pytest.importorskip("numpyro")
dist, stats = numpyro.distributions, pytest.importorskip("scipy.stats")

N = 10_000


def said(target, *columns, log_weight=None):
    """What is said of exact draws of each coordinate, through the target's own free ones."""
    x = jnp.asarray(np.stack(columns, axis=1), jnp.float32)
    z = jax.vmap(target.chart.to_free)(jax.random.split(jax.random.key(0), len(x)), x)
    log_weight = np.zeros(len(x)) if log_weight is None else log_weight
    return remarks.remarks(target.flats(np.asarray(x), np.asarray(z)), log_weight, lambda _: ess(log_weight))


def bounded(*bounds, **more):
    return am.Target(lambda x: 0.0 * x[0], len(bounds), bounds=list(bounds), **more)


@pytest.fixture
def draw():
    rng = np.random.default_rng(0)
    return lambda law, n=N: law.rvs(n, random_state=rng)


LOW, HIGH = "lower bound 0", "upper bound 1"
ON_AN_INTERVAL = {
    "peak at the edge": (stats.truncnorm(0.0, 10.0, scale=0.1), [LOW]),
    "peak at the other": (stats.truncnorm(-10.0, 0.0, loc=1.0, scale=0.1), [HIGH]),
    "very narrow, at the edge": (stats.truncnorm(0.0, 1e4, scale=1e-4), [LOW]),
    "piled up at both": (stats.beta(0.5, 0.5), [LOW, HIGH]),
    "well inside": (stats.norm(0.5, 0.05), []),
    "narrow, close to the edge": (stats.norm(0.01, 0.002), []),
    "cut, but not piled up": (stats.truncnorm(-1.0, 9.0, loc=0.1, scale=0.1), []),
    "two modes, one at the edge": (None, [LOW]),
}


@pytest.mark.parametrize(("law", "ends"), ON_AN_INTERVAL.values(), ids=ON_AN_INTERVAL.keys())
def test_mass_piled_up_at_a_bound_is_named_with_the_bound(draw, law, ends):
    if law is None:
        parts = draw(stats.truncnorm(0.0, 100.0, scale=0.01)), draw(stats.norm(0.6, 0.01))
        x = np.where(np.arange(N) % 2, *parts)
    else:
        x = draw(law)
    found = said(bounded((0, 1), names=["share"]), x)
    assert [line.split(":")[0] for line in found] == [f"share leans on the {end}" for end in ends]


@pytest.mark.parametrize(
    ("law", "leans"),
    [(stats.expon(), True), (stats.halfnorm(), True), (stats.gamma(3.0), False), (stats.lognorm(1.0), False)],
)
def test_so_is_mass_at_the_bound_of_a_half_line(draw, law, leans):
    x = draw(law)
    assert len(said(bounded((0, None)), x)) == leans
    assert [line.split(":")[0] for line in said(bounded((None, 0)), -x)] == ["x[0] leans on the upper bound 0"] * leans


def test_a_share_is_that_of_the_weights(draw):
    """Uniform draws, weighted to half a normal at 0: `P(|N| < .05 x 2.576) = .1025`."""
    x = draw(stats.uniform(), 100_000)
    log_weight = stats.halfnorm(scale=0.1).logpdf(x)
    (line,) = said(bounded((0, 1)), x, log_weight=log_weight)
    assert line == "x[0] leans on the lower bound 0: 10% of the mass is in the 5% of its range next to it"


def test_what_is_flat_between_bounds_or_around_a_circle_is_not_constrained(draw):
    target = bounded((0, 1), (-np.pi, np.pi), (2, 3), periodic=[1], names=["a", "angle", "b"])
    a, angle, b = (draw(stats.uniform(*place)) for place in ((), (-np.pi, 2 * np.pi), (2, 1)))
    assert said(target, a, angle, b) == [
        "a, b are not constrained: flat between bounds",
        "angle is not constrained: flat around a circle",
    ]
    assert said(target, a**0.85, np.clip(0.95 * angle, -3, 3), 2.5 + 0.3 * (b - 2.5)) == []


def test_few_effective_draws_say_nothing(draw):
    assert said(bounded((0, 1)), draw(stats.uniform(), 300)) == []
    assert said(bounded((0, 1)), draw(stats.beta(0.5, 0.5), 300)) == []


@pytest.mark.parametrize("law", [stats.norm(), stats.beta(0.5, 2.0), stats.expon()])
def test_the_level_of_the_test_is_one_in_a_hundred(law):
    """Of 300 sets of 500 exact draws as the prior has them, 3 +- 1.7 are not recognised."""
    rng = np.random.default_rng(1)
    y = law.cdf(law.rvs((300, 500), random_state=rng))
    flat = am.Target(lambda x: x[0], 1, bounds=[(0, 1)]).chart.pieces[0].flats(y[:, :1], y[:, :1])[0]
    missed = sum(not remarks.is_as_before(flat._replace(y=own), np.full(500, 1 / 500), 500.0) for own in y)
    assert missed <= 3 + 3 * 1.73


# Priors.


PRIORS = {
    "bounds": (0.0, 1.0),
    "SciPy": stats.beta(0.5, 0.5),
    "NumPyro, flat": dist.Uniform(0.0, 1.0),
    "NumPyro, by its distribution function": dist.Gamma(2.0, 3.0),
    "NumPyro, normal": dist.Normal(3.0, 2.0),
    "NumPyro, half": dist.HalfNormal(2.0),
    "NumPyro, by draws": dist.VonMises(0.5, 3.0),
    "NumPyro, array": dist.Exponential(jnp.array([1.0, 2.0])).to_event(1),
    "NumPyro, simplex": dist.Dirichlet(jnp.array([1.0, 2.0, 3.0])),
}


@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
def test_draws_of_the_prior_are_told_from_it_by_nothing(prior, draw):
    """Nor do they lean on a bound where the prior itself piles up."""
    target = am.posterior(lambda p: 0.0, {"p": prior})
    if hasattr(prior, "sample"):
        x = np.asarray(prior.sample(jax.random.key(3), (N,))).reshape(N, -1)
    else:
        x = draw(stats.uniform() if isinstance(prior, tuple) else prior)[:, None]
    (line,) = said(target, *x.T)
    assert line == f"{', '.join(target.names)} {'is' if x.shape[1] == 1 else 'are'} not constrained: as before the data"


@pytest.mark.parametrize("prior", [stats.expon(), dist.Exponential(1.0), dist.Gamma(1.0, 1.0), stats.uniform(0, 50)])
def test_a_posterior_at_the_edge_of_its_prior_is_named(prior, draw):
    target = am.posterior(lambda p: 0.0, {"rate": prior, "other": dist.Normal(0.0, 1.0)})
    edge, inside = draw(stats.halfnorm(scale=0.1)), draw(stats.norm(3.0, 0.2))
    (line,) = said(target, edge, draw(stats.norm(0.3, 0.5)))
    assert line.startswith("rate leans on the lower bound 0: ")
    assert said(target, inside, draw(stats.norm(0.3, 0.5))) == []


def test_the_ends_of_a_cube_are_those_of_the_prior(draw):
    target = am.interop.nested.target(lambda p: -jnp.sum(p), lambda u: jnp.stack([6 * u[0], u[1] + 3 * u[0], u[2]]), 3)
    u = np.stack([draw(stats.truncnorm(0, 10, scale=0.1)), draw(stats.norm(0.5, 0.05)), draw(stats.uniform())], axis=1)
    x = np.asarray(jax.vmap(target.chart.transform)(jnp.asarray(u, jnp.float32)))
    lines = remarks.remarks(target.flats(x, stats.norm.ppf(u)), np.zeros(N), lambda _: float(N))
    assert lines[0].startswith("x[0] leans on the lower end of its prior: ")
    assert lines[1:] == ["x[2] is not constrained: as before the data"]


@pytest.mark.parametrize(
    "prior",
    [
        dist.ImproperUniform(dist.constraints.real, (), ()),
        dist.ImproperUniform(dist.constraints.positive, (2,), ()).to_event(1),
        dist.Uniform(0.0, jnp.inf),
        dist.Normal(0.0, jnp.inf),
        dist.Normal(0.0, 1.0).mask(False),
        (0.0, None),
    ],
)
def test_an_improper_prior_is_refused_by_name(prior):
    with pytest.raises(am.TargetError, match="prior of rate is improper"):
        am.posterior(lambda p: 0.0, {"rate": prior})


def test_a_model_with_an_improper_prior_is_warned_of_by_name():
    def model(data):
        place = numpyro.sample("place", dist.ImproperUniform(dist.constraints.real, (), ()))
        scale = numpyro.sample("scale", dist.HalfNormal(1.0))
        numpyro.sample("data", dist.Normal(place, scale), obs=data)

    with pytest.warns(am.PriorWarning, match="the model model has improper priors: place. Its posterior"):
        target = am.interop.numpyro.target(model, jnp.array([0.0, 1.0]))
    assert target.dim == 2


# Where they are said.


@pytest.mark.trains
def test_a_summary_has_them_and_draws_made_of_draws_keep_them():
    prior = {"edge": (0.0, 1.0), "idle": (0.0, 1.0), "inside": dist.Normal(0.0, 1.0)}
    target = am.posterior(lambda p: -0.5 * (p["edge"] / 0.1) ** 2 - 0.5 * ((p["inside"] - 0.5) / 0.3) ** 2, prior)
    draws = am.fit(target, am.IWSM(**{**SMALL, "steps": 20}), key=jax.random.key(0)).sample(4000, key=jax.random.key(1))
    lines = draws.remarks()
    assert [line.split(":")[0] for line in lines] == ["edge leans on the lower bound 0", "idle is not constrained"]
    assert all(f"  note: {line}" in draws.summary().splitlines() for line in lines)
    assert len(draws.resample(jax.random.key(2), 3000).remarks()) == 2


def test_draws_without_bounds_have_none():
    draws = am.Draws(jnp.zeros((500, 1)), jnp.zeros(500), jnp.zeros(500))
    assert draws.remarks() == []
