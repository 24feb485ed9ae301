"""Models with noise in the objective, and what their releases are judged by."""

import numpy as np
from unlearning import ALPHA, TOLERANCE, theta_of

import expunge as ex
from expunge import reference

SIGMA = 0.25


def noisy(
    data,
    *,
    fit_intercept=True,
    sigma=SIGMA,
    random_state=None,
    represent=np.array,
    alpha=ALPHA,
    tolerance=TOLERANCE,
    **options,
):
    """An Unlearner of a model with noise in its objective, and the noise."""
    X, y, s = data.rows
    model = ex.LogisticRegression(alpha, fit_intercept=fit_intercept, noise=sigma, random_state=random_state)
    model.fit(represent(X), y, s)
    return ex.Unlearner(model, represent(X), y, s, tolerance=tolerance, **options), model._noise.values


def residual_with(model, data, b):
    """Norm of the gradient of E1 with this noise, by the reference."""
    X, y, s = data.rows
    g = reference.gradient(
        X,
        y,
        theta_of(model),
        alpha=model.alpha,
        sample_weight=s,
        fit_intercept=model.fit_intercept,
        noise=b,
    )
    return np.linalg.norm(g)


def requests():
    return [
        ex.RemoveRows([3, 17]),
        ex.CorrectLabels([8, 9], [0.0, 1.0]),
        ex.CorrectValues([5], [1, 2], 0.25),
        ex.RevokeFeatures([2]),
        ex.AddRows(np.full((2, 5), 0.5), [0.0, 1.0]),
        ex.RemoveRows([20]),
    ]


def exact_profile(model, data, b=None):
    """‖∇F‖ at the coefficients, the intercept at its best, in long double."""
    X, y, s = data.rows
    X, y = X.astype(np.longdouble), y.astype(np.longdouble)
    s = np.ones(len(y), dtype=np.longdouble) if s is None else s.astype(np.longdouble)
    coef, intercept = np.ravel(model.coef_).astype(np.longdouble), np.longdouble(0)
    d1, d2 = SLOPES["logistic" if hasattr(model, "classes_") else "squared"]
    if model.fit_intercept:
        intercept = np.longdouble(np.ravel(model.intercept_)[0])
        for _ in range(50):
            eta = X @ coef + intercept
            intercept -= (s @ d1(y, eta)) / (s @ d2(eta))
    g = X.T @ (s * d1(y, X @ coef + intercept)) + model.alpha * coef
    return np.linalg.norm(np.asarray(g if b is None else g + b, dtype=np.float64))


def _sigmoid(eta):
    return 1 / (1 + np.exp(-eta))


SLOPES = {
    "logistic": (lambda y, eta: _sigmoid(eta) - y, lambda eta: _sigmoid(eta) * (1 - _sigmoid(eta))),
    "squared": (lambda y, eta: eta - y, np.ones_like),
}
