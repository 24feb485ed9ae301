"""The compiled kernels against the NumPy reference, finite differences and mpmath, in every native layout."""

import ctypes
import mmap
import re
import sys
import threading
import time
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from problems import (
    INTERCEPT,
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
)
from scipy import sparse

import expunge
from expunge import _core, kernels, reference
from expunge.losses import LOSSES

pytestmark = pytest.mark.isa
in_native_forms = each_problem_in(NATIVE)


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


@each_problem
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

    H, H_reference = kernels.hessian(given, theta, **objective), reference.hessian(X, theta, **objective)
    assert_array_equal(H, H.T)
    assert np.linalg.norm(H - H_reference) <= tolerance.hessian
    H_v = kernels.hvp(given, theta, v, **objective)
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


@in_native_forms
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
        (p, p): lambda: kernels.hessian(X, theta, **objective),
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


# The logistic loss, row by row: what a kernel makes of a margin, through its vectorised loops

each_class = pytest.mark.parametrize("y", [0.0, 1.0])


def logistic_d1(y, eta):
    """(n,), through X = I: each coordinate of the gradient is that of one row."""
    return kernels.gradient(sparse.eye_array(len(eta), format="csr"), np.full(len(eta), y), eta, alpha=0.0)


def logistic_d2(y, eta):  # whatever y (E6)
    return kernels.hvp(sparse.eye_array(len(eta), format="csr"), eta, np.ones(len(eta)), alpha=0.0)


def logistic_value(y, eta):
    """(n,), each among 15 rows of its own vector that have weight 0."""
    values = []
    for first in range(0, len(eta), 16):
        rows = eta[first : first + 16, None]
        for s in np.eye(len(rows)):
            targets = np.full(len(rows), y)
            J, _ = kernels.loss_and_gradient(rows, targets, [1.0], alpha=0.0, sample_weight=s)
            values.append(J)
    return np.array(values)


def exact_logistic(name, y, eta):
    """In long double."""
    sign = 1 - 2 * np.longdouble(y)
    z = sign * eta.astype(np.longdouble)
    e = np.exp(-np.abs(z))
    if name == "value":
        return np.maximum(z, 0) + np.log1p(e)
    return sign * np.where(z > 0, 1, e) / (1 + e) if name == "d1" else e / (1 + e) ** 2


def ulps(found, exact):
    """Errors in units of the spacing of doubles at `exact`, denormals included."""
    exponent = np.maximum(np.frexp(np.abs(exact))[1].astype(int) - 53, -1074)
    return np.abs(found.astype(np.longdouble) - exact) / np.ldexp(np.longdouble(1), exponent)


def margins(n, seed):
    """Of both signs up to 745: many near 0, and on both sides of where a power of two is passed."""
    rng = np.random.default_rng(seed)
    octave = np.log(2.0) * np.arange(1, 1075)
    places = np.concatenate([octave, octave - 0.5 * np.log(2.0)])
    m = np.concatenate(
        [
            [
                0.0,
                745.0,
                4.8520144033812045,
                5.54512987085282,
            ],  # the last two: where d2 was worst in a search
            np.nextafter(places, 0.0),
            places,
            np.nextafter(places, 800.0),
            np.geomspace(5e-324, 1.0, n),
            rng.choice(octave[:60], n) - rng.uniform(0.0, 1e-3, n),  # e^-m right above a power of two
            rng.uniform(0.0, 8.0, n),
            rng.uniform(0.0, 745.0, n),
        ]
    )
    m = m[m <= 745.0]
    return np.concatenate([m, -m])


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double is no longer than double")
@each_class
@pytest.mark.parametrize(
    ("name", "found", "n"),
    [
        ("value", logistic_value, 2_000),
        ("d1", logistic_d1, 100_000),
        ("d2", logistic_d2, 100_000),
    ],
    ids=["value", "d1", "d2"],
)
def test_the_logistic_loss_is_within_4_ulp_at_every_margin(name, found, n, y):
    eta = margins(n, seed=11)
    error = ulps(found(y, eta), exact_logistic(name, y, eta))
    worst = int(np.argmax(error))
    assert error[worst] <= 4.0, f"{float(error[worst]):.2f} ulp at eta = {eta[worst]!r}"


@each_class
def test_the_logistic_loss_has_exact_tails(y):
    """A mistake costs its margin and has slope 1; from e^-745.2 < 2^-1075 on, what is left of it is 0."""
    for margin in (745.2, 746.0, 800.0, 1e5, 1e308):
        z = np.array([margin, -margin])  # the first is a mistake
        eta = (1.0 - 2.0 * y) * z
        assert_array_equal(logistic_value(y, eta), [margin, 0.0])
        assert_array_equal(logistic_d1(y, eta), [1.0 - 2.0 * y, 0.0])
        assert_array_equal(logistic_d2(y, eta), [0.0, 0.0])
    least = np.array([-745.1])  # e^-745.1 rounds to the least denormal
    assert_array_equal(logistic_d1(0.0, least), [2.0**-1074])
    assert_array_equal(logistic_d2(0.0, least), [2.0**-1074])


@each_class
def test_a_margin_that_overflows_costs_infinity_or_nothing(y):
    """x and theta are finite, and their product is not."""
    for theta in (1e200, -1e200):
        mistake = (1.0 - 2.0 * y) * theta > 0.0
        J, g = kernels.loss_and_gradient([[1e200]], [y], [theta], alpha=0.0)
        assert_array_equal(J, np.inf if mistake else 0.0)
        assert_array_equal(g, [(1.0 - 2.0 * y) * 1e200 if mistake else 0.0])
        assert_array_equal(kernels.hvp([[1e200]], [theta], [1.0], alpha=0.0), [0.0])


# Against finite differences and mpmath


@each_problem
def test_gradient_and_hessian_by_finite_differences(problem):
    assert_finite_differences(kernels, problem)


