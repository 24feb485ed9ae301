"""A model and the data of its fit: what does not belong together is refused before anything changes."""

import copy
import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose
from problems import INTERCEPT, WEIGHTED, in_pairs
from scipy import sparse
from sklearn import linear_model
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.exceptions import ConvergenceWarning
from sklearn.preprocessing import StandardScaler

import expunge as ex
from expunge import reference
from expunge._numbers import power_of_two_above

each_loss = pytest.mark.parametrize("loss", ["squared", "logistic"])
with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])


def data(loss, n=300, d=6, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) @ np.diag(np.linspace(0.5, 2.0, d)) + 0.3
    eta = X @ np.linspace(1.0, -1.0, d) + 0.4
    if loss == "squared":
        return X, eta + rng.standard_normal(n)
    return X, (eta + rng.logistic(size=n) > 0).astype(int)


def theirs(loss, **parameters):
    if loss == "squared":
        return linear_model.Ridge(**parameters)
    return linear_model.LogisticRegression(**{"max_iter": 10_000, "tol": 1e-8, **parameters})


def ours(loss, **parameters):
    return (ex.Ridge if loss == "squared" else ex.LogisticRegression)(**parameters)


def theta_of(model):
    return np.append(np.ravel(model.coef_), np.ravel(model.intercept_) if model.fit_intercept else [])


# The distance


@in_pairs(
    loss=["squared", "logistic"],
    fit_intercept=INTERCEPT,
    weighted=WEIGHTED,
    solver=["cholesky", "cg"],
    layout={"dense": np.asarray, "csr": sparse.csr_array},
)
def test_the_distance_is_that_of_the_definition(loss, fit_intercept, weighted, solver, layout):
    X, y = data(loss)
    s = np.random.default_rng(1).integers(0, 4, len(y)) / 2.0 if weighted else None
    model = ours(loss, fit_intercept=fit_intercept, solver=solver).fit(layout(X), y, s)
    best = theta_of(model)
    moved = best + 0.01 * np.linspace(-1.0, 1.0, best.size)
    model.coef_ = moved[: X.shape[1]].reshape(model.coef_.shape)
    if fit_intercept:
        model.intercept_ = moved[-1] if loss == "squared" else moved[-1:]
    un = ex.Unlearner(model, layout(X), y, s, refit=True)

    kept = {"alpha": 1.0, "loss": loss, "sample_weight": s, "fit_intercept": fit_intercept}
    H = reference.hessian(X, best, **kept)
    expected = np.sqrt((moved - best) @ H @ (moved - best))
    if loss == "squared":
        value = reference.loss_and_gradient(X, y, best, **kept)[0]
        rows = len(y) if s is None else np.count_nonzero(s)
        expected /= np.sqrt(2.0 * value / rows)
    assert_allclose(un.distance_on_entry, expected, rtol=1e-6)


@each_loss
@with_and_without_intercept
def test_it_counts_standard_errors(loss, fit_intercept):
    """No coefficient and no prediction is further away, and some direction is just as far."""
    X, y = data(loss)
    model = theirs(loss, fit_intercept=fit_intercept).fit(X, y)
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    other = theirs(loss, fit_intercept=fit_intercept).fit(X[:-40], y[:-40])
    before = theta_of(other)
    un = ex.Unlearner(other, X, y, refit=True)
    away = un.distance_on_entry
    best = theta_of(other)
    H = reference.hessian(X, best, alpha=1.0, loss=loss, fit_intercept=fit_intercept)
    sigma = 1.0
    if loss == "squared":
        J = reference.loss_and_gradient(X, y, best, alpha=1.0, loss=loss, fit_intercept=fit_intercept)[0]
        sigma = np.sqrt(2.0 * J / len(y))
        plain = np.sum((y - A @ best) ** 2) / (len(y) - A.shape[1])
        assert_allclose(sigma**2, plain, rtol=0.1)  # the usual estimate of the noise
    errors = sigma * np.sqrt(np.diag(np.linalg.inv(H)))
    assert (np.abs(before - best) <= away * errors * (1 + 1e-9)).all()
    of_predictions = sigma * np.sqrt(np.sum(A * np.linalg.solve(H, A.T).T, axis=1))
    assert (np.abs(A @ (before - best)) <= away * of_predictions * (1 + 1e-9)).all()
    assert theta_of(model).shape == best.shape


