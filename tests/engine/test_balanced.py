"""class_weight="balanced": every row's weight moves with each request, as in scikit-learn's refit (E35)."""

import json
import warnings

import numpy as np
import pytest
import sklearn
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC
from unlearning import inside

import expunge as ex
from expunge.class_weights import balanced
from expunge.engine.columns import NO_REQUEST

needs_weights_counted = pytest.mark.skipif(
    tuple(map(int, sklearn.__version__.split(".")[:2])) < (1, 7), reason="scikit-learn counts rows here"
)


def data(K, kind="dense", weighted=False, n=240, d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d))
    y = (X @ rng.standard_normal((d, K)) + 1.5 * np.arange(K) + rng.gumbel(size=(n, K))).argmax(axis=1)
    y[: 3 * K] = np.tile(np.arange(K), 3)
    X = sparse.csr_matrix(X * (rng.random((n, d)) < 0.5)) if kind == "csr" else X
    return X, np.array(list("abcde"))[y], rng.uniform(0.5, 2.0, n) if weighted else None


def theirs(fit_intercept=True):
    return LogisticRegression(
        C=0.7,
        fit_intercept=fit_intercept,
        class_weight="balanced",
        solver="newton-cholesky",
        tol=1e-12,
        max_iter=500,
    )


def ours(fit_intercept=True):
    return ex.LogisticRegression(1 / 0.7, fit_intercept=fit_intercept, class_weight="balanced")


def refitted(model, un):
    X, y, s = un.corrected_data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y, s)


REQUESTS = {
    "rows": lambda X, y, s: ex.RemoveRows(range(40, 60)),
    "labels": lambda X, y, s: ex.CorrectLabels([61, 62, 63], ["a", "b", "a"]),
    "values": lambda X, y, s: ex.CorrectValues([70, 71], [0, 2], np.ones((2, 2))),
    "added": lambda X, y, s: ex.AddRows(X[:5], y[:5], None if s is None else s[:5]),
    "columns": lambda X, y, s: ex.RevokeFeatures([1, 4]),
    "all": lambda X, y, s: [ex.RemoveRows([80]), ex.RevokeFeatures([0]), ex.CorrectLabels([81], "b")],
}


@pytest.mark.parametrize("request_name", REQUESTS)
@pytest.mark.parametrize("weighted", [False, pytest.param(True, marks=needs_weights_counted)])
@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("K", [2, 3])
def test_a_request_equals_a_refit(K, kind, weighted, request_name):
    for fit_intercept in (True, False):
        for model in (ours(fit_intercept), theirs(fit_intercept)):
            X, y, s = data(K, kind, weighted)
            un = ex.Unlearner(model.fit(X, y, s), X, y, s)
            for _ in range(2):  # from weights that moved before
                update = un.apply(REQUESTS[request_name](X, y, s), method="exact")
                expected = refitted(theirs(fit_intercept), un)
                assert_allclose(un.model.coef_, expected.coef_, atol=1e-7)
                assert_allclose(un.model.intercept_, expected.intercept_, atol=1e-7)
                if request_name in ("rows", "columns", "all"):
                    break
            assert update.distance <= 1e-6


def test_weights_that_stay_are_far_from_a_refit():
    X, y, _ = data(2)
    frozen = dict(zip("ab", balanced((y == "b").astype(float), None, 2, "rows").tolist(), strict=True))
    rows = ex.RemoveRows(np.flatnonzero(y == "a")[:10])
    models = [
        ex.Unlearner(ex.LogisticRegression(1 / 0.7, class_weight=weight).fit(X, y), X, y)
        for weight in (frozen, "balanced")
    ]
    assert_allclose(models[0].model.coef_, models[1].model.coef_, atol=1e-7)
    for un in models:
        un.apply(rows, method="exact")
    assert abs(models[0].model.coef_ - models[1].model.coef_).max() > 1e-2


