"""Minimisers in long double, by Newton steps of their own: what bounds are compared with."""

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve


def slopes(loss, y, eta):
    """d1 and d2 of each row."""
    if loss == "squared":
        return eta - y, np.ones_like(eta)
    if loss in ("logistic", "fractional"):
        p = 1 / (1 + np.exp(-eta))
        return p - y, p * (1 - p)
    power = 1 if loss == "poisson" else np.longdouble(loss.removeprefix("tweedie(").removesuffix(")"))
    up, down = np.exp((2 - power) * eta), y * np.exp((1 - power) * eta)
    return up - down, (2 - power) * up + (power - 1) * down


def parts(loss, X, y, s, theta, alpha, fit_intercept):
    """Gradient, Hessian and squares at theta, of whatever precision theta has."""
    eta = X @ theta
    r, w = slopes(loss, y, eta)
    penalty = np.zeros(theta.size, dtype=theta.dtype)
    penalty[: theta.size - fit_intercept] = alpha
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


def centred(X, theta, fit_intercept):
    """X less its mean, a column of ones beside it, and theta there: only the intercept moves."""
    X, theta = np.asarray(X, dtype=np.longdouble), np.asarray(theta, dtype=np.longdouble)
    if not fit_intercept:
        return X, theta
    mean = X.mean(axis=0)
    X = np.column_stack([X - mean, np.ones(len(X), dtype=np.longdouble)])
    return X, np.append(theta[:-1], theta[-1] + mean @ theta[:-1])


def distance_to_minimum(loss, X, y, s, theta, alpha, fit_intercept):
    """From theta, in standard errors (E41)."""
    y = np.asarray(y, dtype=np.longdouble)
    s = np.ones_like(y) if s is None else np.asarray(s, dtype=np.longdouble)
    X, here = centred(X, theta, fit_intercept)
    best = minimum(loss, X, y, s, alpha, fit_intercept)
    squares = parts(loss, X, y, s, best, alpha, fit_intercept)[2]
    H = parts(loss, X, y, s, here, alpha, fit_intercept)[1]
    squared = (here - best) @ H @ (here - best)
    return float(np.sqrt(squared / (squares / s.sum() if loss == "squared" else 1.0)))


def coefficients_to_minimum(loss, X, y, s, theta, alpha, fit_intercept):
    """Root of the least penalty times |Lambda^1/2 (theta - theta*)|, of coefficients: what E24 bounds."""
    y = np.asarray(y, dtype=np.longdouble)
    s = np.ones_like(y) if s is None else np.asarray(s, dtype=np.longdouble)
    X, here = centred(X, theta, fit_intercept)
    gap = (here - minimum(loss, X, y, s, alpha, fit_intercept))[: len(here) - fit_intercept]
    alpha = np.broadcast_to(alpha, gap.shape)
    return float(np.sqrt(alpha.min() * (alpha * gap**2).sum()))


class Rows:
    """Rows in long double, sparse where X is, and a Hessian of them in doubles, to step by."""

    def __init__(self, loss, X, y, s, alpha, fit_intercept):
        self.loss, self.alpha, self.intercept = loss, alpha, np.full(int(fit_intercept), 1.0)
        self.plain, self.X = X, X.astype(np.longdouble)
        self.y = np.asarray(y, dtype=np.longdouble)
        self.s = np.ones_like(self.y) if s is None else np.asarray(s, dtype=np.longdouble)

    def errors(self, theta):
        """d1 of each row, and what d1 moves by with its predictor."""
        d = self.X.shape[1]
        eta = self.X @ theta[:d] + theta[d:].sum()
        return slopes(self.loss, self.y, eta)

    def gradient(self, theta):
        """In long double."""
        d, r = self.X.shape[1], self.s * self.errors(theta)[0]
        return np.append(self.X.T @ r + self.alpha * theta[:d], r.sum() * self.intercept)

    def hessian(self, theta):
        """In doubles."""
        d, w = self.X.shape[1], (self.s * self.errors(theta)[1]).astype(np.float64)
        H = np.zeros((theta.size, theta.size))
        if sparse.issparse(self.plain):
            H[:d, :d] = (self.plain.multiply(w[:, None]).T @ self.plain).toarray()
        else:
            H[:d, :d] = (self.plain.T * w) @ self.plain
        H[:d, :d] += self.alpha * np.eye(d)
        if self.intercept.size:
            H[d, :d] = H[:d, d] = self.plain.T @ w
            H[d, d] = w.sum()
        return H

    def away(self, theta):
        """The distance from theta to the minimum, which is near, in standard errors (E41), and |gradient|.

        By steps of one Hessian, each with a gradient in long double, until there is nothing left of it.
        """
        here = np.asarray(theta, dtype=np.longdouble)
        H, best, left = self.hessian(here), here.copy(), np.inf
        factor = cho_factor(H)
        first = self.gradient(here)
        for k in range(100):
            g = (self.gradient(best) if k else first).astype(np.float64)
            step = cho_solve(factor, g)
            left = np.sqrt(g @ step)
            if not left > 1e-13:
                break
            best -= step
        assert left <= 1e-13, left
        gap = (here - best).astype(np.float64)
        squared = gap @ H @ gap
        if self.loss == "squared":
            squared /= float((self.s * self.errors(best)[0] ** 2).sum() / self.s.sum())
        return float(np.sqrt(squared)), float(np.sqrt((first**2).sum()))


def residual(loss, X, y, s, theta, alpha, fit_intercept):
    """Norm of the gradient there."""
    X = np.asarray(X, dtype=np.longdouble)
    if fit_intercept:
        X = np.column_stack([X, np.ones(len(X), dtype=np.longdouble)])
    s = np.ones(len(X)) if s is None else s
    return float(
        np.sqrt((parts(loss, X, y, s, theta.astype(np.longdouble), alpha, fit_intercept)[0] ** 2).sum())
    )
