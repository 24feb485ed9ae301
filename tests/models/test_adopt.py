"""scikit-learn's fitted models in an Unlearner: their objective, what stays theirs, who is refused."""

import copy
import pickle
import warnings
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    FAMILIES,
    INTERCEPT,
    covering,
    csr,
    float32_values,
    in_pairs,
    nothing_densifies,
    retrain,
)
from scipy import sparse
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import expunge as ex
from expunge import reference

# Adoption touches nothing that scikit-learn deprecates.
pytestmark = [
    pytest.mark.filterwarnings("error::DeprecationWarning"),
    pytest.mark.filterwarnings("error::FutureWarning"),
    pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning"),
]

N, D = 120, 5
ALPHA = 0.5
LABELS = {"0_1": (0, 1), "strings": ("ham", "spam"), "signs": (-1.0, 1.0)}

SOLVERS = [
    *(("squared", solver) for solver in ("auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga")),
    *(("logistic", solver) for solver in ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga")),
]

with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])
with_and_without_weights = pytest.mark.parametrize("weighted", [False, True])
each_solver = pytest.mark.parametrize(("loss", "solver"), SOLVERS, ids=lambda name: name)
each_loss = pytest.mark.parametrize("loss", ["squared", "logistic"])


def data(loss, weighted=False):
    """X (n, d), targets (n,), s (n,) or None; targets are 0 and 1 for the logistic loss."""
    rng = np.random.default_rng(7)
    X = float32_values(rng.standard_normal((N, D)) + 0.5)
    eta = X @ np.linspace(1.0, -1.0, D) + 0.3 + rng.logistic(size=N)
    s = rng.integers(1, 9, N) / 4.0 if weighted else None
    return X, (eta > 0).astype(float) if loss == "logistic" else eta, s


def sklearn_model(loss, solver, *, alpha=ALPHA, fit_intercept=True, **parameters):
    """scikit-learn's model of E1: Ridge(alpha), or LogisticRegression(C = 1 / alpha)."""
    if loss == "squared":
        return linear_model.Ridge(alpha, fit_intercept=fit_intercept, solver=solver, **parameters)
    return linear_model.LogisticRegression(
        C=1.0 / alpha, fit_intercept=fit_intercept, solver=solver, **parameters
    )


def fresh(loss, X, y, s, **parameters):
    """scikit-learn's own tight fit."""
    solver = {"solver": "svd"} if loss == "squared" else {"solver": "newton-cholesky", "tol": 1e-12}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # rounding may stop it above 1e-12
        return sklearn_model(loss, **solver, **parameters).fit(X, y, sample_weight=s)


