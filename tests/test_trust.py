"""The verdict: each figure alone can lower it, and each reason carries its figure."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from allmodes.draws import verdict as trust
from allmodes.draws.doubt import Doubt
from allmodes.draws.draws import Draws
from allmodes.draws.estimates import Estimate, beyond_largest, khat
from allmodes.draws.verdict import CORRECT, DO_NOT_USE, TRUSTED, Finding, Pool, Seen, as_dict, judge

GOOD = {
    "n": 10_000, "ess": 9300.0, "khat": 0.21, "log_z_error": 0.004, "forward_ess": 0.91, "exact": True,
    "modes": (40, 40), "broken": 0,
}  # fmt: skip


def said(**changes):
    verdict = judge(Seen(**{**GOOD, **changes}))
    return verdict.word, verdict.reasons


def test_good_figures_are_trusted_and_shown():
    word, reasons = said()
    assert word == TRUSTED == "trusted"
    assert len(reasons) == 3
    for figure, reason in zip(("93%", "0.21", "0.91"), reasons, strict=True):
        assert figure in reason


def test_draws_that_stand_in_for_exact_ones_are_called_so():
    assert "reference draws give a forward ESS of 0.91" in said(known="reference draws")[1]


# A figure on either side of its threshold, the word beyond it, and what the reason must show.
THRESHOLDS = [
    ({"ess": 8001.0}, {"ess": 7990.0}, CORRECT, "80%"),
    ({"n": 120, "ess": 100.5}, {"n": 120, "ess": 99.4}, DO_NOT_USE, "only 99.4 of 120 "),
    ({"khat": 0.7}, {"khat": 0.705}, CORRECT, "k^ 0.7"),  # nearly all draws count all the same
    ({"khat": 0.7}, {"khat": 0.705, "ess": 7900.0}, DO_NOT_USE, "k^ 0.7"),
    ({"khat": 0.7}, {"khat": 1.0}, DO_NOT_USE, "k^ 1.0"),
    ({"khat": 0.7}, {"khat": float("inf")}, DO_NOT_USE, "k^ inf"),
    ({"khat": 0.7}, {"khat": float("nan")}, DO_NOT_USE, "k^ nan"),
    ({"log_z_error": 0.1}, {"log_z_error": 0.13}, CORRECT, "0.13"),
    ({"log_z_error": 0.1}, {"log_z_error": float("nan")}, CORRECT, "nan"),
    ({"forward_ess": 0.8}, {"forward_ess": 0.79}, CORRECT, "0.79"),
    ({"forward_ess": 0.8}, {"forward_ess": 0.03}, DO_NOT_USE, "0.03"),
    ({"modes": (40, 40)}, {"modes": (37, 40)}, DO_NOT_USE, "3 of 40 known modes"),
    ({"broken": 0}, {"broken": 1200}, CORRECT, "1,200 of 10,000 draws"),
]


@pytest.mark.parametrize(("within", "beyond", "word", "figure"), THRESHOLDS)
def test_each_figure_alone_lowers_the_word(within, beyond, word, figure):
    assert said(**within)[0] == TRUSTED
    got, reasons = said(**beyond)
    assert got == word
    assert any(figure in reason for reason in reasons)


def test_the_thresholds_are_the_documented_ones():
    """Pareto k^ as in Vehtari et al. 2024; the others are ours, and figures in the docs depend on
    them."""
    assert (trust.MAX_KHAT, trust.MIN_SHARE, trust.MIN_EFFECTIVE) == (0.7, 0.8, 100)
    assert (trust.MIN_FORWARD, trust.MAX_ERROR) == (0.05, 0.1)


def test_a_small_forward_ess_is_worse_than_a_middling_one():
    assert said(forward_ess=trust.MIN_FORWARD)[0] == CORRECT
    assert said(forward_ess=0.99 * trust.MIN_FORWARD)[0] == DO_NOT_USE


def test_a_point_of_training_in_a_tail_condemns_nothing_where_nearly_all_draws_are_effective():
    """The forward ESS of exact draws is as low where a bent mode's tail is too light; in a neck, of
    which hardly any point of training lies, it is too, but fewer draws are effective."""
    beside = dict(exact=False, modes=None, forward_ess=1e-4)
    next_to_nothing, some = Doubt(0.0, 1e-4, 11_000), Doubt(0.0, 0.01, 300)
    word, reasons = said(**beside, ess=9200.0, doubt=next_to_nothing)
    assert word == CORRECT
    assert any("forward ESS 0.0001), with less than 0.1% of the mass" in reason for reason in reasons)
    assert said(**beside, ess=8900.0, doubt=next_to_nothing)[0] == DO_NOT_USE
    assert said(**beside, ess=9200.0, doubt=some)[0] == DO_NOT_USE
    assert said(**beside, ess=9200.0, doubt=None)[0] == DO_NOT_USE


def test_the_worst_figure_decides_whatever_its_place():
    assert said(modes=(39, 40), broken=1)[0] == DO_NOT_USE  # a milder one after a worse one
    assert said(ess=5000.0, modes=(39, 40))[0] == DO_NOT_USE  # and before it
    assert len(said(ess=50.0, khat=0.9, log_z_error=1.0, forward_ess=0.01, modes=(1, 40), broken=3)[1]) == 6


def test_without_exact_draws_the_blind_spot_is_said():
    word, reasons = said(exact=False, modes=None)
    assert word == TRUSTED
    assert "without exact draws" in reasons[-1]
    assert "neither the search nor a draw has met" in reasons[-1]
    assert any("the points that training ended with" in reason for reason in reasons)
    assert not any("without exact draws" in reason for reason in said()[1])


def test_what_is_not_known_is_not_judged():
    word, reasons = said(forward_ess=None, modes=None)
    assert word == TRUSTED
    assert not any("forward" in reason or "modes" in reason for reason in reasons)


def test_no_mass_anywhere_is_not_for_use():
    word, reasons = said(ess=0.0, khat=float("inf"), log_z_error=float("inf"), forward_ess=0.0, broken=10_000)
    assert word == DO_NOT_USE
    assert any("10,000 of 10,000 draws have no mass" in reason for reason in reasons)


@pytest.mark.parametrize("figure", ["ess", "forward_ess"])
def test_a_figure_that_is_not_a_number_is_never_trusted(figure):
    assert said(**{figure: float("nan")})[0] == DO_NOT_USE


def test_few_but_perfect_draws_do_not_blame_the_sampler():
    word, reasons = said(n=50, ess=50.0)
    assert word != TRUSTED  # 50 are too few to tell
    assert not any("far from the target" in reason for reason in reasons)


def test_as_dict_is_what_a_result_holds():
    assert as_dict(judge(Seen(**GOOD))) == {"word": "trusted", "reasons": said()[1]}


@pytest.mark.parametrize("khat", [0.75, 1.7, float("inf")])
def test_a_tail_that_next_to_nothing_is_in_condemns_nothing(khat):
    """Weights that are all but equal have a tail too, whose shape is that of the last digits."""
    word, reasons = said(khat=khat, ess=9850.0)
    assert word == TRUSTED
    assert any("next to nothing of their sum is in it" in reason for reason in reasons)
    assert said(khat=float("nan"), ess=9850.0)[0] == DO_NOT_USE


@pytest.mark.parametrize("khat", [1.02, 2.0, float("inf")])
def test_a_tail_that_little_is_in_asks_for_weights_and_condemns_nothing(khat):
    """Of 10,000 weights the largest was 4.4 times their mean, and k^ 1.00: a tail that ends."""
    assert said(khat=khat, ess=9501.0)[0] == CORRECT
    assert said(khat=khat, ess=9400.0)[0] == DO_NOT_USE
    assert said(khat=float("nan"), ess=9500.0)[0] == DO_NOT_USE


def test_a_tail_that_has_next_to_nothing_beyond_its_largest_weight_asks_for_weights():
    word, reasons = said(khat=0.74, ess=7300.0, beyond=0.004)
    assert word == CORRECT
    assert any("0.4% of their sum" in reason for reason in reasons)
    assert said(khat=0.74, ess=7300.0, beyond=0.011)[0] == DO_NOT_USE
    assert said(khat=0.76, ess=7300.0, beyond=0.0)[0] == DO_NOT_USE  # of 10,000
    assert said(khat=float("nan"), ess=7300.0, beyond=0.0)[0] == DO_NOT_USE
    corrected = dict(khat=None, ess=10_000.0, n=10_000, forward_ess=None)
    kept = dict(n=24_000, ess=17_500.0, khat=0.73, log_z_error=0.004)
    assert said(**corrected, pool=Pool(**kept, beyond=0.006))[0] != DO_NOT_USE
    assert said(**corrected, pool=Pool(**kept))[0] == DO_NOT_USE


def test_averages_are_right_where_little_lies_beyond_the_largest_weight():
    """Weights of one, and a tenth of them with a Pareto tail, all of mean one: whatever is not
    condemned is right."""
    rng, n, k = np.random.default_rng(2), 100_000, 0.75
    off = []
    for _ in range(20):
        w = np.where(rng.random(n) < 0.1, (1.0 - k) * rng.random(n) ** -k, 1.0)
        shape = khat(np.log(w))
        if shape > trust.MAX_KHAT and said(n=n, khat=shape, beyond=beyond_largest(np.log(w), shape))[0] == CORRECT:
            off.append(abs(np.log(np.mean(w))))
    assert len(off) >= 5
    assert max(off) < 0.02


# One sampler, one word: what is made of weighted draws is never better than they allow.

SOUND = Pool(40_000, 18_000.0, 0.3, 0.004, 0.6)
CORRECTED = {"khat": None, "equal": True, "exact": False, "modes": None, "forward_ess": None, "ess": 8200.0}


def of_pool(**changes):
    return said(**CORRECTED, pool=Pool(**{**SOUND.__dict__, **changes}))


def test_a_correction_mends_uneven_weights():
    word, reasons = of_pool()
    assert word == TRUSTED
    assert any("45% of the 40,000 weighted draws" in reason for reason in reasons)


@pytest.mark.parametrize(
    ("changes", "word", "figure"),
    [
        ({"ess": 7.0}, DO_NOT_USE, "only 7 of the 40,000 weighted draws"),
        ({"khat": 0.78}, DO_NOT_USE, "k^ 0.78"),
        ({"khat": 0.79, "ess": 37_200.0}, CORRECT, "k^ 0.79"),
        ({"forward_ess": 5e-55}, DO_NOT_USE, "forward ESS 5e-55"),
        ({"n": 60, "ess": 50.0}, CORRECT, "60 weighted draws"),
        ({"doubt": Doubt(0.03, 0.003, 2048)}, CORRECT, "leave out 3.0% of the mass"),
        ({"doubt": Doubt(0.2, 0.01, 2048)}, DO_NOT_USE, "leave out 20.0% of the mass"),
    ],
)
def test_it_does_not_mend_what_the_weighted_draws_showed(changes, word, figure):
    got, reasons = of_pool(**changes)
    assert got == word
    assert any(figure in reason for reason in reasons)


def weighted(log_weight, **more):
    n = len(log_weight)
    x = jax.random.normal(jax.random.key(0), (n, 2))
    return Draws(x, jnp.zeros(n), jnp.asarray(log_weight), n, **more)


def test_resampled_draws_are_no_better_than_the_weighted_ones():
    heavy = 1.5 * np.random.default_rng(0).exponential(size=4000)  # a Pareto tail of k = 1.5
    raw = weighted(heavy)
    fair = raw.resample(jax.random.key(1))
    assert raw.verdict().word == fair.verdict().word == DO_NOT_USE
    assert fair.pool.khat == raw.khat
    assert fair.resample(jax.random.key(2)).pool == fair.pool  # and so on


def test_resampled_populations_keep_that_they_disagree():
    apart = jnp.where(jnp.arange(4000)[:, None] % 2 == 0, -50.0, 50.0) + jax.random.normal(jax.random.key(3), (4000, 2))
    raw = Draws(apart, jnp.zeros(4000), jnp.zeros(4000), 4000, Estimate(0.0, 0.01), chains=4)
    assert raw.verdict().word == raw.resample(jax.random.key(1)).verdict().word == DO_NOT_USE


def test_findings_lower_the_word_and_go_along():
    found = (Finding(DO_NOT_USE, "a region is missing"),)
    raw = weighted(np.zeros(500), findings=found)
    assert "a region is missing" in raw.verdict().reasons
    assert raw.verdict().word == raw.resample(jax.random.key(1)).verdict().word == DO_NOT_USE


def test_what_must_not_be_used_comes_with_no_advice_to_use_its_weights():
    for worse in ({"modes": (39, 40)}, {"khat": 2.0}, {"forward_ess": 0.01}):
        word, reasons = said(ess=5000.0, **worse)
        assert word == DO_NOT_USE
        assert not any("use their weights" in reason for reason in reasons)
    assert any("use their weights" in reason for reason in said(ess=5000.0)[1])
