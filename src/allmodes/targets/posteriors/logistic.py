"""Logistic regression on a real data set: the everyday posterior, with one mode."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from allmodes.errors import ConfigError
from allmodes.target import Target


def data() -> tuple[Float[np.ndarray, "patients features"], Float[np.ndarray, " patients"]]:
    """Standardised features with a first column of ones, and whether each tumour is benign (1) or
    malignant (-1).

    Wisconsin diagnostic breast cancer (Street, Wolberg and Mangasarian 1993), as scikit-learn
    brings it.

    **Raises** `ConfigError` when scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ConfigError("scikit-learn is not installed: pip install scikit-learn") from error
    features, benign = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    return np.column_stack([np.ones(len(features)), features]), 2.0 * benign - 1.0


def breast_cancer() -> Target:
    """Build the posterior of a logistic regression of 569 patients on 30 features and an intercept,
    31-D.

    `P(benign) = sigmoid(intercept + features . weights)`, features standardised (no unit),
    Normal(0, 1) on the intercept and on each weight. Log Z is the evidence, and `draws.unravel()`
    has `intercept` and `weights`. Used to compare samplers by Arenz, Zhong and Neumann 2020
    (Trust-region variational inference with Gaussian mixture models) and by Blessing et al. 2024
    (Beyond ELBOs, arXiv 2406.07423).

    One mode, log-concave: NUTS is the tool here, and the target is for checks on real data. Hard is
    only that features are strongly correlated, so that directions differ in width by about an order
    of magnitude.

    **Raises** `ConfigError` when scikit-learn is not installed.
    """
    features, sign = data()
    signed = features * sign[:, None]

    def log_prob(parameters: dict[str, Array]) -> Float[Array, ""]:
        w = jnp.concatenate([parameters["intercept"][None], parameters["weights"]])
        prior = -0.5 * jnp.sum(w**2) - 0.5 * w.size * jnp.log(2 * jnp.pi)
        return jnp.sum(jax.nn.log_sigmoid(jnp.asarray(signed, w.dtype) @ w)) + prior

    example = {"intercept": jnp.zeros(()), "weights": jnp.zeros(features.shape[1] - 1)}
    return Target.of_tree(log_prob, example, name="breast-cancer")
