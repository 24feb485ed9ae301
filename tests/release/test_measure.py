"""What a release rests on: the profile residual in long double, and a floor no less than its error (E19)."""

import warnings
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import scipy.sparse as sp
from problems import INTERCEPT, in_pairs

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


@in_pairs(shape=list(SHAPES), loss=["logistic", "squared"], fit_intercept=INTERCEPT, far=[0.0, 1e6])
def test_the_residual_is_exact_but_for_its_floor(shape, loss, fit_intercept, far):
    fit_intercept |= far > 0.0  # without one nothing is taken off
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


# The tolerance where nobody said one


def standardised(loss, n, d, form=np.asarray, seed=0):
    """Columns and targets of mean 0 and mean square 1; in CSR, columns are divided alone."""
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    if form is sp.csr_array:
        X[np.abs(X) < 1.0] = 0.0
        X /= np.sqrt((X * X).mean(axis=0))
    else:
        X = (X - X.mean(axis=0)) / X.std(axis=0)
    eta = X @ rng.standard_normal(d) / np.sqrt(d)
    if loss == "logistic":
        return form(X), (rng.random(n) < 1 / (1 + np.exp(-2 * eta))).astype(float)
    y = eta + rng.standard_normal(n)
    return form(X), (y - y.mean()) / y.std()


KINDS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
each_loss = pytest.mark.parametrize("loss", KINDS)
wide_doubles = pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is as double here")


@wide_doubles
def test_the_default_tolerance_is_the_documented_formula():
    for n in (1, 60, 1000, 200_000, 10**7):
        for p in (1, 21, 101, 2000):
            expected = max(1e-8, 2.0**-60 * n * p * (n / 256 + 4 * p + 320))
            assert release.default_tolerance(n, p) == pytest.approx(expected, rel=1e-15)


@wide_doubles
@pytest.mark.parametrize(("rows", "parameters"), [(1, 1), (60, 7), (1000, 21), (10_000, 101), (200_000, 21)])
def test_the_default_tolerance_of_small_data_is_what_it_was(rows, parameters):
    assert release.default_tolerance(rows, parameters) == 1e-8


def test_the_default_tolerance_never_falls_with_rows_or_parameters():
    sizes = np.unique(np.logspace(0, 7, 200).astype(int)).tolist()
    for fixed in (1, 30, 1000, 100_000):
        by_rows = [release.default_tolerance(n, fixed) for n in sizes]
        by_parameters = [release.default_tolerance(fixed, p) for p in sizes]
        for found in (by_rows, by_parameters):
            assert all(one <= other for one, other in pairwise(found))
            assert found[-1] > found[0] == 1e-8 or fixed == 100_000


def floors_within_the_default(loss, n, d, form, fit_intercept):
    """The rounding floor at the minimum over the tolerance that nobody gave."""
    X, y = standardised(loss, n, d, form)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # doubles may not reach a residual of 1e-8
        model = KINDS[loss](fit_intercept=fit_intercept).fit(X, y)
    theta = np.append(np.ravel(model.coef_), np.ravel(model.intercept_) if fit_intercept else [])
    problem = Problem(loss, 1.0, fit_intercept)
    panels = [(X[i : i + 4096], y[i : i + 4096], np.ones(y[i : i + 4096].size)) for i in range(0, n, 4096)]
    found = release.measure(panels, theta, problem, np.ones(d, dtype=bool))
    assert found.floor > 0
    return 4.0 * found.floor / release.default_tolerance(n, theta.size)


FORMS = {"dense": np.asarray, "csr": sp.csr_array}


@in_pairs(
    loss=list(KINDS),
    form=FORMS,
    fit_intercept=INTERCEPT,
    shape=[(50, 2), (2000, 20), (10_000, 4), (1000, 150), (100, 300)],
)
def test_the_default_tolerance_is_four_floors_of_standardised_data(loss, form, fit_intercept, shape):
    assert floors_within_the_default(loss, *shape, form, fit_intercept) <= 1.0


@pytest.mark.slow
@in_pairs(
    loss=list(KINDS),
    form=FORMS,
    shape=[(200_000, 4), (200_000, 20), (200_000, 60), (50_000, 200), (8000, 800)],
)
def test_the_default_tolerance_is_four_floors_of_large_standardised_data(loss, form, shape):
    assert floors_within_the_default(loss, *shape, form, True) <= 1.0


def test_the_default_tolerance_is_of_how_large_the_data_are_now(monkeypatch, tmp_path):
    """Public: of the rows and parameters of D' alone, whatever came before."""
    asked = []

    def recorded(rows, parameters):
        asked.append((rows, parameters))
        return 1e-3 * rows + parameters

    monkeypatch.setattr("expunge.engine.state.default_tolerance", recorded)
    X, y = standardised("squared", 60, 6)
    s = np.ones(60)
    s[[3, 40]] = 0.0  # these are no rows of the sums
    un = ex.Unlearner(ex.Ridge().fit(X, y, s), X, y, s)
    assert un.tolerance == 1e-3 * 58 + 7
    un.apply([ex.RemoveRows([0, 1, 3]), ex.RevokeFeatures([2, 5]), ex.AddRows(np.ones((4, 4)), np.zeros(4))])
    assert un.release(1.0, 1e-5).certificate_.tolerance == 1e-3 * 60 + 5
    assert asked[-1] == (60, 5)
    un.save(tmp_path / "file", include_rows=True)
    un.save(tmp_path / "sums")
    for each in (ex.Unlearner.load(tmp_path / "file"), ex.Unlearner.load(tmp_path / "sums"), un.detach()):
        assert each.tolerance == 1e-3 * 60 + 5
    un.apply(ex.AddRows(np.ones((3, 4)), np.zeros(3), [1.0, 0.0, 2.0]))
    assert un.tolerance == 1e-3 * 62 + 5
    given = ex.Unlearner(ex.Ridge().fit(X, y, s), X, y, s, tolerance=1e-7)
    before = len(asked)
    assert given.tolerance == 1e-7
    assert len(asked) == before


@pytest.mark.slow
@each_loss
@pytest.mark.filterwarnings("error")
def test_two_hundred_thousand_rows_are_released_by_default(loss):
    X, y = standardised(loss, 200_000, 20)
    un = ex.Unlearner(KINDS[loss]().fit(X, y), X, y)
    assert un.tolerance == release.default_tolerance(200_000, 21)
    update = un.apply([ex.RemoveRows(range(50)), ex.RevokeFeatures([3])])
    assert update.distance <= un.within == 0.01
    for mechanism in ("output", "rounding"):
        certificate = un.release(1.0, 1e-5, mechanism=mechanism).certificate_
        assert certificate.residual_bound <= certificate.tolerance == release.default_tolerance(199_950, 20)


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
