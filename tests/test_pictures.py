"""The corner plot: what it shows of weights, bounds, circles and names."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from scipy import stats

import allmodes as am
from allmodes.bounded import Bounded
from allmodes.draws.draws import Draws
from allmodes.pictures.corner import MOST, chosen, interval, named, plot_corner, varying
from allmodes.pictures.density import density, levels
from allmodes.points.weighted import normalised, quantiles, resample
from allmodes.ranges import Range
from allmodes.sampler import Sampler

N = 20_000
TURN = Range(-math.pi, math.pi, periodic=True)


def rng():
    return np.random.default_rng(0)


# The density of a pair.


def test_a_density_is_as_fine_as_its_modes():
    """Two modes whose width is 1/200 of the distance between them: one width of smoothing from the
    overall spread, as Silverman's rule has it, would show them a hundred times as wide."""
    right = rng().random(N) < 0.3
    points = rng().normal(size=(N, 2)) * 0.05 + np.where(right, 10.0, 0.0)[:, None]
    edges = np.linspace(-0.5, 10.5, 101)
    mass = density(points, np.full(N, 1.0 / N), (edges, edges))
    middles = (edges[:-1] + edges[1:]) / 2
    assert mass.sum() == pytest.approx(1.0)
    assert mass[middles > 5][:, middles > 5].sum() == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / N))
    spread = math.sqrt(np.sum(mass[middles < 5].sum(1) * middles[middles < 5] ** 2) / mass[middles < 5].sum())
    assert spread < 3 * 0.11  # three bins


def test_a_density_smooths_across_a_seam_and_not_beyond_an_edge():
    points = np.column_stack([TURN.wound(math.pi + 0.5 * rng().normal(size=N)), rng().exponential(size=N)])
    edges = np.linspace(-math.pi, math.pi, 51), np.linspace(0, 8, 51)
    mass = density(points, np.full(N, 1.0 / N), edges, (True, False))
    inside = np.mean(points[:, 1] < 8)
    assert mass.sum() == pytest.approx(inside, abs=1e-6)  # nothing is lost
    around = mass.sum(1)
    assert around[0] == pytest.approx(around[-1], rel=0.05)
    assert around.argmax() in (0, 49)
    expected = np.diff(stats.expon.cdf(edges[1]))
    assert mass.sum(0)[0] == pytest.approx(expected[0], rel=0.1)  # of a kernel that knows no edge it would be half


def test_levels_hold_what_they_say():
    edges = np.linspace(-5, 5, 101)
    x, y = np.meshgrid((edges[:-1] + edges[1:]) / 2, (edges[:-1] + edges[1:]) / 2)
    mass = np.exp(-0.5 * (x**2 + y**2))
    outer, inner = levels(mass / mass.sum(), (0.95, 0.5))
    for level, held in ((outer, 0.95), (inner, 0.5)):  # of a normal: within r^2 = -2 log(1 - held)
        radius = math.sqrt(-2 * math.log(1 - held))
        area = np.sum(mass / mass.sum() >= level) * 0.01
        assert area == pytest.approx(math.pi * radius**2, rel=0.02)


# Weighted values.


def test_weighted_quantiles_are_those_of_the_density():
    x = rng().normal(size=N)
    w = normalised(stats.norm.logpdf(x, 0.5) - stats.norm.logpdf(x))
    for q, value in zip((0.05, 0.5, 0.95), quantiles(x, w, (0.05, 0.5, 0.95)), strict=True):
        spread = math.sqrt(q * (1 - q) * math.exp(0.25) * 2 / N) / stats.norm.pdf(stats.norm.ppf(q))
        assert value == pytest.approx(0.5 + stats.norm.ppf(q), abs=5 * spread)


def test_no_weights_at_all():
    assert normalised(np.full(3, -np.inf)).tolist() == [0, 0, 0]
    assert normalised(np.array([np.nan, np.inf, 0.0])).tolist() == [0, 0, 1]
    assert resample(np.full(3, -np.inf)) is None