@in_native_forms
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
@pytest.mark.parametrize("loss", LOSSES)
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
    objective = {"alpha": 1.0, "loss": loss, "fit_intercept": fit_intercept}
    there = s > 0.0

    def results(rows):
        Z, weights = form(X[rows]), {"sample_weight": s[rows]}
        at = (Z, y[rows], theta)
        return (
            *module.loss_and_gradient(*at, **objective, **weights),
            *module.loss_gradient_and_hessian(*at, **objective, **weights),
            module.hessian(Z, theta, **objective, **weights),
            module.hvp(Z, theta, v, **objective, **weights),
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
    y_after = 1.0 - y[:m]

    def given(rows):
        return None if rows is None else (represent(rows[0]), *rows[1:])

    for before, after in (((X, y), (X_after, y_after)), ((X, y, s), (X_after, y_after, s_after))):
        floor = floor_of(before, theta, **options) + floor_of(after, theta, **options)
        for old, new in ((before, after), (after, before), (before, None), (None, after), (None, None)):
            change = kernels.gradient_difference(given(old), given(new), theta, **options)
            expected = reference.gradient_difference(old, new, theta, **options)
            assert change.shape == theta.shape
            assert np.linalg.norm(change - expected) <= 2.0 * floor


@in_native_forms
def test_gradient_difference_of_rows_that_share_X(problem, represent):
    X, y, theta = problem.X, problem.y, problem.theta
    options = {"loss": problem.loss, "fit_intercept": problem.fit_intercept}
    given, s_after = represent(X), np.random.default_rng(5).uniform(0.0, 2.0, len(y))
    for before, after in (
        ((X, y), (X, 1.0 - y)),  # labels, weights and both
        ((X, y), (X, y, s_after)),
        ((X, y, s_after), (X, 1.0 - y)),
        ((X, y), (X, y)),
    ):
        shared = kernels.gradient_difference((given, *before[1:]), (given, *after[1:]), theta, **options)
        expected = reference.gradient_difference(before, after, theta, **options)
        floor = floor_of(before, theta, **options) + floor_of(after, theta, **options)
        assert np.linalg.norm(shared - expected) <= 2.0 * floor
    assert_array_equal(shared, np.zeros(len(theta)))  # replaced by themselves


@pytest.mark.parametrize("fit_intercept", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_corrected_labels_do_not_depend_on_theta(loss, fit_intercept):  # E6
    problem = next(p for p in PROBLEMS if p.name == f"weights_with_zeros-{loss}-plain")
    X, y, s = problem.X, problem.y, problem.sample_weight
    A = np.column_stack([X, np.ones(len(X))]) if fit_intercept else X
    for seed in (0, 1):
        theta = 3.0 * np.random.default_rng(seed).standard_normal(A.shape[1])
        change = kernels.gradient_difference(
            (X, y, s), (X, 1.0 - y, s), theta, loss=loss, fit_intercept=fit_intercept
        )
        assert_allclose(change, A.T @ (s * (2.0 * y - 1.0)), rtol=0, atol=1e-12)


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
    theta, other = rng.standard_normal(4), [arrays[0] + 1.0, 1.0 - arrays[1], rng.random(10)]
    options = {"loss": loss, "fit_intercept": True}
    expected = reference.gradient_difference(tuple(arrays), tuple(other), theta, **options)
    plain = kernels.gradient_difference(tuple(arrays), tuple(other), theta, **options)
    assert_allclose(plain, expected, rtol=0, atol=1e-13)
    for i in range(3):
        given = tuple(form(a) if i == k else a for k, a in enumerate(arrays))
        change = kernels.gradient_difference(given, tuple(other), theta, **options)
        assert_allclose(change, plain, rtol=0, atol=1e-13)
    change = kernels.gradient_difference(tuple(arrays), tuple(other), form(theta), **options)
    assert_array_equal(change, plain)


# Sparse rows, by gathers and without


each_entry_type = pytest.mark.parametrize("dtype", [np.float64, np.float32])
each_index_type = pytest.mark.parametrize("index", [np.int32, np.int64])


def rows_of_all_lengths(dtype, index, n=600, d=30):
    """CSR whose rows have none to 25 entries, and what else the kernels take."""
    rng = np.random.default_rng(17)
    columns = [np.sort(rng.choice(d, i % 26, replace=False)) for i in range(n)]
    indptr = np.cumsum([0, *map(len, columns)]).astype(index)
    values = rng.standard_normal(indptr[-1]).astype(dtype)
    X = sparse.csr_array((values, np.concatenate(columns).astype(index), indptr), shape=(n, d))
    return X, rng.integers(0, 2, n) * 1.0, rng.standard_normal(d + 1), rng.standard_normal(d + 1)


def sparse_results(X, y, theta, v):
    """What is found while indices are looked at."""
    options = {"alpha": 1.0, "fit_intercept": True}
    value, g = kernels.loss_and_gradient(X, y, theta, **options)
    return np.hstack([value, g, kernels.hvp(X, theta, v, **options)])


def test_what_a_thread_finds_out_of_order_is_put_in_order_too(gathers):
    X, y, theta, v = rows_of_all_lengths(np.float64, np.int32, n=20_000)  # enough entries to share
    swapped, last = X.copy(), X.indptr[-2] + np.arange(2)
    for part in (swapped.indices, swapped.data):
        part[last] = part[last[::-1]]
    before = expunge.get_num_threads()
    expunge.set_num_threads(2)
    try:
        assert_array_equal(sparse_results(swapped, y, theta, v), sparse_results(X, y, theta, v))
    finally:
        expunge.set_num_threads(before)


@each_entry_type
@each_index_type
def test_sparse_rows_of_any_length_equal_the_reference(dtype, index, gathers):
    X, y, theta, v = rows_of_all_lengths(dtype, index)
    dense, options = X.toarray().astype(float), {"alpha": 1.0, "fit_intercept": True}
    value, g = reference.loss_and_gradient(dense, y, theta, **options)
    expected = np.hstack([value, g, reference.hvp(dense, theta, v, **options)])
    assert_allclose(sparse_results(X, y, theta, v), expected, rtol=0, atol=1e-11)


# (row, entry) in rows of 25 entries, in the first panel and in later ones.
NEIGHBOURS = [(row, k) for row in (25, 259, 597) for k in (0, 6, 7, 8, 15, 16, 20)]


@each_entry_type
@each_index_type
def test_indices_that_do_not_ascend_are_found_wherever_they_are(dtype, index, gathers):
    X, y, theta, v = rows_of_all_lengths(dtype, index)
    expected = sparse_results(X, y, theta, v)
    for row, k in NEIGHBOURS:
        swapped, at = X.copy(), [X.indptr[row] + k, X.indptr[row] + k + 1]
        assert at[1] < X.indptr[row + 1]
        for part in (swapped.indices, swapped.data):
            part[at] = part[at[::-1]]
        bits = bits_of(swapped)
        assert_array_equal(sparse_results(swapped, y, theta, v), expected)
        assert bits_of(swapped) == bits

        twice = X.copy()
        twice.indices[at[1]] = twice.indices[at[0]]
        summed = twice.copy()
        summed.sum_duplicates()
        assert_array_equal(sparse_results(twice, y, theta, v), sparse_results(summed, y, theta, v))


@each_index_type
@pytest.mark.parametrize("d", [30, 70_000], ids=["narrow", "wide"])  # the wide are read twice
@pytest.mark.parametrize("place", ["negative", "width", "largest"])
def test_indices_outside_of_X_are_refused_wherever_they_are(index, d, place, gathers):
    X, y, theta, v = rows_of_all_lengths(np.float64, index, d=d)
    place = {"negative": -1, "width": d, "largest": 2**31 - 1}[place]
    for row, k in NEIGHBOURS:
        outside = X.copy()
        outside.indices[X.indptr[row] + k] = place
        with pytest.raises(ValueError, match="indices of X point outside of it"):
            kernels.loss_and_gradient(outside, y, theta, alpha=1.0, fit_intercept=True)
        with pytest.raises(ValueError, match="indices of X point outside of it"):
            kernels.hvp(outside, theta, v, alpha=1.0, fit_intercept=True)


def test_indices_that_nobody_looked_at_are_not_trusted(gathers):
    X, y, theta, v = rows_of_all_lengths(np.float64, np.int32)
    X.indices[40] = 2**31 - 1
    J = _core.Objective([(X, y, None)], "logistic", np.ones(30), False, canonical=False)
    theta, v = theta[:30], v[:30]
    for looking in (lambda: J.evaluate(theta), lambda: J.hvp(theta, v)):
        with pytest.raises(ValueError, match="point outside"):
            looking()
    for trusting in (
        lambda: J.evaluate_with_hessian(theta),
        lambda: J.hessian(theta),
        lambda: J.curvature(theta),
        lambda: J.gram_norm_bound(),
        lambda: J.rounding_floor(theta),
        lambda: _core.difference(J, None, theta),
        lambda: _core.minimize(J, theta, 1e-3, 5),
        lambda: _core.Anchor(J, theta),
    ):
        with pytest.raises(RuntimeError, match="not been looked at"):
            trusting()


# Nothing but the arrays is read: beside them lie pages that nobody may read. (Sanitizers do not look into
# instructions that mask and gather.)


def fenced(a, last):
    """A copy of `a` whose last byte, or first, has a page beside it that nobody may read."""
    order = "C" if a.flags.c_contiguous else "F"
    page = mmap.PAGESIZE
    room = -(-a.nbytes // page) * page
    memory = mmap.mmap(-1, room + 2 * page)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    for address in (start, start + page + room):
        if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0):
            raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.ndarray(a.shape, a.dtype, memory, page + (room - a.nbytes if last else 0), order=order)
    copy[...] = a
    return copy


def fenced_rows(X, last):
    if not sparse.issparse(X):
        return fenced(X, last)
    parts = [fenced(part, last) for part in (X.data, X.indices, X.indptr)]
    return sparse.csr_array(tuple(parts), shape=X.shape, copy=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("form", ["c", "f", "csr_int32", "csr_int64"])
@each_entry_type
@pytest.mark.parametrize(("n", "d"), [(1, 1), (7, 3), (70, 33), (600, 26), (40, 1030)])
def test_kernels_read_nothing_beside_their_arrays(n, d, dtype, form, gathers):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, d)).astype(dtype)
    if form.startswith("csr"):
        X[rng.random((n, d)) < np.linspace(0.0, 1.0, n)[:, None]] = 0.0  # from a full row to an empty one
        X = sparse.csr_array(X)
        X.indices, X.indptr = (part.astype(form[4:]) for part in (X.indices, X.indptr))
    elif form == "f":
        X = np.asfortranarray(X)
    y, s = rng.integers(0, 2, n) * 1.0, rng.uniform(0.0, 2.0, n)
    theta, v, w, alpha = rng.standard_normal((4, max(n, d)))
    plain = [X, y, s, theta[:d], v[:d], np.abs(alpha[:d]), w[:n]]

    def results(X, y, s, theta, v, alpha, w):
        options = {"alpha": alpha, "sample_weight": s}
        return flat(
            (
                *kernels.loss_gradient_and_hessian(X, y, theta, **options),
                *kernels.loss_and_gradient(X, y, theta, **options),
                kernels.hvp(X, theta, v, **options),
                kernels.hessian(X, theta, **options),
                kernels.gram(X, w),
                kernels.rounding_floor(X, y, theta, **options),
                kernels.gradient_difference((X, y, s), (X, 1.0 - y), theta),
                kernels.gradient_difference((X, y, s), None, theta),
            )
        )

    expected = results(*plain)
    for last in (False, True):
        found = results(fenced_rows(X, last), *(fenced(a, last) for a in plain[1:]))
        assert_array_equal(found, expected)  # and where an array lies changes no bit


# The Cholesky factor


def positive_definite(p, condition=1e2, seed=0):
    """H (p, p), symmetric, with eigenvalues from 1 to condition."""
    rng = np.random.default_rng([p, seed])
    Q, _ = np.linalg.qr(rng.standard_normal((p, p)))
    H = (Q * np.geomspace(1.0, condition, p)) @ Q.T
    return (H + H.T) / 2


ORDERS = [1, 2, 5, 40, 300]
each_size = pytest.mark.parametrize("p", ORDERS)
each_size_of_a_twin = pytest.mark.parametrize(
    "p", [*ORDERS[:-1], pytest.param(ORDERS[-1], marks=pytest.mark.slow)]
)


@each_size
def test_factor_times_its_transpose_is_the_matrix(p):
    H = positive_definite(p)
    factor = kernels.CholeskyFactor(H)
    L = factor.lower
    assert factor.shape == (p, p)
    assert_array_equal(L, np.tril(L))
    assert np.linalg.norm(L @ L.T - H) <= 1e-15 * p * np.linalg.norm(H)
    assert np.linalg.norm(L - reference.CholeskyFactor(H).lower) <= 1e-13 * np.linalg.norm(L)
    L[...] = np.nan  # a copy
    assert np.isfinite(factor.lower).all()


@each_size
@pytest.mark.parametrize("order", ["C", "F"])
def test_solve_finds_x_from_b(p, order):
    H = positive_definite(p, condition=1e4)
    factor = kernels.CholeskyFactor(np.asarray(H, order=order))
    X = np.random.default_rng(6).standard_normal((p, 7))
    B = np.asarray(H @ X, order=order)
    bound = 1e-15 * p * 1e4  # forward error: p u cond
    assert np.linalg.norm(factor.solve(B) - X) <= bound * np.linalg.norm(X)
    assert factor.solve(B).shape == (p, 7)
    x = factor.solve(B[:, 2])  # a strided column
    assert x.shape == (p,)
    assert np.linalg.norm(x - X[:, 2]) <= bound * np.linalg.norm(X[:, 2])


@pytest.mark.parametrize("p", [2, 5, 40])
def test_deleting_any_coordinate_gives_the_factor_of_the_submatrix(p):
    H = positive_definite(p)
    b = np.random.default_rng(7).standard_normal((p, 2))
    for i in range(p):
        rest = np.delete(np.arange(p), i)
        fresh = reference.CholeskyFactor(H[np.ix_(rest, rest)])
        factor = kernels.CholeskyFactor(H)
        factor.delete(i)
        assert factor.shape == (p - 1, p - 1)
        L = factor.lower
        assert_array_equal(L, np.tril(L))
        bound = 1e-15 * 1e2  # oracle: 1e-15 sqrt(edits) |H| / lambda_min
        assert np.linalg.norm(L - fresh.lower) <= bound * np.linalg.norm(fresh.lower)
        assert_allclose(factor.solve(b[rest]), fresh.solve(b[rest]), rtol=0, atol=1e-13 * np.linalg.norm(b))


def test_deleting_many_coordinates_in_turn():
    p = 40
    H, left = positive_definite(p), np.arange(p)
    factor = kernels.CholeskyFactor(H)
    rng = np.random.default_rng(8)
    for edits in range(1, p):
        i = int(rng.integers(len(left)))
        factor.delete(i)
        left = np.delete(left, i)
        fresh = reference.CholeskyFactor(H[np.ix_(left, left)]).lower
        assert np.linalg.norm(factor.lower - fresh) <= 1e-15 * np.sqrt(edits) * 1e2 * np.linalg.norm(fresh)
    assert factor.shape == (1, 1)


@pytest.mark.parametrize("i", [-1, 5, 10**6])
def test_deleting_out_of_range_changes_nothing(i):
    factor = kernels.CholeskyFactor(positive_definite(5))
    lower, solution = factor.lower, factor.solve(np.arange(5.0))
    with pytest.raises(IndexError, match="out of range"):
        factor.delete(i)
    assert factor.shape == (5, 5)
    assert factor.lower.tobytes() == lower.tobytes()
    assert factor.solve(np.arange(5.0)).tobytes() == solution.tobytes()


def state(factor):
    """Bits of the factor, its shape in front."""
    return factor.shape, factor.lower.tobytes()


def columns(p, k, seed=0):
    """V (p, k), of norm about 1."""
    return np.random.default_rng([p, k, seed]).standard_normal((p, k)) / np.sqrt(max(1, p * k))


# rotations, and where there are more columns a factor anew
WIDTHS = [0, 1, 2, 5, 45, 400]
each_width = pytest.mark.parametrize("k", WIDTHS)


@each_size_of_a_twin
@each_width
def test_an_update_gives_the_factor_of_the_sum(p, k):
    H, V = positive_definite(p), columns(p, k)
    factor, twin = kernels.CholeskyFactor(H), reference.CholeskyFactor(H)
    factor.update(V)
    twin.update(V)
    fresh = reference.CholeskyFactor(H + V @ V.T).lower
    L = factor.lower
    assert_array_equal(L, np.tril(L))
    for lower in (L, twin.lower):
        assert np.linalg.norm(lower - fresh) <= 1e-15 * 1e2 * np.linalg.norm(fresh)


@each_size_of_a_twin
@each_width
def test_a_downdate_gives_the_factor_of_the_difference(p, k):
    H, V = positive_definite(p), columns(p, k)
    factor, twin = kernels.CholeskyFactor(H + V @ V.T), reference.CholeskyFactor(H + V @ V.T)
    factor.downdate(V)
    twin.downdate(V)
    fresh = reference.CholeskyFactor(H).lower
    L = factor.lower
    assert_array_equal(L, np.tril(L))
    for lower in (L, twin.lower):
        assert np.linalg.norm(lower - fresh) <= 1e-15 * 1e2 * np.linalg.norm(fresh)


@in_pairs(p=ORDERS, k=WIDTHS, size=[1e-3, 1.0, 30.0])
def test_what_was_added_can_be_taken_out(p, k, size):
    H, V = positive_definite(p), size * columns(p, k)
    factor = kernels.CholeskyFactor(H)
    L = factor.lower
    factor.update(V)
    factor.downdate(V)
    bound = 1e-15 * 1e2 * (1.0 + size**2)  # the digits that H + V V^T has not kept of H
    assert np.linalg.norm(factor.lower - L) <= bound * np.linalg.norm(L)


@each_size
def test_one_column_may_be_a_vector(p):
    H, v = positive_definite(p), columns(p, 1)
    one, other = kernels.CholeskyFactor(H), kernels.CholeskyFactor(H)
    for factor, given in ((one, v[:, 0]), (other, v)):
        factor.update(given)
        factor.update(given)
        factor.downdate(given)
    assert state(one) == state(other)


@each_size
def test_no_columns_change_no_bit(p):
    factor = kernels.CholeskyFactor(positive_definite(p))
    before = state(factor)
    factor.update(np.empty((p, 0)))
    factor.downdate(np.empty((p, 0)))
    factor.update(np.zeros(p))
    factor.downdate(np.zeros((p, 1)))
    assert state(factor) == before


@each_size
def test_columns_of_any_layout_give_the_same_bits_and_stay_as_they_are(p):
    H, V = positive_definite(p), float32_values(columns(p, 2))
    factors = []
    for given in (V, np.asfortranarray(V), V.astype(np.float32), np.repeat(V, 2, axis=1)[:, ::2]):
        before = bits_of(given)
        factor = kernels.CholeskyFactor(H)
        factor.update(given)
        factor.downdate(given)
        factors.append(state(factor))
        assert bits_of(given) == before
    assert len(set(factors)) == 1


@each_size
def test_an_update_does_not_square_its_columns(p):
    """H + V V^T would overflow."""
    for k in (1, 2, p + 1):
        factor = kernels.CholeskyFactor(positive_definite(p))
        factor.update(np.full((p, k), 1e200))
        assert np.isfinite(factor.lower).all()
        assert_allclose(factor.lower[0, 0], np.sqrt(k) * 1e200, rtol=1e-14)


@each_size
def test_appending_gives_the_factor_of_the_larger_matrix(p):
    H = positive_definite(p + 1)
    factor, twin = kernels.CholeskyFactor(H[:p, :p]), reference.CholeskyFactor(H[:p, :p])
    factor.append(H[p])
    twin.append(H[p])
    fresh = reference.CholeskyFactor(H).lower
    assert factor.shape == twin.shape == (p + 1, p + 1)
    L = factor.lower
    assert_array_equal(L, np.tril(L))
    for lower in (L, twin.lower):
        assert np.linalg.norm(lower - fresh) <= 1e-15 * 1e2 * np.linalg.norm(fresh)


@each_size
def test_appending_and_deleting_the_last_coordinate_undo_each_other(p):
    H = positive_definite(p + 1)
    factor = kernels.CholeskyFactor(H)
    L = factor.lower
    factor.delete(p)
    factor.append(H[p])
    assert np.linalg.norm(factor.lower - L) <= 1e-15 * 1e2 * np.linalg.norm(L)
    before = kernels.CholeskyFactor(H[:p, :p])
    after = kernels.CholeskyFactor(H[:p, :p])
    after.append(H[p])
    after.delete(p)
    assert state(after) == state(before)


def test_a_factor_grows_from_nothing():
    H = positive_definite(6)
    factor = kernels.CholeskyFactor(H[:1, :1])
    factor.delete(0)
    assert factor.shape == (0, 0)
    factor.update(np.empty((0, 3)))
    factor.downdate(np.empty((0, 3)))
    for p in range(6):
        factor.append(H[p, : p + 1])
    assert np.linalg.norm(factor.lower - reference.CholeskyFactor(H).lower) <= 1e-14


@pytest.mark.parametrize("p", [3, 12, 60])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixed_edits_keep_the_digits_of_the_first_factor(p, seed):
    """Rows of X come and go, and so do its columns, in H = X^T X + I."""
    rng = np.random.default_rng([p, seed])
    N, X = 200, rng.standard_normal((2 * p, p)) * np.geomspace(1.0, 10.0, p)

    def hessian():
        return X.T @ X + np.eye(X.shape[1])

    factor, size = kernels.CholeskyFactor(hessian()), np.linalg.norm(hessian(), 2)
    for _ in range(N):
        n, q = X.shape
        k = int(rng.integers(1, 4))
        edit = rng.choice(["update", "downdate", "append", "delete"])
        if edit == "update":
            rows = rng.standard_normal((k, q))
            factor.update(rows.T)
            X = np.vstack([X, rows])
        elif edit == "downdate" and n > k:
            gone = rng.choice(n, k, replace=False)
            factor.downdate(X[gone].T)
            X = np.delete(X, gone, axis=0)
        elif edit == "append":
            x = rng.standard_normal(n)
            factor.append(np.append(X.T @ x, x @ x + 1.0))
            X = np.column_stack([X, x])
        elif edit == "delete" and q > 1:
            i = int(rng.integers(q))
            factor.delete(i)
            X = np.delete(X, i, axis=1)
    H = hessian()
    fresh = reference.CholeskyFactor(H).lower
    bound = 1e-15 * np.sqrt(N) * size / np.linalg.eigvalsh(H)[0]
    assert np.linalg.norm(factor.lower - fresh) <= bound * np.linalg.norm(fresh)


@pytest.mark.parametrize("p", [1, 5, 40])
@pytest.mark.parametrize("scale", [1.0, 30.0])  # of rows that come, beside those that were there
def test_a_stream_of_single_rows_keeps_the_digits_of_the_first_factor(p, scale):
    """Two rows come, two leave, in H = X^T X + I: oracle 9 after 30, 300 and 3,000 of them."""
    rng = np.random.default_rng([p, 17])
    X = rng.standard_normal((10 * p, p)) * np.geomspace(1.0, 10.0, p)
    H = X.T @ X + np.eye(p)
    factor, largest = kernels.CholeskyFactor(H), np.linalg.norm(H, 2)
    for edits in range(1, 3001):
        if edits % 4 in (1, 2):
            X = np.vstack([X, scale * rng.standard_normal(p)])
            factor.update(X[-1])
        else:
            row = int(rng.integers(len(X)))
            factor.downdate(X[row])
            X = np.delete(X, row, axis=0)
        L = factor.lower
        largest = max(largest, np.linalg.norm(L.T @ L))  # what came and went was rounded beside that
        if edits in (30, 300, 3000):
            H = X.T @ X + np.eye(p)
            fresh = reference.CholeskyFactor(H).lower
            bound = 1e-15 * np.sqrt(edits) * largest / np.linalg.eigvalsh(H)[0]
            assert np.linalg.norm(L - fresh) <= bound * np.linalg.norm(fresh)


@in_pairs(p=ORDERS, k=[1, 2, 45, 400], left=[-1e3, -0.2, -1e-12, 0.0, 1e-12])
def test_a_downdate_to_an_indefinite_matrix_is_refused_and_changes_nothing(p, k, left):
    factor = kernels.CholeskyFactor(positive_definite(p))
    V = columns(p, k)
    W = np.linalg.solve(factor.lower, V)
    V *= np.sqrt(1.0 - left) / np.linalg.norm(
        W, 2
    )  # the smallest eigenvalue of I - V^T H^-1 V becomes `left`
    before = state(factor)
    with pytest.raises(expunge.NotPositiveDefiniteError, match="factor the changed matrix anew") as caught:
        factor.downdate(V)
    assert state(factor) == before
    name, number = re.search(r"\((.*) = (.*)\): ", str(caught.value)).groups()
    assert name == ("1 - v^T H^-1 v" if k == 1 else "smallest eigenvalue of I - V^T H^-1 V")
    assert abs(float(number) - left) <= 1e-5 * (abs(left) + 1e-7)


def test_the_message_of_a_refused_downdate_is_that_of_the_twin():
    for V in ([1.2, 0.0], [[1.2, 0.0, 0.1], [0.0, 1.5, 0.2]]):
        with pytest.raises(expunge.NotPositiveDefiniteError) as expected:
            reference.CholeskyFactor(np.eye(2)).downdate(V)
        with pytest.raises(expunge.NotPositiveDefiniteError) as caught:
            kernels.CholeskyFactor(np.eye(2)).downdate(V)
        assert str(caught.value) == str(expected.value)
    with pytest.raises(expunge.NotPositiveDefiniteError) as caught:
        kernels.CholeskyFactor([[5.0]]).downdate([np.sqrt(6.0)])
    assert str(caught.value) == (
        "the factor would lose positive definiteness (1 - v^T H^-1 v = -0.2): "
        "factor the changed matrix anew, or check that these rows were in it"
    )


@each_size
@pytest.mark.parametrize("left", [2e-8, 1e-4])
def test_a_downdate_that_leaves_little_is_done(p, left):
    factor = kernels.CholeskyFactor(positive_definite(p))
    v = columns(p, 1)[:, 0]
    v *= np.sqrt(1.0 - left) / np.linalg.norm(np.linalg.solve(factor.lower, v))
    L = factor.lower
    factor.downdate(v)
    # det(H - v v^T) = det H (1 - v^T H^-1 v)
    ratio = np.prod(np.diag(factor.lower) / np.diag(L)) ** 2
    assert abs(ratio - left) <= 1e-13 * p
    L_after, H = factor.lower, L @ L.T
    assert np.linalg.norm(L_after @ L_after.T + np.outer(v, v) - H) <= 1e-15 * p * np.linalg.norm(H)


@each_size
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_appending_to_an_indefinite_matrix_is_refused_and_changes_nothing(p, bad):
    H = positive_definite(p)
    h = np.append(H @ np.ones(p), np.ones(p) @ H @ np.ones(p) + bad)  # the new pivot is `bad`
    larger = np.vstack([np.column_stack([H, h[:p]]), h])
    factor = kernels.CholeskyFactor(H)
    before = state(factor)
    message = rf"^Hessian is not positive definite \(pivot {p}\): raise alpha above 0$"
    with pytest.raises(expunge.NotPositiveDefiniteError, match=message):
        factor.append(h)
    assert state(factor) == before
    if bad < 0.0:
        for refused in (
            lambda: kernels.CholeskyFactor(larger),
            lambda: reference.CholeskyFactor(H).append(h),
        ):
            with pytest.raises(expunge.NotPositiveDefiniteError, match=message):
                refused()


EDITS = {"update": (5,), "downdate": (5,), "append": (6,)}

each_edit = pytest.mark.parametrize("edit", EDITS)


@each_edit
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_edits_refuse_what_is_not_finite(edit, bad):
    factor = kernels.CholeskyFactor(positive_definite(5))
    before = state(factor)
    shapes = [EDITS[edit]] if edit == "append" else [(5,), (5, 1), (5, 40)]
    for shape in shapes:
        for position in (0, -1):
            given = np.full(shape, 1e-3)
            given.flat[position] = bad
            with pytest.raises(ValueError, match="contains NaN or infinity"):
                getattr(factor, edit)(given)
            with pytest.raises(ValueError, match="contains NaN or infinity"):  # the core's own check
                getattr(factor._factor, edit)(given)
    assert state(factor) == before


@each_edit
@pytest.mark.parametrize("shape", [(4,), (7,), (1, 5), (4, 2), (5, 1, 1), (6, 1)])
def test_edits_refuse_another_shape(edit, shape):
    factor = kernels.CholeskyFactor(positive_definite(5))
    before = state(factor)
    expected = "expected (6,)" if edit == "append" else "expected (5,) or (5, k)"
    with pytest.raises(ValueError) as caught:
        getattr(factor, edit)(np.ones(shape))
    assert f"has shape {shape}, {expected}" in str(caught.value)
    assert state(factor) == before


@each_edit
@pytest.mark.parametrize("given", [["a"] * 6, [1j] * 6])
def test_edits_refuse_what_is_no_real_number(edit, given):
    with pytest.raises(ValueError, match="must hold real numbers"):
        getattr(kernels.CholeskyFactor(positive_definite(5)), edit)(given)


@pytest.mark.parametrize(
    "H",
    [
        np.diag([1.0, 2.0, 3.0, -1.0, 1.0]),
        np.diag([1.0, 0.0]),
        np.ones((3, 3)) - 2.0 * np.eye(3),
        np.diag(np.where(np.arange(300) == 217, -1.0, 1.0)),
    ],
    ids=["negative", "singular", "indefinite", "blocked"],
)
def test_an_indefinite_matrix_is_refused_with_the_pivot(H):
    with pytest.raises(reference.NotPositiveDefiniteError) as expected:
        reference.CholeskyFactor(H)
    with pytest.raises(expunge.NotPositiveDefiniteError, match="raise alpha above 0") as caught:
        kernels.CholeskyFactor(H)
    assert isinstance(caught.value, np.linalg.LinAlgError)
    assert str(caught.value) == str(expected.value)


@pytest.mark.parametrize("shape", [(4,), (6, 2), (1, 5), (5, 1, 1), ()])
def test_solve_refuses_another_shape(shape):
    factor = kernels.CholeskyFactor(positive_definite(5))
    with pytest.raises(ValueError, match="5") as caught:
        factor.solve(np.ones(shape))
    assert str(shape) in str(caught.value)


@pytest.mark.parametrize(
    "H", [np.ones((2, 3)), np.ones(3), np.full((2, 2), np.nan)], ids=["2x3", "vector", "NaN"]
)
def test_the_factor_refuses_what_is_not_a_finite_square_matrix(H):
    with pytest.raises(ValueError):
        kernels.CholeskyFactor(H)


# Errors: nothing is computed from arguments that do not fit


def arguments():
    rng = np.random.default_rng(9)
    return {
        "X": rng.standard_normal((100, 3)),
        "y": np.arange(100) % 2.0,
        "theta": rng.standard_normal(3),
        "v": rng.standard_normal(3),
        "alpha": np.ones(3),
        "sample_weight": np.ones(100),
        "loss": "logistic",
        "fit_intercept": False,
    }


POSITIONAL = {
    "hessian": ("X", "theta"),
    "gradient": ("X", "y", "theta"),
    "loss_and_gradient": ("X", "y", "theta"),
    "loss_gradient_and_hessian": ("X", "y", "theta"),
    "hvp": ("X", "theta", "v"),
    "rounding_floor": ("X", "y", "theta"),
}

each_kernel = pytest.mark.parametrize("kernel", POSITIONAL)


def call(kernel, **changes):
    given = arguments() | changes
    named = {name: given[name] for name in ("alpha", "sample_weight", "loss", "fit_intercept")}
    return getattr(kernels, kernel)(*(given[name] for name in POSITIONAL[kernel]), **named)


def kernels_taking(argument):
    return [kernel for kernel in POSITIONAL if argument in (*POSITIONAL[kernel], "alpha", "sample_weight")]


@each_kernel
def test_the_arguments_of_the_error_cases_are_themselves_right(kernel):
    call(kernel)


LAYOUTS = {
    "strided": lambda a: np.repeat(a, 2)[::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "float32": lambda a: a.astype(np.float32),
    "big-endian": lambda a: a.astype(">f8"),
    "read-only": lambda a: np.frombuffer(a.tobytes()),
    "list": lambda a: a.tolist(),
}


def flat(result):
    parts = result if isinstance(result, tuple) else (result,)
    return np.concatenate([np.ravel(part) for part in parts])


@each_kernel
@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_are_taken_in_every_layout(kernel, layout):
    given = {
        name: float32_values(value)
        for name, value in arguments().items()
        if name in ("y", "theta", "v", "alpha", "sample_weight")
    }
    laid_out = {name: LAYOUTS[layout](value) for name, value in given.items()}
    assert_array_equal(flat(call(kernel, **laid_out)), flat(call(kernel, **given)))


@each_kernel
@pytest.mark.parametrize(("n", "d"), [(0, 3), (0, 0), (4, 0)])
def test_no_rows_and_no_columns_are_nothing_to_refuse(kernel, n, d):
    empty = {"X": np.ones((n, d)), "y": np.ones(n), "sample_weight": np.ones(n)}
    call(kernel, **empty, theta=np.ones(d), v=np.ones(d), alpha=np.ones(d))


def test_without_columns_an_intercept_is_left(represent):
    X, y, theta = np.ones((700, 0)), np.arange(700) % 2.0, np.array([0.3])
    objective = {"alpha": 1.0, "fit_intercept": True}
    found = kernels.loss_gradient_and_hessian(represent(X), y, theta, **objective)
    expected = (
        *reference.loss_and_gradient(X, y, theta, **objective),
        reference.hessian(X, theta, **objective),
    )
    assert_allclose(flat(found), flat(expected), rtol=1e-13)
    assert_allclose(kernels.hessian(represent(X), theta, **objective), expected[2], rtol=1e-13)


WRONG_SHAPES = {
    "X": [(100,), (100, 3, 1)],
    "y": [(99,), (101,), (100, 1)],
    "theta": [(4,), (2,), (3, 1)],
    "v": [(4,)],
    "alpha": [(2,), (4,), (3, 1)],
    "sample_weight": [(99,), (100, 1)],
}


@pytest.mark.parametrize(
    ("argument", "kernel"),
    [(argument, kernel) for argument in WRONG_SHAPES for kernel in kernels_taking(argument)],
)
def test_wrong_shapes_are_named(kernel, argument):
    for shape in WRONG_SHAPES[argument]:
        with pytest.raises(ValueError) as caught:
            call(kernel, **{argument: np.ones(shape)})
        assert f"{argument} has shape {shape}, expected " in str(caught.value)


@pytest.mark.parametrize("kernel", ["gradient", "loss_and_gradient", "rounding_floor"])
def test_the_message_of_a_wrong_shape(kernel):
    with pytest.raises(ValueError) as caught:
        call(kernel, y=np.ones(99))
    assert str(caught.value).startswith("y has shape (99,), expected (100,) to match X")


@each_kernel
def test_theta_must_make_room_for_the_intercept(kernel):
    call(kernel, fit_intercept=True, theta=np.ones(4), v=np.ones(4))
    with pytest.raises(ValueError) as caught:
        call(kernel, fit_intercept=True)
    assert "theta has shape (3,), expected (4,)" in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "kernel"),
    [(argument, kernel) for argument in WRONG_SHAPES for kernel in kernels_taking(argument)],
)
def test_non_finite_numbers_are_refused(kernel, argument):
    for position, bad in product((0, -1), (np.nan, np.inf, -np.inf)):
        array = arguments()[argument].astype(np.float64)
        array.flat[position] = bad
        with pytest.raises(ValueError, match=argument):
            call(kernel, **{argument: array})


