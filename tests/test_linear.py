"""Ridge and LogisticRegression: scikit-learn's contract, the minimiser of E1, the residual they report."""

import copy
import pickle
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np
import pytest
import sklearn
import sklearn.linear_model
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    FAMILIES,
    INTEGERS,
    INTERCEPT,
    NATIVE,
    PROBLEMS,
    REPRESENTATIONS,
    bits_of,
    drebin,
    each_problem_in,
    in_pairs,
    retrain,
    some_of,
)
from scipy import sparse
from scipy.special import logit
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

import expunge as ex
from expunge import _core, reference
from expunge.models.base import set_theta

# No fit stops short of its tolerance unless a test says so.
pytestmark = pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")

ESTIMATORS = {"squared": ex.Ridge, "logistic": ex.LogisticRegression}
FITTABLE = [p for p in PROBLEMS if np.ndim(p.alpha) == 0 and (p.loss == "squared" or len(p.X) > 1)]

each_estimator = pytest.mark.parametrize("Estimator", ESTIMATORS.values())
each_problem = pytest.mark.parametrize("problem", some_of(FITTABLE), ids=lambda problem: problem.name)
in_families = each_problem_in(FAMILIES, FITTABLE)
with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])


def data(Estimator, n=80, d=4, seed=0):
    """X (n, d), y (n,), s (n,): both classes, numbers that float32 represents."""
    rng = np.random.default_rng(seed)
    X = rng.integers(-8, 9, (n, d)) / 4.0
    eta = X @ np.linspace(1.0, -1.0, d) + rng.standard_normal(n)
    y = (eta > 0).astype(np.float64) if Estimator is ex.LogisticRegression else eta
    return X, y, rng.integers(1, 9, n) / 4.0


def theta(model):
    """coef, and the intercept with fit_intercept: (p,)."""
    coef = np.ravel(model.coef_)
    return np.append(coef, model.intercept_) if model.fit_intercept else coef


def objective(model, sample_weight=None):
    """The keyword arguments of `reference.gradient` for a fitted estimator's own objective."""
    return {
        "alpha": model.alpha,
        "loss": "logistic" if hasattr(model, "classes_") else "squared",
        "sample_weight": sample_weight,
        "fit_intercept": model.fit_intercept,
    }


def profile_residual(X, y, theta, fit_intercept, **objective):
    """At least the residual of min over the intercept of J (E10); the coefficients are r / alpha off."""
    g = reference.gradient(X, y, theta, fit_intercept=fit_intercept, **objective)
    r = np.linalg.norm(g[: X.shape[1]]) + reference.rounding_floor(
        X, y, theta, fit_intercept=fit_intercept, **objective
    )
    return r + np.linalg.norm(X, axis=1).max() * abs(g[-1]) if fit_intercept else r


def fit_problem(problem, represent=np.array, **parameters):
    """Fits without the warning that some problems' rounding floor lies above tol, the only one allowed."""
    model = ESTIMATORS[problem.loss](problem.alpha, fit_intercept=problem.fit_intercept, **parameters)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".* lies below the rounding floor", category=ConvergenceWarning
        )
        return model.fit(represent(problem.X), problem.y, sample_weight=problem.sample_weight)


# scikit-learn's contract


def broken_checks(estimator):
    """In scikit-learn 1.6 itself: the weighted rows and the repeated rows get different labels."""
    if sklearn.__version__.startswith("1.6.") and isinstance(estimator, ex.LogisticRegression):
        return {
            f"check_sample_weight_equivalence_on_{kind}_data": "compares fits to different labels"
            for kind in ("dense", "sparse")
        }
    return {}


@parametrize_with_checks([ex.Ridge(), ex.LogisticRegression()], expected_failed_checks=broken_checks)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


@each_estimator
def test_clone_parameters_and_pickle_round_trip(Estimator):
    X, y, _ = data(Estimator)
    parameters = {
        "alpha": 0.5,
        "fit_intercept": False,
        "tol": 1e-9,
        "max_iter": 50,
        "solver": "cholesky",
        "memory_limit": 2**20,
    }
    if Estimator is ex.LogisticRegression:
        parameters |= {"noise": 0.0, "random_state": None}
    model = Estimator(**parameters).fit(X, y)
    assert model.get_params() == parameters
    twin = clone(model)
    assert twin.get_params() == parameters
    assert not hasattr(twin, "coef_")
    assert_array_equal(twin.fit(X, y).coef_, model.coef_)
    assert_array_equal(pickle.loads(pickle.dumps(model)).predict(X), model.predict(X))
    changed = twin.set_params(alpha=8.0, fit_intercept=True).fit(X, y)
    assert_array_equal(theta(changed), theta(Estimator(8.0, tol=1e-9, max_iter=50).fit(X, y)))


@each_estimator
def test_pickles_that_name_the_former_module_load(Estimator):
    X, y, _ = data(Estimator)
    model = Estimator().fit(X, y)
    written = pickle.dumps(model, protocol=0).replace(Estimator.__module__.encode(), b"expunge.linear")
    assert b"expunge.linear" in written
    loaded = pickle.loads(written)
    assert type(loaded) is Estimator
    assert_array_equal(loaded.predict(X), model.predict(X))


