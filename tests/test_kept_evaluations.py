"""Evaluations on the host are kept in the run folder: a run that was killed pays for none twice,
and ends as one that was not."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import same_bits

import allmodes as am
from allmodes.files.evaluations import NAME, Rows
from allmodes.files.run_folder import Run
from allmodes.method import Untrained
from allmodes.points.count import Evaluations


def test_rows_are_found_by_their_points_also_by_another_process(tmp_path):
    path, rng = tmp_path / NAME, np.random.default_rng(0)
    x, value, slope = rng.normal(size=(5, 2)), rng.normal(size=(5, 1)), rng.normal(size=(5, 2))
    rows = Rows(path, 2, (1, 2))
    rows.add(x[:3], [value[:3]])
    rows.add(x[2:], [value[2:], slope[2:]])
    for found in (rows, Rows(path, 2, (1, 2))):
        assert len(found) == 5
        known, (values,) = found.find(np.concatenate([x, x + 1.0]), 1)
        np.testing.assert_array_equal(known, np.arange(10) < 5)
        np.testing.assert_array_equal(values[:5], value)
        known, (values, slopes) = found.find(x, 2)
        np.testing.assert_array_equal(known, [False, False, True, True, True])
        np.testing.assert_array_equal(slopes[2:], slope[2:])
        assert np.isnan(values[:2]).all()


def test_a_row_that_was_not_finished_is_cut_off(tmp_path):
    path, x = tmp_path / NAME, np.arange(4.0).reshape(2, 2)
    Rows(path, 2, (1,)).add(x, [x[:, :1]])
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    rows = Rows(path, 2, (1,))
    np.testing.assert_array_equal(rows.find(x, 1)[0], [True, False])
    rows.add(x[1:], [x[1:, :1]])
    assert path.read_bytes() == whole
    path.write_bytes(whole[:5])  # not even the first line
    assert len(Rows(path, 2, (1,))) == 0
    with pytest.raises(am.RunError, match="holds evaluations of another function: delete it"):
        Rows(path, 3, (1,))


class Paid:
    """Two normals of many points, that counts them, and stops the process at one of them."""

    def __init__(self, stop=None):
        self.points, self.stop = 0, stop

    def __call__(self, x):
        self.points += len(x)
        if self.stop is not None and self.points > self.stop:
            raise KeyboardInterrupt
        return np.logaddexp(-2.0 * ((x + 2) ** 2).sum(1), -2.0 * ((x - 2) ** 2).sum(1))


class Asked(NamedTuple):
    values: jax.Array
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class Asks(Untrained):
    """A method that asks for 40 times 700 random points."""

    name: str = "asks"

    def init(self, target, key):
        keys = jax.random.split(key, 40)
        found = [jax.block_until_ready(target.values(jax.random.normal(k, (700, 2)))) for k in keys]
        return Asked(jnp.stack(found), jnp.zeros((), jnp.int32))

    def template(self, target):
        return Asked(jax.ShapeDtypeStruct((40, 700), jnp.float32), jax.ShapeDtypeStruct((), jnp.int32))

    def points(self, state): ...

    def evaluations(self, state):
        return Evaluations.none()

    def sampler(self, target, state, seconds):
        return AskedSampler(target, self, state, seconds)


class AskedSampler(am.Sampler):
    def sample(self, n, *, key):
        raise NotImplementedError


def test_what_was_paid_for_is_not_paid_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr("allmodes.interop.host.QUICK", 0.0)

    def fitted(paid, run, resume):
        target = am.interop.numpy.target(paid, 2, batched=True)
        paid.points = 0
        sampler = am.fit(target, Asks(), key=0, run=run, resume=resume)
        return am.interop.numpy.cost(target), sampler.state.values

    whole, stopped, again = Paid(), Paid(stop=10_000), Paid()
    _, one = fitted(whole, Run(tmp_path / "whole"), resume=False)
    assert whole.points == 28_000
    run = Run(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        fitted(stopped, run, resume=False)
    kept = len(Rows(run / NAME, 2, (1,)))
    assert 10_000 - 256 <= kept <= 10_000
    cost, two = fitted(again, run, resume=True)
    assert (again.points, cost.points, cost.found) == (28_000 - kept, 28_000 - kept, kept)
    assert same_bits(one, two)
    new = Paid()
    fitted(new, run, resume=False)  # a new run forgets
    assert new.points == 28_000


def test_a_quick_function_is_not_kept(tmp_path):
    paid = Paid()
    host = am.interop.numpy.target(paid, 2, batched=True).log_prob.host
    with host.keeping(tmp_path / NAME):
        for seed in range(20):
            host.values(np.random.default_rng(seed).normal(size=(5000, 2)))
    assert paid.points >= 100_000
    assert (tmp_path / NAME).stat().st_size < 20_000 * 32  # of 100,000 rows
