"""One posterior in the four forms of `benchmarks/forms.py`: its evidence in two ways, and that all
forms are the same density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import forms

LOG_PRIOR = -forms.LOG_VOLUME


def points(n=5):
    inside = np.random.default_rng(1).uniform(0.05, 0.95, (n, 4))
    x = forms.LOW + (forms.HIGH - forms.LOW) * inside
    return x, np.array([float(forms.log_likelihood(*point, np)) for point in x])


def test_the_evidence_by_quadrature_is_that_of_draws_of_the_prior():
    coarse = forms.log_evidence(400, 64, 64)
    assert forms.log_evidence(480, 80, 80) == pytest.approx(coarse, abs=1e-5)
    value, error = forms.prior_draws(1_000_000)
    assert abs(value - coarse) < 4.0 * error


@pytest.mark.parametrize(("form", "with_prior"), [("bounds", False), ("posterior", True), ("nested", False)])
def test_draws_of_a_form_have_its_density(form, with_prior):
    """In the user's coordinates: that of a nested sampler's is the likelihood."""
    x, exact = points()
    target = forms.FORMS[form]()
    assert list(target.names) == list(forms.NAMES)
    got = target.values(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(got, exact + (LOG_PRIOR if with_prior else 0.0), rtol=1e-4)


def test_the_numpyro_model_has_the_same_density():
    pytest.importorskip("numpyro", reason="NumPyro is not installed: its form is not tested")
    target = forms.numpyro()
    z = jnp.asarray(np.random.default_rng(2).normal(size=(5, 4)), jnp.float32)
    one = lambda point: jnp.stack([target.parameters(point[None])[name][0] for name in forms.NAMES])  # noqa: E731
    x, slopes = (np.asarray(a, float) for a in jax.jit(lambda z: (jax.vmap(one)(z), jax.vmap(jax.jacfwd(one))(z)))(z))
    exact = np.array([float(forms.log_likelihood(*point, np)) for point in x])
    exact += LOG_PRIOR + np.linalg.slogdet(slopes)[1]
    np.testing.assert_allclose(target.values(z), exact, rtol=1e-4)


def test_the_page_tells_what_fails():
    row = {"form": "bounds", "seed": 0, "log_z": -27.80, "std_error": 0.002, "verdict": "trusted"}
    row |= {"evaluations": 80_000, "effective": 9_000, "seconds": 100.0, "cpu_seconds": 150.0}
    about = {"machine": "one", "truth": {"fine": -27.8, "coarse": -27.8, "prior_draws": [-27.8, 0.1]}}
    assert "Every run meets it." in forms.page({**about, "rows": [row]})
    for change, words in (
        ({"log_z": -27.79}, "bounds, seed 0: three of its errors."),
        ({"verdict": "do not use"}, "seed 0: the verdict."),
        ({"seconds": 200.0}, "seed 0: three minutes."),
    ):
        assert words in forms.page({**about, "rows": [row | change]})