@each_estimator
def test_alpha_is_positional_and_the_rest_is_not(Estimator):
    assert Estimator(3.0).alpha == 3.0
    with pytest.raises(TypeError):
        Estimator(3.0, False)


@each_estimator
@pytest.mark.parametrize("method", ["predict", "decision_function", "predict_proba", "predict_log_proba"])
def test_unfitted_model_does_not_predict(Estimator, method):
    model = Estimator()
    if hasattr(model, method):
        with pytest.raises(NotFittedError):
            getattr(model, method)(np.ones((2, 3)))
    else:
        assert Estimator is ex.Ridge


def test_grid_search_over_a_pipeline_scores_as_scikit_learns():
    X, y = load_breast_cancer(return_X_y=True)
    alphas = [0.1, 1.0, 10.0]

    def search(model, grid):
        pipeline = make_pipeline(StandardScaler(), model)
        grid = {f"{type(model).__name__.lower()}__{name}": values for name, values in grid.items()}
        return GridSearchCV(pipeline, grid, cv=3, scoring="neg_log_loss").fit(X, y)

    ours = search(ex.LogisticRegression(), {"alpha": alphas})
    rival = search(
        sklearn.linear_model.LogisticRegression(solver="newton-cholesky", tol=1e-10),
        {"C": [1.0 / alpha for alpha in alphas]},
    )
    scores, expected = (s.cv_results_["mean_test_score"] for s in (ours, rival))
    assert_allclose(scores, expected, rtol=1e-8)  # of two minimisers with residuals of 1e-8 on unit scale
    assert ours.best_index_ == rival.best_index_


# The minimiser


@cache
def minimiser(name):
    """The independent retraining of that problem."""
    problem = next(problem for problem in FITTABLE if problem.name == name)
    return retrain(problem.X, problem.y, **problem.objective)


@pytest.mark.isa
@in_families
def test_fit_equals_the_independent_retraining(problem, represent):
    model, expected = fit_problem(problem, represent, tol=1e-10), minimiser(problem.name)
    r = profile_residual(problem.X, problem.y, theta(model), **problem.objective)
    d = problem.X.shape[1]
    error = np.linalg.norm(theta(model)[:d] - expected[:d])
    assert error <= 2.0 * r / problem.alpha
    assert error <= 1e-6 * np.linalg.norm(expected)  # and the bound is not vacuous


