"""Minimisers in long double, by Newton steps of their own: what bounds are compared with."""

import numpy as np


def parts(loss, X, y, s, theta, alpha, fit_intercept):
    """Gradient, Hessian and squares at theta, of whatever precision theta has."""
    eta = X @ theta
    p = 1 / (1 + np.exp(-eta))
    r, w = (eta - y, np.ones_like(eta)) if loss == "squared" else (p - y, p * (1 - p))
    penalty = np.full(theta.size, alpha, dtype=theta.dtype)
    if fit_intercept:
        penalty[-1] = 0
    return X.T @ (s * r) + penalty * theta, (X.T * (s * w)) @ X + np.diag(penalty), float((s * r * r).sum())


def cholesky_solve(H, g):
    """In the precision of H, which LAPACK does not have."""
    p = len(g)
    L = np.zeros_like(H)
    for j in range(p):
        L[j, j] = np.sqrt(H[j, j] - L[j, :j] @ L[j, :j])
        for i in range(j + 1, p):
            L[i, j] = (H[i, j] - L[i, :j] @ L[j, :j]) / L[j, j]
    x = g.copy()
    for i in range(p):
        x[i] = (x[i] - L[i, :i] @ x[:i]) / L[i, i]
    for i in reversed(range(p)):
        x[i] = (x[i] - L[i + 1 :, i] @ x[i + 1 :]) / L[i, i]
    return x


def minimum(loss, X, y, s, alpha, fit_intercept):
    """Of E1 over rows in long double, the last column of X the intercept's, if there is one."""
    theta = np.zeros(X.shape[1], dtype=np.longdouble)
    for _ in range(300):
        g, H, _ = parts(loss, X, y, s, theta, alpha, fit_intercept)
        step, t = cholesky_solve(H, g), 1.0
        while t > 1e-6 and g @ step < 2 * (
            parts(loss, X, y, s, theta - t * step, alpha, fit_intercept)[0] @ -step
        ):
            t /= 2  # the slope at the end rises too far: the step was too long
        theta = theta - t * step
        if np.abs(step).max() <= 1e-17 * (1 + np.abs(theta).max()):
            break
    return theta


def distance_to_minimum(loss, X, y, s, theta, alpha, fit_intercept):
    """From theta, in standard errors (E41)."""
    X, y = np.asarray(X, dtype=np.longdouble), np.asarray(y, dtype=np.longdouble)
    s = np.ones_like(y) if s is None else np.asarray(s, dtype=np.longdouble)
    here = np.asarray(theta, dtype=np.longdouble)
    if fit_intercept:  # over x less its mean, which moves the intercept alone
        mean = X.mean(axis=0)
        X = np.column_stack([X - mean, np.ones(len(X), dtype=np.longdouble)])
        here = np.append(here[:-1], here[-1] + mean @ here[:-1])
    best = minimum(loss, X, y, s, alpha, fit_intercept)
    squares = parts(loss, X, y, s, best, alpha, fit_intercept)[2]
    H = parts(loss, X, y, s, here, alpha, fit_intercept)[1]
    squared = (here - best) @ H @ (here - best)
    return float(np.sqrt(squared / (squares / s.sum() if loss == "squared" else 1.0)))


def residual(loss, X, y, s, theta, alpha, fit_intercept):
    """Norm of the gradient there."""
    X = np.asarray(X, dtype=np.longdouble)
    if fit_intercept:
        X = np.column_stack([X, np.ones(len(X), dtype=np.longdouble)])
    s = np.ones(len(X)) if s is None else s
    return float(
        np.sqrt((parts(loss, X, y, s, theta.astype(np.longdouble), alpha, fit_intercept)[0] ** 2).sum())
    )