def test_a_circle_is_counted_from_its_mean_direction():
    """A mode at the seam is one mode there, in a table as in a picture."""
    angles = TURN.wound(math.pi + 0.2 * rng().normal(size=N))
    draws = Draws(
        jnp.asarray(angles[:, None], jnp.float32), jnp.zeros(N), jnp.zeros(N),
        parameters=lambda x: {"phase": x[:, 0]}, ranges={"phase": TURN},
    )  # fmt: skip
    row = draws.table()["phase"]
    error = 5 * 0.2 / math.sqrt(N)
    assert abs(row["mean"]) == pytest.approx(math.pi, abs=error)
    assert row["sd"] == pytest.approx(0.2, abs=error)
    assert row["95%"] - row["5%"] == pytest.approx(2 * 1.645 * 0.2, rel=0.05)
    plain = Draws(draws.x, draws.log_prob, draws.log_weight).table()["x[0]"]
    assert plain["sd"] > 2.5  # of a line it is half here and half there


def test_ranges_come_from_bounds_priors_and_periods():
    names = ["rate", "angle", "share", "free"]
    target = am.Target(
        lambda x: -jnp.sum(x**2), 4, names=names, bounds={"rate": (0, None), "share": (0, 1)}, periodic=["angle"]
    )
    assert target.ranges == {"rate": Range(0.0, None), "angle": TURN, "share": Range(0.0, 1.0), "free": Range()}
    assert list(target.ranges) == names
    plain = am.Target(lambda x: -jnp.sum(x**2), 2, bounds=[(None, 3), None])
    assert plain.ranges == {"x[0]": Range(None, 3.0), "x[1]": Range()}
    prior = {"place": (0.0, 2.0), "phase": (0.0, 1.0)}
    assert am.posterior(lambda p: p["place"], prior, periodic=["phase"]).ranges == {
        "place": Range(0.0, 2.0), "phase": Range(0.0, 1.0, periodic=True)
    }  # fmt: skip
    assert am.Target(lambda x: -jnp.sum(x**2), 2).ranges == {}


# The plot.


def columns():
    kind = rng().random(N) < 0.5
    return {
        "place": rng().normal(size=N) + np.where(kind, -8.0, 8.0), "rate": rng().exponential(size=N),
        "phase": TURN.wound(math.pi + 0.3 * rng().normal(size=N)), "plain": rng().normal(size=N),
    }  # fmt: skip


def test_a_corner_has_names_frames_and_intervals():
    ranges = {"rate": Range(0.0, None), "phase": TURN}
    figure = plot_corner(columns(), np.zeros(N), ranges)
    assert len(figure.axes) == 10  # four marginals and six pairs
    last = figure.axes[-4:]
    assert [panel.get_xlabel() for panel in last] == ["place", "rate", "phase", "plain"]
    assert last[1].get_xlim()[0] == 0.0
    assert last[2].get_xlim() == (-math.pi, math.pi)
    assert next(tick.get_text() for tick in last[2].get_xticklabels()) == "\u2212\u03c0"
    rate = next(panel for panel in figure.axes if panel.get_title().startswith("rate"))
    assert rate.get_title() == f"rate\n{interval(*quantiles(columns()['rate'], np.ones(N), (0.05, 0.5, 0.95)))}"


def test_weights_count_and_massless_draws_do_not():
    """Draws of two modes, all the weight of which is on one: the frame is around that."""
    values = {"x": np.where(np.arange(N) % 2 == 0, -5.0, 5.0) + 0.1 * rng().normal(size=N), "y": rng().normal(size=N)}
    log_weight = np.where(values["x"] > 0, 0.0, -np.inf)
    low, high = plot_corner(values, log_weight, {}).axes[0].get_xlim()
    assert 4 < low < 5 < high < 6


def test_the_parameters_that_are_least_normal_are_chosen():
    """Whatever their units: spread says nothing."""
    many = {f"plain[{i}]": 1e6 * rng().normal(size=N) + i for i in range(12)} | {
        "far": columns()["place"] * 1e-6, "rate": columns()["rate"]
    }  # fmt: skip
    kept = chosen(many, np.zeros(N))
    assert len(kept) == MOST
    assert kept[-2:] == ["far", "rate"]
    assert named(many, ["rate", "plain"])[:2] == ["rate", "plain[0]"]
    with pytest.raises(am.ConfigError, match="no parameter 'other': there are plain"):
        named(many, ["other"])


