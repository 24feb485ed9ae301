"""The NumPy reference against finite differences, mpmath and cases whose answer is known."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    CLASSIC,
    MEANS,
    PROBLEMS,
    assert_finite_differences,
    central_difference,
    each_problem,
    exact_gradient,
    exact_loss,
    float32_values,
    other_targets,
    retrain,
    targets_of,
)

from expunge import kernels, reference
from expunge.errors import NotPositiveDefiniteError
from expunge.losses import LOSSES, get_loss

each_loss = pytest.mark.parametrize("loss", LOSSES)
with_and_without_intercept = pytest.mark.parametrize("fit_intercept", [False, True])

TARGETS = {
    "squared": (-2.5, 0.0, 3.0),
    "logistic": (0.0, 1.0),
    "fractional": (0.0, 0.25, 0.9, 1.0),
    "poisson": (0.0, 0.5, 3.0),
    "tweedie(1.5)": (0.0, 0.5, 30.0),
    "tweedie(2.0)": (0.5, 3.0),
    "squared_hinge": (0.0, 1.0),
}
ETA = np.concatenate(
    [[0.0], *((m, -m) for m in (1e-9, 0.1, 1.317, 5.0, 36.0, 37.0, 300.0, 709.5, 745.0, 800.0))]
)


def data(loss, n=30, d=4, seed=0):
    """X (n, d), y (n,), s (n,)"""
    rng = np.random.default_rng(seed)
    y = rng.standard_normal(n) if loss == "squared" else np.arange(n) % 2.0
    if loss not in CLASSIC:
        y = targets_of(loss, rng.standard_normal(n), rng)
    return rng.standard_normal((n, d)), y, rng.uniform(0.5, 2.0, n)


# Losses


@each_loss
def test_losses_keep_relative_accuracy_at_every_margin(loss):
    mpmath = pytest.importorskip("mpmath")
    with mpmath.workdps(800):  # sigma - 1 at 800 cancels 348 digits
        for y in TARGETS[loss]:
            exact = [exact_loss(mpmath, loss, y, eta) for eta in ETA]
            for k, name in enumerate(("value", "d1", "d2")):
                got = getattr(LOSSES[loss], name)(np.full(ETA.shape, y), ETA)
                expected = [float(at_eta[k]) for at_eta in exact]
                if loss in CLASSIC:
                    assert_allclose(got, expected, rtol=1e-15, atol=1e-305, err_msg=f"{name}, y = {y}")
                    continue
                # Terms may cancel, and the exponential of a product has the error of its argument.
                terms = [float(at_eta[2]) + abs(y * eta) + y for at_eta, eta in zip(exact, ETA, strict=True)]
                infinite = np.isinf(expected)
                with np.errstate(over="ignore", invalid="ignore"):
                    most = 1e-15 * (2.0 + np.abs(ETA)) * (np.abs(expected) + terms) + 1e-305
                    error = np.abs(got - expected)
                assert_array_equal(np.asarray(got)[infinite], np.asarray(expected)[infinite])
                assert (error <= most)[~infinite].all(), f"{name}, y = {y}"


@each_loss
def test_losses_raise_no_floating_point_flag(loss):
    eta = np.array([-1e300, -1e4, -800.0, 800.0, 1e4, 1e100])
    if loss in ("squared", "squared_hinge"):
        eta = eta[1:]  # the square of 1e300 does overflow
    if loss in MEANS:
        eta = np.array([-700.0, 700.0])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        for y in TARGETS[loss]:
            for function in (LOSSES[loss].value, LOSSES[loss].d1, LOSSES[loss].d2):
                assert np.isfinite(function(y, eta)).all()


@pytest.mark.parametrize("loss", MEANS)
def test_means_out_of_range_are_infinite_and_never_nan(loss):
    eta = np.array([-1e300, -1e4, -800.0, 800.0, 1e4, 1e300])
    with np.errstate(all="raise", under="ignore"):
        for y in TARGETS[loss]:
            for function in (LOSSES[loss].value, LOSSES[loss].d1, LOSSES[loss].d2):
                assert not np.isnan(function(y, eta)).any()
            assert LOSSES[loss].value(y, eta[-2:]).min() >= 1e4


@each_loss
def test_derivatives_of_losses_by_finite_differences(loss):
    eta = np.linspace(-6.0, 6.0, 101)
    for y in TARGETS[loss]:
        for function, derivative in (("value", "d1"), ("d1", "d2")):
            f, df = getattr(LOSSES[loss], function), getattr(LOSSES[loss], derivative)
            difference = central_difference(lambda t, f=f, y=y: f(y, eta + t), 1e-3)
            assert_allclose(df(y, eta), difference, atol=2e-11)


@each_loss
def test_curvature_depends_on_targets_where_the_loss_says_so(loss):  # E6
    at_first = LOSSES[loss].d2(TARGETS[loss][0], ETA)
    same = all(np.array_equal(LOSSES[loss].d2(y, ETA), at_first) for y in TARGETS[loss])
    assert same is not LOSSES[loss].curvature_of_targets


@each_loss
def test_max_d2_and_max_d3_are_bounds_and_attained(loss):
    eta = np.append(np.linspace(-20.0, 20.0, 4001), [np.log(2 + np.sqrt(3)), 0.0])
    d2 = LOSSES[loss].d2
    if loss in MEANS:  # there are none
        assert LOSSES[loss].max_d2 == LOSSES[loss].max_d3 == np.inf
        assert d2(1.0, np.array([-700.0, 700.0])).max() > 1e100
        return
    if loss == "squared_hinge":
        assert set(np.ravel(d2(1.0, eta))) == {0.0, LOSSES[loss].max_d2}
        return
    d3 = central_difference(lambda t: d2(0.0, eta + t), 1e-3)
    assert_allclose(np.max(d2(0.0, eta)), LOSSES[loss].max_d2, rtol=1e-15)
    assert_allclose(np.max(np.abs(d3)), LOSSES[loss].max_d3, atol=1e-11)


@pytest.mark.parametrize(
    ("loss", "y", "first"),
    [
        ("logistic", [0, 1, -1], 2),
        ("logistic", [0.5], 0),
        ("squared", [1, np.nan], 1),
        ("squared", [np.inf], 0),
        ("fractional", [0.5, 1.5], 1),
        ("fractional", [np.nan], 0),
        ("poisson", [0, 2, -1], 2),
        ("poisson", [np.inf], 0),
        ("tweedie(1.5)", [-1e-300], 0),
        ("tweedie(2.0)", [1.0, 0.0], 1),
    ],
)
def test_targets_out_of_domain_are_refused_with_the_fix(loss, y, first):
    with pytest.raises(ValueError, match=rf"y\[{first}\].*{LOSSES[loss].remedy}"):
        LOSSES[loss].check_targets(y)


@each_loss
def test_targets_in_domain_are_accepted(loss):
    LOSSES[loss].check_targets(np.array(TARGETS[loss]))


def test_an_unknown_loss_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"hinge.*squared.*logistic"):
        get_loss("hinge")


# Oracle 1: finite differences, at a random theta


@each_problem
def test_gradient_and_hessian_by_finite_differences(problem):
    assert_finite_differences(reference, problem)


@each_problem
def test_hvp_is_the_hessian_times_v(problem):
    v = np.random.default_rng(1).standard_normal(problem.theta.shape)
    H = reference.hessian(problem.X, problem.theta, **problem.curvature)
    product = reference.hvp(problem.X, problem.theta, v, **problem.curvature)
    assert np.linalg.norm(product - H @ v) <= 1e-12 * np.linalg.norm(H) * np.linalg.norm(v)


# Known answers


@with_and_without_intercept
def test_squared_loss_is_the_normal_equations(fit_intercept):
    X, y, s = data("squared")
    alpha = np.array([0.5, 1.0, 2.0, 4.0])
    A = np.column_stack([X, np.ones(30)]) if fit_intercept else X
    Lambda = np.diag(np.append(alpha, 0.0) if fit_intercept else alpha)
    theta = np.random.default_rng(3).standard_normal(A.shape[1])
    objective = {"alpha": alpha, "loss": "squared", "sample_weight": s, "fit_intercept": fit_intercept}
    S = np.diag(s)

    H = reference.hessian(X, theta, **objective)
    assert_allclose(H, A.T @ S @ A + Lambda, rtol=1e-13, atol=1e-13)
    J, g = reference.loss_and_gradient(X, y, theta, **objective)
    assert_allclose(g, H @ theta - A.T @ S @ y, rtol=1e-12, atol=1e-12)
    assert_allclose(J, 0.5 * s @ (A @ theta - y) ** 2 + 0.5 * theta @ Lambda @ theta, rtol=1e-14)
    minimiser = np.linalg.solve(A.T @ S @ A + Lambda, A.T @ S @ y)
    assert_allclose(theta - reference.CholeskyFactor(H).solve(g), minimiser, rtol=1e-12, atol=1e-12)  # E5


def test_logistic_loss_at_zero_is_known():
    X, y, _ = data("logistic")
    J, g = reference.loss_and_gradient(X, y, np.zeros(4), alpha=1.0)
    assert_allclose(J, 30 * np.log(2.0), rtol=1e-15)
    assert_allclose(g, X.T @ (0.5 - y), rtol=1e-13, atol=1e-14)
    assert_allclose(
        reference.hessian(X, np.zeros(4), alpha=1.0), X.T @ X / 4 + np.eye(4), rtol=1e-13, atol=1e-14
    )


@pytest.mark.parametrize("module", [kernels, reference])
def test_losses_of_means_at_zero_and_at_the_mean_are_known(module):
    X, y, s = data("tweedie(2.0)")
    zero, common = np.zeros(4), {"alpha": 1.0, "sample_weight": s}
    known = {  # loss -> its value where eta is 0, and d2
        "poisson": (np.ones(30), np.ones(30)),
        "tweedie(1.5)": (2.0 + 2.0 * y, 0.5 + 0.5 * y),
        "tweedie(2.0)": (y, y),
    }
    for loss, (value, d2) in known.items():
        J, g = module.loss_and_gradient(X, y, zero, loss=loss, **common)
        assert_allclose(J, s @ value, rtol=1e-14)
        assert_allclose(g, X.T @ (s * (1.0 - y)), rtol=1e-13, atol=1e-13)
        H = module.hessian(X, zero, loss=loss, y=y, **common)
        assert_allclose(H, (X.T * (s * d2)) @ X + np.eye(4), rtol=1e-13, atol=1e-13)
        best = np.append(zero, np.log(np.average(y, weights=s)))  # without columns that tell more: the mean
        g = module.gradient(0.0 * X, y, best, loss=loss, fit_intercept=True, **common)
        assert_allclose(g, 0.0, atol=1e-13 * s.sum() * y.max())


@each_loss
@with_and_without_intercept
def test_weight_zero_is_removal_and_weight_two_is_duplication(loss, fit_intercept):
    X, y, _ = data(loss)
    theta = np.random.default_rng(4).standard_normal(4 + fit_intercept)
    zeros, twos = np.ones(30), np.ones(30)
    zeros[10:15], twos[10:15] = 0.0, 2.0
    removed, duplicated = np.delete(np.arange(30), range(10, 15)), np.append(np.arange(30), range(10, 15))
    for weights, rows in ((zeros, removed), (twos, duplicated)):
        common = {"alpha": 0.5, "loss": loss, "fit_intercept": fit_intercept}
        J, g = reference.loss_and_gradient(X, y, theta, sample_weight=weights, **common)
        J_rows, g_rows = reference.loss_and_gradient(X[rows], y[rows], theta, **common)
        assert_allclose(J, J_rows, rtol=1e-13)
        assert_allclose(g, g_rows, rtol=1e-12, atol=1e-13)
        assert_allclose(
            reference.hessian(X, theta, sample_weight=weights, y=y, **common),
            reference.hessian(X[rows], theta, y=y[rows], **common),
            rtol=1e-12,
            atol=1e-13,
        )


@each_loss
@with_and_without_intercept
def test_gradient_difference_is_the_difference_of_two_gradients(loss, fit_intercept):  # E3
    X, y, s = data(loss)
    X_after, y_after, s_after = data(loss, n=8, seed=5)
    theta = np.random.default_rng(6).standard_normal(4 + fit_intercept)
    kept = slice(12, None)

    def gradient(X, y, s):
        return reference.gradient(
            X, y, theta, alpha=0.5, loss=loss, sample_weight=s, fit_intercept=fit_intercept
        )

    change = reference.gradient_difference(
        (X[:12], y[:12], s[:12]), (X_after, y_after, s_after), theta, loss=loss, fit_intercept=fit_intercept
    )
    after = gradient(np.vstack([X[kept], X_after]), np.append(y[kept], y_after), np.append(s[kept], s_after))
    assert_allclose(change, after - gradient(X, y, s), rtol=1e-12, atol=1e-12)


@each_loss
def test_gradient_difference_of_removal_addition_and_nothing(loss):
    X, y, _ = data(loss)
    theta = np.random.default_rng(7).standard_normal(4)
    removed = reference.gradient_difference((X, y), None, theta, loss=loss)
    added = reference.gradient_difference(None, (X, y), theta, loss=loss)
    assert_array_equal(removed, -added)
    assert_array_equal(reference.gradient_difference(None, None, theta, loss=loss), np.zeros(4))
    assert_array_equal(reference.gradient_difference((X[:0], y[:0]), None, theta, loss=loss), np.zeros(4))


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if not LOSSES[loss].curvature_of_targets])
@with_and_without_intercept
def test_label_corrections_do_not_depend_on_theta(loss, fit_intercept):  # E6
    X, y, s = data(loss)
    y_after = y + 0.25 if loss == "squared" else other_targets(loss, y)
    A = np.column_stack([X, np.ones(30)]) if fit_intercept else X
    for seed in (0, 1):
        theta = 3.0 * np.random.default_rng(seed).standard_normal(A.shape[1])
        change = reference.gradient_difference(
            (X, y, s), (X, y_after, s), theta, loss=loss, fit_intercept=fit_intercept
        )
        size = np.abs(A).T @ (s * np.abs(LOSSES[loss].d1(y, A @ theta)))
        assert (np.abs(change - A.T @ (s * (y - y_after))) <= 1e-12 + 1e-14 * size).all()


@each_loss
@with_and_without_intercept
def test_one_removed_row_by_its_leverage(loss, fit_intercept):  # E7
    X, y, s = data(loss)
    common = {"alpha": 0.5, "loss": loss, "fit_intercept": fit_intercept}
    theta = retrain(X, y, sample_weight=s, **common)
    H = reference.hessian(X, theta, sample_weight=s, y=y, **common)
    x, rest = np.append(X[0], 1.0) if fit_intercept else X[0], slice(1, None)
    g = reference.gradient(X[rest], y[rest], theta, sample_weight=s[rest], **common)
    corrected = reference.CholeskyFactor(
        reference.hessian(X[rest], theta, sample_weight=s[rest], y=y[rest], **common)
    )
    original = reference.CholeskyFactor(H)
    h = s[0] * LOSSES[loss].d2(y[0], x @ theta) * x @ original.solve(x)
    assert_allclose(-corrected.solve(g), -original.solve(g) / (1.0 - h), rtol=0, atol=1e-10)


def test_gram_is_additive_in_signed_weights():
    X, _, s = data("squared")
    signs = np.where(np.arange(30) < 10, -1.0, 1.0)
    expected = reference.gram(X[10:], s[10:]) - reference.gram(X[:10], s[:10])
    assert_allclose(reference.gram(X, signs * s), expected, rtol=1e-12, atol=1e-12)


def test_float32_rows_are_computed_in_float64():
    X = float32_values(data("logistic")[0])
    theta = np.random.default_rng(8).standard_normal(4)
    assert_array_equal(
        reference.hessian(X.astype(np.float32), theta, alpha=1.0), reference.hessian(X, theta, alpha=1.0)
    )


# E19


@each_problem
def test_rounding_floor_bounds_the_error_of_the_gradient(problem):
    X, y, theta, objective = problem.X, problem.y, problem.theta, problem.objective
    g = reference.gradient(X, y, theta, **objective)
    error = np.linalg.norm((g - exact_gradient(problem.name)).astype(np.float64))
    assert error <= reference.rounding_floor(X, y, theta, **objective)


def test_rounding_floor_by_hand():
    # |x| = 5, eta = 11, r = 10, one panel; then with the intercept 2: |x| = sqrt(26), eta = 13, r = 12
    plain = 5 * ((1 + 1 + 3) * 10 + (2 + 2) * 11 + 1)
    extended = np.sqrt(26) * ((1 + 1 + 3) * 12 + (3 + 2) * 13 + 1)
    penalty = 4 * 0.5 * np.sqrt(5)
    X, y, u = [[3.0, 4.0]], [1.0], 2.0**-53
    floor = reference.rounding_floor(X, y, [1.0, 2.0], alpha=0.5, loss="squared")
    assert_allclose(floor, u * (plain + penalty), rtol=1e-14)
    floor = reference.rounding_floor(
        X, y, [1.0, 2.0, 2.0], alpha=0.5, loss="squared", sample_weight=[3.0], fit_intercept=True
    )
    assert_allclose(floor, u * (3 * extended + penalty), rtol=1e-14)


# The factor


def test_factor_solves_and_forgets_any_coordinate():
    problem = next(problem for problem in PROBLEMS if problem.name == "several_panels-logistic-intercept")
    H = reference.hessian(problem.X, problem.theta, **problem.objective)
    p = len(H)
    x = np.random.default_rng(9).standard_normal((p, 3))
    for i in range(p):
        factor = reference.CholeskyFactor(H)
        assert_allclose(factor.solve(H @ x[:, 0]), x[:, 0], rtol=0, atol=1e-12)
        factor.delete(i)
        rest = np.delete(np.arange(p), i)
        fresh = reference.CholeskyFactor(H[np.ix_(rest, rest)])
        assert factor.shape == (p - 1, p - 1)
        assert_allclose(factor.lower, fresh.lower, rtol=0, atol=1e-15 * np.linalg.norm(H))
        assert_allclose(factor.solve(H[np.ix_(rest, rest)] @ x[rest]), x[rest], rtol=0, atol=1e-12)


def test_an_indefinite_matrix_is_refused_with_the_pivot():
    with pytest.raises(NotPositiveDefiniteError, match=r"pivot 3\): columns of X depend") as caught:
        reference.CholeskyFactor(np.diag([1.0, 2.0, 3.0, -1.0, 1.0]))
    assert isinstance(caught.value, np.linalg.LinAlgError)


def test_deleting_out_of_range_changes_nothing():
    factor = reference.CholeskyFactor(2.0 * np.eye(3) + 1.0)
    before = factor.lower
    for i in (-1, 3):
        with pytest.raises(IndexError, match="out of range"):
            factor.delete(i)
    assert_array_equal(factor.lower, before)
    with pytest.raises(ValueError, match=r"3.*4"):
        factor.solve(np.ones(4))


# The oracle itself


@each_problem
def test_retraining_leaves_no_more_than_the_rounding_floor(problem):
    if not problem.has_minimiser:
        pytest.skip("J has no minimiser: one class and a free intercept")
    theta = retrain(problem.X, problem.y, **problem.objective)
    g = reference.gradient(problem.X, problem.y, theta, **problem.objective)
    floor = reference.rounding_floor(problem.X, problem.y, theta, **problem.objective)
    assert np.linalg.norm(g) <= 1e-12 + floor
