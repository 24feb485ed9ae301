"""How far a fitted linear model is from its minimum, and from a model that was retrained."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import inf, nan, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._arrays import as_matrix
from .._frames import match_columns
from ..engine.attached import Attached
from ..engine.near import distance_now
from ..engine.state import Promise, State
from ..models import ESTIMATORS
from ..models.adopt import problem_of, rows_of
from ..models.base import noise_of, theta_of

__all__ = ["Efficacy", "distance", "efficacy", "residual"]


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
    d = problem.split(theta)[0].shape[-1]
    X = as_matrix(match_columns(X, getattr(model, "feature_names_in_", None)), columns=d)
    targets = problem.encode(y, X.shape[0])
    block = X, targets, problem.weights(targets, sample_weight)
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
    return distance_now(_engine(model, X, y, sample_weight))


@dataclass(frozen=True)
class Efficacy:
    """How well a linear model has forgotten: what is left between it and the retrained one.

    Attributes
    ----------
    residual : float
        Norm of the gradient on the corrected data, on the sum scale: the paper's measure.
    proven : float
        :func:`distance`: at most so many standard errors from the minimum, without a retrained model.
    distance : float
        From the retrained model, in standard errors: ``|theta - retrained|`` in the norm of the Hessian.
    relative : float
        ``|theta - retrained| / |retrained|`` of coefficients.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> model = ex.Ridge().fit(X, y)
    >>> ex.metrics.efficacy(model, model, X, y).distance
    0.0
    """

    residual: float
    proven: float
    distance: float
    relative: float


def efficacy(
    model: Any, retrained: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None = None
) -> Efficacy:
    """How near an unlearned linear model is to one that was retrained on the corrected data.

    Parameters
    ----------
    model, retrained : fitted Ridge or LogisticRegression, of expunge or of scikit-learn
        Of the same columns, penalty and intercept; the second one trained on (X, y) as well as can be.
    X : (n, d) array, sparse matrix or frame
        The corrected data, surviving columns alone.
    y : (n,) array
    sample_weight : (n,) array, optional

    Returns
    -------
    Efficacy
        Infinite distances where nothing is proven, or where a perfect fit has no standard errors.

    Raises
    ------
    ValueError, TypeError
        As of :func:`residual`; models of different columns.

    Examples
    --------
    >>> import expunge as ex
    >>> X, y = [[0.0], [1.0], [3.0]], [0.0, 1.0, 2.0]
    >>> found = ex.metrics.efficacy(ex.Ridge().fit(X, y), ex.Ridge().fit(X[:2], y[:2]), X[:2], y[:2])
    >>> found.residual > 0.1 and found.distance > 0.1
    True
    """
    engine = _engine(model, X, y, sample_weight)
    theta, best = engine.state.theta, _engine(retrained, X, y, sample_weight).state.theta
    if theta.shape != best.shape:
        raise ValueError(
            f"the models have {theta.size} and {best.size} parameters: retrain on the surviving columns alone"
        )
    objective, step = engine.objective(), theta - best
    squared, scale = max(0.0, float(step @ objective.hvp(best, step))), 1.0
    if objective.quadratic:
        at, d = objective.evaluate(best), engine.data.n_columns
        squares = max(0.0, 2.0 * at.value - engine.problem.alpha * float(best[:d] @ best[:d]))
        scale = sqrt(squares / engine.data.weight)
    away = sqrt(squared)
    coef, other = np.ravel(model.coef_), np.ravel(retrained.coef_)
    length = float(np.linalg.norm(other))
    return Efficacy(
        objective.evaluate(theta).residual,
        distance_now(engine),
        away / scale if scale > 0.0 else (inf if away > 0.0 else 0.0),
        float(np.linalg.norm(coef - other)) / length if length > 0.0 else nan,
    )


def _engine(model: Any, X: Any, y: ArrayLike, sample_weight: ArrayLike | None) -> Attached:
    """The model's theta and these rows, without a step; the state knows nothing else."""
    model = copy.copy(model)  # which another thread may be changing
    problem, theta = problem_of(model).with_noise(noise_of(model)), theta_of(model)
    width, names = problem.split(theta)[0].shape[-1], getattr(model, "feature_names_in_", None)
    data = rows_of(X, y, sample_weight, problem, width, names, False, None, None)
    ours = isinstance(model, ESTIMATORS)
    how = (model.solver, model.memory_limit) if ours else ("auto", None)
    engine = Attached(problem.weighing(data.weight), data, Promise(0.0, None), *how)
    theta = problem.moved(theta, None, data.surviving_shift())
    engine.state = State(theta, None, None, False)
    return engine
