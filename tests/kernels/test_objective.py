"""Objectives, gradients and Hessians against the NumPy twins, finite differences and mpmath."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    CLASSIC,
    FAMILIES,
    INTERCEPT,
    MEANS,
    NATIVE,
    PROBLEMS,
    assert_finite_differences,
    bits_of,
    cancelling_rows,
    each_problem,
    each_problem_in,
    exact_distance,
    exact_gradient,
    exact_sums,
    float32_values,
    in_every_form,
    in_pairs,
    other_targets,
)
from scipy import sparse

import expunge
from expunge import kernels, reference
from expunge.losses import LOSSES

pytestmark = pytest.mark.isa
in_native_forms = each_problem_in(NATIVE)
in_families = each_problem_in(FAMILIES)


class Tolerance:
    """Rounding-level tolerances, each on the natural scale of what it is for."""

    def __init__(self, problem):
        A, s, f = problem.design, problem.weights, LOSSES[problem.loss]
        eta, eta_size = A @ problem.theta, np.abs(A) @ np.abs(problem.theta)
        d1, d2 = np.abs(f.d1(problem.y, eta)), f.d2(problem.y, eta)
        penalty_value = problem.penalty @ problem.theta**2
        self.value = 1e-13 * (s @ (f.value(problem.y, eta) + d1 * eta_size) + penalty_value)
        rows = (
            s * np.linalg.norm(A, axis=1) ** 2 * d2 * (1.0 + eta_size)
        )  # |d3| <= d2 carries the error of eta
        self.hessian = 1e-13 * (rows.sum() + np.linalg.norm(problem.penalty))
        # E19 bounds the error of each of the two gradients compared.
        self.gradient = 2.0 * reference.rounding_floor(
            problem.X, problem.y, problem.theta, **problem.objective
        )


def floor_of(rows, theta, loss, fit_intercept):
    """E19 of the rows' own gradient, without a penalty."""
    X, y, *s = rows
    weights = s[0] if s else None
    return reference.rounding_floor(
        X, y, theta, alpha=0.0, loss=loss, sample_weight=weights, fit_intercept=fit_intercept
    )


# Against the reference


@in_native_forms
def test_kernels_equal_the_reference(problem, represent):
    X, y, theta, objective = problem.X, problem.y, problem.theta, problem.objective
    given, v = represent(X), np.random.default_rng(0).standard_normal(theta.shape)
    tolerance = Tolerance(problem)

    J, g = kernels.loss_and_gradient(given, y, theta, **objective)
    J_reference, g_reference = reference.loss_and_gradient(X, y, theta, **objective)
    assert isinstance(J, float)
    assert abs(J - J_reference) <= tolerance.value
    assert np.linalg.norm(g - g_reference) <= tolerance.gradient
    assert np.linalg.norm(kernels.gradient(given, y, theta, **objective) - g_reference) <= tolerance.gradient

    H, H_reference = (
        kernels.hessian(given, theta, **problem.curvature),
        reference.hessian(X, theta, **problem.curvature),
    )
    assert_array_equal(H, H.T)
    assert np.linalg.norm(H - H_reference) <= tolerance.hessian
    H_v = kernels.hvp(given, theta, v, **problem.curvature)
    assert np.linalg.norm(H_v - H_reference @ v) <= tolerance.hessian * np.linalg.norm(v)

    J, g, H = kernels.loss_gradient_and_hessian(given, y, theta, **objective)
    assert isinstance(J, float)
    assert abs(J - J_reference) <= tolerance.value
    assert np.linalg.norm(g - g_reference) <= tolerance.gradient
    assert_array_equal(H, H.T)
    assert np.linalg.norm(H - H_reference) <= tolerance.hessian

    floor = kernels.rounding_floor(given, y, theta, **objective)
    assert isinstance(floor, float)
    floor_reference = reference.rounding_floor(X, y, theta, **objective)
    assert floor <= floor_reference * (1.0 + 1e-9)
    if not sparse.issparse(given):  # which has fewer terms to add than cells
        assert_allclose(floor, floor_reference, rtol=1e-9)


@in_families
def test_gram_takes_weights_of_any_sign(problem, represent):
    X = problem.X
    w = np.random.default_rng(1).standard_normal(len(X))
    w[::7] = 0.0
    G = kernels.gram(represent(X), w)
    assert_array_equal(G, G.T)
    natural = np.abs(X).T @ (np.abs(w)[:, None] * np.abs(X))
    assert np.all(np.abs(G - reference.gram(X, w)) <= 1e-13 * natural)