@each_problem
def test_fit_equals_scikit_learns(problem):
    model = fit_problem(problem, tol=1e-10)
    if problem.loss == "squared":
        rival = sklearn.linear_model.Ridge(problem.alpha, fit_intercept=problem.fit_intercept, solver="svd")
    else:
        rival = sklearn.linear_model.LogisticRegression(
            C=1.0 / problem.alpha,
            fit_intercept=problem.fit_intercept,
            solver="newton-cholesky",
            tol=1e-12,
            max_iter=1000,
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # tol=1e-12 may lie below what rounding allows
        rival.fit(problem.X, problem.y, sample_weight=problem.sample_weight)
    assert model.coef_.shape == rival.coef_.shape
    assert np.shape(model.intercept_) == np.shape(rival.intercept_)
    scale = np.linalg.norm(theta(rival))
    assert_allclose(theta(model), theta(rival), rtol=1e-6, atol=1e-7 * scale)
    assert_allclose(model.predict(problem.X), rival.predict(problem.X), rtol=1e-6, atol=1e-6 * scale)


@in_families
def test_residual_is_the_true_gradient_norm(problem, represent):
    model = fit_problem(problem, represent)
    g = reference.gradient(problem.X, problem.y, theta(model), **problem.objective)
    floor = reference.rounding_floor(problem.X, problem.y, theta(model), **problem.objective)
    assert abs(model.residual_ - np.linalg.norm(g)) <= 2.0 * floor  # one floor for each of the two sums
    assert model.residual_ <= max(model.tol, floor)
    assert type(model.residual_) is float
    assert type(model.n_iter_) is int
    assert model.n_iter_ >= 1


@each_estimator
def test_intercept_is_not_penalised(Estimator):
    X, y, s = data(Estimator)
    model = Estimator(alpha=1e10).fit(X, y, sample_weight=s)
    mean = np.average(y, weights=s)
    expected = mean if Estimator is ex.Ridge else logit(mean)
    assert_allclose(model.coef_, 0.0, atol=1e-6)
    assert_allclose(model.intercept_, expected, rtol=1e-6)  # coefficients of 1e-8 move it by as much


def test_shifted_targets_shift_only_the_intercept_of_ridge():
    X, y, s = data(ex.Ridge)
    model, shifted = (ex.Ridge().fit(X, y + c, sample_weight=s) for c in (0.0, 100.0))
    assert_allclose(shifted.coef_, model.coef_, atol=2e-8)
    assert_allclose(shifted.intercept_ - model.intercept_, 100.0, rtol=1e-9)


@each_estimator
def test_without_an_intercept_it_is_zero(Estimator):
    X, y, _ = data(Estimator)
    assert_array_equal(Estimator(fit_intercept=False).fit(X, y).intercept_, 0.0)


# Sample weights


@each_estimator
@with_and_without_intercept
def test_weight_zero_is_removed_two_is_duplicated_and_a_scalar_divides_alpha(Estimator, fit_intercept):
    X, y, _ = data(Estimator)
    rows = np.arange(len(y))
    zeros, twos = np.where(rows % 3 == 0, 0.0, 1.0), np.where(rows % 3 == 0, 2.0, 1.0)

    def fit(rows=slice(None), alpha=1.0, sample_weight=None):
        model = Estimator(alpha, fit_intercept=fit_intercept, tol=1e-10)
        return theta(model.fit(X[rows], y[rows], sample_weight=sample_weight))

    plain = fit()
    for weighted, expected in (
        (fit(sample_weight=zeros), fit(rows=rows % 3 != 0)),
        (fit(sample_weight=twos), fit(rows=np.sort(np.append(rows, rows[::3])))),
        (fit(sample_weight=4.0), fit(alpha=0.25)),
        (fit(sample_weight=4.0), fit(sample_weight=np.full(len(y), 4))),
        (fit(sample_weight=1), plain),
    ):
        assert_allclose(weighted, expected, atol=1e-9)  # two residuals of 1e-10 over eigenvalues >= 0.25
    assert np.linalg.norm(fit(sample_weight=twos) - plain) > 1e-3


# Input


of_whole_numbers = pytest.mark.parametrize("represent", [*REPRESENTATIONS, *INTEGERS], indirect=True)


@of_whole_numbers
def test_every_representation_gives_the_same_model(represent):
    for Estimator in ESTIMATORS.values():
        X, y, s = data(Estimator)
        X = 4.0 * X
        expected = Estimator(tol=1e-9).fit(X, y, s)
        model = Estimator(tol=1e-9).fit(represent(X), y.tolist(), s)
        assert_allclose(theta(model), theta(expected), atol=2e-9)  # two residuals of 1e-9, alpha = 1
        assert_allclose(model.predict(represent(X)), expected.predict(X), atol=2e-7)  # rows of norm < 80
        assert theta(model).dtype == np.float64


@of_whole_numbers
def test_fit_and_predict_do_not_modify_their_input(represent):
    for Estimator in ESTIMATORS.values():
        X, y, s = data(Estimator)
        arguments = represent(4.0 * X), y, s
        before = [bits_of(argument) for argument in arguments]
        Estimator().fit(*arguments).predict(arguments[0])
        assert [bits_of(argument) for argument in arguments] == before


@in_pairs(Estimator=ESTIMATORS, fit_intercept=INTERCEPT, represent=REPRESENTATIONS)
def test_predictions_are_the_same_in_every_representation(Estimator, fit_intercept, represent):
    X, y, _ = data(Estimator)
    X[:, 1] = 0.0
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    given = represent(X)
    eta = X @ np.ravel(model.coef_) + model.intercept_
    if Estimator is ex.Ridge:
        assert_allclose(model.predict(given), eta, rtol=0, atol=1e-10)
        assert_allclose(model.score(given, y), model.score(X, y), rtol=0, atol=1e-10)
    else:
        assert_allclose(model.decision_function(given), eta, rtol=0, atol=1e-10)
        assert_array_equal(model.predict(given), eta > 0)
        assert_allclose(model.predict_proba(given), model.predict_proba(X), rtol=0, atol=1e-10)
        assert_allclose(model.predict_log_proba(given), model.predict_log_proba(X), rtol=0, atol=1e-10)
    assert_allclose(ex.residual(model, given, y), ex.residual(model, X, y), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "classes",
    [
        np.array(["ham", "spam"]),
        np.array(["ham", "spam"], dtype=object),
        np.array([False, True]),
        np.array([-1, 1]),
        np.array([-1.0, 1.0]),
        np.array([7, 1000], dtype=np.uint16),
    ],
    ids=lambda classes: f"{classes.dtype.kind}_{classes[1]}",
)
def test_labels_of_any_kind_are_predicted_as_they_came(classes):
    X, y, _ = data(ex.LogisticRegression)
    expected = ex.LogisticRegression().fit(X, y)
    labels = classes[y.astype(int)]
    model = ex.LogisticRegression().fit(X, labels)
    assert_array_equal(model.classes_, classes)
    assert model.classes_.dtype == model.predict(X).dtype == classes.dtype
    assert_array_equal(theta(model), theta(expected))  # the same 0 and 1 inside
    assert_array_equal(model.predict(X), classes[expected.predict(X).astype(int)])
    assert model.score(X, labels) == expected.score(X, y) > 0.7


@pytest.mark.parametrize("library", ["pandas", "polars"])
@each_estimator
def test_frames_are_read_by_name(Estimator, library):
    Frame = pytest.importorskip(library).DataFrame
    X, y, _ = data(Estimator)
    names = list("abcd")
    columns = dict(zip(names, X.T, strict=True))
    if not hasattr(sklearn.linear_model.Ridge().fit(Frame(columns), y), "feature_names_in_"):
        pytest.skip(f"this scikit-learn reads no names off a {library} frame")
    model = Estimator().fit(Frame(columns), y)
    assert_array_equal(model.feature_names_in_, names)
    assert_allclose(theta(model), theta(Estimator().fit(X, y)), rtol=1e-13)  # a frame may be in F order

    expected = model.predict(Frame(columns))
    noise = np.full(len(y), np.nan)  # nothing of it may be read
    assert_array_equal(model.predict(Frame({**columns, "extra": noise})), expected)
    shuffled = Frame({"extra": noise, **dict(reversed(columns.items()))})
    assert_allclose(model.predict(shuffled), expected, rtol=1e-12, atol=1e-12)  # another memory layout
    with pytest.raises(ValueError, match="same order"):
        model.predict(Frame(dict(reversed(columns.items()))))
    abc = {name: columns[name] for name in "abc"}
    for wrong in (abc, {**abc, "e": noise}, {**abc, "e": noise, "f": noise}):
        with pytest.raises(ValueError, match="eature names"):
            model.predict(Frame(wrong))


# Predictions


@with_and_without_intercept
def test_predictions_of_the_classifier_agree_with_each_other(fit_intercept):
    X, y, s = data(ex.LogisticRegression)
    model = ex.LogisticRegression(0.1, fit_intercept=fit_intercept).fit(X, np.where(y, "yes", "no"))
    eta = X @ model.coef_[0] + model.intercept_[0]
    assert_allclose(model.decision_function(X), eta, rtol=1e-12, atol=1e-12)
    p = model.predict_proba(X)
    assert_allclose(p[:, 1], 1.0 / (1.0 + np.exp(-eta)), rtol=1e-12)
    assert_allclose(p.sum(axis=1), 1.0, rtol=1e-15)
    assert_allclose(model.predict_log_proba(X), np.log(p), rtol=1e-12)
    assert_array_equal(model.predict(X), model.classes_[p.argmax(axis=1)])
    right = model.predict(X) == np.where(y, "yes", "no")
    assert_allclose(model.score(X, np.where(y, "yes", "no"), s), np.average(right, weights=s), rtol=1e-15)


def test_probabilities_are_finite_and_logarithms_exact_at_margins_of_800():
    model = ex.LogisticRegression(fit_intercept=False).fit([[-1.0], [1.0]], [0, 1])
    eta = np.array([-800.0, -40.0, 0.0, 40.0, 800.0])
    X = (eta / model.coef_[0, 0])[:, None]
    with np.errstate(all="raise", under="ignore"):
        p, log_p = model.predict_proba(X), model.predict_log_proba(X)
    assert_array_equal(p[[0, -1]], [[1.0, 0.0], [0.0, 1.0]])
    assert_allclose(p[[1, 3], [1, 0]], np.exp(-40.0), rtol=1e-13)  # the small one is not 1 - the large one
    assert_allclose(log_p, -np.logaddexp(0.0, np.column_stack([eta, -eta])), rtol=1e-14)
    assert_array_equal(model.predict(X[[0, 1, 3, 4]]), [0, 0, 1, 1])


def test_ridge_predicts_the_linear_predictor_and_scores_r2():
    X, y, s = data(ex.Ridge)
    model = ex.Ridge().fit(X, y)
    eta = X @ model.coef_ + model.intercept_
    assert_allclose(model.predict(X), eta, rtol=1e-12, atol=1e-12)
    spread = np.average((y - np.average(y, weights=s)) ** 2, weights=s)
    assert_allclose(model.score(X, y, s), 1.0 - np.average((y - eta) ** 2, weights=s) / spread, rtol=1e-12)


# One fitted state after another

FITTED = ("coef_", "intercept_", "n_iter_", "residual_", "n_features_in_", "feature_names_in_", "classes_")

each_copy = pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)


