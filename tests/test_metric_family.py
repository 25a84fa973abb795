"""To be registered is to be tested: every metric of `metrics.registry` on small sets, without
training."""

import dataclasses
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.metrics import METRICS, SampleMetric, _evaluate, evaluate, streams
from allmodes.metrics._evaluate import plain
from allmodes.metrics.metric import Judged, is_of_particles
from allmodes.report.facts import evidence_rows, metric_rows
from allmodes.report.page import write_report
from allmodes.report.tables import print_result
from allmodes.report.words import METRICS as WORDS
from allmodes.target import Modes, Target
from allmodes.targets.particles import double_well

N, SIZE, REPEATS = 240, 60, 3
APART, FAR = 6.0, 12.0


def mixture(dim, reference=None):
    """Two Gaussians of shares 3/4 and 1/4."""
    means = np.zeros((2, dim), np.float32)
    means[:, 0] = -APART, APART
    shares = np.array([0.75, 0.25])

    def sample(key, n):
        k_mode, k_noise = jax.random.split(key)
        return means[jax.random.choice(k_mode, 2, (n,), p=shares)] + jax.random.normal(k_noise, (n, dim))

    def assign(x):
        distance = np.linalg.norm(np.asarray(x)[:, None] - means, axis=-1)
        return np.where(distance.min(axis=1) < 1.5 * dim**0.5 + 3.0, distance.argmin(axis=1), -1)

    def log_prob(x):
        return jax.nn.logsumexp(jnp.log(shares) - 0.5 * jnp.sum((x - means) ** 2, axis=-1))

    modes = Modes(weights=shares, assign=assign, means=means)
    return Target(log_prob, dim, sample=sample, modes=modes, reference=reference)


def springs():
    """Four particles in the plane, each pair joined by a spring."""

    def log_prob(x):
        return -0.5 * jnp.sum((x.reshape(4, 2) - x.reshape(4, 2).mean(0)) ** 2)

    symmetry = double_well().symmetry
    sample = lambda key, n: symmetry.embed(jax.random.normal(key, (n, 6)))  # noqa: E731
    return Target(log_prob, 8, sample=sample, symmetry=symmetry)


TARGETS = [mixture(2), mixture(12), mixture(2, reference=4000), springs()]
family = pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
between_sets = pytest.mark.parametrize(
    "metric", [m for m in METRICS if isinstance(m, SampleMetric)], ids=lambda metric: metric.name
)


def target_of(metric):
    found = next((target for target in TARGETS if metric.applies(target)), None)
    assert found is not None, f"no target of this file is one that {metric.name} is for: add one"
    return found


def exact(target, seed=0, n=N):
    return np.asarray(target.sample(jax.random.key(seed), n))


def shifted(x):
    """Along the first coordinate, the first particle's: no symmetry forgives it."""
    return x + np.eye(x.shape[1], dtype=x.dtype)[0] * FAR


def one_mode_only(x):
    return x[x[:, 0] < 0.0]


def spread_of_one_kind(target, x):
    """The half of the configurations that are tighter: part of the mass of particles is missing."""
    energy = -np.asarray(target.values(jnp.asarray(x)))
    return x[energy < np.median(energy)]


def entry_of(metric, target, x, log_weight=None, size=SIZE):
    own = streams.named(jax.random.key(7), particles=is_of_particles(target))
    return plain(metric.entry(Judged(target, x, log_weight, 1.0, own, size, REPEATS, {})))


def off(entry):
    """How far a figure is from that of exact draws."""
    return abs(entry["value"] - entry.get("floor", entry.get("reference", 0.0)))


def of_sets(metric):
    target = target_of(metric)
    return metric.between(target), [exact(target, seed, SIZE) for seed in (1, 2)]


# What it is called.


def test_names_and_labels_are_unique():
    assert len({metric.name for metric in METRICS}) == len({metric.label for metric in METRICS}) == len(METRICS)


@family
def test_it_has_a_name_a_label_and_a_meaning(metric):
    assert metric.name.isidentifier()
    assert metric.name == metric.name.lower()
    assert metric.label[:1].isupper() or metric.label[:1].isdigit()
    assert metric.meaning.endswith(".")
    assert WORDS[metric.name] == (metric.label, metric.meaning)


# Between two sets.


@between_sets
def test_it_is_zero_between_a_set_and_itself_in_another_order(metric):
    between, (a, b) = of_sets(metric)
    assert 0.0 <= between(a, a[::-1].copy()) < 0.02 * between(a, b)


@between_sets
def test_it_is_symmetric_where_it_says_so(metric):
    between, (a, b) = of_sets(metric)
    there, back = between(a, shifted(b)), between(shifted(b), a)
    assert metric.symmetric == (there == pytest.approx(back, rel=1e-5))


@between_sets
def test_it_does_not_see_the_order(metric):
    between, (a, b) = of_sets(metric)
    order = np.random.default_rng(0).permutation(SIZE)
    assert between(a[order], b) == pytest.approx(between(a, b), rel=1e-5)
    assert between(a, b[order]) == pytest.approx(between(a, b), rel=1e-5)