@each_problem
def test_results_are_fresh_float64_arrays(problem):
    X, y, theta, objective = problem.X, problem.y, problem.theta, problem.objective
    p = len(theta)
    shapes = {
        (p, p): lambda: kernels.hessian(X, theta, **problem.curvature),
        (p,): lambda: kernels.gradient(X, y, theta, **objective),
        X.shape[1:] * 2: lambda: kernels.gram(X, problem.weights),
    }
    for shape, kernel in shapes.items():
        first, second = kernel(), kernel()
        assert first.shape == shape
        assert first.dtype == np.float64
        assert first.flags.writeable
        first[...] = np.nan
        assert np.isfinite(second).all()
        assert_array_equal(kernel(), second)  # and the same arguments give the same bits


@in_every_form
def test_inputs_are_not_modified(represent):
    problem = next(problem for problem in PROBLEMS if problem.name == "several_panels-logistic-intercept")
    rng = np.random.default_rng(2)
    n, p = len(problem.X), len(problem.theta)
    arguments = {
        "X": represent(problem.X),
        "y": problem.y.copy(),
        "theta": problem.theta.copy(),
        "v": rng.standard_normal(p),
        "sample_weight": rng.uniform(0.0, 2.0, n),
        "alpha": rng.uniform(0.1, 1.0, p - 1),
        "w": rng.standard_normal(n),
    }
    before = {name: bits_of(array) for name, array in arguments.items()}
    X, y, theta, v, s, alpha, w = arguments.values()
    objective = {"alpha": alpha, "sample_weight": s, "fit_intercept": True}
    kernels.hessian(X, theta, **objective)
    kernels.gradient(X, y, theta, **objective)
    kernels.loss_and_gradient(X, y, theta, **objective)
    kernels.hvp(X, theta, v, **objective)
    kernels.rounding_floor(X, y, theta, **objective)
    kernels.gradient_difference((X, y, s), (X, 1.0 - y, s), theta, fit_intercept=True)
    kernels.gram(X, w)
    assert {name: bits_of(array) for name, array in arguments.items()} == before

    H = np.eye(3) + 1.0
    b = np.ones((3, 2))
    factor = kernels.CholeskyFactor(H)
    factor.solve(b)
    factor.update(b)
    factor.downdate(b)
    factor.append(np.append(b[:, 0], 9.0))
    factor.delete(1)
    assert_array_equal(H, np.eye(3) + 1.0)
    assert_array_equal(b, np.ones((3, 2)))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.bool_])
def test_integer_rows_and_targets_are_converted(dtype):
    rng = np.random.default_rng(3)
    X, y, theta = rng.integers(0, 2, (30, 4)), rng.integers(0, 2, 30), rng.standard_normal(4)
    J, g = kernels.loss_and_gradient(X.astype(dtype), y.astype(dtype), theta, alpha=1)
    J_float, g_float = kernels.loss_and_gradient(X.astype(float), y.astype(float), theta, alpha=1.0)
    assert_array_equal(J, J_float)
    assert_array_equal(g, g_float)
    H_float = kernels.hessian(X.astype(float), theta, alpha=1.0)
    assert_array_equal(kernels.hessian(X.astype(dtype), theta, alpha=1), H_float)


# Against finite differences and mpmath


@each_problem
def test_gradient_and_hessian_by_finite_differences(problem):
    assert_finite_differences(kernels, problem)


@in_families
def test_rounding_floor_bounds_the_error_of_the_gradient(problem, represent):  # E19
    X, y, theta, objective = represent(problem.X), problem.y, problem.theta, problem.objective
    g = kernels.gradient(X, y, theta, **objective)
    error = np.linalg.norm((g - exact_gradient(problem.name)).astype(np.float64))
    assert error <= kernels.rounding_floor(X, y, theta, **objective)


SIZES = [1.0, 1e8, 1e14, 1e15, 1e16, 1e17, 1e18, 1e20, 1e30, 1e100, 1e145]