def fitted(model):
    """The fitted attributes that a model has."""
    return {name: getattr(model, name) for name in FITTED if hasattr(model, name)}


def answers_during(ask, changes):
    """What two threads were answered while this one made the changes, some of it after each one."""
    answers, done, interval = [], threading.Event(), sys.getswitchinterval()

    def ask_on():
        while not done.is_set():
            answers.append(ask())

    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(ask_on) for _ in range(2)]
        sys.setswitchinterval(1e-5)  # let them be interrupted anywhere
        try:
            for change in changes:
                change()
                before = len(answers)
                # two may have been on the way, the third was asked for after the change
                while len(answers) < before + 3 and not any(asker.done() for asker in askers):
                    time.sleep(0)
        finally:
            sys.setswitchinterval(interval)
            done.set()
    for asker in askers:
        asker.result()
    return answers


def distinct(arrays):
    return {(array.shape, array.tobytes()) for array in arrays}


@pytest.mark.slow
@each_estimator
@with_and_without_intercept
@pytest.mark.parametrize("method", ["predict", "decision_function", "predict_proba"])
def test_threads_predict_with_the_theta_before_or_after_a_change(Estimator, fit_intercept, method):
    X, y, _ = data(Estimator)
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    if not hasattr(model, method):
        return
    thetas = theta(model), 1.0 - theta(model)

    def change(to):
        set_theta(model, to, 0.0)

    expected = []
    for to in thetas:
        change(to)
        expected.append(getattr(model, method)(X))
    answers = answers_during(lambda: getattr(model, method)(X), 300 * [partial(change, to) for to in thetas])
    assert distinct(answers) == distinct(expected)


