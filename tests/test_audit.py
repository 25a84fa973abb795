"""The audit: basins, masses of both sides against known ones, what is said of differences, and
planted faults."""

import dataclasses
import importlib
import io
import json
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import call

import allmodes as am
from allmodes.audits import compare
from allmodes.audits.basins import find_basins
from allmodes.audits.density import representatives
from allmodes.audits.files import show, write
from allmodes.audits.measure import adapt, by_mixture
from allmodes.audits.proposal import Proposal, first_proposal, log_mixture
from allmodes.draws.draws import Draws
from allmodes.draws.verdict import CORRECT, DO_NOT_USE
from allmodes.files.run_folder import Run
from allmodes.modes import masses
from allmodes.points.frame import Frame
from allmodes.sampler import Sampler
from allmodes.targets import gaussian_mixture, get, ring

pytestmark = pytest.mark.trains

pool = importlib.import_module("allmodes.audits.explorers")
MEANS = np.array([[-8.0, 0.0], [0.0, 6.0], [7.0, -3.0]])
FEW = (pool.climbs, pool.populations)
WEIGHTS = np.array([0.2, 0.3, 0.5])


@dataclasses.dataclass(frozen=True, eq=False)
class Exact(Sampler):
    """Draws exactly, of its target or of what `source` draws; knows its density where `log_q` is
    given."""

    source: Callable | None = None
    log_q: Callable | None = None

    def sample(self, n, *, key):
        x = (self.source or self.target.sample)(key, n)
        return Draws(x, self.target.values(x), jnp.zeros(n))

    def log_weights(self, x, *, key):
        return None if self.log_q is None else self.target.values(x) - jax.vmap(self.log_q)(x)


def exact(target, source=None, log_q=None):
    return Exact(target, am.IWSM(), None, {}, source, log_q)


def unit(dim=2, scale=1.0):
    return Frame(jnp.zeros(dim), jnp.full(dim, scale))


def basins_of(target, z, narrow=0.1, scale=1.0):
    frame = unit(target.dim, scale)
    return find_basins(target, frame, narrow, np.asarray(z, np.float32), np.ones(len(z)), np.ones(len(z), bool))


# Basins.


def test_each_mode_is_a_basin_and_a_point_that_is_nowhere_is_in_none():
    target = gaussian_mixture(MEANS, [1.0, 0.25, 0.04], WEIGHTS)
    z = np.asarray(target.sample(jax.random.key(0), 600)) / 5
    basins, label, spent = basins_of(target, z, scale=5.0)
    assert basins.count == 3
    assert basins.left_out == 0
    truth = target.modes.assign(5 * z)
    pairs = {(int(a), int(b)) for a, b in zip(truth, label, strict=True) if a >= 0}
    assert len(pairs) == 3  # one label for each mode
    peaks = 5 * basins.peaks[basins.top()]
    assert np.allclose(peaks[np.argsort(peaks[:, 0])], MEANS, atol=0.05)
    assert 600 * 5 < spent < 600 * 60
    again, _ = basins.label(np.concatenate([z, [[np.nan, 0.0], [0.0, 4.0]]]))  # 20 is far from 6
    assert np.array_equal(again, [*label, 3, 3])


def test_a_ring_is_one_basin_and_two_rings_are_two():
    z = np.asarray(ring().sample(jax.random.key(1), 1000))
    basins, label, _ = basins_of(ring(), z)
    assert basins.count == 1
    assert (label == 0).all()
    assert len(basins.peaks) > 100
    fresh = np.asarray(ring().sample(jax.random.key(2), 500))
    assert (basins.label(fresh)[0] == 0).all()
    assert basins_of(get("rings"), get("rings").sample(jax.random.key(1), 1000))[0].count == 2


