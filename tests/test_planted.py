"""Faults that `benchmarks/planted.py` plants are where it says."""

import jax
import numpy as np
import pytest

import allmodes as am
from benchmarks import planted
from benchmarks.cases import CASES


@pytest.fixture(scope="module")
def searched():
    case = CASES["two-5d"]()
    return case, am.IWSM().init(case.target.free, jax.random.key(0))


def share_of_base(case, state, mode):
    log_share = np.asarray(state.denoiser.base.mixture.log_share, float)
    return np.exp(log_share)[planted.Where.of(case, state).components == mode].sum()


def test_a_mode_is_left_out_of_the_base_the_buffer_or_both(searched):
    case, state = searched
    assert share_of_base(case, state, 0) == pytest.approx(0.3, abs=0.02)
    for base, buffer in ((True, True), (True, False), (False, True)):
        lacks = planted.lacking(lambda case: 0, base=base, buffer=buffer)(case, state)
        assert (share_of_base(case, lacks, 0) == 0.0) == base
        assert share_of_base(case, lacks, 1) == pytest.approx(1.0 if base else 0.7, abs=0.02)
        assert bool(np.all(planted.Where.of(case, lacks).points != 0)) == buffer
        averaged = lacks.average.base.mixture.log_share
        np.testing.assert_array_equal(averaged, lacks.denoiser.base.mixture.log_share)


def test_weights_are_off_in_base_and_buffer_alike(searched):
    case, state = searched
    off = planted.one_times(0.5)(case, state)
    there = 0.15 / 0.85
    assert share_of_base(case, off, 0) == pytest.approx(there, abs=0.02)
    was = np.mean(planted.Where.of(case, state).points == 0)
    expected = 0.5 * was / (1.0 - 0.5 * was)
    assert np.mean(planted.Where.of(case, off).points == 0) == pytest.approx(expected, abs=0.02)


def test_a_narrow_mode_is_the_heaviest_one(searched):
    case, state = searched
    narrow, old = planted.narrow(0.25)(case, state).denoiser.base.mixture, state.denoiser.base.mixture
    is_heavy = planted.Where.of(case, state).components == 1
    ratio = np.asarray(narrow.variance / old.variance)
    np.testing.assert_allclose(ratio[is_heavy], 0.25, rtol=1e-5)
    np.testing.assert_allclose(ratio[~is_heavy], 1.0, rtol=1e-5)


def test_a_narrow_frame_leaves_base_and_points_where_they_were(searched):
    case, state = searched
    small = planted.frame_times(1 / 3)(case, state)
    x, moved = state.frame.to_x(state.buffer.z[:50]), small.frame.to_x(small.buffer.z[:50])
    np.testing.assert_allclose(moved, x, rtol=1e-4, atol=1e-4)
    at = small.frame.evaluate(case.target.free, small.buffer.z[:50])
    np.testing.assert_allclose(at.log_prob, small.buffer.log_prob[:50], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(at.grad, small.buffer.grad[:50], rtol=1e-2, atol=1e-3)
    log_density = lambda s: s.denoiser.base.mixture.log_density(s.buffer.z[:50]) - s.frame.log_det  # noqa: E731
    np.testing.assert_allclose(log_density(small), log_density(state), rtol=1e-4, atol=1e-2)


def test_every_fault_is_named_once():
    names = [(fault.case, fault.name) for fault in (*planted.CONTROLS, *planted.FAULTS)]
    assert len(set(names)) == len(names)
    assert len(planted.FAULTS) == 20
