"""What a release rests on: the profile residual in long double, and a floor no less than its error (E19)."""

import warnings

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp

import expunge as ex
from expunge import release
from expunge.problem import Problem

SHAPES = {
    "c": np.ascontiguousarray,
    "f": np.asfortranarray,
    "float32": lambda X: X.astype(np.float32),
    "csr": sp.csr_array,
}


def exact_gradient(X, y, s, theta, problem, shift):
    """In 50 digits, with the sum of sizes of its terms."""
    X = np.asarray(X.todense() if sp.issparse(X) else X, dtype=float)
    with mpmath.workdps(50):
        A = np.array([[mpmath.mpf(x) for x in row] for row in X])
        if shift is not None:
            A = A - np.array([mpmath.mpf(c) for c in shift])
        if problem.fit_intercept:
            A = np.column_stack([A, np.array([mpmath.mpf(1)] * len(A))])
        t = np.array([mpmath.mpf(x) for x in theta])
        eta = A @ t
        if problem.loss == "logistic":
            d1 = np.array(
                [1 / (1 + mpmath.exp(-e)) - mpmath.mpf(label) for e, label in zip(eta, y, strict=True)]
            )
        else:
            d1 = eta - np.array([mpmath.mpf(label) for label in y])
        g = A.T @ (np.array([mpmath.mpf(w) for w in s]) * d1)
        return g + np.array([mpmath.mpf(x) for x in problem.penalty(X.shape[1])]) * t


def profile(g, norm, fit_intercept):
    with mpmath.workdps(50):
        slopes = g[:-1] if fit_intercept else g
        length = mpmath.sqrt(sum(x * x for x in slopes))
        return length + (mpmath.mpf(norm) * abs(g[-1]) if fit_intercept else 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("loss", ["logistic", "squared"])
@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("far", [0.0, 1e6])
def test_the_residual_is_exact_but_for_its_floor(shape, loss, fit_intercept, far):
    if far and not fit_intercept:
        pytest.skip("without an intercept nothing is taken off")
    rng = np.random.default_rng(0)
    for scale in (1e-3, 1.0, 30.0):
        X = rng.standard_normal((330, 4)) * scale
        X[:, 3] += far
        X, y, s = SHAPES[shape](X), (rng.random(330) < 0.5).astype(float), rng.uniform(0.0, 2.0, 330)
        problem = Problem(loss, 0.7, fit_intercept)
        theta = rng.standard_normal(4 + fit_intercept)
        shift = np.array([0.0, 0.0, 0.0, far]) if far else None
        panels = [(X[:300], y[:300], s[:300]), (X[300:], y[300:], s[300:])]
        found = release.measure(panels, theta, problem, np.ones(4, dtype=bool), shift)
        exact = profile(exact_gradient(X, y, s, theta, problem, shift), found.largest_norm, fit_intercept)
        assert exact <= found.bound  # the norm, too, is rounded up
        assert found.residual <= (1.0 + 1e-13) * exact + found.floor
        assert found.floor <= 1e-11 * found.residual or np.finfo(np.longdouble).nmant < 63


def test_huge_terms_that_cancel_are_not_trusted():
    X, y = np.array([[1e18, 65.0, -1e18, -65.0]]), np.array([1.0])
    problem = Problem("logistic", 1.0, False)
    found = release.measure([(X, y, np.ones(1))], np.ones(4), problem, np.ones(4, dtype=bool))
    exact = profile(exact_gradient(X, y, np.ones(1), np.ones(4), problem, None), 0.0, False)
    assert abs(exact - found.residual) <= found.floor


@pytest.mark.slow
def test_standardised_rows_in_their_hundred_thousands_are_released_by_default():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200_000, 100))
    y = (rng.random(200_000) < 1 / (1 + np.exp(-X[:, 0]))).astype(float)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        un = ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y)
    un.apply(ex.RemoveRows([0]), method="second_order")
    assert un.release(1.0, 1e-5).certificate_.mechanism == "output"