def adversarial(loss, dtype, seed):
    """Problems of a few rows that cancel, with y on the side on which rounding puts them."""
    rng = np.random.default_rng(seed)
    for size in SIZES[: 9 if dtype == np.float32 else None]:
        if loss == "squared" and size > 1e70:
            continue  # d1 is as large as the entries that it is multiplied by
        for fit_intercept in (False, True):
            n, d = int(rng.integers(1, 4)), int(rng.integers(4, 12))
            X = cancelling_rows(size, n, d, dtype, rng)
            theta = np.append(np.ones(d), np.full(int(fit_intercept), 0.5))
            y = (X.astype(np.float64) @ theta[:d] > 0.0).astype(np.float64)
            s = rng.integers(1, 4, n) / 2.0
            yield (
                X,
                y,
                s,
                theta,
                {"alpha": float(rng.integers(2)), "loss": loss, "fit_intercept": fit_intercept},
            )


@pytest.mark.parametrize("form", [np.ascontiguousarray, np.asfortranarray, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("loss", [*CLASSIC, "fractional"])
def test_rounding_floor_bounds_the_error_where_huge_entries_cancel(loss, dtype, form):  # E19
    beyond = 0
    for seed in range(4):
        for X, y, s, theta, objective in adversarial(loss, dtype, seed):
            g = kernels.gradient(form(X), y, theta, sample_weight=s, **objective)
            floor = kernels.rounding_floor(form(X), y, theta, sample_weight=s, **objective)
            expected, _ = exact_sums(
                X, y, s, theta, objective["loss"], objective["fit_intercept"], objective["alpha"]
            )
            error = exact_distance(g, expected)
            assert error <= floor < np.inf
            if form is not sparse.csr_matrix and np.abs(X).max() < 1e9:  # above, each rounds eta its own way
                twin = reference.rounding_floor(X, y, theta, sample_weight=s, **objective)
                assert_allclose(floor, twin, rtol=1e-6)
            g = reference.gradient(X, y, theta, sample_weight=s, **objective)
            assert exact_distance(g, expected) <= reference.rounding_floor(
                X, y, theta, sample_weight=s, **objective
            )
            # |d1| of the computed eta in the place of d2 bounds nothing there
            A = reference._design(X, objective["fit_intercept"])
            r = np.abs(LOSSES[loss].d1(y, A @ theta))
            t = (A.shape[1] + 2) * (np.abs(A) @ np.abs(theta))
            old = 2.0**-53 * np.linalg.norm(np.abs(A).T @ (s * ((len(A) + 4) * r + np.minimum(0.25, r) * t)))
            old += 2.0**-51 * objective["alpha"] * np.linalg.norm(theta)
            beyond += error > old
    assert beyond >= (5 if loss == "logistic" and dtype == np.float64 else 0)


def test_rounding_floor_of_one_row_whose_eta_is_all_rounding():
    # eta is 0, and 63 where 1e18 + 65 was rounded
    X, y, theta = np.array([[1e18, 65.0, -1e18, -65.0]]), np.array([1.0]), np.ones(4)
    g = kernels.gradient(X, y, theta, alpha=0.0)
    floor = kernels.rounding_floor(X, y, theta, alpha=0.0)
    assert (
        np.linalg.norm(g + 0.5 * X[0]) <= floor <= 1.001 * np.linalg.norm(X)
    )  # d1 is in [-1, 0], whatever eta
    assert_allclose(floor, reference.rounding_floor(X, y, theta, alpha=0.0), rtol=1e-12)


@pytest.mark.parametrize("x", [1e3, 1e9, 1e100])
def test_rounding_floor_is_not_0_where_a_slope_underflows(x):
    error = exact_distance(
        kernels.gradient([[x]], [1.0], [1.0], alpha=0.0),
        exact_sums(np.array([[x]]), [1.0], [1.0], [1.0], "logistic", False, 0.0)[0],
    )
    for module in (kernels, reference):
        assert 0.0 < error <= module.rounding_floor([[x]], [1.0], [1.0], alpha=0.0)


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the twin
@pytest.mark.parametrize("module", [kernels, reference])
@pytest.mark.parametrize("loss", LOSSES)
def test_rounding_floor_is_infinite_where_eta_overflows_and_leaves_no_gradient(loss, module):
    X, y, theta = [[1e308, -1e308, 1.0]], [1.0], [1e10, 1e10, 1.0]  # infinity - infinity
    assert module.rounding_floor(X, y, theta, alpha=0.0, loss=loss) == np.inf


# Rows of weight 0, as those that left, are as good as not there, whatever overflows in them.


HUGE = [1e155, 1e200, 1e300, 1.7e308]


@pytest.mark.filterwarnings("ignore:.*encountered in")  # of the twin
@in_pairs(
    form={"c": np.ascontiguousarray, "f": np.asfortranarray, "csr": sparse.csr_matrix, "twin": "twin"},
    size=HUGE,
    fit_intercept=INTERCEPT,
    loss=list(LOSSES),
)
def test_what_overflows_in_a_row_of_weight_0_is_not_seen(loss, fit_intercept, size, form):
    module, form = (reference, np.asarray) if form == "twin" else (kernels, form)
    rng = np.random.default_rng(5)
    n, d = 40, 6
    X, y, s = rng.normal(size=(n, d)), rng.integers(0, 2, n).astype(np.float64), rng.uniform(0.5, 2.0, n)
    X[7], X[20], s[[7, 20]] = size * np.array([1, -1, 1, -1, 1, 1]), -size, 0.0
    theta, v = 30.0 * rng.normal(size=(2, d + fit_intercept))
    y[:2] = 1.0  # a target of tweedie(2.0) is above 0
    y = np.maximum(y, float(loss == "tweedie(2.0)"))
    objective = {"alpha": 1.0, "loss": loss, "fit_intercept": fit_intercept}
    there = s > 0.0

    def results(rows):
        Z, weights = form(X[rows]), {"sample_weight": s[rows]}
        at = (Z, y[rows], theta)
        return (
            *module.loss_and_gradient(*at, **objective, **weights),
            *module.loss_gradient_and_hessian(*at, **objective, **weights),
            module.hessian(Z, theta, y=y[rows], **objective, **weights),
            module.hvp(Z, theta, v, y=y[rows], **objective, **weights),
        ), module.rounding_floor(*at, **objective, **weights)

    found, floor = results(np.arange(n))
    expected, expected_floor = results(there)
    for a, b in zip(found, expected, strict=True):
        assert_allclose(a, b, rtol=1e-11, atol=1e-11 * np.max(np.abs(b)))
    assert expected_floor <= floor <= 1.1 * expected_floor  # of two more additions


@in_pairs(
    solver=["auto", "cholesky", "cg"],
    form={"c": np.ascontiguousarray, "csr": sparse.csr_matrix},
    shape=[(40, 6), (20, 200)],  # 20 x 200: in the dual
    kind={"ridge": expunge.Ridge, "logistic": expunge.LogisticRegression},
)
def test_fits_do_not_see_what_overflows_in_a_row_of_weight_0(kind, shape, form, solver):
    rng = np.random.default_rng(6)
    X, y, s = rng.normal(size=shape), rng.integers(0, 2, shape[0]), np.ones(shape[0])
    X[7], s[7] = 1e300, 0.0
    model = kind(solver=solver).fit(form(X), y, sample_weight=s)
    expected = kind(solver=solver).fit(form(X[s > 0.0]), y[s > 0.0])
    assert_allclose(model.coef_, expected.coef_, rtol=1e-6, atol=1e-8)


# Gradient difference (E3)


@in_native_forms
def test_gradient_difference_equals_the_reference(problem, represent):
    X, y, theta = problem.X, problem.y, problem.theta
    options = {"loss": problem.loss, "fit_intercept": problem.fit_intercept}
    rng = np.random.default_rng(4)
    n, m = len(y), (len(y) + 2) // 3
    X_after, s, s_after = float32_values(X[:m] + 1.0), rng.uniform(0.0, 2.0, n), rng.uniform(0.0, 2.0, m)
    y_after = other_targets(problem.loss, y[:m])

    def given(rows):
        return None if rows is None else (represent(rows[0]), *rows[1:])

    for before, after in (((X, y), (X_after, y_after)), ((X, y, s), (X_after, y_after, s_after))):
        floor = floor_of(before, theta, **options) + floor_of(after, theta, **options)
        for old, new in ((before, after), (after, before), (before, None), (None, after), (None, None)):
            change = kernels.gradient_difference(given(old), given(new), theta, **options)
            expected = reference.gradient_difference(old, new, theta, **options)
            assert change.shape == theta.shape
            assert np.linalg.norm(change - expected) <= 2.0 * floor


@in_families
def test_gradient_difference_of_rows_that_share_X(problem, represent):
    X, y, theta = problem.X, problem.y, problem.theta
    options = {"loss": problem.loss, "fit_intercept": problem.fit_intercept}
    given, s_after = represent(X), np.random.default_rng(5).uniform(0.0, 2.0, len(y))
    for before, after in (
        ((X, y), (X, other_targets(problem.loss, y))),  # labels, weights and both
        ((X, y), (X, y, s_after)),
        ((X, y, s_after), (X, other_targets(problem.loss, y))),
        ((X, y), (X, y)),
    ):
        shared = kernels.gradient_difference((given, *before[1:]), (given, *after[1:]), theta, **options)
        expected = reference.gradient_difference(before, after, theta, **options)
        floor = floor_of(before, theta, **options) + floor_of(after, theta, **options)
        assert np.linalg.norm(shared - expected) <= 2.0 * floor
    assert_array_equal(shared, np.zeros(len(theta)))  # replaced by themselves


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", [loss for loss in LOSSES if not LOSSES[loss].curvature_of_targets])
def test_corrected_labels_do_not_depend_on_theta(loss, fit_intercept):  # E6
    problem = next(p for p in PROBLEMS if p.name == f"weights_with_zeros-{loss}-plain")
    X, y, s = problem.X, problem.y, problem.sample_weight
    y_after = other_targets(loss, y)
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    for seed in (0, 1):
        theta = 3.0 * np.random.default_rng(seed).standard_normal(A.shape[1])
        change = kernels.gradient_difference(
            (X, y, s), (X, y_after, s), theta, loss=loss, fit_intercept=fit_intercept
        )
        size = np.abs(A).T @ (s * np.abs(LOSSES[loss].d1(y, A @ theta)))
        assert (np.abs(change - A.T @ (s * (y - y_after))) <= 1e-12 + 1e-14 * size).all()


def test_gradient_difference_reads_the_touched_rows_only():
    problem = next(p for p in PROBLEMS if p.name == "several_panels-logistic-plain")
    touched = np.array([3, 500, 999])
    X, y = np.full_like(problem.X, np.nan), np.full_like(problem.y, np.nan)
    X[touched], y[touched] = problem.X[touched], problem.y[touched]
    change = kernels.gradient_difference((X[touched], y[touched]), None, problem.theta)
    expected = reference.gradient_difference((problem.X[touched], problem.y[touched]), None, problem.theta)
    assert_allclose(change, expected, rtol=1e-13, atol=1e-13)


def swapped(values):
    """The same numbers with their bytes in the order of the other kind of machine."""
    return values.astype(values.dtype.newbyteorder())


def unaligned(values):
    """The same numbers one byte off."""
    return np.frombuffer(b"." + values.tobytes(), values.dtype, offset=1).reshape(values.shape)


@pytest.mark.isa
@pytest.mark.parametrize("form", [np.ndarray.tolist, swapped, unaligned, np.asfortranarray, np.ma.array])
@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_difference_does_not_depend_on_what_must_be_converted(loss, form):
    rng = np.random.default_rng(8)
    arrays = [rng.integers(-3, 4, (10, 3)).astype(float), rng.integers(0, 2, 10) * 1.0, rng.random(10)]
    arrays[1] += float(loss in MEANS)
    theta, other = rng.standard_normal(4), [arrays[0] + 1.0, other_targets(loss, arrays[1]), rng.random(10)]
    options = {"loss": loss, "fit_intercept": True}
    theta /= 8.0 if loss in MEANS else 1.0
    expected = reference.gradient_difference(tuple(arrays), tuple(other), theta, **options)
    plain = kernels.gradient_difference(tuple(arrays), tuple(other), theta, **options)
    close = 1e-13 * max(1.0, np.abs(expected).max())
    assert_allclose(plain, expected, rtol=0, atol=close)
    for i in range(3):
        given = tuple(form(a) if i == k else a for k, a in enumerate(arrays))
        change = kernels.gradient_difference(given, tuple(other), theta, **options)
        assert_allclose(change, plain, rtol=0, atol=close)
    change = kernels.gradient_difference(tuple(arrays), tuple(other), form(theta), **options)
    # B of a Tweedie loss may be rounded, or be part of a fused operation, in one kernel and not in another.
    assert_allclose(change, plain, rtol=0, atol=close if loss.startswith("tweedie") else 0.0)
