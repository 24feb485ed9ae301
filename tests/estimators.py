"""Fitted estimators, and what they are judged by."""

import numpy as np
import pytest

import expunge as ex

ESTIMATORS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
each_estimator = pytest.mark.parametrize("Estimator", ESTIMATORS.values())


def data(Estimator, n=80, d=4, seed=0):
    """X (n, d), y (n,), s (n,): both classes, numbers that float32 represents."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-8, 9, (n, d)) / 4.0
    eta = X @ np.linspace(1.0, -1.0, d) + rng.standard_normal(n)
    y = (eta > 0).astype(np.float64) if Estimator is ex.LogisticRegression else eta
    return X, y, rng.integers(1, 9, n) / 4.0


def theta(model):
    """coef, and the intercept with fit_intercept: (p,)."""
    coef = np.ravel(model.coef_)
    return np.append(coef, model.intercept_) if model.fit_intercept else coef