@each_kernel
def test_non_finite_rows_are_refused_in_every_representation(kernel, represent):
    """Also where nothing else of the result would show it: a margin of +inf has a derivative of 0."""
    given = arguments()
    X, y = float32_values(given["X"]), given["y"]
    for bad in (np.nan, np.inf, -np.inf):
        for row in np.flatnonzero(y == 0)[-1], np.flatnonzero(y == 1)[-1]:
            spoiled, weightless = X.copy(), np.ones(100)
            spoiled[row, 1], weightless[row] = bad, 0.0
            for theta in (np.ones(3), -np.ones(3)):
                for s in (None, weightless):
                    with pytest.raises(ValueError, match="X contains NaN or infinity"):
                        call(kernel, X=represent(spoiled), theta=theta, sample_weight=s)


@each_kernel
@pytest.mark.parametrize("argument", ["sample_weight", "alpha"])
def test_negative_weights_and_penalties_are_refused(kernel, argument):
    array = arguments()[argument]
    array[-1] = -1e-3
    with pytest.raises(ValueError, match=argument):
        call(kernel, **{argument: array})


@each_kernel
def test_a_negative_scalar_alpha_is_refused(kernel):
    with pytest.raises(ValueError, match="alpha"):
        call(kernel, alpha=-1.0)


