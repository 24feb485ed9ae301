"""What to look at after unlearning."""

from __future__ import annotations

import copy
from typing import Any

from numpy.typing import ArrayLike

from ._arrays import Blocks, as_matrix, as_noise, as_penalty, as_weights, match_columns
from ._core import Objective
from .models.adopt import encode_targets, specification
from .models.base import noise_of, theta_of

__all__ = ["residual"]


def residual(model: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """Norm of the gradient of a fitted linear model's objective: how far it is from being trained on (X, y).

    Parameters
    ----------
    model : fitted Ridge or LogisticRegression, of expunge or of scikit-learn
        See :class:`expunge.Unlearner` for what is accepted.
    X : (n, d) array, sparse matrix or frame
    y : (n,) array
    sample_weight : (n,) array, optional

    Returns
    -------
    float
        Euclidean norm of the whole gradient of E1, intercept and noise included, on the sum scale.

    Raises
    ------
    ValueError, TypeError
        A model that is not accepted, shapes that do not match, NaN or infinity, an unseen class.
    CertificateError
        A LogisticRegression(noise=sigma) that has lost its noise.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> ex.residual(ex.Ridge(alpha=1.0).fit(X, y), X, y) < 1e-8
    True
    """
    model = copy.copy(model)  # which another thread may be changing
    spec = specification(model)
    theta = theta_of(model)
    X = as_matrix(
        match_columns(X, getattr(model, "feature_names_in_", None)),
        columns=theta.size - spec.fit_intercept,
    )
    targets = encode_targets(y, X.shape[0], spec)
    penalty = as_penalty(spec.alpha, X.shape[1], spec.fit_intercept)
    noise = noise_of(model)
    b = as_noise(None if noise is None else noise.values, X.shape[1], spec.fit_intercept)
    blocks: Blocks = [(X, targets, as_weights(sample_weight, X.shape[0]))]
    J = Objective(blocks, spec.loss, penalty, spec.fit_intercept, noise=b)
    return J.evaluate(theta).residual
