"""The target: what it makes of values that are no numbers, and what it says of functions that are
no densities."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

import allmodes as am
from allmodes import Target, TargetError

INF = np.inf


def patchy(x):
    """-|x|^2 / 2 for x_0 in (-1, 1); NaN, +inf, -inf beyond, and a NaN gradient at 0.5 < x_0 <
    1."""
    value = -0.5 * jnp.sum(x**2)
    broken = value + 0.0 * jnp.sqrt(jnp.where(x[0] > 0.5, 0.0 * x[1], 1.0))
    value = jnp.where(x[0] > 1, jnp.nan, broken)
    value = jnp.where(x[0] > 2, jnp.inf, value)
    return jnp.where(x[0] < -1, -jnp.inf, value)


POINTS = jnp.asarray([[0.0, 1.0], [0.75, 1.0], [1.5, 0.0], [2.5, 0.0], [-2.0, 3.0], [-0.5, -2.0]])


def test_values_without_mass_are_minus_infinity():
    values = jax.jit(Target(patchy, 2).values)(POINTS)
    np.testing.assert_allclose(values, [-0.5, -0.5 * (0.75**2 + 1), -INF, -INF, -INF, -0.5 * 4.25], rtol=1e-6)


def test_evaluate_makes_values_and_gradients_safe_and_counts():
    raw = jax.vmap(jax.value_and_grad(patchy))(POINTS)
    assert np.isfinite(raw[0][1])  # a finite value ..
    assert np.any(np.isnan(raw[1][1]))  # .. whose gradient is not
    e = jax.jit(Target(patchy, 2).evaluate)(POINTS)
    np.testing.assert_allclose(e.log_prob, [-0.5, -INF, -INF, -INF, -INF, -2.125], rtol=1e-6)
    np.testing.assert_allclose(e.grad, [[0, -1], [0, 0], [0, 0], [0, 0], [0, 0], [0.5, 2]], atol=1e-6)
    assert int(e.nan) == 3  # NaN gradient, NaN value, +inf
    assert int(e.zero) == 1


@pytest.mark.parametrize(("bad", "nan", "zero"), [(jnp.nan, 4, 0), (jnp.inf, 4, 0), (-jnp.inf, 0, 4)])
def test_constant_bad_values(bad, nan, zero):
    e = Target(lambda x: bad + 0.0 * x[0], 3).evaluate(jnp.ones((4, 3)))
    assert np.all(e.log_prob == -INF)
    assert np.all(e.grad == 0)
    assert (int(e.nan), int(e.zero)) == (nan, zero)


def test_clean_points_count_nothing():
    e = Target(lambda x: -0.5 * jnp.sum(x**2), 3).evaluate(jnp.arange(6.0).reshape(2, 3))
    assert (int(e.nan), int(e.zero)) == (0, 0)
    np.testing.assert_allclose(e.grad, -jnp.arange(6.0).reshape(2, 3))


def test_values_take_the_type_of_the_points():
    target = Target(lambda x: jnp.sum(x).astype(jnp.bfloat16), 2)
    assert target.values(jnp.ones((3, 2))).dtype == jnp.float32
    e = target.evaluate(jnp.ones((3, 2)))
    assert e.log_prob.dtype == e.grad.dtype == jnp.float32


# Misuse, met before any work.


@pytest.fixture
def unchecked():
    """As for a user, whose calls no run-time type checker watches."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def numpy_inside(x):
    return float(np.sum(np.asarray(x) ** 2))


def endless(x):
    """Reverse-mode differentiation of a while loop is not possible."""
    return jax.lax.while_loop(lambda v: v < 10, lambda v: v * 2, jnp.sum(x**2) + 1)