@pytest.mark.parametrize(("apart", "count"), [(3.0, 1), (5.0, 2)])
def test_modes_that_touch_are_one_basin(apart, count):
    """Halfway between two unit Gaussians the log-density lies `apart^2 / 8 - log 2` below their
    peaks: .4 and 2.4."""
    target = gaussian_mixture([[0.0, 0.0], [apart, 0.0]], 1.0)
    assert basins_of(target, target.sample(jax.random.key(0), 500))[0].count == count


def test_copies_of_particles_are_one_basin():
    target = get("dw4")
    frame = Frame(jnp.zeros(6), jnp.ones(6), target.symmetry)
    z = 2.0 * np.asarray(jax.random.normal(jax.random.key(0), (1, 6)))
    x = np.asarray(frame.to_x(jnp.asarray(z))).reshape(4, 2)
    copies = np.stack([x[order].ravel() for order in ([0, 1, 2, 3], [3, 1, 0, 2])] + [(x * [1, -1]).ravel()])
    basins, label, _ = find_basins(
        target, frame, 0.1, np.asarray(frame.to_z(jnp.asarray(copies))), np.ones(3), np.ones(3, bool)
    )
    assert basins.count == 1
    assert (label == 0).all()


# Masses.


def test_the_mixture_measures_masses_within_its_errors():
    target = gaussian_mixture(MEANS, [[1.0, 4.0], [0.25, 0.25], [0.5, 0.1]], WEIGHTS, log_z=3.0)
    z = np.asarray(target.sample(jax.random.key(0), 300)) / 5
    basins, label, _ = basins_of(target, z, scale=5.0)
    start = first_proposal(z, label, basins.count, np.ones(4, int), 0.02, 0)
    proposal, spent = adapt(target, basins, start, jax.random.key(1), 1000)
    assert 2900 < spent < 3100
    measure, fold = by_mixture(target, basins, proposal), np.arange(basins.count + 1)
    order, off, width = np.argsort(5 * basins.peaks[basins.top()][:, 0]), [], []
    for i in range(6):
        measured = measure(jax.random.key(10 + i), 2000)
        shares, log_z = measured.shares(fold)
        assert measured.khat < 0.7
        assert shares.mass.sum() == pytest.approx(1.0)
        assert abs(log_z.value - 3.0) < 4 * log_z.std_error
        off.append((shares.mass[order] - WEIGHTS) / shares.std_error[order])
        width.append(shares.std_error[0] / np.sqrt(shares.mass[0] * (1 - shares.mass[0]) / 2000))
    # 18 values with 12 degrees of freedom: P(chi2_12 > 33) = .001.
    assert np.sum(np.square(off)) * 12 / 18 < 33
    assert np.mean(width) < 0.8  # stratified draws know masses better than independent ones


def test_the_proposal_has_the_density_that_it_draws_from():
    proposal = Proposal(jnp.asarray([[0.0, 0.0], [3.0, 0.0]]), jnp.stack([jnp.eye(2), 0.5 * jnp.eye(2)]), jnp.ones(2))
    counts = proposal.counts(1000)
    assert abs(counts.sum() - 1000) <= 2
    side = np.linspace(-40, 40, 801)
    grid = jnp.asarray(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2), jnp.float32)
    density = np.exp(np.asarray(log_mixture(proposal.log_parts(grid), counts), float))
    assert density.sum() * 0.01 == pytest.approx(1.0, abs=2e-3)
    stratum = np.repeat(np.arange(4), 5000)
    z = np.asarray(proposal.draw(jax.random.key(0), jnp.asarray(stratum)))
    for s, (centre, deviation) in enumerate([(0, 1.2**0.5), (3, 0.5 * 1.2**0.5), (0, 5**0.5), (3, 0.5 * 5**0.5)]):
        part = z[stratum == s]
        assert abs(np.median(part[:, 0]) - centre) < 5 * 1.3 * deviation / 5000**0.5
        if s < 2:
            assert part.std(axis=0) == pytest.approx(deviation, rel=0.04)


