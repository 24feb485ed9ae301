"""What is promised of residuals and releases, on Adult and Drebin: no bound below the truth, no score lost.

The truth is in long double: gradients, the best intercept, the minimiser.
"""

import copy
from dataclasses import dataclass
from functools import cache
from math import hypot, sqrt

import numpy as np
import pytest
from problems import adult, drebin, equal_to_3_decimals, heaviest_urls, of_frequent_columns, scores
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from sklearn.linear_model import LogisticRegression
from unlearning import Data, inside, surviving, theta_of

import expunge as ex
from expunge import kernels
from expunge.accounting import guo_mu, mu

ALPHA, EPSILON, DELTA = 1.0, 0.1, 0.01  # the source paper's

long_double = pytest.mark.skipif(
    np.finfo(np.longdouble).eps > 2e-19, reason="long double is no longer than double here"
)


def intact(X, y):
    n, d = X.shape
    return Data(X, y, np.ones(n), np.ones(n, dtype=bool), np.ones(d, dtype=bool), weighted=False)


def long(values):
    return np.asarray(values).astype(np.longdouble)


@dataclass
class Exact:
    """J (E1) of the logistic loss on `data`, and what follows from it, in long double."""

    data: Data
    fit_intercept: bool
    noise: np.ndarray | None = None  # of the surviving columns

    def __post_init__(self):
        X, self.y, _ = self.data.rows
        self.X = X
        if sparse.issparse(X):
            by_column = X.tocsc()
            self.by_row = (long(X.data), X.indices, X.indptr)
            self.by_column = (long(by_column.data), by_column.indices, by_column.indptr)
        else:
            self.dense = long(X)
        self.longest = sqrt(float(np.max(X.multiply(X).sum(axis=1) if sparse.issparse(X) else (X**2).sum(1))))

    def product(self, v):
        """X v."""
        return sums(self.by_row, v) if sparse.issparse(self.X) else self.dense @ v

    def transposed(self, v):
        """X^T v."""
        return sums(self.by_column, v) if sparse.issparse(self.X) else v @ self.dense

    def d1(self, eta):
        """sigma(eta) - y."""
        sign = 1.0 - 2.0 * self.y
        return sign / (1.0 + np.exp(-sign * eta))

    def gradient(self, theta):
        """(p,), intercept last."""
        d = self.X.shape[1]
        theta = long(theta)
        coef = theta[:d]
        d1 = self.d1(self.product(coef) + (theta[d] if self.fit_intercept else 0.0))
        g = self.transposed(d1) + ALPHA * coef + (0.0 if self.noise is None else long(self.noise))
        return np.append(g, d1.sum()) if self.fit_intercept else g

    def residual(self, theta):
        return norm(self.gradient(theta))

    def profile_residual(self, theta):
        """Norm of the gradient of min over the intercept of J, at these coefficients."""
        if not self.fit_intercept:
            return self.residual(theta)
        d = self.X.shape[1]
        theta = long(theta)
        eta, intercept = self.product(theta[:d]), theta[d]
        for _ in range(50):
            d1 = self.d1(eta + intercept)
            step = d1.sum() / (np.abs(d1) * (1.0 - np.abs(d1))).sum()
            intercept -= step
            if abs(step) < 1e-18 * (1.0 + abs(intercept)):
                break
        g = self.gradient(np.append(theta[:d], intercept))
        assert abs(g[d]) < 1e-14 * len(self.y)
        return norm(g[:d])

    def minimiser(self, near):
        """In long double, by Newton with the factor at `near`; its residual is below 1e-13."""
        d = self.X.shape[1]
        p = 1.0 / (1.0 + np.exp(-self.X @ near[:d] - (near[d] if self.fit_intercept else 0.0)))
        A = self.X
        if self.fit_intercept:
            A = np.column_stack([A, np.ones(len(self.y))])
        if sparse.issparse(A):
            H = (A.T @ sparse.diags_array(p * (1 - p)) @ A).toarray()
        else:
            H = A.T @ ((p * (1 - p))[:, None] * A)
        H[np.diag_indices(d)] += ALPHA
        factor, theta = cho_factor(H), long(near)
        for _ in range(60):
            g = self.gradient(theta)
            if norm(g) < 1e-13:
                return theta
            theta = theta - cho_solve(factor, g.astype(np.float64))
        raise AssertionError(f"no minimiser: {norm(g):.1e}")

    def floor(self, theta):
        """E19: what rounding may have done to a gradient that was computed in double."""
        return kernels.rounding_floor(
            self.X, self.y, theta, alpha=ALPHA, fit_intercept=self.fit_intercept, noise=self.noise
        )