@each_loss
def test_it_does_not_depend_on_units_of_columns_and_targets(loss):
    X, y = data(loss)
    away = []
    for scale in (1.0, 0.03, 30.0):
        c = scale ** np.linspace(-1.0, 1.0, X.shape[1])
        unit = scale if loss == "squared" else 1.0
        model = ours(loss, alpha=1e-9).fit(X[:-30] * c, y[:-30] * unit)
        away.append(ex.Unlearner(model, X * c, y * unit, tolerance=1e-7, refit=True).distance_on_entry)
    assert_allclose(away, away[0], rtol=1e-3)


@each_loss
def test_a_model_within_the_tolerance_is_at_distance_0(loss):
    X, y = data(loss)
    un = ex.Unlearner(ours(loss, tol=1e-9).fit(X, y), X, y)
    assert un.distance_on_entry == 0.0
    assert un.residual_on_entry <= 1e-9


@each_loss
def test_once_rows_have_left_it_is_a_power_of_two_also_in_files(loss, tmp_path):
    X, y = data(loss)
    un = ex.Unlearner(theirs(loss).fit(X[:-9], y[:-9]), X, y, refit=True)
    before = un.distance_on_entry
    assert 0.0 < before != power_of_two_above(before)
    un.save(tmp_path / "before", include_rows=True)
    assert ex.Unlearner.load(tmp_path / "before").distance_on_entry == before
    un.apply(ex.RemoveRows([3]))
    assert un.distance_on_entry == power_of_two_above(before)
    un.save(tmp_path / "after")
    un.detach()
    assert un.distance_on_entry == power_of_two_above(before)
    assert ex.Unlearner.load(tmp_path / "after").distance_on_entry == power_of_two_above(before)


# What is refused


def standardised():
    X, y = load_breast_cancer(return_X_y=True)
    return StandardScaler().fit_transform(X), y


def mismatches():
    """name -> (fits a model, gives the data for it)."""
    raw, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(raw)
    permuted = np.random.default_rng(0).permutation(len(y))
    return {
        "raw columns": ((X, y), (raw, y)),
        "scaled columns": ((raw, y), (X, y)),
        "labels flipped": ((X, y), (X, 1 - y)),
        "rows permuted": ((X, y), (X[permuted], y)),
        "columns reversed": ((X, y), (X[:, ::-1], y)),
    }


