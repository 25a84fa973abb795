"""The study of bias and variance: its closed forms against quadrature, its quick version against
the closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.command.main import guarded
from studies import bias_variance as study
from studies import bias_variance_measure as measure
from studies import bias_variance_theory as theory
from studies.__main__ import study as run_by_command


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    lines = []
    out = tmp_path_factory.mktemp("study") / "made"
    return study.run(out, quick=True, progress=lines.append), out, lines


def pick(rows, **where):
    return [row for row in rows if all(row[key] == value for key, value in where.items())]


# Closed forms.


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("make", [theory.standard, theory.two_modes])
def test_leading_coefficients_are_the_integrals(make, sigma):
    target = make(1)
    x_t = np.array([[-2.5], [0.4], [5.0]])
    lead = target.leading(x_t, sigma)
    x = np.linspace(-40.0, 40.0, 200_001)
    log_pi = target.log_density(x[:, None], 0.0)
    slope = np.gradient(log_pi, x)
    for i, centre in enumerate(x_t[:, 0]):
        q = np.exp(-0.5 * ((x - centre) / sigma) ** 2) / np.sqrt(2 * np.pi) / sigma
        first, second = (np.trapezoid(q * np.exp(k * log_pi), x) for k in (1, 2))
        assert target.log_density(x_t, sigma)[i] == pytest.approx(np.log(first), abs=1e-6)
        assert lead.rho[i] == pytest.approx(second / first**2, rel=1e-5)
        mean = np.trapezoid(q * np.exp(log_pi) * x, x) / first
        assert target.denoised(x_t, sigma)[i, 0] == pytest.approx(mean, rel=1e-5)
        dsi, tsi = x - mean, centre + sigma**2 * slope - mean
        w2 = q * np.exp(2 * log_pi) / first**2
        for name, f in (
            ("bias_dsi", -dsi),
            ("bias_tsi", -tsi),
            ("var_dsi", dsi**2),
            ("var_tsi", tsi**2),
            ("cov", dsi * tsi),
        ):
            assert getattr(lead, name)[i, 0] == pytest.approx(np.trapezoid(w2 * f, x), rel=1e-3, abs=1e-4), name


def test_mean_rho_of_a_gaussian():
    rng, dim, sigma = np.random.default_rng(0), 3, 0.5
    rho = theory.standard(dim).leading(np.sqrt(1 + sigma**2) * rng.standard_normal((40_000, dim)), sigma).rho
    assert rho.mean() == pytest.approx((1 + sigma**2) ** dim, abs=5 * rho.std() / 200)


def test_snis_coefficients_are_the_integrals():
    x, (rho, bias, variance) = np.linspace(-60, 60, 200_001), theory.snis(1, 5.0, 2.0)
    w2 = np.exp(2 * theory.log_normal(x[:, None], np.array([2.0])) - theory.log_normal(x[:, None], np.array([5.0])))
    f = x**2 / 2.0 - 1.0
    assert [rho, bias, variance] == pytest.approx([np.trapezoid(w2 * g, x) for g in (1.0 + 0 * f, -f, f**2)], rel=1e-6)


@pytest.mark.parametrize("make", [theory.standard, theory.anisotropic, theory.two_modes])
def test_the_truth_agrees_with_the_library(make):
    target, sigma, x = make(4), 0.7, np.random.default_rng(1).standard_normal((5, 4)) * 2
    noised = theory.Exact("noised", target.means, target.var + sigma**2, target.weights).components().log_prob(0.0)
    value, score = jax.vmap(jax.value_and_grad(noised))(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(target.log_density(x, sigma), value, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(target.denoised(x, sigma), x + sigma**2 * np.asarray(score), rtol=1e-4, atol=1e-4)
    draws = target.draw_posterior(np.random.default_rng(2), x, sigma, 4000)
    error = draws.mean(axis=1) - target.denoised(x, sigma)
    assert np.all(np.abs(error) < 5 * draws.std(axis=1) / np.sqrt(4000))


# Statistics.


def test_jackknife_of_a_mean_is_the_standard_error():
    v = np.random.default_rng(0).standard_normal(50)
    assert float(measure.mean(v).se) == pytest.approx(v.std(ddof=1) / np.sqrt(50))


def test_moments_find_a_small_bias_and_the_variance():
    rng = np.random.default_rng(0)
    linear = rng.standard_normal((40, 8, 500, 2))  # of mean zero, and most of the error
    error = 0.02 + linear + 0.1 * rng.standard_normal(linear.shape)
    block = lambda v: v.mean(axis=2)[:, None]  # noqa: E731
    mean, square, variance = measure.moments(block(error), block(error**2), block(linear))
    assert (
        abs(mean.value[0] - 0.02) < 5 * mean.se[0] < 0.002
    )  # the plain mean of the errors is off by .0018 a standard error
    assert abs(square.value[0] - 0.02**2) < 5 * square.se[0] < 1e-4
    assert abs(variance.value[0] - 1.01) < 5 * variance.se[0] < 0.1


def test_fits_return_the_slope_and_refuse_two_points():
    x, without = np.array([1.0, 4.0, 16.0, 64.0]), np.ones((5, 1))
    y = measure.Stat(3.0 / x**2, without * 3.0 / x**2)
    assert measure.fit(x, y, x > 0)["slope"] == pytest.approx(-2.0)
    assert measure.fit(x, y, x > 4) is None
    assert measure.fit_independent(x, y.value, 0.1 * y.value, x > 0)["slope"] == pytest.approx(-2.0)


# The quick study.


def test_what_is_written(quick):
    result, out, lines = quick
    text = (out / "bias-variance.json").read_text()

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse) == result
    assert {"fresh", "stored", "onset", "buffer", "loss", "inherited_draws", "inherited_buffer", "growth"} <= set(
        result
    )
    assert result["quick"] is True
    assert result["seed"] == 0
    assert len(result["fresh"]) == 2 * 3 * 4  # targets, sigmas, estimators
    for row in result["fresh"]:
        sizes = {len(row[k]) for k in ("K", "bias", "bias_se", "variance", "variance_se", "variance_theory")}
        assert sizes == {4}
    assert len(lines) >= 4
    pictures = sorted(out.glob("*.png"))
    assert [p.stem for p in pictures] == [f"bias-variance-{name}" for name in ("buffer", "density", "loss", "score")]
    assert all(5_000 < p.stat().st_size < 150_000 for p in pictures)


@pytest.mark.parametrize("estimator", ["tsi", "dsi", "log_density"])
def test_variance_falls_as_one_over_k_where_theory_holds(quick, estimator):
    (row,) = pick(quick[0]["fresh"], target="gaussian", sigma=0.1, estimator=estimator)
    assert abs(row["variance_fit"]["slope"] + 1.0) < 0.15
    assert row["variance_fit"]["se"] < 0.05
    for value, se, expected in zip(
        row["variance"][1:], row["variance_se"][1:], row["variance_theory"][1:], strict=False
    ):
        assert abs(value - expected) < 5 * se + 0.02 * expected


def test_bias_of_the_log_density_falls_as_one_over_k(quick):
    (row,) = pick(quick[0]["fresh"], target="gaussian", sigma=0.1, estimator="log_density")
    assert abs(row["bias_fit"]["slope"] + 1.0) < 0.15
    assert np.all(np.asarray(row["bias"]) < 0)  # Jensen
    np.testing.assert_allclose(row["bias"][1:3], row["bias_theory"][1:3], rtol=0.1)


def test_the_rates_stop_at_large_noise(quick):
    (row,) = pick(quick[0]["fresh"], target="two-modes", sigma=10.0, estimator="log_density")
    assert row["variance_fit"] is None
    assert row["rho_mean"] > row["K"][-1]
    (tsi,) = pick(quick[0]["fresh"], target="two-modes", sigma=10.0, estimator="tsi")
    assert np.log(tsi["variance"][-1] / tsi["variance"][-2]) / np.log(4) > -0.75
    (tsi,) = pick(quick[0]["fresh"], target="gaussian", sigma=10.0, estimator="tsi")
    (dsi,) = pick(quick[0]["fresh"], target="gaussian", sigma=10.0, estimator="dsi")
    assert tsi["variance"][0] == pytest.approx(1e4 * dsi["variance"][0], rel=0.02)  # (sigma / tau)^4


def test_one_stored_draw(quick):
    for row in quick[0]["stored"]:
        if row["target"] != "gaussian":
            continue
        ratio = row["sigma"] ** 2
        assert row["gate"] == pytest.approx(1 / (1 + ratio), rel=1e-3)
        for name, expected in (("tsi", ratio), ("dsi", 1 / ratio)):
            assert row[name]["variance_theory"] == pytest.approx(expected, rel=1e-3)
            assert abs(row[name]["variance"] - expected) < 5 * row[name]["variance_se"] + 1e-3 * expected
            assert abs(row[name]["bias2_z"]) < 5
        assert 0 <= row["blend"]["variance"] < 1e-8
    (two,) = pick(quick[0]["stored"], target="two-modes", sigma=1.0)
    assert 1e-3 < two["blend"]["variance"] < 0.5 * min(two["tsi"]["variance"], two["dsi"]["variance"])


def test_the_gaussian_blend_is_exact_at_every_k(quick):
    for row in pick(quick[0]["fresh"], target="gaussian", estimator="blend"):
        assert max(row["variance"]) < 1e-6


def test_buffer_density(quick):
    near, far = (pick(quick[0]["buffer"], target="gaussian", sigma=s)[0] for s in (0.1, 1.0))
    assert abs(far["variance_fit"]["slope"] + 1.0) < 0.15
    assert far["variance"][-1] == pytest.approx(far["variance_theory"][-1], rel=0.3)
    assert far["ess"][-1] > 0.97 > 0.8 > near["ess"][-1]
    assert near["bias"][0] > near["bias"][1] > near["bias"][2] > 0  # a relative entropy
    for size, once, once_se, twice in zip(*(far[k] for k in ("L", "weight", "weight_se", "weight_twice")), strict=True):
        assert abs(once - 1.0) < 5 * once_se
        assert twice < 1.0 - 0.5 / size  # the own component counted twice takes weight from lonely points


def test_self_normalised_loss(quick):
    (row,) = quick[0]["loss"]
    for kind in ("bias", "variance"):
        assert abs(row[f"{kind}_fit"]["slope"] + 1.0) < 0.15
        value, se, expected = (np.asarray(row[f"{kind}{end}"][2:]) for end in ("", "_se", "_theory"))
        assert np.all(np.abs(value - expected) < 5 * se + 0.05 * np.abs(expected))


def test_weights_from_the_same_draws_take_the_bias_off_the_fitted_score(quick):
    (row,) = quick[0]["inherited_draws"]
    assert row["factor_exact"][0] == pytest.approx(1.0, abs=0.02)  # K = 1: the score of the draw, twice the true one
    assert row["factor_exact"][1] > 0.2
    assert abs(row["factor_estimated"][1]) < 0.03
    assert row["ess_estimated"][0] < 0.6 * row["ess_exact"][0]  # at a price


# Of all studies.

WRONG = {
    "unknown study": ("all", "unknown study 'all'"),
    "unknown case": ("dimension --cases none", "unknown case 'none'"),
    "unknown target": ("free-energy --cases none", "the cases are gmm40"),
    "no seeds": ("ablation --seeds 0", "seeds must be at least 1"),
    "seeds of a study without": ("bias-variance --seeds 2 --out NEW", "bias-variance takes no seeds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_of_a_study_is_one_line_and_status_2(case, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words, expected = WRONG[case]
    assert guarded(lambda: run_by_command(words.split())) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert len(err.splitlines()) == 1