def sums(entries, v):
    """Of values times v, over each of the rows (columns) of a CSR (CSC) matrix."""
    values, indices, starts = entries
    total = np.zeros(len(starts) - 1, dtype=np.longdouble)
    filled = np.diff(starts) > 0
    total[filled] = np.add.reduceat(values * v[indices], starts[:-1][filled])
    return total


def norm(v):
    return float(np.sqrt((long(v) ** 2).sum()))


# Streams of requests


@cache
def frequent_drebin():
    """Whose p x p matrices take little time."""
    return of_frequent_columns(drebin(), 400)


REAL = {"adult": adult, "drebin": drebin, "frequent_drebin": frequent_drebin}
STREAM = [  # how many of what, by which method
    (1, "remove", "auto"),
    (100, "remove", "auto"),
    (1, "label", "auto"),
    (1000, "remove", "auto"),
    (50, "label", "first_order"),
    (1, "remove", "auto"),
    (20, "value", "second_order"),
    (1, "value", "auto"),
    (30, "add", "exact"),
    (1, "add", "auto"),
    (3, "revoke", "auto"),
    (2, "revoke", "first_order"),
    (1, "remove", "auto"),
    (1, "label", "auto"),
    (2, "revoke", "second_order"),
    (10, "label", "second_order"),
    (100, "remove", "first_order"),
    (100, "remove", "second_order"),
    (1, "value", "auto"),
]


def request_of(kind, count, data, real, rng):
    rows = rng.permutation(np.flatnonzero(data.live))[:count]
    filled = np.asarray(abs(data.X).sum(axis=0)) * data.kept
    columns = rng.permutation(np.argsort(-filled)[:40])  # an empty column would be no test
    match kind:
        case "remove":
            return ex.RemoveRows(rows)
        case "label":
            return ex.CorrectLabels(rows, 1.0 - data.y[rows])
        case "value":
            return ex.CorrectValues(rows, columns[:3], rng.uniform(0.0, 0.5, (count, 3)))
        case "add":
            new = rng.permutation(len(real.y_test))[:count]
            return ex.AddRows(real.X_test[new][:, data.kept], real.y_test[new])
        case "revoke":
            return ex.RevokeFeatures(columns[:count])


def fitted(name, fit_intercept, solver, tolerance, sigma, **budget):
    real = REAL[name]()
    model = ex.LogisticRegression(
        ALPHA, fit_intercept=fit_intercept, solver=solver, tol=tolerance, noise=sigma, random_state=0
    ).fit(real.X, real.y)
    return ex.Unlearner(model, real.X, real.y, tolerance=tolerance, **budget)


def exact(un, data):
    """J on `data`, with the noise of the model."""
    noise = un.model._noise
    return Exact(data, un.model.fit_intercept, noise and noise.values)