@between_sets
def test_its_ratio_is_one_for_exact_draws_and_not_for_others(metric):
    target = target_of(metric)
    right = entry_of(metric, target, exact(target))
    assert set(right) == {"value", "floor", "ratio", "ratio_std_error", "repeats", "size"}
    assert abs(right["ratio"] - 1.0) < max(0.5, 5.0 * right["ratio_std_error"])
    wrong = entry_of(metric, target, shifted(exact(target)))
    assert wrong["ratio"] > 1.3 * max(1.0, right["ratio"])


# Of draws.


@family
def test_it_does_not_see_the_order_of_the_draws(metric):
    target = target_of(metric)
    x = exact(target)
    there, turned = (entry_of(metric, target, draws, size=N) for draws in (x, x[::-1].copy()))
    assert turned == pytest.approx(there, rel=1e-4)


@family
def test_it_sees_a_shift(metric):
    target = target_of(metric)
    x = exact(target)
    right, wrong = entry_of(metric, target, x), entry_of(metric, target, shifted(x))
    assert off(wrong) > 1.5 * off(right) + 0.01


@between_sets
def test_it_sees_a_missing_mode(metric):
    target = target_of(metric)
    x = exact(target)
    less = one_mode_only(x) if target.symmetry is None else spread_of_one_kind(target, x)
    right, wrong = entry_of(metric, target, x), entry_of(metric, target, less)
    assert off(wrong) > off(right)


@family
def test_weights_put_draws_right(metric):
    target = target_of(metric)
    x = exact(target)
    most = np.concatenate([x[: N // 5], shifted(x[N // 5 :])])
    log_weight = np.where(np.arange(N) < N // 5, 0.0, -np.inf)
    raw, fair = entry_of(metric, target, most), entry_of(metric, target, most, log_weight)
    assert off(fair) < off(raw)


@family
def test_draws_that_are_not_finite_give_a_number_or_none(metric):
    target = target_of(metric)
    x = exact(target).copy()
    x[::10] = np.nan
    for draws in (x, np.full_like(x, np.nan), np.full_like(x, np.inf)):
        entry = entry_of(metric, target, draws)
        json.dumps(entry, allow_nan=False)
        assert {"value"} < set(entry)
        assert entry["value"] is None or off(entry) >= 0.0


@family
def test_no_draws_and_no_mass_are_no_error(metric):
    target = target_of(metric)
    x = exact(target)
    for draws, log_weight in ((x[:0], None), (x, np.full(N, -np.inf))):
        json.dumps(entry_of(metric, target, draws, log_weight), allow_nan=False)


# In results.


@family
def test_it_is_in_the_result_and_in_the_tables(metric):
    target = target_of(metric)
    found = evaluate(target, exact(target), jax.random.key(7), size=SIZE, repeats=REPEATS)["metrics"]
    entry = found[metric.name]
    rows = [*metric_rows(found, {}), *evidence_rows(found, {})]
    (row,) = [row for row in rows if row["key"] == metric.name]
    assert row["label"] == metric.label
    if "ratio" not in entry and not isinstance(metric, SampleMetric):
        return
    out = io.StringIO()
    print_result({"metrics": found}, file=out)
    (line,) = [line for line in out.getvalue().splitlines() if line.strip().startswith(metric.label + "  ")]
    value, floor, ratio = row["raw"]
    assert all(cell and cell in line for cell in (value, floor, ratio))


def test_all_are_on_the_page_with_their_meaning(tmp_path):
    entry = {"value": 1.5, "floor": 1.0, "ratio": 1.5, "ratio_std_error": 0.1}
    result = {"metrics": {metric.name: entry for metric in METRICS}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    page = write_report(tmp_path).read_text(encoding="utf-8").replace("&#39;", "'")
    for metric in METRICS:
        assert page.count(f">{metric.label}<") >= 2, metric.name  # its row, and the glossary
        assert metric.meaning in page


# Streams.


def test_a_new_metric_moves_no_other(monkeypatch):
    target = TARGETS[1]
    judge = lambda: evaluate(target, exact(target), jax.random.key(7), size=SIZE, repeats=2)  # noqa: E731
    before = judge()["metrics"]
    new = dataclasses.replace(METRICS[0], name="new", function=lambda a, b: float(np.abs(a - b).mean()))
    monkeypatch.setattr(_evaluate, "METRICS", (new, *METRICS))
    after = judge()["metrics"]
    assert after.pop("new")["ratio"] is not None
    assert after == before


def test_streams_of_old_keep_their_places():
    """Figures on record depend on them."""
    key = jax.random.key(3)
    resample, mmd, w2, modes = jax.random.split(key, 4)
    of_particles = dict(zip(("w2", "w2_geometric", "energy_w2", "distance_tv"), jax.random.split(w2, 5), strict=False))
    plainly = {"resample": resample, "mmd": mmd, "w2": w2, "modes": modes, "quantities": w2}
    for own, places in ((streams.named(key), plainly), (streams.named(key, particles=True), of_particles)):
        for name, place in places.items():
            assert own(name) == place, name
    assert len({str(jax.random.key_data(streams.named(key)(metric.name))) for metric in METRICS}) >= len(METRICS) - 1