@pytest.mark.parametrize("method", ["auto", "exact", "second_order", "first_order"])
def test_every_method_and_a_stream(method):
    X, y, _ = data(3)
    un = ex.Unlearner(ours().fit(X, y), X, y)
    updates = un.apply_each([ex.RemoveRows([row]) for row in range(50, 60)], method=method)
    if method in ("auto", "exact"):
        assert ex.distance(un.model, *un.corrected_data()[:2]) <= 0.01
    assert_allclose(un.model.coef_, refitted(theirs(), un).coef_, atol=0.1)
    assert updates.rows_touched.tolist() == [1] * 10


def test_a_request_that_fails_leaves_every_weight(monkeypatch):
    X, y, _ = data(2)
    un = ex.Unlearner(ours().fit(X, y), X, y)
    engine = inside(un).engine
    before = engine.data.register.base[1].copy(), engine.problem, un.model.coef_.copy()
    with pytest.raises(ValueError, match="removed before"):
        un.apply([ex.RemoveRows([3]), ex.RemoveRows([3])])
    monkeypatch.setattr(type(engine), "choose", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        un.apply(ex.RemoveRows([3]))
    assert_array_equal(engine.data.register.base[1], before[0])
    assert engine.problem is before[1]
    assert_array_equal(engine.data.class_weights, before[1].class_weights)
    assert_array_equal(un.model.coef_, before[2])


def test_a_class_that_leaves_balances_the_others():
    X, y, _ = data(4)
    for model in (ours(), theirs()):
        un = ex.Unlearner(model.fit(X, y), X, y)
        for label in "bd":  # to three classes, and to the binary model
            un.apply(ex.RevokeClass(label), method="exact")
            assert_allclose(un.model.coef_, refitted(theirs(), un).coef_, atol=1e-7)
            assert un.model.class_weight == "balanced"
    assert NO_REQUEST.undo == []  # what is to be undone is of one request


def test_files_keep_the_rule_and_what_needs_no_rows_is_refused(tmp_path):
    X, y, _ = data(2)
    un = ex.Unlearner(ours().fit(X, y), X, y)
    un.save(tmp_path / "un", include_rows=True)
    other = ex.Unlearner.load(tmp_path / "un")
    for each in (un, other):
        each.apply(ex.RemoveRows(range(30)))
    assert_allclose(other.model.coef_, un.model.coef_, atol=1e-12)
    assert other.retrain().class_weight == "balanced"
    for refused in (un.detach, lambda: un.save(tmp_path / "sums", include_rows=False)):
        with pytest.raises(ValueError, match="class_weight='balanced' moves with the rows"):
            refused()


def test_receipts_and_releases_say_so():
    X, y, _ = data(2)
    un = ex.Unlearner(ours().fit(X, y), X, y)
    receipt = json.loads(un.apply(ex.RemoveRows([3])).receipt())
    assert receipt["model"]["class_weight"] == "balanced"
    assert un.release(1.0, 1e-5).class_weight == "balanced"


@needs_weights_counted
def test_linear_svc():
    X, y, s = data(2, weighted=True)
    model = LinearSVC(C=0.7, class_weight="balanced", tol=1e-10, max_iter=100_000).fit(X, y, s)
    un = ex.Unlearner(model, X, y, s)
    un.apply(ex.RemoveRows(range(40, 60)), method="exact")
    fresh = LinearSVC(C=0.7, class_weight="balanced", tol=1e-12, max_iter=100_000)
    assert_allclose(model.coef_, refitted(fresh, un).coef_, atol=1e-5)


def test_what_is_counted():
    y, s = np.array([0.0, 0.0, 1.0]), np.array([1.0, 0.0, 3.0])
    assert_allclose(balanced(y, s, 2, "weights"), [2.0, 2.0 / 3.0])
    assert_allclose(balanced(y, s, 2, "rows"), [0.75, 1.5])
    assert_allclose(balanced(y, s, 3, "rows"), [0.5, 1.0, 0.0])