CASES = {
    "adult_1e-2": ("adult", False, "auto", 1e-2, 0.0),
    "adult_intercept_1e-8": ("adult", True, "auto", 1e-8, 0.0),
    "drebin_1e-8": ("drebin", False, "auto", 1e-8, 0.0),
    "drebin_cholesky_1e-2": ("frequent_drebin", False, "cholesky", 1e-2, 0.0),
    "adult_intercept_noise_1e-2": ("adult", True, "auto", 1e-2, 2.0),
    "drebin_cholesky_noise_1e-2": ("frequent_drebin", False, "cholesky", 1e-2, 2.0),
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@pytest.mark.slow
@long_double
@pytest.mark.filterwarnings("ignore::scipy.sparse.SparseEfficiencyWarning")
@each_case
def test_no_bound_is_below_the_residual(case):
    name, fit_intercept, _, tolerance, sigma = case
    un = fitted(*case, **({"epsilon": EPSILON, "delta": DELTA} if sigma else {}))
    real, rng = REAL[name](), np.random.default_rng(0)
    data, proven = intact(real.X, real.y), 0
    for count, kind, method in STREAM:
        request, before, theta = request_of(kind, count, data, real, rng), data, theta_of(un.model)
        data = data.after(request)
        update, J = un.apply(request, method=method), exact(un, data)
        residual, floor = J.residual(theta_of(un.model)), J.floor(theta_of(un.model))
        if update.residual is None:
            rounding = 2.0 * floor if update.settled else 0.0  # of a gradient measured on the way (E26)
            assert residual <= update.residual_bound <= min(tolerance, 15.0 * residual + rounding)
            proven += not update.settled
        else:
            assert update.residual_bound == update.residual
            assert abs(residual - update.residual) <= floor
        if method in ("auto", "exact"):
            assert residual <= tolerance + floor
        if update.tau is not None and not update.settled:  # E4; nothing is penalised in the intercept
            start = J.residual(theta[surviving(before, data, fit_intercept)])
            assert residual <= (1.0 - update.tau * (0.0 if fit_intercept else ALPHA)) * start
        if sigma:
            assert J.profile_residual(theta_of(un.model)) <= un.budget.spent <= un.budget.total
            if update.residual is not None and not fit_intercept:
                assert un.budget.spent <= residual + 3.0 * floor
    assert (proven > 0) == (tolerance > 1e-8)


@pytest.mark.slow
@long_double
@each_case
def test_certificates_state_no_less_than_the_residual_and_the_distance(case):
    """After a second-order update that leaves more than the tolerance (E10, E16)."""
    name, fit_intercept, _, tolerance, sigma = case
    un = fitted(*case)
    real, rng = REAL[name](), np.random.default_rng(1)
    data = intact(real.X, real.y)
    for count, kind, method in [(100, "remove", "auto"), (3, "revoke", "second_order")]:
        request = request_of(kind, count, data, real, rng)
        data = data.after(request)
        update = un.apply(request, method=method)
    J, d = exact(un, data), data.kept.sum()
    best = J.minimiser(theta_of(un.model))

    def distance(theta):
        return norm(theta[:d] - best[:d]) - 1e-12  # that of `best` itself

    theta = theta_of(un.model)
    factor = hypot(1.0, J.longest) if fit_intercept else 1.0
    assert update.residual > tolerance
    assert distance(theta) <= factor * (update.residual + J.floor(theta)) / ALPHA
    for mechanism in ("output", "rounding", *(["objective"] if sigma else [])):
        released = un.release(EPSILON, DELTA, mechanism=mechanism)
        certificate = released.certificate_
        by_distance = mechanism != "objective"
        verified = inside(un).within(certificate.tolerance, by_distance=by_distance)  # what it was given
        assert certificate.residual_bound == verified.bound
        truth = J.profile_residual(verified.theta)
        assert truth <= verified.residual + verified.floor
        assert truth <= certificate.residual_bound or by_distance
        assert certificate.residual_bound <= certificate.tolerance
        if not fit_intercept:
            assert abs(truth - certificate.residual) <= certificate.floor
        assert distance(verified.theta) <= certificate.residual_bound / ALPHA
        moved = np.abs(released.coef_[0] - verified.theta[:d]).max()
        if mechanism == "output":
            assert certificate.sigma >= 2.0 * tolerance / ALPHA / mu(EPSILON, DELTA)
            assert moved <= 8.3 * certificate.sigma
        elif mechanism == "rounding":
            assert moved <= 0.5 * certificate.grid * (1.0 + 1e-9)
        else:
            assert certificate.tolerance == sigma * guo_mu(EPSILON, DELTA)
            assert moved == 0.0


# Scores


@cache
def drebin_model():
    data = drebin()
    return ex.LogisticRegression(ALPHA, fit_intercept=False).fit(data.X, data.y)


@cache
def retrained_drebin(count):
    """Their retraining without those columns."""
    data = drebin()
    chosen = np.random.default_rng(count).permutation(heaviest_urls(data, drebin_model()))[:count]
    kept = np.delete(np.arange(data.X.shape[1]), chosen)
    return LogisticRegression(
        C=1.0 / ALPHA, fit_intercept=False, solver="newton-cg", tol=1e-8, max_iter=5000
    ).fit(data.X[:, kept], data.y)


def drebin_without_urls(count, model=None, tolerance=1e-8):
    """An Unlearner of Drebin, what is to be revoked, and the test rows without it."""
    data, base = drebin(), drebin_model()
    chosen = np.random.default_rng(count).permutation(heaviest_urls(data, base))[:count]
    un = ex.Unlearner(copy.deepcopy(base if model is None else model), data.X, data.y, tolerance=tolerance)
    kept = np.delete(np.arange(data.X.shape[1]), chosen)
    return un, ex.RevokeFeatures(chosen), data.X_test[:, kept]


def noisy_drebin_model(sigma, random_state=None):
    data = drebin()
    model = ex.LogisticRegression(ALPHA, fit_intercept=False, noise=sigma, random_state=random_state)
    return model.fit(data.X, data.y)


each_count = pytest.mark.parametrize("count", [10, 50, 100])


@pytest.mark.slow
@each_count
@pytest.mark.parametrize(
    ("mechanism", "tolerance"),
    [
        ("output", 1e-8),
        ("rounding", 1e-9),  # at 1e-8 the grid, 9e-5, moves a test row of margin 2e-5 across in 1 of 6
        ("objective", 1e-8),
    ],
)
def test_released_models_score_as_retraining_on_drebin(count, mechanism, tolerance):
    """Each release with noise of its own, from the operating system."""
    data, model = drebin(), None
    if mechanism == "objective":
        model = noisy_drebin_model(tolerance / guo_mu(EPSILON, DELTA))
    un, request, X_test = drebin_without_urls(count, model, tolerance)
    un.apply(request)
    references = [scores(m, X_test, data.y_test) for m in (retrained_drebin(count), un.retrain())]
    for _ in range(1 if mechanism == "objective" else 5):
        released = un.release(EPSILON, DELTA, mechanism=mechanism)
        assert released.certificate_.void is None
        for name, value in scores(released, X_test, data.y_test).items():
            for expected in references:
                assert equal_to_3_decimals(value, expected[name]), name


@pytest.mark.slow
@each_count
def test_noise_for_the_residual_of_a_second_order_update_costs_drebin_its_scores(count):
    """The source paper's way. It says that equal scores, above, are no matter of course.

    Nor is that noise enough: what hides the residual of a model without it makes a larger one.
    """
    data = drebin()
    un, request, X_test = drebin_without_urls(count)
    beta = un.apply(request, method="second_order").residual
    expected = scores(un.retrain(), X_test, data.y_test)
    for seed in range(3):
        model = noisy_drebin_model(beta / guo_mu(EPSILON, DELTA), random_state=seed)
        un, _, _ = drebin_without_urls(count, model)
        assert un.apply(request, method="second_order").residual > beta
        found = scores(un.model, X_test, data.y_test)
        assert found["accuracy"] < expected["accuracy"] - 0.01
        assert found["macro-F1"] < expected["macro-F1"] - 0.05
        assert found["PR-AUC"] < expected["PR-AUC"] - 0.1