@pytest.mark.parametrize("who", [theirs, ours], ids=["theirs", "ours"])
@pytest.mark.parametrize("name", mismatches())
def test_gross_mismatches_are_refused_and_change_nothing(name, who):
    fitted_to, handed_over = mismatches()[name]
    model = who("logistic").fit(*fitted_to)
    before = pickle.dumps(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # raw columns: a floor above the tolerance
        with pytest.raises(ex.NotFittedToThisData) as raised:
            ex.Unlearner(model, *handed_over)
        assert pickle.dumps(model) == before
        assert isinstance(raised.value, ValueError)
        assert raised.value.distance > raised.value.limit > 0.0
        un = ex.Unlearner(model, *handed_over, refit=True)
    assert_allclose(un.distance_on_entry, raised.value.distance)
    assert pickle.dumps(model) != before


def test_the_message_names_the_number_and_causes_in_order_of_cheapness():
    X, y = standardised()
    with pytest.raises(ex.NotFittedToThisData) as raised:
        ex.Unlearner(theirs("logistic").fit(X, y), X, 1 - y)
    message = str(raised.value)
    assert f"{raised.value.distance:.3g} standard errors" in message
    words = (
        "sample_weight",
        "y, in the order",
        "X as the model saw it",
        "all rows",
        "alpha or C",
        "refit=True",
    )
    found = [message.index(word) for word in words]
    assert found == sorted(found)
    assert pickle.loads(pickle.dumps(raised.value)).distance == raised.value.distance


def test_our_own_models_are_held_to_what_our_solver_leaves():
    """A few rows too many, weights forgotten, another alpha: below what other solvers may leave."""
    X, y = standardised()
    s = np.random.default_rng(0).integers(1, 9, len(y)) / 4.0
    fits = {
        "rows": ex.LogisticRegression().fit(X[:-40], y[:-40]),
        "weights": ex.LogisticRegression().fit(X, y, s),
        "alpha": ex.LogisticRegression(alpha=3.0).fit(X, y).set_params(alpha=1.0),
    }
    for name, model in fits.items():
        with pytest.raises(ex.NotFittedToThisData):
            ex.Unlearner(model, X, y)
        assert ex.Unlearner(copy.deepcopy(model), X, y, refit=True).residual() <= 1e-8, name


@each_loss
def test_our_own_models_are_adopted_on_float32_copies_and_other_layouts(loss):
    X, y = data(loss)
    for handed_over in (X.astype(np.float32), np.asfortranarray(X), sparse.csc_array(X), X.tolist()):
        ex.Unlearner(ours(loss).fit(X, y), handed_over, y)


def test_a_model_of_ours_that_was_loosely_solved_is_polished():
    X, y = standardised()
    model = ex.LogisticRegression(tol=5.0).fit(X, y)
    assert model.residual_ > 1e-2
    assert ex.Unlearner(model, X, y).residual() <= 1e-8


# Solvers that stopped early


def test_an_unconverged_model_is_polished_with_a_message_of_its_own():
    X, y = load_breast_cancer(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = linear_model.LogisticRegression(solver="saga", max_iter=50).fit(X, y)
    with pytest.warns(
        ConvergenceWarning, match=r"stopped early \(after 50 iterations, max_iter=50\)"
    ) as caught:
        un = ex.Unlearner(model, X, y, tolerance=1e-6)
    assert caught[0].filename == __file__
    assert un.distance_on_entry > np.sqrt(31)
    assert un.residual() <= 1e-6


def test_so_is_one_whose_tolerance_was_loosened():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((20_000, 50))
    y = X @ rng.standard_normal(50) * 0.3 + rng.logistic(size=20_000) > 0
    model = linear_model.LogisticRegression(tol=1e-2).fit(X, y)
    with pytest.warns(ConvergenceWarning, match=r"stopped early \(tol=0.01\)"):
        ex.Unlearner(model, X, y, tolerance=1e-6)


def test_an_unconverged_model_that_is_worse_than_none_is_refused():
    """A solver that begins at 0 and descends does not end above where it began."""
    X, y = load_breast_cancer(return_X_y=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = linear_model.LogisticRegression(max_iter=100).fit(X, y)
        with pytest.raises(ex.NotFittedToThisData):
            ex.Unlearner(model, X, 1 - y)


def test_ridge_that_ran_out_of_iterations_nobody_limited_is_polished():
    X, y = load_diabetes(return_X_y=True, scaled=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = linear_model.Ridge(solver="saga", random_state=0).fit(X, y)
        un = ex.Unlearner(model, X, y, tolerance=1e-6)
    assert un.residual() <= 1e-6


SOLVERS = [
    *(("squared", solver) for solver in ("auto", "svd", "cholesky", "lsqr", "sparse_cg", "sag", "saga")),
    *(
        ("logistic", solver)
        for solver in ("lbfgs", "newton-cg", "newton-cholesky", "sag", "saga", "liblinear")
    ),
]


@pytest.mark.parametrize("scale", [0.01, 1.0, 10.0])
@pytest.mark.parametrize(("loss", "solver"), SOLVERS)
def test_no_solver_at_its_default_is_refused(loss, solver, scale):
    X, y = data(loss, n=500)
    fit_intercept = solver != "liblinear"
    model = (linear_model.Ridge if loss == "squared" else linear_model.LogisticRegression)(
        solver=solver, fit_intercept=fit_intercept
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ex.Unlearner(model.fit(X * scale, y), X * scale, y, tolerance=1e-6)


def test_targets_without_noise_do_not_make_an_iterative_solver_look_wrong():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((2000, 20))
    y = X @ rng.standard_normal(20) + 3.0
    for solver in ("lsqr", "sparse_cg", "sag", "saga"):
        ex.Unlearner(linear_model.Ridge(solver=solver, random_state=0).fit(X, y), X, y)


# Parameters


@each_loss
@pytest.mark.parametrize("who", [theirs, ours], ids=["theirs", "ours"])
@pytest.mark.parametrize("name", ["penalty", "fit_intercept"])
def test_parameters_changed_on_the_model_are_noticed_at_the_next_request(loss, who, name):
    X, y = data(loss)
    model = who(loss).fit(X, y)
    un = ex.Unlearner(model, X, y, tolerance=1e-8)
    un.apply(ex.RemoveRows([0]))
    parameter = "fit_intercept" if name == "fit_intercept" else "C" if hasattr(model, "C") else "alpha"
    old = getattr(model, parameter)
    model.set_params(**{parameter: False if name == "fit_intercept" else 7.0})
    before = pickle.dumps(model)
    for call in (
        lambda: un.apply(ex.RemoveRows([1])),
        un.residual,
        un.detach,
        lambda: un.release(1.0, 1e-5),
        lambda: un.save("never-written"),
    ):
        with pytest.raises(
            ValueError, match=rf"{parameter} from .* was changed .*set_params\({parameter}={old!r}\)"
        ):
            call()
    assert pickle.dumps(model) == before
    model.set_params(**{parameter: old})
    un.apply(ex.RemoveRows([1]))
    assert un.residual() <= 1e-8


def test_other_parameters_that_choose_the_objective_are_noticed_too():
    X, y = data("logistic")
    model = theirs("logistic").fit(X, y)
    un = ex.Unlearner(model, X, y)
    model.set_params(class_weight="balanced")
    with pytest.raises(ValueError, match="class_weight from None to 'balanced' was changed"):
        un.apply(ex.RemoveRows([0]))
    model.set_params(class_weight=None, verbose=0, max_iter=7)  # these do not
    un.apply(ex.RemoveRows([0]))


@pytest.mark.filterwarnings("ignore:alpha=.* was chosen on the data")
def test_the_only_parameter_of_a_model_is_noticed_too():
    X, y = data("squared")
    un = ex.Unlearner(linear_model.RidgeCV().fit(X, y), X, y)
    un.model.set_params(fit_intercept=False)
    with pytest.raises(ValueError, match="fit_intercept from True to False was changed"):
        un.apply(ex.RemoveRows([0]))


def test_an_equal_value_is_no_change():
    X, y = data("squared")
    model = theirs("squared", alpha=1.0).fit(X, y)
    un = ex.Unlearner(model, X, y)
    model.set_params(alpha=np.float64(1.0), fit_intercept=np.True_)
    un.apply(ex.RemoveRows([0]))


@each_loss
@pytest.mark.parametrize("who", [theirs, ours], ids=["theirs", "ours"])
def test_fit_intercept_changed_between_fit_and_adoption_is_refused(loss, who):
    X, y = data(loss)
    model = who(loss).fit(X, y).set_params(fit_intercept=False)
    for call in (ex.Unlearner, ex.residual):
        with pytest.raises(ValueError, match="fit_intercept=False, but intercept_ is not 0"):
            call(model, X, y)


@pytest.mark.parametrize("flag", ["False", "no", None, 0, 1, 1.0, [], np.array([True])], ids=repr)
def test_a_flag_is_true_or_false(flag, tmp_path):
    X, y = data("logistic")
    message = "fit_intercept must be True or False"
    for loss in ("squared", "logistic"):
        with pytest.raises(ValueError, match=message):
            ours(loss, fit_intercept=flag).fit(X, y)
        model = theirs(loss).fit(X, y)
        model.fit_intercept = flag
        with pytest.raises(ValueError, match=message):
            ex.Unlearner(model, X, y)
    with pytest.raises(ValueError, match=message):
        ex.kernels.gradient(X, y, np.zeros(7), alpha=1.0, fit_intercept=flag)
    un = ex.Unlearner(ours("logistic").fit(X, y), X, y)
    for name in ("column_index", "refit"):
        with pytest.raises(ValueError, match=f"{name} must be True or False"):
            ex.Unlearner(un.model, X, y, **{name: flag})
    for name in ("include_rows", "include_noise"):
        with pytest.raises(ValueError, match=f"{name} must be True or False"):
            un.save(tmp_path / "file", **{name: flag})
    with pytest.raises(ValueError, match="indices must be True or False"):
        un.get_support(indices=flag)
    assert list(tmp_path.iterdir()) == []


def test_C_says_what_alpha_is():
    with pytest.raises(TypeError, match=r"pass alpha=1/C, here alpha=4$"):
        ex.LogisticRegression(C=0.25)
    with pytest.raises(TypeError, match=r"pass alpha=1/C$"):
        ex.LogisticRegression(C="0.25")
    with pytest.raises(TypeError, match="unexpected keyword argument 'C'"):
        ex.Ridge(C=1.0)  # has none in scikit-learn either


def test_a_refusal_comes_before_anything_else_is_said_of_the_data():
    raw, y = load_breast_cancer(return_X_y=True)
    X = StandardScaler().fit_transform(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the floor of raw X lies above the tolerance
        with pytest.raises(ex.NotFittedToThisData):
            ex.Unlearner(theirs("logistic").fit(X, y), raw, y)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
def test_iterative_ridge_that_ended_far_away_on_raw_columns_says_what_to_do(kind):
    X, y = load_breast_cancer(return_X_y=True)
    X = kind(X)
    model = linear_model.Ridge(solver="auto" if sparse.issparse(X) else "lsqr").fit(X, y)
    with pytest.raises(
        ex.NotFittedToThisData, match=f"its solver {model.solver_} ended far from the minimum"
    ):
        ex.Unlearner(model, X, y)
    ex.Unlearner(model, X, y, refit=True)
    if not sparse.issparse(X):
        ex.Unlearner(linear_model.Ridge(solver="cholesky").fit(X, y), X, y)
    scaled = StandardScaler(with_mean=False).fit_transform(X)
    ex.Unlearner(linear_model.Ridge(solver=model.solver).fit(scaled, y), scaled, y)