@pytest.mark.slow
@each_estimator
def test_threads_predict_with_the_columns_before_or_after_a_change(Estimator):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator)
    X = pd.DataFrame(X, columns=list("abcd"))
    model = Estimator()
    models = [Estimator().fit(X[list(names)], y) for names in ("abcd", "ac", "bcd")]
    model.fit(X, y)

    def change(to):
        set_theta(model, theta(to), 0.0, names=list(to.feature_names_in_))

    answers = answers_during(lambda: model.predict(X), 100 * [partial(change, to) for to in models])
    assert distinct(answers) == distinct(to.predict(X) for to in models)


@each_estimator
def test_threads_predict_while_requests_are_applied(Estimator):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator, d=8)
    X = pd.DataFrame(X, columns=list("abcdefgh"))
    un = ex.Unlearner(Estimator().fit(X, y), X, y)
    expected = [un.model.predict(X)]

    def change(request):
        un.apply(request)
        expected.append(un.model.predict(X))

    requests = [request for i in range(2) for request in (ex.RemoveRows([i]), ex.RevokeFeatures([i]))]
    answers = answers_during(lambda: un.model.predict(X), [partial(change, request) for request in requests])
    expected, at_first = distinct(expected), distinct(expected[:1])
    assert distinct(answers) | at_first == expected  # nobody may have asked before the first request
    assert un.model.n_features_in_ == 6


def test_threads_predict_labels_of_the_fit_before_or_after():
    X, y, _ = data(ex.LogisticRegression)
    fits = [(X, np.where(y, "yes", "no")), (1.0 - X[:60], y[:60]), (X, np.where(y, 3, 7))]
    expected = [ex.LogisticRegression().fit(*to).predict(X) for to in fits]
    model = ex.LogisticRegression().fit(*fits[0])
    answers = answers_during(lambda: model.predict(X), 100 * [partial(model.fit, *to) for to in fits])
    assert distinct(answers) == distinct(expected)


@each_estimator
@pytest.mark.parametrize(
    ("change", "parameters"),
    [
        (lambda X, y: (spoil(X, np.nan), y), {}),
        (lambda X, y: (X, spoil(y, np.nan)), {}),
        (lambda X, y: (X, np.full(len(y), "a word")), {}),
        (lambda X, y: (X, y, -1.0), {}),
        (lambda X, y: (X, y, np.zeros(len(y))), {}),
        (lambda X, y: (X, y), {"alpha": -1.0}),
        (lambda X, y: (X, y), {"max_iter": 0}),
        (lambda X, y: (X, y), {"tol": 1e-30}),  # warns, which is an error here
    ],
)
def test_a_fit_that_fails_leaves_the_model(Estimator, change, parameters):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator)
    model = Estimator().fit(pd.DataFrame(X, columns=list("abcd")), y)
    before = fitted(model)
    assert set(before) == set(FITTED) - ({"classes_"} if Estimator is ex.Ridge else set())
    again = change(*data(Estimator, n=60, d=3, seed=1)[:2])
    model.set_params(**parameters)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises((ValueError, ConvergenceWarning)):
            model.fit(*again)
        with pytest.raises((ValueError, ConvergenceWarning)):
            (fresh := Estimator(**parameters)).fit(*again)
    after = fitted(model)
    assert all(after.pop(name) is value for name, value in before.items())
    assert not after
    assert not fitted(fresh)


@each_estimator
def test_fit_after_columns_were_revoked_is_a_first_fit(Estimator):
    pd = pytest.importorskip("pandas")
    X, y, _ = data(Estimator)
    frame = pd.DataFrame(X, columns=list("abcd"))
    un = ex.Unlearner(Estimator().fit(frame, y), frame, y)
    un.apply(ex.RevokeFeatures(["b", "d"]))
    assert list(un.model.feature_names_in_) == ["a", "c"]
    for given in (frame, X):
        now, expected = fitted(un.model.fit(given, y)), fitted(Estimator().fit(given, y))
        assert set(now) == set(expected)
        for name, value in expected.items():
            assert_array_equal(now[name], value)


@each_estimator
def test_a_model_has_no_fitted_attribute_before_fit(Estimator):
    model = Estimator()
    assert not fitted(model)
    for name in FITTED:
        for touch in (getattr, delattr):
            with pytest.raises(
                AttributeError, match=f"'{Estimator.__name__}' object has no attribute '{name}'"
            ):
                touch(model, name)


@each_estimator
@with_and_without_intercept
def test_coefficients_are_written_without_a_copy_and_read_only(Estimator, fit_intercept):
    X, y, _ = data(Estimator)
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    new = theta(model)[1:]
    set_theta(model, new, None)
    assert np.shares_memory(model.coef_, new)
    assert np.shares_memory(model.intercept_, new) == (fit_intercept and Estimator is ex.LogisticRegression)
    assert_array_equal(theta(model), new)
    assert model.n_features_in_ == 3
    assert model.residual_ is None
    with pytest.raises(ValueError, match="read-only"):
        new[0] = 0.0