@each_kernel
def test_an_unknown_loss_is_refused_with_the_known_ones(kernel):
    with pytest.raises(ValueError, match="hinge") as caught:
        call(kernel, loss="hinge")
    assert all(name in str(caught.value) for name in LOSSES)


@pytest.mark.parametrize("kernel", ["gradient", "loss_and_gradient", "rounding_floor"])
@pytest.mark.parametrize("bad", [-1.0, 0.5, 2.0])
def test_logistic_targets_outside_of_zero_and_one_are_refused(kernel, bad):
    y = arguments()["y"]
    y[42] = bad
    with pytest.raises(ValueError, match=r"\{0, 1\}"):
        call(kernel, y=y)
    call(kernel, y=y, loss="squared")


@pytest.mark.parametrize("kernel", ["gradient", "loss_and_gradient", "rounding_floor"])
def test_no_targets_are_refused(kernel):
    with pytest.raises(ValueError, match="y has shape"):
        call(kernel, y=None)


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": None}, "y has shape"),
        ({"y": np.ones(99)}, r"\(99,\)"),
        ({"sample_weight": np.ones(99)}, r"\(99,\)"),
        ({"X": np.ones((100, 4))}, "X"),
        ({"X": np.full((100, 3), np.nan)}, "X"),
        ({"y": np.full(100, np.nan)}, "y"),
        ({"y": np.full(100, 2.0)}, r"\{0, 1\}"),
        ({"sample_weight": np.full(100, np.inf)}, "sample_weight"),
        ({"sample_weight": np.full(100, -1.0)}, "sample_weight must not be negative"),
    ],
)
def test_gradient_difference_refuses_rows_that_do_not_fit(side, changes, message):
    given = arguments()
    right = given["X"], given["y"], given["sample_weight"]
    given |= changes
    rows = [right, right]
    rows[side] = given["X"], given["y"], given["sample_weight"]
    with pytest.raises(ValueError, match=message):
        kernels.gradient_difference(*rows, given["theta"])