def test_errors_of_draws_are_those_of_the_delta_method_and_at_least_one_draw():
    rng = np.random.default_rng(0)
    log_weight, label = rng.normal(size=1000), rng.integers(0, 2, 1000)
    shares = masses.of_draws(log_weight, label, 3, 500.0)
    w = np.exp(log_weight) / np.exp(log_weight).sum()
    expected = np.sqrt(np.sum(w**2 * ((label == 0) - w[label == 0].sum()) ** 2))
    assert shares.std_error[0] == pytest.approx(expected, rel=1e-3)
    assert shares.mass[2] == 0.0
    assert shares.std_error[2] == 1 / 500
    equal = masses.of_draws(np.zeros(1000), label, 3, 250.0)
    assert equal.std_error[0] == pytest.approx(np.sqrt(equal.mass[0] * (1 - equal.mass[0]) / 250))


def test_populations_disagree_by_their_error_and_cannot_tell_what_none_has_met():
    labels = [np.array([0] * 50 + [1] * 50), np.array([0] * 60 + [1] * 40), np.array([0] * 40 + [1] * 60)]
    shares, log_z = masses.of_populations(labels, np.full(3, 2.0), 3)
    assert shares.mass[:2] == pytest.approx([0.5, 0.5])
    student = 19.2 / 3  # the quantile of .99865 with two degrees of freedom, over 3
    assert shares.std_error[0] == pytest.approx(student * 0.1 / 3**0.5, rel=0.01)
    assert shares.std_error[2] == np.inf
    assert log_z.value == pytest.approx(2.0)


# Comparison.


def shares(mass, error, effective=10_000.0):
    return masses.Shares(np.array(mass), np.broadcast_to(error, len(mass)).astype(float), effective)


def test_differences_are_measured_by_both_errors_and_by_what_the_audit_expects():
    z = compare.z_scores(shares([0.5, 0.5, 0.0], 0.003), shares([0.53, 0.47, 0.0], 0.006))
    assert z == pytest.approx([0.03 / np.hypot(0.003, 0.006), -0.03 / np.hypot(0.003, 0.006), 0.0])
    unmet = compare.z_scores(shares([0.98, 0.02], 1e-4), shares([1.0, 0.0], 1e-4))
    assert unmet[1] == pytest.approx(-0.02 / np.hypot(1e-4, np.sqrt(0.02 * 0.98 / 10_000)))
    unknown = compare.z_scores(shares([0.9, 0.1], [0.01, np.inf]), shares([0.8, 0.2], 0.01))
    assert unknown[1] == 0.0


def test_a_difference_counts_when_it_comes_again_on_the_same_side():
    first, again = np.array([4.0, -4.0, 4.0, 2.0]), np.array([3.5, 4.0, 1.0, 9.0])
    assert compare.confirmed(first, again).tolist() == [True, False, False, False]


@pytest.mark.parametrize(
    ("audited", "sampled", "word"),
    [
        ([0.5, 0.5], [0.5, 0.5], compare.NO_DIFFERENCE),
        ([0.5, 0.5], [0.45, 0.55], CORRECT),
        ([0.5, 0.5], [0.35, 0.65], DO_NOT_USE),  # 15 % of the mass
        ([0.98, 0.02], [0.999, 0.001], DO_NOT_USE),  # hardly reached
        ([0.995, 0.005], [1.0, 0.0], CORRECT),
    ],
)
def test_the_word_follows_what_is_lacking(audited, sampled, word):
    a, s = shares(audited, 1e-4), shares(sampled, 1e-4)
    verdict = compare.verdict(a, s, np.array(audited) != np.array(sampled), ["note"])
    assert verdict.word == word
    assert verdict.reasons[-1] == "note"


def test_representatives_are_of_their_basin_and_follow_the_weights():
    label, log_weight = np.array([0, 0, 1, 1, 3]), np.array([0.0, -np.inf, 0.0, 50.0, 0.0])
    chosen = representatives(label, log_weight, 4, 0)
    assert (chosen[0] == 0).all()
    assert (chosen[1] == 3).all()
    assert (chosen[2] == -1).all()
    assert (chosen[3] == 4).all()