def fit(model, X, y, s=None):
    """Fits as loosely as its solver likes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(X, y) if s is None else model.fit(X, y, sample_weight=s)


def theta(model):
    return np.append(model.coef_, model.intercept_ if model.fit_intercept else [])


def gradient(loss, X, y, theta, alpha, s, fit_intercept):
    """Of E1, from its definition; y in {0, 1} for the logistic loss."""
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    penalty = np.full(A.shape[1], alpha)
    penalty[X.shape[1] :] = 0.0
    eta = A @ theta
    d1 = eta - y if loss == "squared" else 1.0 / (1.0 + np.exp(-eta)) - y
    return A.T @ (d1 if s is None else s * d1) + penalty * theta


def profile_residual(loss, X, y, theta, alpha, s, fit_intercept):
    """At least the residual of min over the intercept of J (E10), the rounding floor included."""
    g = gradient(loss, X, y, theta, alpha, s, fit_intercept)
    r = np.linalg.norm(g[: X.shape[1]]) + reference.rounding_floor(
        X, y, theta, alpha=alpha, loss=loss, sample_weight=s, fit_intercept=fit_intercept
    )
    return r + np.linalg.norm(X, axis=1).max() * abs(g[-1]) if fit_intercept else r


# What is adopted


@each_solver
@with_and_without_intercept
def test_adoption_measures_and_polishes_what_each_solver_left(loss, solver, fit_intercept):
    X, y, _ = data(loss)
    model = fit(sklearn_model(loss, solver, fit_intercept=fit_intercept, tol=1e-3), X, y)
    residual = np.linalg.norm(gradient(loss, X, y, theta(model), ALPHA, None, fit_intercept))
    assert residual < 0.5 * np.linalg.norm(gradient(loss, X, y, 0 * theta(model), ALPHA, None, fit_intercept))
    assert_allclose(ex.residual(model, X, y), residual, rtol=1e-9, atol=1e-11)

    un = ex.Unlearner(model, X, y)
    assert un.model is model
    assert_allclose(un.residual_on_entry, residual, rtol=1e-9, atol=1e-11)
    after = np.linalg.norm(gradient(loss, X, y, theta(model), ALPHA, None, fit_intercept))
    assert after <= 1.001e-8
    assert_allclose(un.residual(), after, rtol=1e-3, atol=1e-11)  # atol: the rounding floor
    assert_allclose(ex.residual(model, X, y), after, rtol=1e-3, atol=1e-11)
    if not fit_intercept:
        assert_array_equal(model.intercept_, 0.0)


@in_pairs(loss=["squared", "logistic"], fit_intercept=INTERCEPT, represent=[*FAMILIES, "strided", "csc"])
def test_a_model_is_adopted_in_every_representation(loss, fit_intercept, represent):
    X, y, s = data(loss, weighted=True)
    X[:, 3] = 0.0
    model = fit(sklearn_model(loss, "sag", fit_intercept=fit_intercept, tol=1e-3), X, y, s)
    residual = np.linalg.norm(gradient(loss, X, y, theta(model), ALPHA, s, fit_intercept))
    assert_allclose(ex.residual(model, represent(X), y, s), residual, rtol=0, atol=1e-10)
    un = ex.Unlearner(model, represent(X), y, s)
    assert_allclose(un.residual_on_entry, residual, rtol=0, atol=1e-10)
    assert np.linalg.norm(gradient(loss, X, y, theta(model), ALPHA, s, fit_intercept)) <= 1.001e-8


@pytest.mark.parametrize("alpha", [0.01, 1.0, 30.0])
@each_loss
@with_and_without_weights
def test_alpha_and_C_are_on_the_sum_scale(loss, alpha, weighted):
    X, y, s = data(loss, weighted)
    model = fresh(loss, X, y, s, alpha=alpha)
    before = theta(model)
    un = ex.Unlearner(model, X, y, s)
    assert un.residual_on_entry <= 1e-7  # scikit-learn minimises the same J: nothing is left but rounding
    assert_allclose(theta(model), before, rtol=1e-6, atol=1e-8)
    assert ex.residual(model, X, y, 2.0 if s is None else 2.0 * s) > 1e-3


def test_liblinear_is_adopted_without_an_intercept():
    X, y, s = data("logistic", weighted=True)
    model = fit(sklearn_model("logistic", "liblinear", fit_intercept=False), X, y, s)
    un = ex.Unlearner(model, X, y, s)
    g = gradient("logistic", X, y, theta(model), ALPHA, s, False)
    assert np.linalg.norm(g) <= 1.001e-8
    assert un.residual_on_entry < 1.0


LOGISTIC_HAS_PENALTY = "penalty" in linear_model.LogisticRegression().get_params()


@pytest.mark.skipif(not LOGISTIC_HAS_PENALTY, reason="this scikit-learn has no parameter penalty")
@pytest.mark.parametrize(
    "parameters",
    [{"penalty": "l2"}, {"penalty": "elasticnet", "l1_ratio": 0.0, "solver": "saga"}],
    ids=lambda parameters: parameters["penalty"],
)
def test_every_spelling_of_the_l2_penalty_is_adopted(parameters):
    X, y, _ = data("logistic")
    model = fit(linear_model.LogisticRegression(C=1.0 / ALPHA, **parameters), X, y)
    ex.Unlearner(model, X, y)
    assert_allclose(theta(model), theta(fresh("logistic", X, y, None)), rtol=1e-6)


@pytest.mark.parametrize("alpha", [np.array([ALPHA]), np.float32(ALPHA)], ids=["array", "float32"])
def test_ridge_alpha_may_be_any_one_number(alpha):
    X, y, _ = data("squared")
    assert ex.Unlearner(linear_model.Ridge(alpha).fit(X, y), X, y).residual_on_entry <= 1e-8


@each_loss
def test_subclasses_are_adopted(loss):
    base = type(sklearn_model(loss, "auto"))
    mine = type("Mine", (base,), {"__init__": base.__init__})  # scikit-learn reads parameters off __init__
    X, y, _ = data(loss)
    model = fit(mine(), X, y)
    assert ex.Unlearner(model, X, y).model is model


# What stays scikit-learn's


def requests():
    """name -> request, and D' from (X, y, s, labels) by NumPy indexing; labels: targets -> y as given."""
    rng = np.random.default_rng(11)
    kept = np.setdiff1d(np.arange(N), [3, 7, 50])
    X_new, y_new = float32_values(rng.standard_normal((4, D))), np.array([0.0, 1.0, 1.0, 0.0])

    def labels_corrected(X, y, s):
        y = y.copy()
        y[[5, 12]] = [1.0, 0.0]
        return X, y, s

    def values_corrected(X, y, s):
        X = X.copy()
        X[np.ix_([1, 2, 99], [0, 3])] = [[2.0, -1.0], [0.0, 0.5], [3.0, 3.0]]
        return X, y, s

    def removed(X, y, s):
        return X[kept], y[kept], None if s is None else s[kept]

    def added(X, y, s):
        return np.vstack([X, X_new]), np.append(y, y_new), None if s is None else np.append(s, np.ones(4))

    def revoked(X, y, s):
        return X[:, [0, 2, 3]], y, s

    remove = ex.RemoveRows([3, 7, 50])
    revoke = ex.RevokeFeatures([1, 4])
    correct = ex.CorrectValues([1, 2, 99], [0, 3], [[2.0, -1.0], [0.0, 0.5], [3.0, 3.0]])
    return {
        "RemoveRows": (lambda labels: remove, removed),
        "AddRows": (lambda labels: ex.AddRows(X_new, labels(y_new)), added),
        "CorrectLabels": (
            lambda labels: ex.CorrectLabels([5, 12], labels(np.array([1.0, 0.0]))),
            labels_corrected,
        ),
        "CorrectValues": (lambda labels: correct, values_corrected),
        "RevokeFeatures": (lambda labels: revoke, revoked),
        "all": (
            lambda labels: [
                ex.CorrectLabels([5, 12], labels(np.array([1.0, 0.0]))),
                correct,
                ex.AddRows(X_new, labels(y_new)),
                remove,
                revoke,
            ],
            lambda X, y, s: revoked(
                *[
                    None if a is None else a[np.append(kept, range(N, N + 4))]
                    for a in added(*values_corrected(*labels_corrected(X, y, s)))
                ]
            ),
        ),
    }


