"""The pace of training, the end that a method expects, and what is kept for after training: by
synthetic times."""

import io

import jax
import pytest
from helpers import pair, small

import allmodes as am
from allmodes.jobs.afterwards import Afterwards
from allmodes.methods.iwsm.end import expected_end, shares_of_renewals
from allmodes.progress.bar import Progress
from allmodes.progress.stages import evaluated, heard, parts_of, stage
from allmodes.training.pace import Pace

STEP, RENEWAL, EVERY = 0.01, 4.0, 400


def seconds_of(first, steps):
    """Of steps of which those at multiples of 400 renew the buffer first."""
    return sum(STEP + RENEWAL * (step > 0 and step % EVERY == 0) for step in range(first, first + steps))


def paced(steps, chunk=100):
    pace = Pace(EVERY)
    for first in range(0, steps, chunk):
        pace.add(first, chunk, seconds_of(first, chunk))
    return pace


def test_a_renewal_is_told_from_the_steps_between_two():
    pace = paced(900)
    assert pace.step == pytest.approx(STEP)
    assert pace.renewal == pytest.approx(RENEWAL)
    for first, steps in ((0, 400), (0, 401), (400, 1), (401, 399), (401, 400), (900, 5000)):
        assert pace.seconds(first, steps) == pytest.approx(seconds_of(first, steps))
    fits = pace.steps(900, 30.0, 10**9)
    assert seconds_of(900, fits) <= 30.0 < seconds_of(900, fits + 1)
    assert pace.steps(400, 1.0, 100) == 0  # the renewal is due at once


def test_before_the_first_renewal_it_is_taken_to_cost_as_much_as_the_steps_between():
    pace = paced(300)
    assert pace.renewal == pytest.approx(EVERY * STEP)
    assert Pace(1).renewal == 0.0
    assert not Pace(EVERY).known


def test_what_a_slow_density_costs_is_in_the_pace_before_the_first_renewal():
    """One of 5 ms, 4,096 evaluations a renewal: 20 s, of which no step tells."""
    pace = paced(100)
    pace.dear = 4096 * 0.005
    assert pace.seconds(100, 400) == pytest.approx(400 * STEP + EVERY * STEP + 20.48)
    seen = paced(900)
    seen.dear = 4096 * 0.005
    assert seen.renewal == pytest.approx(RENEWAL)  # what was measured counts


def test_the_share_that_training_begins_with_is_no_renewal():
    """A base with a share of .2 at step 100 does not end at step 250: the figure jumped with the
    first renewal."""
    shares = [(100, 0.2), (200, 0.2), (300, 0.25), (500, 0.25), (550, 0.3), (800, 0.6)]
    lines = [{"step": step, "refresh_ess": share} for step, share in shares]
    assert shares_of_renewals(lines[:2], 250) == [(0, 0.2)]
    assert expected_end(shares_of_renewals(lines[:2], 250), 0.7, 250, 1000, 5000) is None
    seen = shares_of_renewals(lines, 250)
    assert seen == [(0, 0.2), (300, 0.25), (550, 0.3), (800, 0.6)]
    assert expected_end(seen[:2], 0.7, 250, 1000, 5000) == 250 + 11 * 250 + 1000  # .05 in 300 steps: .45 in 2,700
    assert expected_end([(0, 0.2), (300, 0.2)], 0.9, 250, 1000, 2000) is None  # at most so many


def test_a_budget_of_evaluations_lasts_where_steps_cost_none():
    """Before the first renewal, of which nothing is known: training goes on to its own end."""
    method = small(20, local_every=0)
    searched = am.fit(pair(), method, key=jax.random.key(0), steps=1, progress=False).evaluations["log_prob"]
    allowed = int(1.2 * searched)
    sampler = am.fit(pair(), method, key=jax.random.key(0), evaluations=allowed, progress=False)
    assert int(sampler.state.step) == 20
    assert sampler.evaluations["log_prob"] == searched