# Planted faults, on a mixture of eight modes.

MODES = 8
N = 3000  # draws of each side: an eighth of the mass is known to a twentieth of itself


@pytest.fixture(scope="module")
def eight():
    return mixture_like(np.ones(MODES))


def mixture_like(weights):
    return gaussian_mixture(get("gmm40").modes.means[:MODES], np.log1p(np.e) ** 2, weights)


def changed(mode, factor):
    weights = np.ones(MODES)
    weights[mode] = factor
    return mixture_like(np.maximum(weights, 1e-30))


@pytest.fixture(scope="module")
def lonely(eight):
    """The mode farthest from its neighbours: a basin of its own."""
    means = eight.modes.means
    distance = np.linalg.norm(means[:, None] - means, axis=-1) + 1e9 * np.eye(MODES)
    return int(np.argmax(distance.min(axis=1)))


def test_a_good_sampler_raises_no_alarm_and_its_density_is_right(eight, tmp_path):
    said = []
    audit = am.audit(exact(eight, log_q=eight.log_prob), key=jax.random.key(0), n=N, progress=said.append)
    assert not audit.failed
    assert audit.verdict.word == compare.NO_DIFFERENCE
    assert len(audit.basins) == MODES + 1  # and what is elsewhere
    assert audit.masses.startswith("importance sampling")
    assert abs(audit.log_z.value) < 4 * audit.log_z.std_error < 0.1
    assert all(abs(basin.log_ratio) < 4 * audit.log_z.std_error for basin in audit.basins)
    assert sum(basin.mass for basin in audit.basins) == pytest.approx(1.0, abs=0.01)
    parts = {k: v for k, v in audit.evaluations.items() if k != "all"}
    assert sum(parts.values()) == audit.evaluations["all"]
    assert said
    assert {"climbs", "tempered SMC", "parallel tempering", "the sampler"} == set(audit.basins[0].found_by)
    write(audit, Run(tmp_path), eight, {"seed": 0})
    stored = json.loads((tmp_path / "audit.json").read_text())
    assert stored["verdict"]["word"] == compare.NO_DIFFERENCE
    assert len(stored["basins"]) == len(audit.basins)
    assert (tmp_path / "audit.png").read_bytes().startswith(b"\x89PNG")
    out = io.StringIO()
    show(audit, file=out)
    assert out.getvalue().rstrip().endswith("no difference found")


@pytest.fixture(scope="module")
def removed(eight, lonely):
    """The audit of a sampler that was never told of one mode."""
    without = changed(lonely, 0.0)
    sampler = exact(without, log_q=without.log_prob)
    return am.audit(sampler, key=jax.random.key(1), against=eight, n=N, explorers=FEW)


def test_a_removed_mode_is_found(eight, lonely, removed):
    audit = removed
    assert audit.failed
    assert audit.verdict.word == DO_NOT_USE
    worst = audit.basins[0]
    assert worst.differs
    assert np.linalg.norm(np.array(worst.peak) - eight.modes.means[lonely]) < 0.2
    assert abs(worst.mass - 1 / MODES) < 4 * worst.std_error
    assert worst.sampler_mass == 0.0
    assert worst.log_ratio < -10
    assert worst.found_by == ["climbs", "tempered SMC"]


def test_a_weight_off_by_30_percent_is_found(eight, lonely):
    audit = am.audit(exact(changed(lonely, 0.7)), key=jax.random.key(2), against=eight, n=N, explorers=FEW)
    assert audit.failed
    assert audit.verdict.word == CORRECT
    (wrong,) = [basin for basin in audit.basins if basin.differs]
    assert np.linalg.norm(np.array(wrong.peak) - eight.modes.means[lonely]) < 0.2


