"""Streams of requests: one step from the anchor each, beside NumPy and scikit-learn doing the same."""

import warnings
from functools import cache

import numpy as np
import pytest
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

import expunge as ex
from expunge import kernels

SHAPES = {100: 100_000, 500: 20_000, 1000: 20_000}
K = 20  # requests in a round

each_shape = pytest.mark.parametrize("d", SHAPES)


@cache
def problem(d):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((SHAPES[d], d)) / np.sqrt(d)
    y = (rng.random(len(X)) < expit(X @ rng.standard_normal(d))).astype(np.float64)
    model = ex.LogisticRegression(alpha=1.0, fit_intercept=False).fit(X, y)
    return X, y, np.ravel(model.coef_).copy()


@cache
def statistics_at(d):
    X, y, theta = problem(d)
    statistics = kernels.AnchoredStatistics(X, y, theta, alpha=1.0, loss="logistic")
    return statistics.gradient, statistics.hessian, statistics


def unlearner(d, tolerance):
    X, y, _ = problem(d)
    return ex.Unlearner(ex.LogisticRegression(1.0, fit_intercept=False).fit(X, y), X, y, tolerance=tolerance)


class Stream:
    """Numbers of rows, each used once for each user."""

    def __init__(self, d):
        self.rows = iter(np.random.default_rng(1).permutation(SHAPES[d]).tolist())

    def take(self, count):
        return [next(self.rows) for _ in range(count)]


def by_numpy(d, rows, *, labels=False, batch=False):
    """theta after each request (after the last, for a batch), from copies of g_a and H_a."""
    X, y, theta = problem(d)
    g, H, _ = statistics_at(d)
    if batch:
        A, sigma = X[rows], expit(X[rows] @ theta)
        scaled = A * np.sqrt(sigma * (1.0 - sigma))[:, None]
        return theta - cho_solve(cho_factor(H - scaled.T @ scaled), g - A.T @ (sigma - y[rows]))
    g, H = g.copy(), H.copy()
    factor = cho_factor(H) if labels else None
    for row in rows:
        x = X[row]
        if labels:
            g += (2.0 * y[row] - 1.0) * x
        else:
            sigma = expit(x @ theta)
            g -= (sigma - y[row]) * x
            H -= np.outer((sigma * (1.0 - sigma)) * x, x)
            factor = cho_factor(H)
        new = theta - cho_solve(factor, g)
    return new


def agree(ours, theirs, name):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-9)


@each_shape
def test_remove_single_rows_from_statistics(compare, d):
    """theta and its bound after each row; NumPy has no bound."""
    X, y, theta = problem(d)

    def fresh():
        statistics = kernels.AnchoredStatistics(X[:200], y[:200], theta, alpha=1.0)
        statistics.__dict__.update(vars(statistics_at(d)[2]))
        return statistics, np.arange(K).tolist()

    def ours(statistics, rows):
        for row in rows:
            statistics.subtract(X[row : row + 1], y[row : row + 1])
            new = statistics.theta()
            statistics.residual_bound()
        return new

    compare(
        ours, {f"NumPy, a factor each, {K} rows": lambda _, rows: by_numpy(d, rows)}, check=agree, fresh=fresh
    )


@pytest.mark.parametrize("kind", ["remove", "label"])
@each_shape
def test_single_rows_by_apply(compare, d, kind):
    """The same through Unlearner.apply; nothing settles."""
    un = unlearner(d, 1e9)
    _, y, _ = problem(d)
    stream = Stream(d)

    def ours(rows):
        for row in rows:
            un.apply(ex.RemoveRows(row) if kind == "remove" else ex.CorrectLabels(row, 1.0 - y[row]))
        return None

    name = "a factor each" if kind == "remove" else "a cached factor"
    compare(
        ours,
        {f"NumPy, {name}, {K} rows": lambda rows: by_numpy(d, rows, labels=kind == "label")},
        check=lambda *_: None,  # the streams go on; tests/test_streams.py compares them with retraining
        fresh=lambda: (stream.take(K),),
    )


@each_shape
def test_remove_1000_rows_at_once_from_statistics(compare, d):
    X, y, theta = problem(d)
    rows = np.arange(1000)

    def fresh():
        statistics = kernels.AnchoredStatistics(X[:200], y[:200], theta, alpha=1.0)
        statistics.__dict__.update(vars(statistics_at(d)[2]))
        return (statistics,)

    def ours(statistics):
        statistics.subtract(X[:1000], y[:1000])
        statistics.residual_bound()
        return statistics.theta()

    compare(ours, {"NumPy, batched": lambda _: by_numpy(d, rows, batch=True)}, check=agree, fresh=fresh)


def test_warm_refit(compare):
    """One removed row, d = 100, n = 100,000; scikit-learn starts at its own minimiser."""
    X, y, theta = problem(100)
    un, stream = unlearner(100, 1e9), Stream(100)
    keep = np.ones(len(y), dtype=bool)

    def refit(rows):
        keep[rows] = False
        model = LogisticRegression(
            C=1.0, fit_intercept=False, solver="newton-cholesky", tol=1e-6, warm_start=True
        )
        model.classes_, model.coef_, model.intercept_ = np.array([0.0, 1.0]), theta[None].copy(), np.zeros(1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return model.fit(X[keep], y[keep])

    compare(
        lambda rows: un.apply(ex.RemoveRows(rows[0])),
        {"newton-cholesky 1e-6, warm": refit},
        check=lambda *_: None,
        fresh=lambda: (stream.take(1),),
        rounds=5,
    )


@pytest.mark.parametrize("tolerance", [1e-8, 1e-2, 1.0])
def test_tolerance(record_line, tolerance):
    """Requests of one row each, settles included: what they take and how far from retraining they end."""
    from time import perf_counter

    un, rows = unlearner(100, tolerance), Stream(100).take(300)
    started = perf_counter()
    updates = [un.apply(ex.RemoveRows(row)) for row in rows]
    seconds = perf_counter() - started
    distance = np.linalg.norm(un.model.coef_ - un.retrain().coef_)
    record_line(
        f"300 removals one by one, n = 100,000, d = 100, tolerance {tolerance:g}: "
        f"{1e6 * seconds / len(rows):.0f} us each, {sum(u.settled for u in updates)} settled, "
        f"{sum(u.passes for u in updates)} passes, |theta - retrained| {distance:.1e}"
    )