@pytest.mark.parametrize("y", [np.nan, np.inf, -np.inf])
def test_gradient_difference_of_squared_losses_refuses_targets_that_are_not_finite(y):
    given = arguments()
    side = given["X"], np.full(100, y)
    with pytest.raises(ValueError, match="y contains NaN or infinity"):
        kernels.gradient_difference(side, None, given["theta"], loss="squared")


@pytest.mark.parametrize("wrong", [list, lambda side: side[:1], lambda side: (*side, None, None)])
def test_gradient_difference_refuses_what_is_no_pair_or_triple(wrong):
    given = arguments()
    side = given["X"], given["y"]
    other = given["X"].copy(), given["y"]
    for sides in ((wrong(side), side), (side, wrong(side)), (side, wrong(other)), (None, wrong(side))):
        with pytest.raises(ValueError, match="before and after are tuples"):
            kernels.gradient_difference(*sides, given["theta"])


@pytest.mark.parametrize("theta", [np.ones(4), np.array([1.0, np.nan, 1.0])])
def test_gradient_difference_refuses_a_theta_that_does_not_fit(theta):
    given = arguments()
    with pytest.raises(ValueError):
        kernels.gradient_difference((given["X"], given["y"]), None, theta)


@pytest.mark.parametrize("w", [np.ones(99), np.full(100, np.nan), np.full(100, np.inf)])
def test_gram_refuses_weights_that_do_not_fit(w):
    with pytest.raises(ValueError, match="w"):
        kernels.gram(arguments()["X"], w)