@each_estimator
@each_copy
@with_and_without_intercept
def test_a_copy_is_read_only_too_and_goes_its_own_way(Estimator, duplicate, fit_intercept):
    X, y, _ = data(Estimator)
    model = Estimator(fit_intercept=fit_intercept).fit(X, y)
    before, twin = fitted(model), duplicate(model)
    for name, value in before.items():
        assert_array_equal(getattr(twin, name), value)
        assert type(getattr(twin, name)) is type(value)
    for some in (model, twin):
        for array in (some.coef_, some.intercept_):
            if np.ndim(array):
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0.0
    twin.fit(X[:50, :2], y[:50])
    assert all(getattr(model, name) is value for name, value in before.items())
    assert twin.n_features_in_ == 2


@each_estimator
def test_coefficients_may_be_assigned_by_hand(Estimator):
    X, _, _ = data(Estimator)
    shape = (4,) if Estimator is ex.Ridge else (1, 4)
    model, coef = Estimator(), np.arange(4.0).reshape(shape)
    model.coef_, model.intercept_, model.classes_ = coef, np.ones(1), np.array([0, 1])
    predictor = model.predict if Estimator is ex.Ridge else model.decision_function
    assert_array_equal(predictor(X), X @ np.arange(4.0) + 1.0)
    coef *= 2.0  # still the user's own
    assert model.coef_ is coef
    assert copy.copy(model).coef_ is coef
    assert coef.flags.writeable
    del model.coef_
    assert set(fitted(model)) == {"intercept_", "classes_"}
    with pytest.raises(NotFittedError):
        predictor(X)


# Convergence


def hard_cases():
    """name -> Estimator, alpha, X, y: each one breaks an undamped or an unscaled solver."""
    rng = np.random.default_rng(3)
    X = rng.standard_normal((200, 6))
    eta = X @ rng.standard_normal(6)
    label, noisy = (eta > 0).astype(float), (eta + rng.logistic(size=200) > 0).astype(float)
    scales = 10.0 ** np.linspace(-4.0, 4.0, 6)
    Logistic = ex.LogisticRegression
    return {
        "separable, tiny alpha": (Logistic, 1e-8, X, label),
        "separable, tiny alpha, ridge": (ex.Ridge, 1e-8, X, eta),
        "scaled columns": (Logistic, 1e-3, X * scales, noisy),
        "scaled columns, ridge": (ex.Ridge, 1e-3, X * scales, eta),
        "n < d": (Logistic, 1e-3, rng.standard_normal((10, 50)), np.arange(10) % 2.0),
        "n < d, ridge": (ex.Ridge, 1e-3, rng.standard_normal((10, 50)), rng.standard_normal(10)),
        "duplicate columns": (Logistic, 1e-6, np.column_stack([X, X, X[:, :1]]), noisy),
        "duplicate columns, ridge": (ex.Ridge, 1e-6, np.column_stack([X, X]), eta),
        "one row of a class": (Logistic, 1e-3, X, (np.arange(200) == 7).astype(float)),
        "huge margins": (Logistic, 1.0, 1e3 * X, noisy),
        "one outlier": (Logistic, 1e-3, np.vstack([X, 1e4 * X[:1]]), np.append(noisy, 1.0 - noisy[0])),
        "constant column": (Logistic, 1e-2, np.column_stack([X, np.full(200, 50.0)]), noisy),
    }


@with_and_without_intercept
@pytest.mark.parametrize("case", hard_cases().values(), ids=hard_cases())
def test_hard_cases_converge_to_the_tolerance_or_the_floor(case, fit_intercept):
    Estimator, alpha, X, y = case
    model = Estimator(alpha, fit_intercept=fit_intercept)
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message=".* lies below the rounding floor", category=ConvergenceWarning
        )
        model.fit(X, y)
    g = reference.gradient(X, y, theta(model), **objective(model))
    floor = reference.rounding_floor(X, y, theta(model), **objective(model))
    assert np.linalg.norm(g) <= max(1e-8, 2.0 * floor)
    assert floor < 1e-4  # or the line above says nothing
    # E5: the distance to the minimiser is g' H^-1 g / 2 in J, next to nothing of J(0)
    H = reference.hessian(X, theta(model), **objective(model))
    at_zero = reference.loss_and_gradient(X, y, 0.0 * theta(model), **objective(model))[0]
    assert g @ np.linalg.solve(H, g) <= 1e-7 * at_zero


@each_estimator
def test_tolerance_below_the_rounding_floor_warns_with_both_numbers(Estimator):
    X, y, s = data(Estimator)
    with pytest.warns(ConvergenceWarning) as caught:
        model = Estimator(tol=1.5e-30).fit(X, y, sample_weight=s)
    floor = reference.rounding_floor(X, y, theta(model), **objective(model, s))
    message = str(caught[0].message)
    assert len(caught) == 1
    assert "tolerance 1.5e-30" in message
    assert f"rounding floor {floor:.3g}" in message
    assert f"residual {model.residual_:.3g}" in message
    g = reference.gradient(X, y, theta(model), **objective(model, s))
    assert model.residual_ <= floor
    assert abs(model.residual_ - np.linalg.norm(g)) <= 2.0 * floor


