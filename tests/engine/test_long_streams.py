"""Streams of thousands of single requests: what is proven, beside minimisers in long double (E41)."""

import numpy as np
import pytest
from long_double import Rows
from problems import INTERCEPT, WEIGHTED, adult, drebin, in_pairs, of_frequent_columns
from scipy import sparse

import expunge as ex

pytestmark = pytest.mark.slow
ROUNDED = 1e-9  # standard errors that the rounding of theta to doubles may be worth
KINDS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
PROMISES = {"hundredth": {"within": 0.01}, "third": {"within": 0.3}, "residual": {"tolerance": 1e-4}}


class Stream:
    """Single requests, each for a row that is there at its turn; twice as many leave as join."""

    def __init__(self, X, y, s, loss, seed):
        self.X, self.y, self.s, self.loss = X, y, s, loss
        self.rng = np.random.default_rng(seed)
        self.there = list(range(2, len(y)))  # two stay, for both classes
        self.longest, self.next = 0.0, len(y)

    def row(self):
        """One of X, dense."""
        row = self.X[[int(self.rng.integers(self.X.shape[0]))]]
        return row.toarray() if sparse.issparse(row) else row.copy()

    def label(self):
        return float(self.rng.integers(2)) if self.loss == "logistic" else 3.0 * self.rng.standard_normal()

    def request(self):
        rng, kind, at = self.rng, self.rng.random(), int(self.rng.integers(len(self.there)))
        if kind < 0.4:
            self.there[at], self.there[-1] = self.there[-1], self.there[at]
            return ex.RemoveRows(self.there.pop())
        if kind < 0.6:
            X = self.row() * rng.choice([0.5, 1.0, 1.0, 2.0])
            X = sparse.csr_array(X) if sparse.issparse(self.X) else X
            self.there.append(self.next)
            self.next += 1
            return ex.AddRows(X, [self.label()], None if self.s is None else [rng.uniform(0.5, 3.0)])
        if kind < 0.8:
            return ex.CorrectLabels(self.there[at], self.label())
        row, column = self.row(), int(rng.integers(self.X.shape[1]))
        return ex.CorrectValues([self.there[at]], [column], float(row[0, column]) + 0.1)


def live_through(un, stream, loss, requests, points):
    """In turns one by one and many in a call; how many requests took no pass, and the largest distance."""
    without, farthest, limits = 0, 0.0, (un.within or np.inf, np.inf if un.within else un.tolerance)
    for k in range(points):
        asked = [stream.request() for _ in range(requests // points)]
        if k % 2:
            updates = un.apply_each(asked)
            distance, residual, passes = updates.distance, updates.residual_bound, updates.passes
        else:
            every = [un.apply(request) for request in asked]
            distance = np.array([update.distance for update in every])
            residual = np.array([update.residual_bound for update in every])
            passes = np.array([update.passes for update in every])
        assert distance.max() <= limits[0]
        assert residual.max() <= limits[1]
        model, (X, y, s) = un.model, un.corrected_data()
        theta = np.append(np.ravel(model.coef_), np.ravel(model.intercept_) if model.fit_intercept else [])
        away, gradient = Rows(loss, X, y, s, model.alpha, model.fit_intercept).away(theta)
        assert away <= distance[-1] * (1 + 1e-6) + ROUNDED, k
        assert gradient <= residual[-1] * (1 + 1e-6) + 1e-9, k
        without, farthest = without + int((passes == 0).sum()), max(farthest, away)
    return without, farthest


@in_pairs(
    loss=list(KINDS),
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
    form={"dense": np.ascontiguousarray, "csr": sparse.csr_array},
    promise=PROMISES,
)
def test_4_000_requests_on_the_grid(loss, fit_intercept, weighted, form, promise):
    rng = np.random.default_rng(3)
    X = rng.standard_normal((5000, 6)) * [1.0, 0.3, 2.0, 1.0, 1.0, 0.5]
    X[np.abs(X) < 0.3] = 0.0
    eta = X @ rng.standard_normal(6)
    y = eta + rng.standard_normal(5000) if loss == "squared" else (eta + rng.logistic(size=5000) > 0) * 1.0
    y[:2] = y[:2] if loss == "squared" else [0.0, 1.0]
    s, X = rng.uniform(0.2, 4.0, 5000) if weighted else None, form(X)
    model = KINDS[loss](1.0, fit_intercept=fit_intercept).fit(X, y, s)
    un = ex.Unlearner(model, X, y, s, **promise)
    without, farthest = live_through(un, Stream(X, y, s, loss, 4), loss, 4000, 10)
    assert without >= (0.5 if un.within else 0.1) * 4000
    assert farthest > 1e-7 or loss == "squared"


@pytest.mark.parametrize(("name", "fit_intercept"), [("adult", True), ("drebin", False)])
def test_5_000_requests_on_real_data(name, fit_intercept):
    data = adult() if name == "adult" else of_frequent_columns(drebin(), 100)
    X = data.X
    un = ex.Unlearner(ex.LogisticRegression(1.0, fit_intercept=fit_intercept).fit(X, data.y), X, data.y)
    without, farthest = live_through(un, Stream(X, data.y, None, "logistic", 5), "logistic", 5000, 10)
    assert without >= 0.5 * 5000
    assert farthest > 1e-5


def test_requests_on_all_of_drebin():
    """Without a whole factor each takes a pass: these are fewer."""
    X, y = drebin().X, drebin().y
    un = ex.Unlearner(ex.LogisticRegression(1.0).fit(X, y), X, y)
    assert live_through(un, Stream(X, y, None, "logistic", 6), "logistic", 250, 5)[1] > 1e-7
