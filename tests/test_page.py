"""The page of a sampler from Python, its table of parameters, and how to cite."""

import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import pair, small

import allmodes as am
from allmodes.draws.draws import Draws
from allmodes.jobs.evaluation import TOLD, parameters
from allmodes.report.citing import PAPER, references, software
from allmodes.report.corner import corner, in_parameters
from allmodes.report.folder import RunFiles
from allmodes.report.page import write_report as write_page
from allmodes.report.parameters import AT_ONCE, parameter_rows

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def sampler():
    return am.fit(pair(), small(60), key=jax.random.key(3))


def pictures(html):
    return re.findall(r"<h3>(.*?)</h3>", html)


@pytest.mark.trains
def test_a_sampler_fitted_in_python_has_the_page_of_a_run(sampler, tmp_path):
    assert sampler.history[-1]["step"] == 60
    assert np.isfinite(sampler.history[-1]["refresh_log_z"])
    path = am.write_report(sampler, tmp_path / "report.html", key=jax.random.key(1), n=200)
    assert path == tmp_path / "report.html"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    html = path.read_text()
    for words in ("pair", "2 dimensions", "Density evaluations", "Parameters", "method.settings.batch", "2505.19431"):
        assert words in html, words
    assert {"Raw draws", "Corrected draws", "Corner plot", "Energies", "By noise level"} <= set(pictures(html))
    assert not re.search(r'(src|href|srcset)="(?!data:)', html)  # one file


@pytest.mark.trains
def test_given_draws_are_judged_as_they_are(sampler, tmp_path):
    draws = sampler.sample(200, key=jax.random.key(1))
    before = sampler.evaluations
    html = am.write_report(sampler, tmp_path / "a.html", key=jax.random.key(2), draws=draws).read_text()
    assert sampler.evaluations == before
    assert draws.verdict().word in html
    table = draws.table()["x[1]"]
    assert f"{table['ess']:,.0f}" in html
    fair = draws.resample(jax.random.key(3))
    html = am.write_report(sampler, tmp_path / "b.html", key=jax.random.key(2), draws=fair).read_text()
    assert fair.verdict().word in html  # by the weights that they were made of
    assert "weighted draws that they were made of" in html


@pytest.mark.trains
def test_what_cannot_be_written(sampler, tmp_path):
    key = jax.random.key(0)
    with pytest.raises(am.ConfigError, match=r"a report is an \.html file, got .*a\.pdf"):
        am.write_report(sampler, tmp_path / "a.pdf", key=key)
    with pytest.raises(am.RunError, match="absent"):
        am.write_report(sampler, tmp_path / "absent" / "a.html", key=key)
    draws = Draws(jnp.zeros((5, 3)), jnp.zeros(5), jnp.zeros(5))
    with pytest.raises(am.ConfigError, match="draws are of 3 dimensions, the sampler's of 2"):
        am.write_report(sampler, tmp_path / "a.html", key=key, draws=draws)
    assert not list(tmp_path.iterdir())


def named(x, **changes):
    target = am.Target(lambda x: -0.5 * jnp.sum(x**2), x.shape[1], **changes)
    n = len(x)
    return target, Draws(x, jnp.zeros(n), jnp.zeros(n), parameters=target.parameters, ranges=target.ranges)


def test_parameters_are_listed_but_not_of_particles_or_of_a_field():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(100, 4)), jnp.float32)
    target, draws = named(x, names=["d", "c", "b", "a"])
    assert list(parameters(target, draws)) == ["d", "c", "b", "a"]
    target, draws = named(x, symmetry=am.ParticleSymmetry(2, 2))
    assert parameters(target, draws) == {}
    assert parameters(*named(jnp.zeros((3, TOLD + 1)))) == {}


def test_a_table_has_the_digits_that_are_known():
    row = {"mean": 2459330.12346, "sd": 0.0123, "5%": 2459330.1, "50%": None, "95%": 2459330.14, "mcse": 0.00012}
    told = {"epoch": {**row, "ess": 9876.5}, "fixed": {"mean": 1.0, "sd": 0.0}, "bad": 3}
    (name, cells), (_, plain) = parameter_rows({"parameters": told})
    assert name == "epoch"
    assert cells == ["2459330.1235", "0.0123", "2459330.1000", "", "2459330.1400", "1.2e-4", "9,876"]
    assert plain == ["1.000", "0", "", "", "", "", ""]


