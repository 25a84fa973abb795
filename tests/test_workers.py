"""Functions on the host: processes that evaluate them, errors that they raise, and where they are
tried first."""

import multiprocessing.pool
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import same_bits
from on_host import batched_pair, centred, ends_its_process, fails_everywhere, fails_on_the_left, pair, slope

import allmodes as am
from allmodes.devices.callbacks import watched
from allmodes.devices.workers import MOST, Here, Pool, Task, Workers

QUICK = am.SMC(particles=64)


@pytest.fixture(scope="module")
def points():
    return np.random.default_rng(0).normal(size=(331, 2))


# Processes.


def test_workers_give_the_same_bits_in_any_number(points):
    tasks = (Task((pair,), ((),), False), Task((pair, slope), ((), (2,)), False), Task((batched_pair,), ((),), True))
    exact = [Here(tasks)(i, points) for i in range(2)]
    two, one = Workers(2, tasks), Workers(1, tasks)
    for i in range(2):
        assert same_bits(two(i, points).values, exact[i].values)
    assert same_bits(two(2, points).values, one(2, points).values)
    np.testing.assert_allclose(two(2, points).values[0], exact[0].values[0], rtol=1e-12)
    with multiprocessing.pool.ThreadPool(3) as pool:
        assert same_bits(Pool(pool, tasks)(1, points).values, exact[1].values)
        assert same_bits(Pool(pool, tasks)(2, points).values, one(2, points).values)
    assert exact[1].values[1].shape == (331, 2)
    empty = two(1, points[:0])
    assert [v.shape for v in empty.values] == [(0,), (0, 2)]


@pytest.mark.slow
def test_draws_and_counts_are_those_of_one_process():
    made = []
    for workers in (1, 2):
        target = am.interop.numpy.target(batched_pair, 2, batched=True, workers=workers)
        draws = am.fit(target, QUICK, key=jax.random.key(0)).sample(64, key=jax.random.key(1))
        made.append((draws, am.interop.numpy.cost(target)))
    (one, cost), (two, other) = made
    assert same_bits((one.x, one.log_prob, one.log_weight), (two.x, two.log_prob, two.log_weight))
    assert (cost.calls, cost.points) == (other.calls, other.points)
    assert one.evaluations == two.evaluations
    assert abs(one.log_z.value) < 5 * one.log_z.std_error < 1.0


def test_a_nested_likelihood_has_workers_too(points):
    transform = centred
    values = []
    for more in ({}, {"workers": 1}):
        target = am.interop.nested.target(pair, transform, 2, **more)
        values.append(target.free.values(jnp.asarray(points, jnp.float32)))
    assert same_bits(*values)


def test_what_processes_cannot_have_is_said_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    hidden = lambda x: -float(np.sum(x**2))  # noqa: E731
    with pytest.raises(am.ConfigError, match=r"<lambda> cannot be sent to worker processes .*put it at the top level"):
        am.interop.numpy.target(hidden, 2, workers=1)
    with (
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool,
        pytest.raises(am.ConfigError, match=r"the pool cannot send <lambda> .*put it at the top level"),
    ):
        am.interop.numpy.target(hidden, 2, pool=pool)


def test_cloudpickle_sends_what_has_no_name():
    pytest.importorskip("cloudpickle", reason="cloudpickle is not installed: lambdas are not sent")
    shift = 3.0
    target = am.interop.numpy.target(lambda x: -float(np.sum((x - shift) ** 2)), 2, workers=1)
    np.testing.assert_allclose(target.values(jnp.array([[3.0, 4.0]])), [-1.0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": 0}, "workers must be a whole number of at least 1, got 0"),
        ({"pool": 3}, r"pool must have a method map\(function, list\), got a int"),
        ({"workers": 1, "pool": multiprocessing.pool}, "workers and pool are two ways to do one thing"),
        ({"batched": -1}, "batched must be True, False, or at least 1 point at a time, got -1"),
    ],
)
def test_pools_that_cannot_be(given, words):
    with pytest.raises(am.ConfigError, match=words):
        am.interop.numpy.target(pair, 2, **given)


def test_a_killed_worker_is_an_error_that_says_so():
    target = am.interop.numpy.target(ends_its_process, 2, workers=1)
    np.testing.assert_allclose(target.values(jnp.array([[1.0, 1.0]])), [-1.0])
    with pytest.raises(am.JobError, match="a worker process ended while it evaluated ends_its_process"):
        watched(lambda: jax.block_until_ready(target.values(jnp.array([[200.0, 1.0]]))))()
    np.testing.assert_allclose(target.values(jnp.array([[1.0, 1.0]])), [-1.0])  # they are begun anew


SCRIPT = """
    import numpy as np
    import allmodes as am

    def log_prob(x):
        return -0.5 * float(np.sum(x ** 2))
"""


def run(folder, text):
    (folder / "script.py").write_text(textwrap.dedent(SCRIPT + text))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


