"""Ridge and LogisticRegression: scikit-learn's contract, the minimiser of E1, the residual they report."""

import pickle
import warnings
from functools import cache, partial

import numpy as np
import pytest
import sklearn
import sklearn.linear_model
from estimators import ESTIMATORS, data, each_estimator, theta
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    FAMILIES,
    INTEGERS,
    INTERCEPT,
    PROBLEMS,
    bits_of,
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
from expunge import reference

# No fit stops short of its tolerance unless a test says so.
pytestmark = pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")

FITS = ESTIMATORS | {
    "poisson": ex.PoissonRegressor,
    "tweedie(1.5)": partial(ex.TweedieRegressor, power=1.5),
    "tweedie(2.0)": partial(ex.TweedieRegressor, power=2.0),
}
FITTABLE = [
    p
    for p in PROBLEMS
    if np.ndim(p.alpha) == 0 and p.loss in FITS and (p.loss != "logistic" or len(p.X) > 1) and p.has_minimiser
]
each_problem = pytest.mark.parametrize("problem", some_of(FITTABLE), ids=lambda problem: problem.name)
in_families = each_problem_in(FAMILIES, FITTABLE)
with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])


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


ROUNDING = ".* lies below the rounding floor|.* what rounding may hide is larger"


def fit_problem(problem, represent=np.array, **parameters):
    """Fits without the warning that rounding ended some problems' iterations, the only one allowed."""
    model = FITS[problem.loss](problem.alpha, fit_intercept=problem.fit_intercept, **parameters)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=ROUNDING, category=ConvergenceWarning)
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


@parametrize_with_checks(
    [ex.Ridge(), ex.LogisticRegression(), ex.PoissonRegressor(), ex.TweedieRegressor(), ex.LinearSVC()],
    expected_failed_checks=broken_checks,
)
def test_scikit_learns_checks_pass(estimator, check):
    check(estimator)


@each_estimator
def test_clone_parameters_and_pickle_round_trip(Estimator):
    X, y, _ = data(Estimator)
    parameters = {
        "alpha": 0.5,
        "fit_intercept": False,
        "within": 1e-7,
        "tol": 1e-9,
        "max_iter": 50,
        "solver": "cholesky",
        "memory_limit": 2**20,
    }
    if Estimator is ex.LogisticRegression:
        parameters |= {"class_weight": None, "noise": 0.0, "random_state": None}
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
    model = Estimator(tol=1e-8).fit(X, y)
    del model.within  # which they did not have
    written = pickle.dumps(model, protocol=0).replace(Estimator.__module__.encode(), b"expunge.linear")
    assert b"expunge.linear" in written
    loaded = pickle.loads(written)
    assert type(loaded) is Estimator
    assert_array_equal(loaded.predict(X), model.predict(X))
    assert loaded.get_params() == Estimator(tol=1e-8).get_params()


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
    elif problem.loss != "logistic":
        rival = sklearn.linear_model.TweedieRegressor(
            power={"poisson": 1.0, "tweedie(1.5)": 1.5}.get(problem.loss, 2.0),
            alpha=problem.alpha / problem.weights.sum(),
            fit_intercept=problem.fit_intercept,
            solver="newton-cholesky",
            tol=1e-13,
            max_iter=1000,
        )
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


of_whole_numbers = pytest.mark.parametrize("represent", [*FAMILIES, *INTEGERS], indirect=True)


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


@in_pairs(Estimator=ESTIMATORS, fit_intercept=INTERCEPT, represent=[*FAMILIES, "csc"])
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
        warnings.filterwarnings("ignore", message=ROUNDING, category=ConvergenceWarning)
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


@in_pairs(represent=FAMILIES, solver=["auto", "cholesky", "cg"], fit_intercept=INTERCEPT)
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
    with pytest.raises(ex.NotPositiveDefiniteError, match="strengthen the penalty"):  # 1 / alpha overflows
        ex.Ridge(1e-320).fit(X, y)


