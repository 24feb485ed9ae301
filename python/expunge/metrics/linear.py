"""How far a fitted linear model is from its minimum."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import as_matrix, as_weights
from .._frames import match_columns
from ..engine.attached import Attached
from ..engine.near import distance_now
from ..engine.state import Promise, State
from ..models import LogisticRegression, Ridge
from ..models.adopt import problem_of, rows_of
from ..models.base import noise_of, theta_of

__all__ = ["distance", "residual"]


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
    problem, theta = problem_of(model).with_noise(noise_of(model)), theta_of(model)
    d = problem.split(theta)[0].size
    X = as_matrix(match_columns(X, getattr(model, "feature_names_in_", None)), columns=d)
    block = X, problem.encode(y, X.shape[0]), as_weights(sample_weight, X.shape[0])
    return problem.objective([block], np.ones(d, dtype=bool)).evaluate(theta).residual


def distance(model: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
    """How far a fitted linear model is from its minimum on (X, y), at most, in standard errors (E41).

    No coefficient, and no prediction, is further away than so many standard errors of its own, which are
    those of :meth:`expunge.Unlearner.standard_errors`.

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
        Infinite where nothing can be proven.

    Raises
    ------
    ValueError, TypeError
        As of :func:`residual`.

    Examples
    --------
    >>> import expunge as ex
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X = X / abs(X).max(axis=0)
    >>> 0.001 < ex.distance(LogisticRegression().fit(X, y), X, y) < 1.0
    True
    """
    model = copy.copy(model)  # which another thread may be changing
    problem, theta = problem_of(model).with_noise(noise_of(model)), theta_of(model)
    width, names = problem.split(theta)[0].size, getattr(model, "feature_names_in_", None)
    data = rows_of(X, y, sample_weight, problem, width, names, False, None, None)
    ours = isinstance(model, Ridge | LogisticRegression)
    how = (model.solver, model.memory_limit) if ours else ("auto", None)
    engine = Attached(problem, data, Promise(0.0, None), *how)
    theta = problem.moved(theta, None, data.surviving_shift())
    engine.state = State(theta, None, None, False)
    return distance_now(engine)