FITTED = [
    ("squared", "auto", None, "float64_c"),
    ("squared", "sag", None, "csr_int32"),
    ("squared", "svd", None, "csr_float32"),
    ("logistic", "lbfgs", "0_1", "float64_f"),
    ("logistic", "newton-cholesky", "strings", "csr_int64"),
    ("logistic", "saga", "signs", "csc"),
]
AFTER_REQUESTS = list(product(requests(), FITTED, (False, True), (False, True)))


@pytest.mark.parametrize(
    ("request_", "loss", "solver", "labels", "represent", "fit_intercept", "weighted"),
    [(name, *model, *options) for name, model, *options in covering(AFTER_REQUESTS, AFTER_REQUESTS)],
    indirect=["represent"],
)
def test_after_a_request_the_model_is_what_scikit_learn_would_have_fitted(
    loss, solver, labels, weighted, fit_intercept, request_, represent
):
    make_request, corrected = requests()[request_]

    def label(y):
        return y if labels is None else np.array(LABELS[labels])[np.asarray(y, dtype=int)]

    X, y, s = data(loss, weighted)
    model = fit(sklearn_model(loss, solver, fit_intercept=fit_intercept), X, label(y), s)
    un = ex.Unlearner(model, represent(X), label(y), s, tolerance=1e-8)
    update = un.apply(make_request(label))
    assert un.model is model

    X, y, s = corrected(X, y, s)
    assert update.residual_bound <= 1e-8
    g = gradient(loss, X, y, theta(model), ALPHA, s, fit_intercept)
    assert np.linalg.norm(g) <= 1.001e-8  # but for the rounding of this g, far below

    d = X.shape[1]
    expected = retrain(X, y, alpha=ALPHA, loss=loss, sample_weight=s, fit_intercept=fit_intercept)
    r = profile_residual(loss, X, y, theta(model), ALPHA, s, fit_intercept)
    assert np.linalg.norm(theta(model)[:d] - expected[:d]) <= 2.0 * r / ALPHA
    assert 2.0 * r / ALPHA < 1e-6  # and that says something

    rival = fresh(loss, X, label(y), s, fit_intercept=fit_intercept)
    assert model.coef_.shape == rival.coef_.shape
    assert np.shape(model.intercept_) == np.shape(rival.intercept_)
    assert model.coef_.dtype == rival.coef_.dtype
    assert np.asarray(model.intercept_).dtype == np.float64
    assert model.n_features_in_ == d
    assert_allclose(theta(model), theta(rival), atol=1e-6)
    if loss == "squared":
        assert_allclose(model.predict(X), rival.predict(X), atol=1e-6)
    else:
        assert_array_equal(model.classes_, LABELS[labels])
        assert_array_equal(model.predict(X), rival.predict(X))
        assert_allclose(model.predict_proba(X), rival.predict_proba(X), atol=1e-6)
        assert_allclose(model.decision_function(X), rival.decision_function(X), atol=1e-5)
    assert_allclose(model.score(X, label(y)), rival.score(X, label(y)), atol=1e-6)