def test_what_has_one_value_is_left_out():
    values = {"x": rng().normal(size=N), "fixed": np.full(N, 0.3), "y": rng().normal(size=N)}
    assert list(varying(values)) == ["x", "y"]
    assert list(varying({"fixed": values["fixed"]})) == ["fixed"]


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.9, 1.0, 1.2), "$1.00_{-0.10}^{+0.20}$"), ((-40.0, 5.0, 30.0), "$5_{-45}^{+25}$"), ((1.0, 1.0, 1.0), "1"),
        ((-1e-9, 0.0, 1e-9), "$0_{-1e-9}^{+1e-9}$"),
    ],
)  # fmt: skip
def test_an_interval_has_two_digits(numbers, text):
    assert interval(*numbers) == text


def of(names, n=400):
    x = jnp.asarray(rng().normal(size=(n, len(names))), jnp.float32)
    return Draws(x, jnp.zeros(n), jnp.zeros(n), parameters=lambda x: {name: x[:, i] for i, name in enumerate(names)})


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_draws_are_plotted_to_a_file(tmp_path, suffix):
    path = tmp_path / f"corner{suffix}"
    of(["$a$", "b_c"]).plot(path)
    start = path.read_bytes()[:5]
    assert start == {".png": b"\x89PNG\r", ".pdf": b"%PDF-", ".svg": b"<?xml"}[suffix]
    if suffix == ".png":
        assert len(np.unique(matplotlib.image.imread(path).reshape(-1, 4), axis=0)) > 20


def test_draws_say_which_parameters_of_many_they_plot():
    draws = of([f"p{i}" for i in range(10)], n=200)
    assert "8 of 10 parameters" in draws.plot().texts[0].get_text()
    figure = draws.plot(parameters=["p3", "p1"])
    assert not figure.texts
    assert [panel.get_title().split("\n")[0] for panel in figure.axes if panel.get_title()] == ["p3", "p1"]
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_what_cannot_be_plotted(tmp_path):
    draws = of(["a"])
    with pytest.raises(am.ConfigError, match=r"written as \.png, \.pdf, \.svg, got .*a\.bmp"):
        draws.plot(tmp_path / "a.bmp")
    with pytest.raises(am.ConfigError, match="no parameter 'b': there are a"):
        draws.plot(parameters=["b"])
    with pytest.raises(am.RunError, match="absent"):
        draws.plot(tmp_path / "absent" / "a.png")
    dead = Draws(draws.x, draws.log_prob, jnp.full(len(draws), -jnp.inf))
    with pytest.raises(am.ConfigError, match="nothing to plot"):
        dead.plot()


def test_draws_that_are_all_alike_are_plotted():
    draws = Draws(jnp.ones((50, 2)), jnp.zeros(50), jnp.zeros(50))
    assert len(draws.plot().axes) == 3


@dataclasses.dataclass(frozen=True, eq=False)
class Normal(Sampler):
    """Draws of a standard normal."""

    def sample(self, n, *, key):
        return Draws(jax.random.normal(key, (n, self.target.dim)), jnp.zeros(n), jnp.zeros(n))


def test_ranges_go_with_draws():
    """From a sampler of free coordinates to the user's, through resampling, to other libraries."""
    pytest.importorskip("arviz_base")
    pytest.importorskip("pandas")
    bounds = {"names": ["rate", "phase"], "bounds": [(0, None), None], "periodic": ["phase"]}
    target = am.Target(lambda x: -x[0] - 0.5 * x[1] ** 2, 2, **bounds)
    inner = Normal(target.free, None, None)
    assert not inner.sample(3, key=jax.random.key(1)).ranges
    draws = Bounded(target, None, None, inner=inner).sample(200, key=jax.random.key(1))
    assert draws.ranges == target.ranges == {"rate": Range(0.0, None), "phase": TURN}
    assert draws.resample(jax.random.key(2)).ranges == target.ranges
    assert list(draws.table()) == ["rate", "phase"]  # not by the alphabet
    assert list(draws.to_pandas())[:2] == ["rate", "phase"]
    assert list(draws.to_arviz()["posterior"].data_vars) == ["rate", "phase"]
    assert draws.plot().axes[-1].get_xlim() == pytest.approx((-math.pi, math.pi))