@pytest.mark.parametrize(
    ("log_prob", "words"),
    [
        (lambda x: float(x[0]), ["cannot be traced", "jax.numpy", "(2,)"]),
        (numpy_inside, ["cannot be traced", "jax.numpy"]),
        (lambda x: -x[0] if x[0] > 0 else x[0], ["cannot be traced", "TracerBoolConversionError"]),
        (lambda x: x @ jnp.ones(3), ["cannot be traced", "check that dim is right"]),
        (lambda x, y: x[0], ["cannot be traced", "TypeError"]),
        (lambda x: 1 / 0, ["cannot be traced", "ZeroDivisionError"]),
        (lambda x: -0.5 * x**2, ["scalar ()", "shape (2,)"]),
        (lambda x: jnp.sum(x, keepdims=True), ["scalar ()", "shape (1,)"]),
        (lambda x: (jnp.sum(x), x), ["scalar ()", "tuple"]),
        (lambda x: None, ["scalar ()", "NoneType"]),
        (lambda x: jnp.sum(x > 0), ["floating-point", "int32"]),
        (lambda x: jnp.all(x > 0), ["floating-point", "bool"]),
        (lambda x: jnp.sum(x) + 1j, ["floating-point", "complex64"]),
        (endless, ["cannot be differentiated"]),
    ],
    ids=[
        "float", "numpy", "if", "dim", "arguments", "raises", "vector", "one-vector", "tuple", "none", "int", "bool",
        "complex", "while",
    ],
)  # fmt: skip
def test_check_says_what_is_wrong(log_prob, words):
    with pytest.raises(TargetError) as error:
        Target(log_prob, 2).check()
    message = str(error.value)
    assert message.startswith("log_prob ")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_fit_checks_first():
    with pytest.raises(TargetError, match="scalar"):
        am.fit(Target(lambda x: x, 2), key=jax.random.key(0))


def test_check_accepts_densities():
    Target(lambda x: -0.5 * jnp.sum(x**2), 2).check()
    Target(lambda x: jnp.where(x[0] > 0, -x[0], -jnp.inf), 1).check()
    Target(patchy, 2).check()
    Target(jax.jit(lambda x: -jnp.sum(jnp.abs(x))), 7).check()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dim", [0, -1, 2.5, 2.0, True, "2", None, (2,)])
def test_bad_dim(dim):
    with pytest.raises(TargetError, match="dim must be a whole number of at least 1"):
        Target(lambda x: x[0], dim)


@pytest.mark.usefixtures("unchecked")
def test_numpy_dim():
    assert Target(lambda x: x[0], np.int64(3)).dim == 3


@pytest.mark.usefixtures("unchecked")
def test_log_prob_must_be_a_function():
    with pytest.raises(TargetError, match="must be a function of one point, got float"):
        Target(3.0, 2)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("hints", "words"),
    [
        ({"scale": 0.0}, "scale must be finite and positive"),
        ({"scale": [1.0, -1.0]}, "scale must be finite and positive"),
        ({"scale": [1.0, np.nan]}, "scale must be finite and positive"),
        ({"scale": np.ones(3)}, r"scale must have shape \(\) or \(2,\), got \(3,\)"),
        ({"location": np.inf}, "location must be finite"),
        ({"location": np.zeros((1, 2))}, r"location must have shape \(\) or \(2,\), got \(1, 2\)"),
        ({"location": "here"}, "location must be"),
        ({"scale": [[1.0], [1.0, 2.0]]}, "scale must"),
    ],
)
def test_bad_hints(hints, words):
    with pytest.raises(TargetError, match=words):
        Target(lambda x: x[0], 2, **hints)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("hints", [{"scale": 2}, {"scale": [1.0, 2.0]}, {"location": -3.0}, {"location": np.zeros(2)}])
def test_good_hints(hints):
    Target(lambda x: x[0], 2, **hints)


def test_target_error_is_a_value_error():
    assert issubclass(TargetError, ValueError)
    assert issubclass(TargetError, am.AllmodesError)


def test_a_density_that_is_not_differentiable_is_taken_as_flat():
    def steps(x):
        return jax.lax.while_loop(lambda y: jnp.sum(y**2) > 1.0, lambda y: 0.5 * y, x)[0]

    with pytest.raises(TargetError, match="cannot be differentiated"):
        Target(steps, 2).check()
    target = Target(steps, 2, differentiable=False)
    target.check()
    e = target.evaluate(jnp.ones((3, 2)))
    np.testing.assert_array_equal(e.grad, 0.0)
    np.testing.assert_array_equal(e.log_prob, 0.5)
    with pytest.raises(TargetError, match="particles need a differentiable log_prob"):
        Target(steps, 4, symmetry=am.ParticleSymmetry(2, 2), differentiable=False)