@each_estimator
def test_warnings_point_at_the_line_that_called_fit(Estimator):
    X, y, _ = data(Estimator)
    with pytest.warns(ConvergenceWarning) as caught:
        Estimator(tol=0.0).fit(X, y)
    assert caught[0].filename == __file__


def test_too_few_iterations_warn_and_keep_the_last_iterate():
    X, y, _ = data(ex.LogisticRegression)
    with pytest.warns(
        ConvergenceWarning, match=r"above the tolerance 1e-08 after 1 iterations: raise max_iter"
    ):
        model = ex.LogisticRegression(max_iter=1).fit(X, y)
    value, g = reference.loss_and_gradient(X, y, theta(model), **objective(model))
    at_zero, _ = reference.loss_and_gradient(X, y, np.zeros(5), **objective(model))
    assert value < at_zero
    assert model.n_iter_ == 1
    assert_allclose(model.residual_, np.linalg.norm(g), rtol=1e-9)
    assert model.residual_ > 1e-8


@pytest.mark.filterwarnings("error")
def test_one_newton_step_solves_ridge():
    X, y, _ = data(ex.Ridge)
    assert ex.Ridge(max_iter=1).fit(X, y).residual_ <= 1e-8


# Fewer rows than columns (E23)


def wide_problem(seed=0):
    rng = np.random.default_rng(seed)
    X, s = rng.standard_normal((60, 400)), rng.uniform(0.0, 2.0, 60)
    s[::7] = 0.0
    return X, rng.standard_normal(60), s


@in_pairs(represent=NATIVE, solver=["auto", "cholesky", "cg"], fit_intercept=INTERCEPT)
@pytest.mark.filterwarnings("error")
def test_ridge_with_fewer_rows_than_columns_is_solved(fit_intercept, solver, represent):
    X, y, s = wide_problem()
    X = X.astype(np.float32).astype(np.float64)
    model = ex.Ridge(0.3, fit_intercept=fit_intercept, solver=solver, tol=1e-9).fit(represent(X), y, s)
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    H = A.T @ (s[:, None] * A) + 0.3 * np.diag(np.arange(A.shape[1]) < X.shape[1])
    expected = np.linalg.solve(H, A.T @ (s * y))
    found = np.append(model.coef_, model.intercept_)[: len(expected)]
    assert_allclose(found, expected, rtol=0, atol=1e-9)
    if solver == "auto" and not sparse.issparse(represent(X)):
        assert model.n_iter_ <= 2  # by a factor: products take more than 20


def test_a_dual_beyond_the_memory_limit_or_without_a_factor_is_done_without():
    X, y, s = wide_problem()
    expected = ex.Ridge(0.3, tol=1e-9, solver="cg").fit(X, y, s).coef_
    limited = ex.Ridge(0.3, tol=1e-9, memory_limit=16 * 60**2 - 1).fit(X, y, s)
    assert limited.n_iter_ == ex.Ridge(0.3, tol=1e-9, solver="cg", memory_limit=1e4).fit(X, y, s).n_iter_
    assert_allclose(limited.coef_, expected, rtol=0, atol=1e-9)
    with pytest.raises(ex.NotPositiveDefiniteError, match="raise alpha"):  # 1 / alpha overflows
        ex.Ridge(1e-320).fit(X, y)


@each_estimator
def test_fit_is_deterministic_and_starts_afresh(Estimator):
    X, y, s = data(Estimator)
    once = Estimator().fit(X, y, sample_weight=s)
    again = Estimator().fit(X[:50, :2], y[:50]).fit(X, y, sample_weight=s)
    assert_array_equal(theta(once), theta(again))
    assert again.n_features_in_ == 4


# Bad input


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        *(("alpha", value) for value in (0, -1.0, np.nan, np.inf, "1", None, [1.0], 1j)),
        *(("tol", value) for value in (-1e-9, np.nan, np.inf, "0", None)),
        *(("max_iter", value) for value in (0, -1, 1.5, "9", None)),
    ],
)
def test_bad_parameters_are_refused_by_name(parameter, value):
    for Estimator in ESTIMATORS.values():
        X, y, _ = data(Estimator)
        with pytest.raises(ValueError, match=f"{parameter} must be"):
            Estimator(**{parameter: value}).fit(X, y)