SPARSE_SOLVERS = [
    *(("squared", solver, False) for solver in ("cholesky", "lsqr")),
    *(("squared", solver, True) for solver in ("auto", "sparse_cg", "sag")),
    *(("logistic", solver, True) for solver in ("lbfgs", "newton-cg", "sag", "saga")),
    *(("logistic", solver, False) for solver in ("lbfgs", "newton-cg", "liblinear", "saga")),
]


@pytest.mark.parametrize(("loss", "solver", "fit_intercept"), SPARSE_SOLVERS)
@pytest.mark.parametrize("kind", [sparse.csr_array, sparse.csr_matrix], ids=["array", "matrix"])
def test_models_that_scikit_learn_fitted_to_sparse_data_are_adopted(loss, solver, fit_intercept, kind):
    X, y, _ = data(loss)
    X[np.add.outer(np.arange(N), np.arange(D)) % 3 > 0] = 0.0
    given = kind(csr(X))
    model = fit(sklearn_model(loss, solver, fit_intercept=fit_intercept), given, y)
    with nothing_densifies():
        un = ex.Unlearner(model, given, y)
    assert un.model is model
    for make_request, corrected in (requests()[name] for name in ("CorrectValues", "RemoveRows", "AddRows")):
        with nothing_densifies():
            un.apply(make_request(lambda y: y))
        X, y, _ = corrected(X, y, None)
    with nothing_densifies():
        un.apply(ex.CorrectLabels([5, 12], [1.0, 0.0]))
        un.apply(ex.RevokeFeatures([1, 4]), method="exact")
    X, y = X[:, [0, 2, 3]], y.copy()
    y[[np.flatnonzero(np.setdiff1d(np.arange(N), [3, 7, 50]) == row)[0] for row in (5, 12)]] = [1.0, 0.0]
    expected = retrain(X, y, alpha=ALPHA, loss=loss, fit_intercept=fit_intercept)
    r = profile_residual(loss, X, y, theta(model), ALPHA, None, fit_intercept)
    assert np.linalg.norm((theta(model) - expected)[:3]) <= 2.0 * r / ALPHA
    assert 2.0 * r / ALPHA < 1e-6
    rival = fresh(loss, X, y, None, fit_intercept=fit_intercept)
    assert_allclose(theta(model), theta(rival), atol=1e-6)
    assert_allclose(model.predict(kind(csr(X))), rival.predict(X), atol=1e-6)


