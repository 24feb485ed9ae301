"""Hessian, Cholesky, gradient and gradient difference beside the best NumPy and SciPy forms we know."""

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit

from expunge import kernels


def close(ours, theirs, name):
    scale = np.abs(np.asarray(theirs[1] if isinstance(theirs, tuple) else theirs)).max()
    ours, theirs = (x[1] if isinstance(x, tuple) else x for x in (ours, theirs))
    assert np.abs(ours - theirs).max() <= 1e-11 * scale, name


def rows(n, d, dtype=np.float64):
    rng = np.random.default_rng(n + d)
    X = rng.standard_normal((n, d)).astype(dtype)
    return X, (rng.random(n) < 0.5).astype(np.float64), rng.standard_normal(d) / np.sqrt(d)


SHAPES = [(2000, 50), (20000, 100), (50000, 200), (20000, 500), (20000, 1000)]


@pytest.mark.parametrize(("n", "d"), SHAPES)
def test_hessian(compare, n, d):
    X, _, theta = rows(n, d)

    def weights():
        p = expit(X @ theta)
        return p * (1 - p)

    def numpy_gemm():
        w = weights()[:, None]
        return (X * np.sqrt(w)).T @ (X * np.sqrt(w)) + np.eye(d)

    def numpy_syrk():  # A.T @ A with one A: NumPy calls syrk
        A = X * np.sqrt(weights())[:, None]
        return A.T @ A + np.eye(d)

    def numpy_xtwx():
        return X.T @ (weights()[:, None] * X) + np.eye(d)

    compare(
        lambda: kernels.hessian(X, theta, alpha=1.0),
        {"(X√w)ᵀ(X√w)": numpy_gemm, "AᵀA, A = X√w": numpy_syrk, "Xᵀ(wX)": numpy_xtwx},
        check=close,
        rounds=7,
    )


@pytest.mark.parametrize("d", [50, 100, 500, 1000])
def test_cholesky(compare, d):
    X, _, theta = rows(2 * d, d)
    H = kernels.hessian(X, theta, alpha=1.0)
    compare(
        lambda: kernels.CholeskyFactor(H).lower,
        {"scipy cho_factor": lambda: np.tril(cho_factor(H, lower=True, check_finite=True)[0])},
        check=close,
    )


@pytest.mark.parametrize("d", [50, 100, 500, 1000])
def test_solve(compare, d):
    X, _, theta = rows(2 * d, d)
    H = kernels.hessian(X, theta, alpha=1.0)
    factor, theirs = kernels.CholeskyFactor(H), cho_factor(H, lower=True)
    compare(
        lambda: factor.solve(theta),
        {"scipy cho_solve": lambda: cho_solve(theirs, theta)},
        check=close,
        rounds=100,
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("n", "d"), [(100000, 100), (20000, 500)])
def test_loss_and_gradient(compare, n, d, dtype):
    X, y, theta = rows(n, d, dtype)

    def numpy():
        eta = X @ theta
        return float(np.logaddexp(0, eta).sum() - y @ eta) + 0.5 * theta @ theta, X.T @ (
            expit(eta) - y
        ) + theta

    compare(
        lambda: kernels.loss_and_gradient(X, y, theta, alpha=1.0), {"NumPy": numpy}, check=close, rounds=9
    )


@pytest.mark.parametrize("m", [1, 10, 100, 10000])
def test_gradient_difference(compare, m):
    X, y, theta = rows(m, 100)
    corrected = X.copy()
    corrected[:, 0] = 0.0
    flipped = 1.0 - y

    def numpy():
        return corrected.T @ (expit(corrected @ theta) - flipped) - X.T @ (expit(X @ theta) - y)

    compare(
        lambda: kernels.gradient_difference((X, y), (corrected, flipped), theta),
        {"NumPy": numpy},
        check=close,
        rounds=50,
    )
