"""LinearSVC: squared hinge, a penalised intercept, and distances that are proven between kinks (E36)."""

import warnings

import numpy as np
import pytest
from glm import Rows
from numpy.testing import assert_allclose, assert_array_equal
from problems import WEIGHTED, in_pairs, retrain
from scipy import sparse
from sklearn.svm import LinearSVC
from unlearning import inside, theta_of

import expunge as ex
from expunge import _core, kernels

ALPHA = 2.0
INTERCEPTS = {"plain": None, "scaled": 3.0, "usual": 1.0}  # intercept_scaling, or no intercept
REQUESTS = {
    "remove": ex.RemoveRows([3, 8, 11]),
    "add": ex.AddRows(np.full((2, 5), 0.5), np.array([1.0, 0.0]), np.array([0.5, 2.0])),
    "labels": ex.CorrectLabels([4, 9], [1.0, 0.0]),
    "values": ex.CorrectValues([5, 6], [0, 2], np.array([[1.5, -1.0], [0.25, 2.0]])),
    "revoke": ex.RevokeFeatures([1]),
    "many": ex.RemoveRows(list(range(40, 80))),
}


def data(n=150, d=5, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = (X @ rng.standard_normal(d) + rng.standard_normal(n) > 0.3).astype(np.float64)
    y[:2] = 0.0, 1.0
    return X, y, rng.uniform(0.5, 2.0, n)


def model_of(scaling, **parameters):
    return ex.LinearSVC(
        ALPHA, fit_intercept=scaling is not None, intercept_scaling=scaling or 1.0, **parameters
    )


def minimum(X, y, s, scaling):
    """By the independent Newton method: a penalised intercept is a column of `scaling`."""
    extended = X if scaling is None else np.column_stack([X, np.full(len(X), scaling)])
    theta = retrain(extended, y, alpha=ALPHA, loss="squared_hinge", sample_weight=s, fit_intercept=False)
    if scaling is not None:
        theta[-1] *= scaling
    return theta


def penalty(d, scaling):
    return np.append(np.full(d, ALPHA), [] if scaling is None else [ALPHA / scaling**2])


def away(X, y, s, theta, scaling):
    """From theta to the minimum, in the norm of H there."""
    A = X if scaling is None else np.column_stack([X, np.ones(len(X))])
    short = 1.0 - (2.0 * y - 1.0) * (A @ theta) > 0.0
    H = (A.T * (2.0 * s * short)) @ A + np.diag(penalty(X.shape[1], scaling))
    gap = theta - minimum(X, y, s, scaling)
    return float(np.sqrt(gap @ H @ gap))


@in_pairs(
    kind=REQUESTS,
    method={"auto": {}, "exact": {"method": "exact"}, "newton": {"method": "second_order"}},
    scaling=INTERCEPTS,
    weighted=WEIGHTED,
    form={"dense": np.array, "csr": sparse.csr_array},
    solver=["cholesky", "cg"],
)
def test_every_request_leads_to_retraining(kind, method, scaling, weighted, form, solver):
    X, y, s = data()
    s = s if weighted else np.ones(len(y))
    model = model_of(scaling, solver=solver).fit(form(X), y, s)
    assert away(X, y, s, theta_of(model), scaling) <= 1e-6
    un = ex.Unlearner(model, form(X), y, s)
    update = un.apply(kind, **method)
    X, y, s = Rows(X, y, s).granted(kind).now
    true = away(X, y, s, theta_of(model), scaling)
    assert true <= update.distance * (1.0 + 1e-6) + 1e-9
    if method.get("method") != "second_order":
        assert update.distance <= un.within
    if method.get("method") == "exact":
        assert true <= 1e-9
    assert away(X, y, s, theta_of(un.retrain()), scaling) <= 1e-6


@in_pairs(scaling=INTERCEPTS, class_weight=[None, {1.0: 3.0}], dual=[False, True])
def test_scikit_learns_is_adopted_and_equals_its_refit(scaling, class_weight, dual):
    X, y, s = data()
    options = {"C": 1.0 / ALPHA, "fit_intercept": scaling is not None, "intercept_scaling": scaling or 1.0}
    options |= {"class_weight": class_weight, "max_iter": 100_000}
    theirs = LinearSVC(dual=dual, random_state=0, **options).fit(X, y, s)
    un = ex.Unlearner(theirs, X, y, s)
    rows = Rows(X, y, s)
    for request in REQUESTS.values():
        un.apply(request, method="exact")
        X, y, s = rows.granted(request).now
        best = LinearSVC(dual=False, tol=1e-13, **options).fit(X, y, s)
        assert_allclose(theirs.coef_, best.coef_, rtol=0, atol=1e-6)  # where liblinear ends
        assert_allclose(theirs.intercept_, best.intercept_, rtol=0, atol=1e-6)
        counted = s if class_weight is None else np.where(y == 1.0, 3.0, 1.0) * s
        assert away(X, y, counted, theta_of(theirs), scaling) <= 1e-9


def test_a_distance_is_proven_where_no_curvature_jumps_and_nowhere_else():
    proven = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        X, y, s = data(int(rng.integers(5, 30)), int(rng.integers(1, 4)), seed)
        scaling = [None, 1.0, 2.0][seed % 3]
        p = X.shape[1] + (scaling is not None)
        J = _core.Objective([(X, y, s)], "squared_hinge", penalty(X.shape[1], scaling), scaling is not None)
        theta = minimum(X, y, s, scaling) + 10.0 ** rng.uniform(-6, 0) * rng.standard_normal(p)
        at = J.evaluate(theta)
        bound = J.distance(theta, at, J.rounding_floor(theta), float(np.linalg.norm(X, axis=1).max()))
        true = away(X, y, s, theta, scaling)
        assert true <= bound * (1.0 + 1e-9) + 1e-12
        proven += bound < np.inf
    assert proven > 100


def test_a_curvature_that_vanishes_on_the_way_is_not_overlooked():
    # The first row is just short of 1; the second pulls far beyond, with hardly any curvature.
    X, y, s, theta = np.array([[1.0], [1e-3]]), np.ones(2), np.array([100.0, 1e4]), np.array([0.999])
    J = _core.Objective([(X, y, s)], "squared_hinge", np.full(1, ALPHA), False)
    at = J.evaluate(theta)
    true = away(X, y, s, theta, None)
    assert true > 5.0 * at.residual / np.sqrt(ALPHA)  # which would be the distance, were there no kink
    assert J.distance(theta, at, 0.0, 1.0) == np.inf


def test_the_gap_is_how_far_the_nearest_kink_is():
    X, y, _ = data()
    theta = np.random.default_rng(1).standard_normal(6)
    J = _core.Objective([(X, y, None)], "squared_hinge", np.ones(6), True)
    A = np.column_stack([X, np.ones(len(X))])
    off = np.abs(1.0 - (2.0 * y - 1.0) * (A @ theta)) / np.linalg.norm(A, axis=1)
    assert J.kink_gap(theta) == pytest.approx(off.min(), rel=1e-9)
    weights = np.ones(len(y))
    weights[np.argmin(off)] = 0.0
    J = _core.Objective([(X, y, weights)], "squared_hinge", np.ones(6), True)
    assert J.kink_gap(theta) == pytest.approx(np.sort(off)[1], rel=1e-9)


def test_a_row_on_its_kink_leaves_no_proven_distance_and_says_so():
    X, y = np.array([[1.0], [-1.0]]), np.array([1.0, 0.0])
    J = _core.Objective([(X, y, None)], "squared_hinge", np.ones(1), False)
    at = J.evaluate(np.ones(1))
    assert J.distance(np.ones(1), at, 0.0, 1.0) == np.inf
    un = ex.Unlearner(model_of(1.0).fit(*data()[:2]), *data()[:2])
    update = un.apply(ex.RemoveRows([3]), method="first_order")
    assert update.distance == np.inf
    assert update.residual < np.inf  # over alpha it bounds coefficients (E10)


def test_streams_files_and_what_is_refused(tmp_path):
    X, y, _ = data()
    un = ex.Unlearner(model_of(2.0).fit(X, y), X, y)
    updates = un.apply_each([ex.RemoveRows([i]) for i in range(10, 20)])
    assert (updates.distance <= un.within).all()
    rest = np.delete(np.arange(len(y)), range(10, 20))
    assert away(X[rest], y[rest], np.ones(len(rest)), theta_of(un.model), 2.0) <= updates.distance[-1] + 1e-9
    un.save(tmp_path / "model", include_rows=True)
    loaded = ex.Unlearner.load(tmp_path / "model")
    assert_array_equal(loaded.model.coef_, un.model.coef_)
    assert loaded.model.intercept_scaling == 2.0
    assert inside(loaded).problem.penalty(5)[-1] == ALPHA / 4.0
    assert loaded.apply(ex.RemoveRows([30])).distance <= loaded.within
    for refused in (un.detach, lambda: un.save(tmp_path / "other")):
        with pytest.raises(ValueError, match="keep the rows, or fit LogisticRegression"):
            refused()
    with pytest.raises(ex.CertificateError, match="fit LogisticRegression"):
        un.release(1.0, 1e-5)
    assert ex.receipts.state_hash(un.model) in un.apply(ex.RemoveRows([40])).receipt()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"loss": "hinge", "dual": True}, "loss='squared_hinge' and penalty='l2'"),
        ({"penalty": "l1", "dual": False}, "loss='squared_hinge' and penalty='l2'"),
    ],
)
def test_other_objectives_are_refused(options, reason):
    X, y, _ = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = LinearSVC(**options).fit(X, y)
    with pytest.raises(ValueError, match=reason):
        ex.Unlearner(model, X, y)
    three = LinearSVC().fit(X, np.arange(len(y)) % 3)
    with pytest.raises(ValueError, match="one binary LinearSVC for each class"):
        ex.Unlearner(three, X, np.arange(len(y)) % 3)


def test_columns_far_from_0_are_not_moved():
    """The intercept is penalised: the minimum depends on where they have their zero."""
    X, y, _ = data()
    X[:, 0] += 300.0
    model = model_of(1.0).fit(X, y)
    assert inside(ex.Unlearner(model, X, y)).data.shift is None
    g = kernels.gradient(X, y, theta_of(model), alpha=ALPHA, loss="squared_hinge", fit_intercept=True)
    g[-1] += ALPHA * model.intercept_[0]
    assert np.linalg.norm(g) <= 1e-5