def test_a_model_of_sparse_coefficients_is_refused_with_advice():
    X, y, _ = data("logistic")
    model = fit(sklearn_model("logistic", "lbfgs"), csr(X), y).sparsify()
    before = pickle.dumps(model)
    for refused in (lambda: ex.Unlearner(model, csr(X), y), lambda: ex.residual(model, X, y)):
        with pytest.raises(ValueError, match=r"coef_ is sparse: call model\.densify\(\) first"):
            refused()
    assert pickle.dumps(model) == before
    assert ex.Unlearner(model.densify(), csr(X), y).residual() <= 1e-8


@pytest.mark.parametrize("library", ["pandas", "polars"])
@each_loss
def test_feature_names_follow_revocations(loss, library):
    Frame = pytest.importorskip(library).DataFrame
    X, y, _ = data(loss)
    frame = Frame(dict(zip("abcde", X.T, strict=True)))
    model = fit(sklearn_model(loss, "auto" if loss == "squared" else "lbfgs"), frame, y)
    if not hasattr(model, "feature_names_in_"):
        pytest.skip(f"this scikit-learn reads no names off a {library} frame")
    un = ex.Unlearner(model, frame, y)
    assert_array_equal(model.feature_names_in_, list("abcde"))
    un.apply(ex.RevokeFeatures(["b", "e"]))
    assert_array_equal(model.feature_names_in_, list("acd"))
    assert model.feature_names_in_.dtype == object
    assert model.n_features_in_ == 3
    rest = frame[["a", "c", "d"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # scikit-learn warns where names are missing
        prediction = model.predict(rest)
    assert_allclose(prediction, fresh(loss, rest, y, None).predict(rest), atol=1e-6)
    with pytest.raises(ValueError, match="eature names"):
        model.predict(frame)


def test_shapes_of_ridge_fitted_to_one_column_of_targets_stay():
    X, y, _ = data("squared")
    model = linear_model.Ridge(ALPHA).fit(X, y[:, None])
    coef, intercept, prediction = model.coef_.copy(), np.copy(model.intercept_), model.predict(X)
    ex.Unlearner(model, X, y[:, None])
    assert np.shape(model.coef_) == coef.shape
    assert np.shape(model.intercept_) == intercept.shape
    assert_allclose(model.predict(X), prediction, rtol=1e-9)


@each_loss
def test_float32_models_become_float64(loss):
    X, y, _ = data(loss)
    X = X.astype(np.float32)
    model = fit(sklearn_model(loss, "saga"), X, y.astype(np.float32))
    assert model.coef_.dtype == np.float32
    un = ex.Unlearner(model, X, y)  # a residual of 1e-8 has no place in float32
    assert model.coef_.dtype == np.float64
    assert un.residual() <= 1e-8
    assert_allclose(model.coef_, fresh(loss, X.astype(float), y, None).coef_, rtol=1e-6)


@each_loss
def test_everything_else_of_the_model_is_left_alone(loss):
    X, y, _ = data(loss)
    model = fit(sklearn_model(loss, "sag", random_state=0), X, y)
    before = copy.deepcopy(vars(model))
    un = ex.Unlearner(model, X, y)
    un.apply([ex.RemoveRows([0]), ex.RevokeFeatures([2])])
    after = vars(model)
    assert list(after) == list(before)
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {"coef_", "intercept_", "n_features_in_"}


# Models that chose their penalty on the data


CHOSEN = {
    "alpha=0.3": lambda: linear_model.RidgeCV([0.3, 1000.0]),
    "C=2": lambda: linear_model.LogisticRegressionCV(Cs=[2.0], cv=2, tol=1e-8, max_iter=1000),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chosen", CHOSEN)
def test_a_penalty_that_was_chosen_on_the_data_stays_and_a_warning_says_so(chosen, weighted):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 4))
    y = X @ [1.0, -2.0, 0.5, 0.0] + 0.1 * rng.standard_normal(300)
    s = rng.uniform(0.5, 2.0, 300) if weighted else np.ones(300)
    y = (y > 0) * 1 if chosen.startswith("C") else y
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of scikit-learn, about defaults to come
        model = CHOSEN[chosen]().fit(X, y, sample_weight=s)
    with pytest.warns(UserWarning, match=f"{chosen} was chosen on the data, and stays"):
        un = ex.Unlearner(model, X, y, s, tolerance=1e-8)
    assert un.distance_on_entry < 0.1
    for request in (ex.RemoveRows(range(20)), ex.RevokeFeatures([2])):
        un.apply(request)
    kept = [0, 1, 3]
    refit = ex.Ridge(0.3) if chosen.startswith("a") else ex.LogisticRegression(0.5)
    refit.set_params(tol=1e-10).fit(X[20:, kept], y[20:], s[20:])
    assert_allclose(np.ravel(model.coef_), np.ravel(refit.coef_), rtol=1e-8, atol=1e-9)
    assert_allclose(model.intercept_, refit.intercept_, rtol=1e-8, atol=1e-9)
    assert_allclose(np.ravel(un.retrain().coef_), np.ravel(model.coef_), rtol=1e-8, atol=1e-8)


# Who is refused


def refused():
    """name -> (model to fit, or a fitted one; exception; what its message must say)."""
    Logistic = linear_model.LogisticRegression
    models = {
        "liblinear with an intercept": (
            Logistic(solver="liblinear"),
            ValueError,
            "liblinear penalises the intercept: refit with solver='lbfgs'",
        ),
        "C infinite": (Logistic(C=np.inf), ValueError, "without an l2 penalty .* refit with a finite C"),
        "positive ridge": (
            linear_model.Ridge(positive=True),
            ValueError,
            r"Ridge\(positive=True\) is constrained.* fit it unconstrained",
        ),
        "ridge without a penalty": (linear_model.Ridge(0.0), ValueError, "alpha must be a finite number > 0"),
        "pipeline": (
            make_pipeline(StandardScaler(), Logistic()),
            TypeError,
            r"Pipeline .* pass its last step, model\[-1\], and the transformed X",
        ),
        "an average of folds": (
            linear_model.LogisticRegressionCV(Cs=2, cv=2, refit=False),
            ValueError,
            "averages the fits of its folds, which minimises nothing: pass LogisticRegression",
        ),
    }
    for name in ("RidgeClassifier", "SGDClassifier", "Lasso", "LinearRegression", "Perceptron"):
        models[name] = (getattr(linear_model, name)(), TypeError, f"{name} is not supported: .*(pass|fit) ")
    l1 = "an l1 or elastic-net penalty is not differentiable: refit with the l2 penalty"
    if linear_model.LogisticRegression().get_params().get("penalty", "deprecated") == "deprecated":
        models["l1"] = (Logistic(l1_ratio=1.0, solver="saga"), ValueError, l1)
        models["elastic net"] = (Logistic(l1_ratio=0.3, solver="saga"), ValueError, l1)
    if LOGISTIC_HAS_PENALTY:
        models["penalty l1"] = (Logistic(penalty="l1", solver="saga"), ValueError, l1)
        models["penalty elasticnet"] = (
            Logistic(penalty="elasticnet", l1_ratio=0.3, solver="saga"),
            ValueError,
            l1,
        )
        models["penalty None"] = (Logistic(penalty=None), ValueError, "without an l2 penalty")
    if "multi_class" in Logistic().get_params():
        models["multinomial"] = (Logistic(multi_class="multinomial"), ValueError, "multinomial")
    return models


def assert_refused(model, X, y, exception, message):
    """By Unlearner and by residual, and nothing of the model has changed."""
    before = pickle.dumps(model)
    with pytest.raises(exception, match=message):
        ex.Unlearner(model, X, y)
    with pytest.raises(exception, match=message):
        ex.residual(model, X, y)
    assert pickle.dumps(model) == before


@pytest.mark.parametrize(("model", "exception", "message"), refused().values(), ids=refused())
def test_models_of_another_objective_are_refused_with_reason_and_advice(model, exception, message):
    X, y, _ = data("logistic")
    assert_refused(fit(copy.deepcopy(model), X, y), X, y, exception, message)


def test_three_classes_one_against_the_rest_are_refused():
    X, _, _ = data("logistic")
    y = np.arange(N) % 3
    model = fit(linear_model.LogisticRegression(), X, y)
    model.solver = "liblinear"  # as versions before 1.8 allow
    assert_refused(model, X, y, ValueError, "a binary model for each class against the rest: refit with")
    model.solver, model.multi_class = "lbfgs", "ovr"
    if "multi_class" in model.get_params():
        assert_refused(model, X, y, ValueError, "a binary model for each class against the rest: refit with")
    model.solver, model.coef_ = "lbfgs", model.coef_[:2]
    assert_refused(model, X, y, ValueError, "coef_ has 2 rows: fit the model again")


def test_several_outputs_are_refused():
    X, y, _ = data("squared")
    Y = np.column_stack([y, -y])
    model = fit(linear_model.Ridge(), X, Y)
    assert_refused(model, X, Y, ValueError, "multi-output Ridge is not supported: fit one model for each")
    model = fit(linear_model.Ridge(np.array([1.0, 2.0])), X, Y)
    assert_refused(model, X, Y, ValueError, "fit one model for each")


@pytest.mark.parametrize(
    "Model", [linear_model.Ridge, linear_model.LogisticRegression, ex.Ridge, ex.LogisticRegression]
)
def test_classes_and_unfitted_models_are_refused(Model):
    X, y, _ = data("logistic")
    assert_refused(Model(), X, y, NotFittedError, "not fitted yet")
    for call in (ex.Unlearner, ex.residual):
        with pytest.raises(TypeError, match=f"{Model.__name__} is a class: pass a fitted instance"):
            call(Model, X, y)


@pytest.mark.parametrize("model", [None, "ridge", 3.0, np.ones(3)], ids=lambda model: type(model).__name__)
def test_what_is_no_model_is_refused(model):
    with pytest.raises(TypeError, match=f"{type(model).__name__} is not supported: pass a fitted"):
        ex.Unlearner(model, np.ones((2, 3)), np.ones(2))


@pytest.mark.parametrize("represent", ["float64_c", "csr_int32"], indirect=True)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y: (X[:, :3], y), "X has 3 columns, expected 5"),
        (lambda X, y: (X[:-1], y), r"expected \(119,\).* to match X"),
        (lambda X, y: (np.where(X > 1.5, np.nan, X), y), "X contains NaN"),
        (lambda X, y: (X[0], y), r"X has shape \(5,\), expected \(n, d\)"),
        (lambda X, y: (X[:0], y[:0]), "no rows"),
    ],
)
def test_data_that_do_not_fit_the_model_leave_it_unchanged(change, message, represent):
    for loss in ("squared", "logistic"):
        X, y, _ = data(loss)
        model = fit(sklearn_model(loss, "sag"), X, y)
        before = theta(model)
        X, y = change(X, y)
        X = represent(X) if X.ndim == 2 else X
        with pytest.raises(ValueError, match=message):
            ex.Unlearner(model, X, y)
        assert_array_equal(theta(model), before)


def test_labels_outside_the_classes_are_refused():
    X, y, _ = data("logistic")
    labels = np.where(y, "spam", "ham")
    model = fit(linear_model.LogisticRegression(), X, labels)
    for wrong in (y, np.where(np.arange(N) == 3, "eggs", labels)):
        with pytest.raises(ValueError, match="is not one of the classes"):
            ex.Unlearner(model, X, wrong)


def test_a_model_with_nan_coefficients_is_refused():
    X, y, _ = data("squared")
    model = linear_model.Ridge().fit(X, y)
    model.coef_[2] = np.nan
    with pytest.raises(ValueError, match="coefficients contain NaN or infinity: refit"):
        ex.Unlearner(model, X, y)