def test_a_script_works_below_its_guard_and_is_told_so(tmp_path):
    """The module of the function is the script itself, which each worker imports."""
    evaluate = """
    target = am.interop.numpy.target(log_prob, 2, workers=1)
    {}print(target.values(np.ones((3, 2), np.float32)))
    """
    status, out, err = run(tmp_path, evaluate.format('if __name__ == "__main__": '))
    assert (status, out) == (0, "[-1. -1. -1.]\n"), err
    status, out, err = run(tmp_path, evaluate.format(""))
    assert status == 1
    assert "must do its work below `if __name__ == '__main__':`" in err.splitlines()[-1]


# Batches.


def test_a_batch_is_no_larger_than_was_said():
    sizes = []

    def log_prob(x):
        sizes.append(len(x))
        return -np.sum(x**2, 1)

    target = am.interop.numpy.target(log_prob, 2, batched=100)
    sizes.clear()
    target.values(jnp.zeros((250, 2)))
    assert sizes == [100, 100, 50]
    target = am.interop.numpy.target(log_prob, 2, batched=True)
    sizes.clear()
    target.values(jnp.zeros((MOST + 5, 2)))
    assert sizes == [MOST, 5]


# Errors.


def test_a_call_of_the_library_tells_once_of_all_errors():
    target = am.interop.numpy.target(fails_on_the_left, 2)
    x = jnp.array([[1.0, 0.0], [-2.0, 0.0], [-3.0, 0.0]])
    with pytest.warns(UserWarning, match=r"fails_on_the_left raised an error at 40 points, .*: on the left") as seen:
        watched(lambda: [jax.block_until_ready(target.values(x)) for _ in range(20)])()
    assert len(seen) == 1
    with pytest.warns(UserWarning, match="raised an error at 2 points"):  # of calls of the user's own at once
        values = jax.block_until_ready(target.values(x))
    np.testing.assert_array_equal(jnp.isfinite(values), [True, False, False])
    assert am.interop.numpy.cost(target).failed == 42


def test_a_function_that_fails_wherever_it_is_tried_is_refused_with_its_own_error():
    with pytest.raises(am.TargetError, match="fails_everywhere fails on points of zeros and at 8 other") as error:
        am.interop.numpy.target(fails_everywhere, 2)
    assert isinstance(error.value.__cause__, ArithmeticError)
    assert "location=" in str(error.value)


def fails_but_near_three(x):
    if abs(x[0] - 3.0) > 0.6:
        raise ArithmeticError("too far")
    return -float(np.sum((x - 3.0) ** 2))


def test_what_is_tried_is_where_the_user_said():
    tried = []

    def log_prob(x):
        tried.append(x.copy())
        return -float(np.sum(x))

    am.interop.numpy.target(log_prob, 2, location=3.0)
    am.interop.numpy.target(log_prob, 2, bounds=[(0.0, 4.0), (1.0, None)])
    am.interop.numpy.target(log_prob, 2, bounds=[(0.0, 4.0), None], location=[1.0, 7.0])
    am.interop.nested.target(log_prob, lambda u: 6.0 * np.array(u, float) + 1.0, 2)
    np.testing.assert_allclose(tried, [[3, 3], [2, 2], [1, 7], [4, 4]])
    am.interop.numpy.target(fails_but_near_three, 2, location=3.0)
    am.interop.numpy.target(fails_but_near_three, 2, location=2.0)  # it does not fail at all places around
    with pytest.raises(am.TargetError, match="fails_but_near_three fails on points of zeros"):
        am.interop.numpy.target(fails_but_near_three, 2, scale=0.01)


def test_a_nested_likelihood_may_fail_at_the_middle_of_the_prior():
    def log_likelihood(theta):
        if abs(theta[0]) < 1e-9:
            raise ZeroDivisionError("at the middle")
        return -float(np.sum(np.array(theta, float) ** 2))

    target = am.interop.nested.target(log_likelihood, centred, 2)
    assert float(target.log_prob(jnp.array([1.0, 2.0]))) == -5.0
    with pytest.raises(am.TargetError, match="fails_everywhere fails at the middle of the prior and at 8 other") as no:
        am.interop.nested.target(fails_everywhere, centred, 2)
    assert isinstance(no.value.__cause__, ArithmeticError)


def test_a_density_that_fails_wherever_the_search_looks_names_its_error():
    def log_prob(x):
        if np.any(x != 0.0):
            raise ArithmeticError("but at zero")
        return 0.0

    target = am.interop.numpy.target(log_prob, 2)
    with pytest.raises(am.TargetError, match="The first error was ArithmeticError: but at zero") as error:
        am.fit(target, QUICK, key=jax.random.key(0))
    assert isinstance(error.value.__cause__, ArithmeticError)


def test_workers_find_the_functions_of_a_users_file(tmp_path):
    """Which starts workers of its own, as a worker imports it: they are not started there."""
    text = "target = am.interop.numpy.target(log_prob, 2, workers=1)\n"
    (tmp_path / "model.py").write_text(textwrap.dedent(SCRIPT) + text)
    target = am.find_target(f"{tmp_path / 'model.py'}:target")
    np.testing.assert_allclose(target.values(jnp.ones((3, 2))), [-1.0, -1.0, -1.0])