@pytest.mark.parametrize("shape", [(100, 3), (3, 100)])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("w", [0.0, -2.0, 5e-324])
def test_gram_refuses_what_is_not_finite_in_a_row_of_any_weight(shape, bad, w):
    X, weights = np.ones(shape), np.ones(shape[0])
    X[2, 1], weights[2] = bad, w
    with pytest.raises(ValueError, match="X contains"):
        kernels.gram(X, weights)


# The GIL


def factor_job(size):
    H = np.ones((900 * size, 900 * size))
    H.flat[:: len(H) + 1] += len(H)
    return lambda: kernels.CholeskyFactor(H)


def gram_job(size):
    X = np.ones((3000 * size, 768))
    w = np.ones(len(X))
    return lambda: kernels.gram(X, w)


@pytest.mark.parametrize("make_job", [factor_job, gram_job])
def test_the_gil_is_released(make_job):
    """The main thread keeps ticking: held for the kernel's duration, the GIL would leave one gap as long."""
    for size in (1, 2, 3, 4, 6, 8, 12, 16):
        job = make_job(size)
        start = time.perf_counter()
        job()
        if time.perf_counter() - start >= 0.2:
            break
    else:
        pytest.skip("the kernel is too fast to be seen on this machine")

    for _ in range(5):  # a busy machine may stall the main thread too, but not every time
        span = []

        def timed(job=job, span=span):
            start = time.perf_counter()
            job()
            span.extend((start, time.perf_counter()))

        thread = threading.Thread(target=timed)
        ticks = []
        thread.start()
        while thread.is_alive():
            ticks.append(time.perf_counter())
            time.sleep(0.001)
        thread.join()
        start, stop = span
        inside = [tick for tick in ticks if start <= tick <= stop]
        largest_gap = np.diff([start, *inside, stop]).max()
        if largest_gap < 0.4 * (stop - start):
            return
    pytest.fail(f"the main thread stood still for {largest_gap:.2f} s of {stop - start:.2f} s")