def spoil(array, value):
    array = np.array(array, dtype=np.float64)
    array.flat[3] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda X, y, s: (spoil(X, np.nan), y, s), "X contains NaN"),
        (lambda X, y, s: (spoil(X, np.inf), y, s), "X contains infinity"),
        (lambda X, y, s: (X, spoil(y, np.nan), s), "y contains NaN"),
        (lambda X, y, s: (X, y, spoil(s, np.nan)), "sample_weight contains NaN"),
        (lambda X, y, s: (X, y, spoil(s, np.inf)), "sample_weight contains NaN or inf"),
        (lambda X, y, s: (X, y, spoil(s, -1.0)), "sample_weight must not be negative"),
        (lambda X, y, s: (X, y, s[:-1]), r"sample_weight has shape \(79,\), expected \(80,\)"),
        (lambda X, y, s: (X, y, s[:, None]), r"sample_weight has shape \(80, 1\), expected \(80,\)"),
        (lambda X, y, s: (X, y, 0.0), "sample_weight"),
        (lambda X, y, s: (X, y, -1.0), "sample_weight must not be negative"),
        (lambda X, y, s: (X, y, ["heavy"] * 80), "sample_weight must hold real numbers"),
        (lambda X, y, s: (X, y[:-1], s), "inconsistent numbers of samples"),
        (lambda X, y, s: (X, np.column_stack([y, y]), s), "1d array"),
        (lambda X, y, s: (X[:, 0], y, s), "Expected 2D array"),
        (lambda X, y, s: (X[:0], y[:0], s[:0]), "0 sample"),
        (lambda X, y, s: (X[:, :0], y, s), "0 feature"),
        (lambda X, y, s: (X * 1j, y, s), "Complex data"),
        (lambda X, y, s: (X.astype(str).astype(object) + "cm", y, s), "could not convert"),
    ],
)
def test_bad_data_are_refused_with_a_reason(change, message):
    for Estimator in ESTIMATORS.values():
        with pytest.raises(ValueError, match=message):
            Estimator().fit(*change(*data(Estimator)))


@pytest.mark.parametrize(
    ("y", "s", "message"),
    [
        (np.zeros(6), None, r"one class, .*0\.0.*: two classes are needed"),
        (["yes"] * 6, None, "one class, .*yes.*: two classes are needed"),
        (np.arange(6) % 3, None, "Only binary classification is supported"),
        (np.linspace(0.0, 1.0, 6), None, "Unknown label type: continuous"),
        (np.arange(6) % 2, np.arange(6) % 2, "only one class has rows of positive sample_weight"),
    ],
)
def test_targets_without_two_classes_of_weight_are_refused(y, s, message):
    with pytest.raises(ValueError, match=message):
        ex.LogisticRegression().fit(np.eye(6), y, sample_weight=s)


@in_pairs(Estimator=ESTIMATORS, represent=FAMILIES)
def test_fit_and_predict_refuse_another_number_of_columns_and_what_is_not_finite(Estimator, represent):
    X, y, _ = data(Estimator)
    model = Estimator().fit(represent(X), y)
    with pytest.raises(ValueError, match=r"X has 3 features, but .* is expecting 4"):
        model.predict(represent(X[:, :3]))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        Estimator().fit(represent(X[:-1]), y)
    for bad, message in ((np.nan, "X contains NaN"), (np.inf, "X contains infinity")):
        with pytest.raises(ValueError, match=message):
            model.predict(represent(spoil(X, bad)))
        with pytest.raises(ValueError, match=message):
            Estimator().fit(represent(spoil(X, bad)), y)


@each_estimator
@with_and_without_intercept
def test_sum_and_mean_forms_have_the_same_minimiser(Estimator, fit_intercept):
    """A loss averaged over rows, with alpha / n, is the sum with alpha, divided by n."""
    X, y, s = data(Estimator)
    total = Estimator(1.5, fit_intercept=fit_intercept, tol=1e-10).fit(X, y, s)
    mean = Estimator(1.5 / 80, fit_intercept=fit_intercept, tol=1e-12).fit(X, y, s / 80)
    assert_allclose(theta(mean), theta(total), rtol=0, atol=2e-10)  # (1e-10 + 80 * 1e-12) / alpha, doubled


@pytest.mark.slow
@pytest.mark.parametrize("share", [1e-3, 1e-6, 1e-9, 1e-12])
def test_passes_over_drebin(share, monkeypatch):
    """To a share of the gradient at 0: where direct steps are refused, products go on."""
    data, passes, minimize = drebin(), [], _core.minimize

    def counted(*args, **kwargs):
        minimum = minimize(*args, **kwargs)
        passes.append(minimum.passes)
        return minimum

    monkeypatch.setattr(_core, "minimize", counted)
    at_zero = np.linalg.norm(data.X.T @ (0.5 - data.y))
    ex.LogisticRegression(1.0, fit_intercept=False, tol=share * at_zero).fit(data.X, data.y)
    assert passes[0] <= 20 - 8 * np.log10(share)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer on this platform")
def test_an_interrupt_is_heard_between_iterations(monkeypatch):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((250_000, 60))
    y = X[:, 0] + rng.standard_normal(250_000) > 0
    model = ex.LogisticRegression(1e-6)
    minimize = _core.minimize

    def interrupted(*args, **kwargs):
        signal.setitimer(signal.ITIMER_REAL, 0.005)  # well before the end: a pass over X takes about as long
        return minimize(*args, **kwargs)

    monkeypatch.setattr(_core, "minimize", interrupted)
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, y)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert not hasattr(model, "coef_")