def test_a_page_lists_a_few_parameters_at_first(tmp_path):
    rows = {f"p{i}": {"mean": float(i), "sd": 1.0, "ess": 10.0} for i in range(AT_ONCE + 3)}
    (tmp_path / "result.json").write_text(json.dumps({"target": "many", "parameters": rows, "correction": "mcmc"}))
    html = write_page(tmp_path).read_text()
    assert "<summary>3 more</summary>" in html
    assert all(f'<th scope="row">{name}</th>' in html for name in rows)
    assert "Of the corrected draws" in html


def files(x, log_weight, corrected=None):
    draws = {"x": x, "log_prob": np.zeros(len(x), np.float32), "log_weight": log_weight}
    return RunFiles({}, {}, {}, draws, {} if corrected is None else {"x": corrected, "log_prob": draws["log_prob"]}, [])


def test_a_corner_plot_is_of_the_users_parameters():
    x = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32)
    zeros = np.zeros(200, np.float32)
    (picture,) = corner(files(x, zeros), None)
    assert picture.wide is None  # two have room beside other pictures
    assert picture.caption.startswith("The weighted draws")
    (picture,) = corner(files(x, zeros, x), None)
    assert picture.caption.startswith("The corrected draws")
    assert not list(corner(files(x[:, :1], zeros), None))
    assert not list(corner(files(x, zeros - np.inf), None))
    wide = np.random.default_rng(0).normal(size=(200, 12)).astype(np.float32)
    (picture,) = corner(files(wide, zeros), None)
    said = "Of 12 parameters the 8 whose marginals are least like a normal's (3 on a narrow screen)."
    assert picture.caption.endswith(said)
    assert picture.wide


def test_pictures_of_a_model_are_in_its_own_values():
    """Not in the coordinates without bounds that it is sampled in."""
    example = {"scale": jnp.zeros(()), "place": jnp.zeros(())}
    constrain = lambda p: {"scale": jnp.exp(p["scale"]), "place": p["place"], "twice": 2 * p["place"]}  # noqa: E731
    target = am.Target.of_tree(lambda p: -(p["scale"] ** 2) - p["place"] ** 2, example, constrain=constrain)
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)  # place, scale
    samples, contours, names = in_parameters({"raw": x}, target)
    assert names == ["place", "scale", "twice"]
    assert contours is None
    np.testing.assert_allclose(samples["raw"], np.column_stack([x[:, 0], np.exp(x[:, 1]), 2 * x[:, 0]]), rtol=1e-5)
    plain = am.Target(lambda x: -jnp.sum(x**2), 2, names=["a", "b"])
    assert in_parameters({"raw": x}, plain) == ({"raw": x}, plain, None)


# How to cite.


def test_citations_are_one_everywhere():
    """Of the page, of CITATION.cff and of the README."""
    cff, readme = (ROOT / "CITATION.cff").read_text(), (ROOT / "README.md").read_text()
    title = "Importance Weighted Score Matching for Diffusion Samplers with Enhanced Mode Coverage"
    authors = re.findall(r"given-names: (\w+), family-names: (\w+)", cff)
    assert len(authors) == 6
    assert PAPER.bibtex in readme
    assert software(am.__version__).bibtex in readme
    assert f"version: {am.__version__}\n" in cff
    for text in (cff, PAPER.words, PAPER.bibtex):
        assert title in text
        assert "2505.19431" in text
    assert " and ".join(f"{family}, {given}" for given, family in authors) in PAPER.bibtex
    assert PAPER.words.startswith(", ".join(f"{given[0]}. {family}" for given, family in authors))


def test_the_paper_is_cited_for_its_method_alone():
    assert [r.words[:2] for r in references({"method": "iwsm-paper", "versions": {"allmodes": "1.2"}})] == ["C.", "Th"]
    (own,) = references({"method": "smc"})
    assert "version" not in own.bibtex
    assert "version = {1.2}" in references({"method": "iwsm", "versions": {"allmodes": "1.2"}})[1].bibtex
