"""Estimators of more than two classes: the fit, predictions, refusals."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import csr, nothing_densifies
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning

import expunge as ex
from expunge import baselines
from expunge import reference_multinomial as reference
from expunge.audit import audit_certificate

STORAGES = {"dense": np.array, "csr": csr, "float32": lambda X: X.astype(np.float32)}

each_K = pytest.mark.parametrize("K", [3, 10])
each_storage = pytest.mark.parametrize("represent", STORAGES.values(), ids=STORAGES)
each_intercept = pytest.mark.parametrize("fit_intercept", [False, True], ids=["plain", "intercept"])


def make_data(K, n=150, d=4, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)).astype(np.float32).astype(np.float64)
    y = (X @ rng.standard_normal((d, K)) + rng.gumbel(size=(n, K))).argmax(axis=1)
    y[:K] = np.arange(K)
    return X, y, rng.integers(1, 9, n) / 4.0


@each_K
@each_storage
@each_intercept
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
def test_the_fit_is_the_minimiser(K, represent, fit_intercept, solver):
    X, y, s = make_data(K)
    model = ex.LogisticRegression(0.5, fit_intercept=fit_intercept, solver=solver)
    with nothing_densifies():
        model.fit(represent(X), y, s)
    theta = np.column_stack([model.coef_, model.intercept_])[:, : X.shape[1] + fit_intercept]
    how = {"alpha": 0.5, "sample_weight": s, "fit_intercept": fit_intercept}
    assert np.linalg.norm(reference.gradient(X, y, theta, **how)) <= 1e-5
    assert ex.distance(model, represent(X), y, s) <= 1e-6
    theirs = linear_model.LogisticRegression(
        C=2.0, fit_intercept=fit_intercept, solver="newton-cholesky", tol=1e-12
    ).fit(X, y, s)
    assert_allclose(model.coef_, theirs.coef_, atol=1e-7)
    assert_allclose(model.intercept_, theirs.intercept_, atol=1e-7)
    assert_allclose(model.decision_function(X), theirs.decision_function(X), atol=1e-6)
    assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=1e-7)
    assert_allclose(model.predict_log_proba(X), np.log(theirs.predict_proba(X)), atol=1e-6)
    assert_array_equal(model.predict(X), theirs.predict(X))
    assert not model.coef_.flags.writeable
    assert not model.intercept_.flags.writeable


def test_the_order_of_classes_permutes_rows_of_coef_alone():
    X, y, _ = make_data(3)
    one, other = (ex.LogisticRegression().fit(X, names[y]) for names in np.array([list("abc"), list("cab")]))
    assert_allclose(one.coef_[[1, 2, 0]], other.coef_, atol=1e-7)  # a is there what b is here
    assert_allclose(one.intercept_[[1, 2, 0]], other.intercept_, atol=1e-7)


def test_copies_and_pickles_predict_the_same():
    X, y, _ = make_data(3)
    model = ex.LogisticRegression().fit(X, y)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert_array_equal(other.predict_proba(X), model.predict_proba(X))
        assert not other.coef_.flags.writeable


def test_a_fit_to_other_classes_leaves_no_trace():
    X, y, _ = make_data(10)
    model = ex.LogisticRegression().fit(X, y)
    few = model.fit(X, y % 2)
    assert few.coef_.shape == (1, 4)
    assert few.intercept_.shape == (1,)
    assert_array_equal(few.coef_, ex.LogisticRegression().fit(X, y % 2).coef_)


def test_margins_of_hundreds_and_separable_classes():
    X = 800.0 * np.eye(4)[np.arange(40) % 4]
    y = np.arange(40) % 4
    model = ex.LogisticRegression(1e-3).fit(X, y)
    assert_array_equal(model.predict(X), y)
    assert np.isfinite(model.predict_log_proba(X)).all()
    un = ex.Unlearner(model, X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nothing is proven beside such a penalty
        un.apply([ex.RemoveRows([0]), ex.CorrectLabels([1], 2)], method="exact")
        assert_allclose(model.predict_proba(X), un.retrain().predict_proba(X), atol=1e-6)


def test_as_many_classes_as_rows():
    X = np.random.default_rng(0).standard_normal((8, 3))
    model = ex.LogisticRegression().fit(X, np.arange(8))
    un = ex.Unlearner(model, X, np.arange(8))
    with pytest.raises(ValueError, match="one of the 8 classes: RevokeClass takes a class out"):
        un.apply(ex.RemoveRows([3]))
    un.apply(ex.RevokeClass(3), method="exact")
    others = np.delete(np.arange(8), 3)
    assert_allclose(model.coef_, ex.LogisticRegression().fit(X[others], others).coef_, atol=1e-7)


def test_cholesky_says_how_much_memory_k_classes_need_and_auto_does_without():
    X, y, _ = make_data(10, d=30)
    with pytest.raises(ValueError, match="for 310 parameters, above the memory limit"):
        ex.LogisticRegression(solver="cholesky", memory_limit=1e5).fit(X, y)
    little = ex.LogisticRegression(memory_limit=1e5).fit(X, y)
    assert_allclose(little.coef_, ex.LogisticRegression().fit(X, y).coef_, atol=1e-6)
    un = ex.Unlearner(little, X, y)
    un.apply(ex.RemoveRows(np.flatnonzero(y == y[50])[:3]))
    assert un.distance() <= un.within


@pytest.mark.parametrize(
    ("y", "s", "message"),
    [
        ([0, 1, 2, 0], [1.0, 1.0, 0.0, 1.0], "class 2 has no rows of positive sample_weight: fit without it"),
        ([0, 1, 2, np.nan], None, "contains NaN"),
    ],
)
def test_bad_labels_are_refused(y, s, message):
    with pytest.raises(ValueError, match=message):
        ex.LogisticRegression().fit(np.eye(4), y, s)


def test_noise_in_the_objective_is_for_two_classes():
    X, y, _ = make_data(3)
    with pytest.raises(ValueError, match="of models of two classes, and y holds 3"):
        ex.LogisticRegression(noise=1.0).fit(X, y)
    with pytest.raises(ValueError, match="noise"):
        ex.Unlearner(ex.LogisticRegression().fit(X, y), X, y, epsilon=1.0, delta=1e-5)


def test_a_penalty_chosen_by_cross_validation_is_adopted():
    X, y, _ = make_data(3)
    model = linear_model.LogisticRegressionCV(
        Cs=[0.1, 1.0], cv=3, l1_ratios=(0.0,), use_legacy_attributes=False, scoring="accuracy"
    ).fit(X, y)
    with pytest.warns(UserWarning, match="was chosen on the data"):
        un = ex.Unlearner(model, X, y)
    un.apply(ex.RemoveRows([20]), method="exact")
    assert_allclose(model.coef_, un.retrain().coef_, atol=1e-7)


def test_what_is_for_two_classes_says_so():
    X, y, _ = make_data(3)
    model = ex.LogisticRegression().fit(X, y)
    for strategy in (baselines.Retraining, baselines.Sisa, baselines.FineTuning, baselines.GuoOneStep):
        with pytest.raises(ValueError, match="is for models of numbers or two classes, and this one has 3"):
            strategy(copy.deepcopy(model), X, y)
    with pytest.raises(ValueError, match="audit_certificate is for models of numbers or two classes"):
        audit_certificate(model, X, y, request=ex.RemoveRows([20]), epsilon=1.0, delta=1e-5, runs=100)
    ours = baselines.Exact(model, X, y)
    ours.apply(ex.RemoveRows([20]))
    assert_allclose(model.coef_, ours.unlearner.retrain().coef_, atol=1e-6)