@each_estimator
def test_fit_is_deterministic_and_starts_afresh(Estimator):
    X, y, s = data(Estimator)
    once = Estimator().fit(X, y, sample_weight=s)
    again = Estimator().fit(X[:50, :2], y[:50]).fit(X, y, sample_weight=s)
    assert_array_equal(theta(once), theta(again))
    assert again.n_features_in_ == 4


@pytest.mark.parametrize("kind", [ex.Ridge, ex.LogisticRegression])
@pytest.mark.parametrize("tol", [None, 1e-8, 9e-9])
def test_below_the_floor_the_default_warns_only_of_what_could_be_seen(kind, tol, recwarn):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60_000, 100))
    y = (X[:, 0] > rng.standard_normal(len(X))) * 1.0
    model = kind(**({} if tol is None else {"tol": tol})).fit(X, y)
    loss = "squared" if kind is ex.Ridge else "logistic"
    floor = ex.kernels.rounding_floor(X, y, theta(model), alpha=1.0, loss=loss, fit_intercept=True)
    assert floor > 1e-8
    un = ex.Unlearner(model, X, y)
    un.apply(ex.RemoveRows(3))
    assert len(recwarn) == (tol == 9e-9)
    with pytest.warns(ConvergenceWarning, match="what rounding may hide is larger"):  # raw columns
        kind().fit(1e8 * X[:5000] ** 3, y[:5000])


@with_and_without_intercept
@pytest.mark.parametrize("solver", ["cholesky", "cg"])
@pytest.mark.parametrize("within", [0.3, 1e-3, 1e-6])
@each_estimator
def test_a_fit_is_within_so_many_standard_errors_of_the_minimiser(Estimator, within, solver, fit_intercept):
    rng = np.random.default_rng(4)
    X = rng.standard_normal((400, 30)) * np.geomspace(0.1, 10.0, 30)
    y = X[:, 0] + rng.logistic(size=400)
    y = 1e-7 * y if Estimator is ex.Ridge else y > 0.0
    model = Estimator(0.5, fit_intercept=fit_intercept, within=within, solver=solver).fit(X, y)
    best = Estimator(0.5, fit_intercept=fit_intercept, tol=1e-15 if Estimator is ex.Ridge else 1e-9).fit(X, y)
    H = reference.hessian(X, theta(best), **objective(best))
    step = theta(model) - theta(best)
    spread = 1.0
    if Estimator is ex.Ridge:
        spread = np.sqrt(np.mean((y - best.predict(X)) ** 2))
    assert np.sqrt(step @ H @ step) <= within * spread
    assert ex.distance(model, X, y) <= 1.01 * within
    if Estimator is ex.LogisticRegression and within == 0.3:  # and no nearer than was asked for
        assert model.n_iter_ < best.n_iter_


def test_a_fit_does_not_depend_on_the_unit_of_its_targets():
    rng = np.random.default_rng(5)
    X = rng.standard_normal((300, 40))
    y = X[:, 0] + rng.standard_normal(300)
    once = ex.Ridge(solver="cg", within=1e-3).fit(X, y)
    again = ex.Ridge(solver="cg", within=1e-3).fit(X, 2.0**-40 * y)
    assert_array_equal(again.coef_, 2.0**-40 * once.coef_)
    assert again.n_iter_ == once.n_iter_


def test_tol_stops_at_a_residual_whatever_within_says():
    X, y, _ = data(ex.LogisticRegression)
    loose = ex.LogisticRegression(tol=1.0, within=1e-9).fit(X, y)
    assert 1e-3 < loose.residual_ <= 1.0


@pytest.mark.parametrize("kind", [ex.Ridge, ex.LogisticRegression])
def test_a_perfect_fit_has_no_standard_errors_and_no_warning(kind):
    X = np.random.default_rng(6).standard_normal((2000, 5))
    y = X @ np.arange(5.0) if kind is ex.Ridge else X[:, 0] > 0.0
    kind(1e-12).fit(X, y)  # warnings are errors
    kind().fit(X, np.full(2000, 3.0) if kind is ex.Ridge else X[:, 0] > 0.0)