# What renewals showed: steps and effective shares of the default settings, and where training
# ended.
QUICK = ([(500, 0.444), (900, 0.586)], 2800)
SLOW = (
    [(500, 0.003), (900, 0.008), (1300, 0.048), (1700, 0.095), (2100, 0.132), (2500, 0.123), (2900, 0.172),
     (3300, 0.091), (3700, 0.160), (4100, 0.280), (4500, 0.206), (4900, 0.237), (5300, 0.263), (5700, 0.097)],
    12_000,
)  # fmt: skip


@pytest.mark.parametrize(("renewals", "ended"), [QUICK, SLOW], ids=["gmm40", "mixture-10d"])
def test_the_time_left_is_right_within_a_factor_of_two(renewals, ended):
    """After every renewal of two recorded runs, the first of which ended by itself and the second
    did not."""
    assert expected_end([], 0.5, EVERY, 2000, 12_000) is None  # nothing tells yet: no figure is better than a wrong one
    for i, (step, _) in enumerate(renewals):
        end = expected_end(renewals[: i + 1], 0.5, EVERY, 2000, 12_000) or 12_000  # at most
        left = paced(step).seconds(step, end - step)
        assert 0.5 < left / seconds_of(step, ended - step) < 2.0


def test_what_comes_after_training_grows_with_the_pace_and_bounds_the_raw_draws():
    after = Afterwards(pair(), am.IWSM.thorough(), 10_000, judging=8.0, evaluation=1e-6)
    clock = {"compile": 5.0}
    unknown, known = after.seconds(Pace(EVERY), clock), after.seconds(paced(900), clock)
    # 1.53 renewals' work for 10,000 draws; 8.5 times that for raw, corrected and exact ones.
    assert known - unknown == pytest.approx(8.5 * 10_000 * 200 / (2 * 16_384 * 40) * RENEWAL)
    pools = [after.pool(left, 4.0, clock) for left in (0.0, 40.0, 60.0, 1e6)]
    assert pools == sorted(pools)
    assert (pools[0], pools[-1]) == (1, 16)
    assert 1 < pools[2] < 16


# Stages.


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    """Seconds that a test sets."""

    now = 100.0

    def monotonic(self):
        return self.now


@pytest.mark.parametrize("stream", [io.StringIO, Terminal], ids=["pipe", "terminal"])
def test_evaluations_on_the_host_are_shown_beside_a_stage(stream, monkeypatch):
    clock, stream = Clock(), stream()
    monkeypatch.setattr("allmodes.progress.bar.time", clock)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with Progress(stream=stream, every=10.0) as progress:
        stage("searching: scouts")
        for _ in range(31):
            clock.now += 1.0
            evaluated(200)
        if progress.live:
            progress._bar.refresh()
    assert f"searching: scouts · {'6.2k' if progress.live else '2k'} evals (200/s)" in stream.getvalue()
    evaluated(200)  # nobody listens any more


def work():
    stage("searching: scouts")
    stage("searching: climbs")
    for _ in parts_of(range(3), "drawing 300"):
        pass


def test_stages_are_lines_in_a_pipe_and_bars_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    pipe, terminal, quiet = io.StringIO(), Terminal(), Terminal()
    for progress in (Progress(stream=pipe), Progress(stream=terminal), Progress(stream=quiet, quiet=True)):
        with progress:
            work()
    assert pipe.getvalue().splitlines() == ["searching", "drawing 300"]
    assert "searching: climbs" in terminal.getvalue()
    assert "drawing 300" in terminal.getvalue()
    assert quiet.getvalue() == ""
    assert not heard()


@pytest.mark.trains
def test_fit_shows_a_bar_on_a_terminal_unless_told_not_to(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    shown = []
    for terminal, progress in ((Terminal(), True), (Terminal(), False), (io.StringIO(), True)):
        with monkeypatch.context() as patch:
            patch.setattr("sys.stderr", terminal)
            start = "search" if not shown else "broad"  # the search need not be seen twice
            am.fit(pair(), small(20, start=start), key=jax.random.key(3), progress=progress)
        shown.append(terminal.getvalue())
    assert "searching" in shown[0]
    assert "20/20" in shown[0]
    assert shown[1:] == ["", ""]
