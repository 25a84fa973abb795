"""Counts of evaluations: exact in compiled code, beyond 32 bits."""

import jax
import jax.numpy as jnp
import pytest

from allmodes.points.count import Counter, Evaluations
from allmodes.target import Evaluation


def test_exact_beyond_32_bits_in_compiled_code():
    n, steps = 999_999_937, 30

    @jax.jit
    def count(c):
        return jax.lax.scan(lambda c, _: (c + n, None), c, length=steps)[0]

    counter = count(Counter.zero())
    assert int(counter) == n * steps > 2**34
    assert counter.low.dtype == counter.high.dtype == jnp.int32


def test_carry():
    counter = Counter.zero() + 999_999_999
    assert (int(counter.high), int(counter.low)) == (0, 999_999_999)
    counter = counter + 1
    assert (int(counter.high), int(counter.low)) == (1, 0)
    counter = counter + 999_999_999
    assert (int(counter.high), int(counter.low)) == (1, 999_999_999)
    counter = counter + 999_999_999
    assert (int(counter.high), int(counter.low)) == (2, 999_999_998)
    assert int(counter) == 1 + 3 * 999_999_999


def test_adds_one_point_to_a_large_count():
    # A float32 would lose it from 2^24 on, an int32 from 2^31 on.
    start = Counter(jnp.asarray(1_000_000, jnp.int32), jnp.asarray(5, jnp.int32))
    assert int(jax.jit(lambda c: c + 1)(start)) == 10**15 + 6


def test_traced_number_of_points():
    counter = jax.jit(lambda n: Counter.zero() + n)(jnp.asarray(123_456_789, jnp.int32))
    assert int(counter) == 123_456_789


def batch(n, nan, zero):
    return Evaluation(jnp.zeros(n), jnp.zeros((n, 2)), jnp.asarray(nan, jnp.int32), jnp.asarray(zero, jnp.int32))


def as_tuple(e):
    return int(e.log_prob), int(e.gradient), int(e.nan), int(e.zero)


def test_evaluations_of_a_batch():
    e = Evaluations.none()
    assert as_tuple(e) == (0, 0, 0, 0)
    e = e.add(batch(7, 2, 1)).add(batch(5, 0, 3))
    assert as_tuple(e) == (12, 12, 2, 4)


@pytest.mark.parametrize("gradient", [True, False])
def test_evaluations_with_and_without_gradients(gradient):
    e = Evaluations.none().add(batch(10, 1, 1)).add_points(100, 3, 4, gradient=gradient)
    assert as_tuple(e) == (110, 110 if gradient else 10, 4, 5)


def test_evaluations_in_a_loop():
    e = jax.jit(lambda e: jax.lax.fori_loop(0, 1000, lambda i, e: e.add_points(8_388_608, i % 2, 1), e))(
        Evaluations.none()
    )
    assert as_tuple(e) == (8_388_608_000, 8_388_608_000, 500, 1000)


def test_what_evaluations_were_for_adds_up_beyond_32_bits():
    """In compiled code, and over sums of two counts."""

    @jax.jit
    def spend(e):
        for purpose, n in (("scouts", 999_999_999), ("climbs", 999_999_998), ("scouts", 5), ("moves", 7)):
            e = e.add_points(n, 0, 0).book(purpose)
        return e.add_points(11, 0, 0)

    once = spend(Evaluations.none())
    assert once.spent("chains") == {"scouts": 1_000_000_004, "climbs": 999_999_998, "moves": 7, "chains": 11}
    twice = jax.tree.map(jnp.add, once, once)
    assert twice.spent("training") == {"scouts": 2_000_000_008, "climbs": 1_999_999_996, "moves": 14, "training": 22}
    assert sum(twice.spent("training").values()) == int(twice.log_prob)
    assert twice.book("training").spent("training") == twice.spent("training")