def test_a_collapse_into_one_mode_ends_with_do_not_use(eight):
    """As a reverse KL leaves it: its own weights, blind to the rest, are all equal."""
    one = gaussian_mixture(eight.modes.means[:1], np.log1p(np.e) ** 2)
    audit = am.audit(exact(eight, one.sample), key=jax.random.key(3), n=N, explorers=FEW)
    assert audit.failed
    assert audit.verdict.word == DO_NOT_USE


# Misuse, and the command.


def test_misuse_is_said_in_one_line(eight):
    with pytest.raises(am.ConfigError, match="at least 500"):
        am.audit(exact(eight), key=jax.random.key(0), n=10)
    with pytest.raises(am.ConfigError, match="dimension 2"):
        am.audit(exact(eight), key=jax.random.key(0), against=get("gaussian"))


def test_the_command_writes_its_files_and_exits_by_what_it_found(eight, removed, tmp_path, monkeypatch, capsys):
    """The search itself is that of the tests above."""
    quiet = dataclasses.replace(removed, basins=[dataclasses.replace(b, differs=False) for b in removed.basins])
    asked = []

    def instead(sampler, **options):
        asked.append(options)
        return quiet if options["against"] is None else removed

    monkeypatch.setattr("allmodes.command.audit.load", lambda path: exact(eight))
    monkeypatch.setattr("allmodes.command.audit.audit", instead)
    (tmp_path / "run").mkdir()
    assert call("audit", tmp_path / "run", "-n", 1000, "--quiet") == 0
    stored = json.loads((tmp_path / "run" / "audit.json").read_text())
    assert (stored["seed"], stored["draws"]) == (0, N)
    density = tmp_path / "other.py"
    density.write_text("import jax.numpy as jnp\ndef log_prob(x):\n    return -0.5 * jnp.sum((x - 7.0) ** 2)\n")
    options = ["--against", f"{density}:log_prob", "--out", tmp_path / "out"]
    assert call("audit", tmp_path / "run", *options, "--dim", 2, "--seed", 5) == 1
    assert "do not use" in capsys.readouterr().out
    assert (tmp_path / "out" / "audit.png").exists()
    assert [options["n"] for options in asked] == [1000, None]
    assert asked[1]["against"].name == "other"
    assert call("audit", tmp_path / "run", *options) == 2
    assert call("audit", tmp_path / "run", "--dim", 2) == 2
    assert call("audit", tmp_path / "nowhere", "--against", "gmm41") == 2
    assert len(asked) == 2


def test_the_command_audits_a_saved_run(eight, tmp_path, monkeypatch, capsys):
    """The density from a file; it is the one of the tests above, so that all is compiled."""
    density = tmp_path / "eight.py"
    density.write_text(
        "import numpy as np\n"
        "from allmodes.targets import gaussian_mixture, get\n"
        f"modes = get('gmm40').modes.means[:{MODES}]\n"
        f"target = gaussian_mixture(modes, np.log1p(np.e) ** 2, np.ones({MODES}))\n"
    )
    target = am.find_target(f"{density}:target")
    am.fit(target, am.SMC(particles=250), key=jax.random.key(0)).save(tmp_path / "run")
    monkeypatch.setattr(importlib.import_module("allmodes.audits.audit"), "EXPLORERS", FEW)
    assert call("audit", tmp_path / "run", "-n", N, "--quiet") == 0
    assert f"{MODES + 1} basins" in capsys.readouterr().out  # and what is elsewhere
    stored = json.loads((tmp_path / "run" / "audit.json").read_text())
    (peaks, masses) = zip(*((basin["peak"], basin["mass"]) for basin in stored["basins"] if basin["peak"]), strict=True)
    nearest = np.linalg.norm(np.asarray(peaks)[:, None] - eight.modes.means, axis=-1).argmin(axis=1)
    assert sorted(nearest) == list(range(MODES))
    assert masses == pytest.approx([1 / MODES] * MODES, abs=0.02)
